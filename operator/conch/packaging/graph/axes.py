"""The axes of a graph's inputs and outputs: which of them is the batch.

Triton joins requests along axis 0 of every tensor. That works only where axis 0 of each input and output is symbolic
and means the same: one row per sample. An exporter can freeze it without a word (torch's does, on an LSTM with an
example of one sample), a module can write it down (`reshape(1, -1)`), and a time-major model has it elsewhere.
"""

import re
from collections.abc import Mapping
from typing import Final

from onnx import GraphProto, ModelProto, TensorShapeProto, ValueInfoProto

from conch.packaging.errors import PackagingError

BATCH: Final = "batch"
_IDENTIFIER: Final = re.compile(r"[A-Za-z_]\w*")


def batch_axis(graph: ModelProto) -> bool:
    """Whether the graph takes batches: axis 0 of every input and output is symbolic, and one row is one sample.

    False where no axis 0 is symbolic. Raises PackagingError where only some are, or where they are not the same axis.
    """
    fixed = fixed_axes(graph)
    tensors = (*inputs_of(graph.graph), *graph.graph.output)
    if len(fixed) == len(tensors):
        return False
    if fixed:
        free = ", ".join(repr(tensor.name) for tensor in tensors if tensor.name not in fixed)
        raise PackagingError(
            f"only some tensors have a batch axis: axis 0 of {_described(graph, fixed)} is fixed, of {free} it is not; "
            "export the model again with a dynamic axis 0 for every input and output (an output that is one for the "
            "whole batch has to be taken out, or repeated per sample), or with a fixed one for all"
        )
    _require_rows(graph.graph)
    return True


def fixed_axes(graph: ModelProto) -> tuple[str, ...]:
    """Names of the inputs and outputs whose axis 0 is fixed (or that have no axis), in graph order.

    Raises PackagingError for what is no tensor or has no shape.
    """
    return tuple(
        tensor.name
        for tensor in (*inputs_of(graph.graph), *graph.graph.output)
        if not (dims := dims_of(tensor)) or not is_symbolic(dims[0])
    )


def require_batch_axis(graph: ModelProto) -> None:
    """Check that the graph takes batches; raises PackagingError naming the inputs and outputs where it does not.

    For graphs that were exported with a dynamic batch axis: a fixed one means that the module's code ignores it.
    """
    if not batch_axis(graph):
        raise PackagingError(
            f"the batch axis is frozen: axis 0 of {_described(graph, fixed_axes(graph))} is fixed; look for a number "
            "where the batch size belongs (reshape(1, ...), a state made with torch.zeros(layers, 1, size)) and take "
            "it from the input instead: x.shape[0]"
        )


def inputs_of(graph: GraphProto) -> list[ValueInfoProto]:
    """What a caller gives: the inputs without those that are weights (old graphs list these too)."""
    weights = {tensor.name for tensor in graph.initializer}
    weights.update(tensor.values.name for tensor in graph.sparse_initializer)
    return [value for value in graph.input if value.name not in weights]


def dims_of(tensor: ValueInfoProto) -> list[TensorShapeProto.Dimension]:
    """The dimensions of an input or output; raises PackagingError for what is no tensor or has no shape."""
    if not tensor.type.HasField("tensor_type"):
        found = tensor.type.WhichOneof("value") or "untyped"
        raise PackagingError(
            f"{tensor.name!r} is no tensor ({found.removesuffix('_type')}), which Triton cannot serve; export the "
            "model with plain tensors (scikit-learn: zipmap=False)"
        )
    if not tensor.type.tensor_type.HasField("shape"):
        raise PackagingError(
            f"{tensor.name!r} has no shape in the graph; run onnx.shape_inference.infer_shapes on the model, or export "
            "it again with shapes"
        )
    return list(tensor.type.tensor_type.shape.dim)


def is_symbolic(dim: TensorShapeProto.Dimension) -> bool:
    """Whether a dimension's length is the caller's choice; some exporters write 0 or -1 instead of a name."""
    return not (dim.HasField("dim_value") and dim.dim_value > 0)


def symbols_of(text: str) -> frozenset[str]:
    """The axis names in a dimension: a name itself, or those in an expression of names, such as `2*batch`.

    >>> sorted(symbols_of("floor(s77/2) + seq"))
    ['floor', 's77', 'seq']
    """
    return frozenset(_IDENTIFIER.findall(text))


def is_expression(text: str) -> bool:
    """Whether a dimension is calculated from others; `batch_size` is a name, `2*batch` is not."""
    return bool(text) and not _IDENTIFIER.fullmatch(text)


def renamed(text: str, names: Mapping[str, str]) -> str:
    """A dimension with its axes named anew.

    >>> renamed("2*s77 + s3", {"s77": "batch"})
    '2*batch + s3'
    """
    if text in names:
        return names[text]
    return _IDENTIFIER.sub(lambda found: names.get(found[0], found[0]), text)


def _require_rows(graph: GraphProto) -> None:
    """Raise unless axis 0 of all is one axis, as far as their names tell."""
    inputs = [(tensor.name, [dim.dim_param for dim in dims_of(tensor)]) for tensor in inputs_of(graph)]
    first = {params[0] for _, params in inputs if params[0]}
    later = {param: (name, axis) for name, params in inputs for axis, param in enumerate(params) if axis and param}
    if BATCH in later:
        name, axis = later[BATCH]
        raise PackagingError(
            f"axis {axis} of input {name!r} is named {BATCH!r}, but Triton joins requests along axis 0; export the "
            "model with the batch first (torch: batch_first=True, or transpose in forward)"
        )
    for output in graph.output:
        param = dims_of(output)[0].dim_param
        if param in later and param not in first:
            name, axis = later[param]
            raise PackagingError(
                f"axis 0 of output {output.name!r} is {param!r}, which is axis {axis} of input {name!r}; Triton needs "
                "one row per sample: put the batch first in every input and output"
            )
        if is_expression(param) and symbols_of(param) & first:
            raise PackagingError(
                f"axis 0 of output {output.name!r} is {param!r}, not one row per sample; reshape it in the model so "
                "that axis 0 is the batch"
            )


def _described(graph: ModelProto, names: tuple[str, ...]) -> str:
    """Names with their shapes, such as `'x' [1, 4], 'y' (a scalar)`."""
    shapes = {tensor.name: dims_of(tensor) for tensor in (*inputs_of(graph.graph), *graph.graph.output)}
    return ", ".join(
        f"{name!r} [{', '.join(_text(dim) for dim in shapes[name])}]" if shapes[name] else f"{name!r} (a scalar)"
        for name in names
    )


def _text(dim: TensorShapeProto.Dimension) -> str:
    return (dim.dim_param or "?") if is_symbolic(dim) else str(dim.dim_value)
