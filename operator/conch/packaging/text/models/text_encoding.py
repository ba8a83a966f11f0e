"""From texts to the tensors of a model: the same lines while packaging, while checking, and in Triton.

A copy of this file lies beside every packaged tokeniser, so it imports only numpy. How a text is cut and padded is
part of the tokenizer (its tokenizer.json), which the caller hands in.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

TEXT_BYTES_MOST = 1 << 20
"""A tokenizer reads a text to its end before it is cut; what is longer is refused, not read for seconds."""


class TextError(ValueError):
    """A text that cannot be encoded; the message says which one of the request (from 0) and why."""


def decode_texts(values: Iterable[bytes]) -> list[str]:
    """The texts of a BYTES tensor. Raises TextError."""
    texts = []
    for number, value in enumerate(values):
        if len(value) > TEXT_BYTES_MOST:
            raise TextError(
                f"text {number} has {len(value)} bytes; at most {TEXT_BYTES_MOST} are read, and of those only the "
                "first tokens are used: send its beginning"
            )
        try:
            texts.append(value.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise TextError(
                f"text {number} is not UTF-8 (byte 0x{value[error.start]:02x} at position {error.start}); encode it"
            ) from None
    return texts


def encode_texts(tokenizer: Any, texts: Sequence[str], dtypes: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """What the model takes of input_ids, attention_mask and token_type_ids: [texts, length of the longest, padded].

    `dtypes` are the wanted tensors' numpy types by name. Raises TextError for a text without any token: the model
    would divide by the number of its tokens.
    """
    encodings = tokenizer.encode_batch_fast(list(texts))
    mask = np.array([each.attention_mask for each in encodings], dtype=np.int64)
    empty = np.flatnonzero(mask.sum(axis=1) == 0)
    if empty.size:
        raise TextError(f"text {empty[0]} has no tokens; send one that is not empty")
    # The library pads to a multiple of 16, also beyond the length to which it has cut: a model has no positions there.
    cut = tokenizer.truncation["max_length"]
    span = slice(-cut, None) if tokenizer.padding["direction"] == "left" else slice(cut)
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for name, dtype in dtypes.items():
        if name == "attention_mask":
            rows = mask
        elif name == "input_ids":
            rows = np.array([each.ids for each in encodings], dtype=np.int64)
        else:
            rows = np.array([each.type_ids for each in encodings], dtype=np.int64)
        tensors[name] = np.ascontiguousarray(rows[:, span], dtype=dtype)
    return tensors
