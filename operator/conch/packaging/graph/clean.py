"""A graph that says nothing of where it was made, so that the same model gives the same bytes.

torch writes onto every node a stack trace with absolute paths and lines of source (1,366 path strings in a small
BERT): they leak, and they make the file differ between folders. Whatever runs a graph reads none of it.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Final

from google.protobuf.message import EncodeError
from onnx import ModelProto, TensorProto, TensorShapeProto, ValueInfoProto

from conch.packaging.errors import PackagingError
from conch.packaging.graph.axes import (
    BATCH,
    dims_of,
    fixed_axes,
    inputs_of,
    is_expression,
    is_symbolic,
    renamed,
    symbols_of,
)
from conch.packaging.graph.messages import messages
from conch.packaging.request import DynamicAxis

_HEARSAY: Final = frozenset({"doc_string", "metadata_props"})
_MOST_BYTES: Final = 2**31 - 1
_WEIGHTS_NEED_NO_INPUT: Final = 4  # the first IR version where an initialiser need not be an input as well


def clean(graph: ModelProto, *, dynamic: Sequence[DynamicAxis] = ()) -> ModelProto:
    """A copy without metadata, doc strings and stack traces anywhere, and with its axes named.

    Axis 0 of a graph that takes batches becomes `batch`, the axes in `dynamic` get their names; so does every
    dimension that is calculated from them. What only training needs is left out, and weights are no inputs any more.
    Raises PackagingError where an axis of `dynamic` is not in the graph, is fixed, or where two names clash.
    """
    copy = ModelProto()
    copy.CopyFrom(graph)
    del copy.training_info[:]
    for message in messages(copy):
        for field in _HEARSAY.intersection(message.DESCRIPTOR.fields_by_name):
            message.ClearField(field)
        if isinstance(message, TensorProto) and message.data_location == TensorProto.DEFAULT:
            message.ClearField("data_location")  # a default that weights are left with which lay in another file
    if copy.ir_version >= _WEIGHTS_NEED_NO_INPUT:
        # Otherwise onnxruntime takes them for changeable and folds no constant into them.
        given = inputs_of(copy.graph)
        if len(given) < len(copy.graph.input):
            kept = [type(value).FromString(value.SerializeToString()) for value in given]
            del copy.graph.input[:]
            copy.graph.input.extend(kept)
    _name_axes(copy, dynamic)
    return copy


def to_bytes(graph: ModelProto) -> bytes:
    """The file's content, bit for bit the same for the same graph.

    One file holds everything: raises PackagingError where weights lie in another file, and over the 2 GiB of protobuf.
    """
    for message in messages(graph):
        if isinstance(message, TensorProto) and message.data_location == TensorProto.EXTERNAL:
            raise PackagingError(
                f"the weights {message.name!r} lie in another file; read the model with them (conch package model.onnx)"
            )
    try:
        content = graph.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise _too_large() from error
    if len(content) > _MOST_BYTES:
        raise _too_large()
    return bytes(content)


def _too_large() -> PackagingError:
    return PackagingError(
        "the graph has more than 2 GiB, which no single ONNX file can hold; make it smaller (half precision takes "
        "half, int8 a quarter), or lay out the model directory by hand with external data: Conch serves that as it is"
    )


def _name_axes(model: ModelProto, dynamic: Sequence[DynamicAxis]) -> None:
    dimensions = [message for message in messages(model) if isinstance(message, TensorShapeProto.Dimension)]
    names: dict[str, str] = {}
    for dim in _batch_dimensions(model, dimensions):
        _name(names, dim, BATCH)
    inputs = {value.name: value for value in inputs_of(model.graph)}
    for axis in dynamic:
        dim = _dimension(inputs, axis)
        if names.get(dim.dim_param, axis.name) != axis.name:
            raise PackagingError(
                f"axis {axis.axis} of input {axis.input!r} cannot be named {axis.name!r}: in the graph it is the same "
                f"axis as {names[dim.dim_param]!r}; export the model with an example whose lengths differ"
            )
        _name(names, dim, axis.name)
    others = _symbols(dimensions, but=names.keys())
    for name in sorted(others & {axis.name for axis in dynamic}):
        raise PackagingError(f"another axis of the graph is named {name!r} already; give the dynamic axis another name")
    for dim in dimensions:
        if dim.dim_param:
            dim.dim_param = renamed(dim.dim_param, names)


def _name(names: dict[str, str], dim: TensorShapeProto.Dimension, name: str) -> None:
    """Have a dimension named, and with it all that bear the same name."""
    if dim.dim_param:
        names[dim.dim_param] = name
    else:
        dim.dim_param = name
        names[name] = name


def _batch_dimensions(
    model: ModelProto, dimensions: Sequence[TensorShapeProto.Dimension]
) -> list[TensorShapeProto.Dimension]:
    """Axis 0 of the inputs and outputs of a graph that takes batches; what `batch_axis` will refuse keeps its names."""
    if fixed_axes(model):
        return []
    inputs = [dims_of(value) for value in inputs_of(model.graph)]
    later = {dim.dim_param for dims in inputs for dim in dims[1:] if dim.dim_param}
    rows = [dims[0] for dims in inputs]
    first = {dim.dim_param for dim in rows}
    for output in model.graph.output:
        dim = dims_of(output)[0]
        if dim.dim_param in first or not (dim.dim_param in later or is_expression(dim.dim_param)):
            rows.append(dim)
    symbols = {dim.dim_param for dim in rows}
    return [] if BATCH in _symbols(dimensions, but=symbols) else rows


def _symbols(dimensions: Sequence[TensorShapeProto.Dimension], *, but: Set[str]) -> set[str]:
    """The axis names in use besides those that are spoken of."""
    return {symbol for dim in dimensions if dim.dim_param not in but for symbol in symbols_of(dim.dim_param)} - but


def _dimension(inputs: Mapping[str, ValueInfoProto], axis: DynamicAxis) -> TensorShapeProto.Dimension:
    """The dimension that a person wants to be dynamic; raises PackagingError where there is none."""
    if axis.input not in inputs:
        raise PackagingError(
            f"there is no input {axis.input!r} to make axis {axis.axis} of dynamic; the model's inputs: "
            f"{', '.join(inputs)}"
        )
    dims = dims_of(inputs[axis.input])
    if axis.name == BATCH or not 0 < axis.axis < len(dims):
        raise PackagingError(
            f"axis {axis.axis} of input {axis.input!r} cannot be the dynamic axis {axis.name!r}: the input has the "
            f"axes 0 to {len(dims) - 1}, and axis 0 is always {BATCH!r}"
        )
    dim = dims[axis.axis]
    if not is_symbolic(dim):
        raise PackagingError(
            f"axis {axis.axis} of input {axis.input!r} is fixed at {dim.dim_value} in the graph; export the model with "
            "this axis dynamic, or leave it out of --dynamic"
        )
    return dim
