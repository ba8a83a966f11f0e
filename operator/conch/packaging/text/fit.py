"""Whether a tokenizer belongs to a graph: its inputs' names and types, the embedding's rows, and a run of the longest.

A tokenizer of another model gives ids beyond the embedding: onnxruntime then fails in the middle of serving, and a
warm-up request that fails so kills the whole server.
"""

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from conch.packaging.errors import PackagingError
from conch.packaging.graph.axes import dims_of, inputs_of, is_symbolic
from conch.packaging.graph.session import Runner
from conch.packaging.tensors import Array
from conch.packaging.text.tokenizer import (
    ATTENTION_MASK,
    INPUT_IDS,
    PAD_MULTIPLE,
    TENSORS,
    TextInputs,
    encode,
    fitted,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_DTYPES: Final[dict[int, np.dtype[Any]]] = {
    TensorProto.INT64: np.dtype(np.int64),
    TensorProto.INT32: np.dtype(np.int32),
}
_KEEP_VALUES: Final = frozenset(
    {"Cast", "Identity", "Reshape", "Flatten", "Unsqueeze", "Squeeze", "Transpose", "Slice"}
)
"""Operators whose output holds the same numbers as their first input."""
_KEEP_ROWS: Final = frozenset({"Cast", "Identity", "DequantizeLinear"})
"""Operators through which an embedding of another type is read."""
_PROBE_WORDS: Final = 8
_PADDING_ATOL: Final = 1e-4
_PADDING_RTOL: Final = 1e-3


def text_inputs(graph: ModelProto, tokenizer: "Tokenizer", max_length: int) -> TextInputs:
    """What the graph takes of the tokenizer's tensors, by what is written in it. Raises PackagingError."""
    inputs = inputs_of(graph.graph)
    foreign = [each.name for each in inputs if each.name not in TENSORS]
    if foreign or INPUT_IDS not in {each.name for each in inputs}:
        takes = ", ".join(each.name for each in inputs) or "nothing"
        raise PackagingError(
            f"the tokenizer does not fit the model: the graph takes {takes}; a text model takes {INPUT_IDS} and, of "
            f"the others, {' and '.join(TENSORS[1:])}. Export it with these names (in torch, of forward's parameters)"
        )
    lengths = {each.name: _length(each) for each in inputs}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length or 'any number'}" for name, length in lengths.items())
        raise PackagingError(f"the graph's inputs do not take the same number of tokens: {listed}; export them alike")
    fixed = lengths[INPUT_IDS]
    if fixed is not None and fixed != max_length:
        raise PackagingError(
            f"the graph takes exactly {fixed} tokens (axis 1 of {INPUT_IDS} is not symbolic), and texts are to be cut "
            f"to {max_length}; give --max-length {fixed}, or export that axis dynamic (--dynamic {INPUT_IDS}:1=seq)"
        )
    _check_vocabulary(graph, tokenizer)
    return TextInputs(
        dtypes={each.name: _DTYPES[each.type.tensor_type.elem_type] for each in inputs}, fixed_length=fixed
    )


