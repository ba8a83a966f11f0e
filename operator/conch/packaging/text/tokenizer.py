"""A Hugging Face `tokenizer.json`: read, made to cut and pad as it shall in Triton, and run over texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from conch.packaging.errors import PackagingError
from conch.packaging.tensors import Array
from conch.packaging.text.models.text_encoding import TextError, encode_texts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE: Final = "tokenizer.json"
INPUT_IDS: Final = "input_ids"
ATTENTION_MASK: Final = "attention_mask"
TOKEN_TYPE_IDS: Final = "token_type_ids"  # noqa: S105 - a tensor's name
TENSORS: Final = (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS)
PAD_MULTIPLE: Final = 16
"""Texts are padded to a multiple of it, so that more requests have the same shape and run as one batch."""

_PAD_TOKENS: Final = ("[PAD]", "<pad>", "<|pad|>", "<PAD>", "[pad]")
_STRANGE_TEXT: Final = "\u0e5b\u2603\U0001f9ed \ufffd"
"""Characters that are in no small vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextInputs:
    """What a graph takes of a tokenizer's tensors."""

    dtypes: Mapping[str, np.dtype[Any]]
    """By name, in the graph's order: int64 or int32."""
    fixed_length: int | None = None
    """Tokens that every text has to have, where the graph's axis is no symbolic one."""


EVERY_INPUT: Final = TextInputs(dtypes=dict.fromkeys(TENSORS, np.dtype(np.int64)))


def read_tokenizer(path: Path) -> "Tokenizer":
    """The tokenizer of a `tokenizer.json`, or of a folder with one. Raises PackagingError."""
    file = path / FILE if path.is_dir() else path
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise PackagingError(f"the tokenizer {file} cannot be read: {reason}; {_WANTED}") from error
    tokenizer = _parsed(content, str(file))
    if not tokenizer.get_vocab(with_added_tokens=True):
        raise PackagingError(f"the tokenizer {file} has an empty vocabulary; train it before it is saved")
    try:
        tokenizer.encode(_STRANGE_TEXT)
    except Exception as error:  # the library raises nothing more special
        raise PackagingError(
            f"the tokenizer {file} cannot encode words that are not in its vocabulary ({error}); give it a token for "
            "the unknown, such as unk_token='[UNK]'"
        ) from error
    return tokenizer


def fitted(tokenizer: "Tokenizer", max_length: int, inputs: TextInputs = EVERY_INPUT) -> "Tokenizer":
    """A copy that cuts texts to `max_length` tokens, special ones included, and pads as `inputs` wants it.

    On which side it does so, and with which token, it knows itself where it was saved so. Raises PackagingError.
    """
    special = tokenizer.num_special_tokens_to_add(False)
    if max_length <= special:
        raise PackagingError(
            f"texts cut to {max_length} tokens have no room for a word beside the tokenizer's {special} special tokens"
            "; give a larger --max-length"
        )
    copy = _parsed(tokenizer.to_str(), FILE)
    cut: dict[str, Any] = tokenizer.truncation or {}
    pad: dict[str, Any] = tokenizer.padding or {}
    pad_id, pad_token = _pad_token(tokenizer, pad, inputs)
    copy.enable_truncation(max_length, direction=cut.get("direction", "right"))
    copy.enable_padding(
        direction=pad.get("direction", "right"),
        pad_id=pad_id,
        pad_type_id=pad.get("pad_type_id", 0),
        pad_token=pad_token,
        length=inputs.fixed_length,
        pad_to_multiple_of=None if inputs.fixed_length else PAD_MULTIPLE,
    )
    return copy


def encode(
    tokenizer: "Tokenizer", texts: Sequence[str], max_length: int, inputs: TextInputs = EVERY_INPUT
) -> dict[str, Array]:
    """The tensors of a batch of texts, exactly as Triton will make them. Raises PackagingError."""
    try:
        return encode_texts(fitted(tokenizer, max_length, inputs), texts, inputs.dtypes)
    except TextError as error:
        raise PackagingError(f"of the texts to package with, {error}") from error


def from_content(content: bytes) -> "Tokenizer":
    """The tokenizer of a packaged file, with its own cutting and padding. Raises PackagingError."""
    return _parsed(content.decode("utf-8", errors="replace"), FILE)


_WANTED: Final = (
    "a tokenizer.json is wanted, as `tokenizer.save(...)` of tokenizers or `save_pretrained(...)` of a fast tokenizer "
    "of transformers writes it"
)


def _parsed(content: str, called: str) -> "Tokenizer":
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise PackagingError("text models need the tokenizers library: pip install 'conch[package]'") from error
    try:
        return Tokenizer.from_str(content)
    except Exception as error:  # the library raises nothing more special
        raise PackagingError(f"the tokenizer {called} cannot be read: {error}; {_WANTED}") from error


def _pad_token(tokenizer: "Tokenizer", pad: Mapping[str, Any], inputs: TextInputs) -> tuple[int, str]:
    if pad:
        return pad["pad_id"], pad["pad_token"]
    for token in _PAD_TOKENS:
        if (number := tokenizer.token_to_id(token)) is not None:
            return number, token
    if ATTENTION_MASK in inputs.dtypes:
        # Any id of the vocabulary will do: the mask hides it.
        number = min(tokenizer.get_vocab(with_added_tokens=True).values())
        return number, tokenizer.id_to_token(number) or ""
    raise PackagingError(
        f"the tokenizer has no token to pad with ({', '.join(_PAD_TOKENS)}) and the graph takes no {ATTENTION_MASK}: "
        "texts of different lengths cannot be one batch; give the model that input, or the tokenizer such a token"
    )