def check_runs(runner: Runner, tokenizer: "Tokenizer", max_length: int, inputs: TextInputs) -> None:
    """Run the graph with texts of `max_length` tokens and with the vocabulary's last id, and alone as in long company.

    For the graph before it is quantised, whose answers depend on nothing but the sample. Raises PackagingError where
    it does not run (too few positions, too small an embedding) or an answer depends on how much padding follows.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    highest = max(vocabulary.values())
    short = encode(tokenizer, [_any_text(tokenizer)], max_length, inputs)
    longest = {name: np.zeros((1, max_length), dtype=array.dtype) for name, array in short.items()}
    longest[INPUT_IDS][:] = highest
    if ATTENTION_MASK in longest:
        longest[ATTENTION_MASK][:] = 1
    try:
        runner.run(longest)
    except PackagingError as error:
        raise PackagingError(
            f"the model does not run with a text of {max_length} tokens, the tokenizer's highest id {highest} among "
            f"them: {error}. Either it has fewer positions (give a smaller --max-length), or the tokenizer is not the "
            "one that it was trained with"
        ) from error
    if inputs.fixed_length is None and max_length > PAD_MULTIPLE:
        _check_padding(runner, tokenizer, max_length, inputs, short)


def _check_padding(
    runner: Runner, tokenizer: "Tokenizer", max_length: int, inputs: TextInputs, short: dict[str, Array]
) -> None:
    padding: dict[str, Any] = fitted(tokenizer, max_length, inputs).padding or {}
    padded = {}
    for name, array in short.items():
        filler = padding["pad_id"] if name == INPUT_IDS else padding["pad_type_id"] if name != ATTENTION_MASK else 0
        missing = max_length - array.shape[1]
        sides = (missing, 0) if padding["direction"] == "left" else (0, missing)
        padded[name] = np.pad(array, ((0, 0), sides), constant_values=filler)
    alone, company = runner.run(short), runner.run(padded)
    for name, array in alone.items():
        other = company[name]
        if array.shape != other.shape:
            continue  # one value per token: its length is the padding's
        if array.dtype.kind == "f":
            same = np.allclose(array, other, atol=_PADDING_ATOL, rtol=_PADDING_RTOL, equal_nan=True)
        else:
            same = bool(np.array_equal(array, other))
        if not same:
            raise PackagingError(
                f"the model's {name} depends on how much padding follows a text, so on the texts beside it; let the "
                f"model leave out what {ATTENTION_MASK} says is padding"
                + ("" if ATTENTION_MASK in inputs.dtypes else f" (the graph takes no {ATTENTION_MASK})")
            )


def _any_text(tokenizer: "Tokenizer") -> str:
    """A text of a few words from all over the vocabulary: any one of them may mean nothing to the model."""
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    words = [word for word in sorted(vocabulary, key=lambda each: vocabulary[each]) if word not in special]
    text = " ".join(words[:: max(1, len(words) // _PROBE_WORDS)][:_PROBE_WORDS])
    return text if sum(tokenizer.encode(text).attention_mask) else "a"


def _length(value: ValueInfoProto) -> int | None:
    """Tokens that an input takes; None for any number. Raises PackagingError for no [batch, tokens] of integers."""
    dims = dims_of(value)
    if (kind := value.type.tensor_type.elem_type) not in _DTYPES or len(dims) != 2:
        raise PackagingError(
            f"the graph's input {value.name} is {TensorProto.DataType.Name(kind)} with {len(dims)} axes; a text model "
            "takes INT64 or INT32 of [batch, tokens]"
        )
    return None if is_symbolic(dims[1]) else int(dims[1].dim_value)


def _check_vocabulary(graph: ModelProto, tokenizer: "Tokenizer") -> None:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if padding := tokenizer.padding:  # whose id need not be in the vocabulary
        vocabulary |= {padding["pad_token"]: padding["pad_id"]}
    token, highest = max(vocabulary.items(), key=lambda each: each[1])
    for embedding, size in embeddings(graph, INPUT_IDS).items():
        if highest >= size:
            raise PackagingError(
                f"the tokenizer does not fit the model: its token {token!r} has the id {highest}, and the model's "
                f"embedding {embedding} has {size} rows (0 to {size - 1}); take the tokenizer that the model was "
                "trained with"
            )


def embeddings(graph: ModelProto, source: str) -> dict[str, int]:
    """Rows of each constant that the graph looks up by the numbers of an input, by the constant's name."""
    constants = {each.name: tuple(each.dims) for each in graph.graph.initializer}
    carriers = {source}
    found = {}
    for node in graph.graph.node:  # in the order of computation, as ONNX requires
        if node.op_type == "Constant":
            constants.update((node.output[0], tuple(each.t.dims)) for each in node.attribute if each.name == "value")
        elif node.op_type in _KEEP_ROWS and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
        elif node.op_type in _KEEP_VALUES and node.input[0] in carriers:
            carriers.add(node.output[0])
        elif node.op_type == "Gather" and node.input[1] in carriers and node.input[0] in constants:
            found[node.input[0]] = constants[node.input[0]][_axis(node)]
    return found


def _axis(node: NodeProto) -> int:
    return next((int(each.i) for each in node.attribute if each.name == "axis"), 0)
