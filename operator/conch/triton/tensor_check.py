"""The inputs and outputs that a configuration names: whether they can be, and whether they are those of a graph."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from tritonclient.grpc.model_config_pb2 import TYPE_INVALID, DataType

from conch.api.tensors import DataType as ProtocolType
from conch.triton.errors import InvalidModelError
from conch.triton.onnx_config import TYPES
from conch.triton.onnx_signature import Signature, Tensor

_LISTED_MOST: Final = 12


def config_type(name: ProtocolType) -> int:
    """A configuration's number of a datatype of the protocol."""
    return int(DataType.Value("TYPE_STRING" if name is ProtocolType.BYTES else f"TYPE_{name}"))


def type_name(number: int) -> str:
    """The protocol's name of a configuration's datatype."""
    name = str(DataType.Name(number)).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def check_tensors(config: Any) -> None:
    """Whether each tensor has a datatype of Triton's and axes that can be. Raises InvalidModelError.

    What is left out is not said here: Triton may complete it from the model's file.
    """
    for kind, tensor in _tensors(config):
        if tensor.data_type not in DataType.values():
            raise InvalidModelError(
                f"the {kind} {tensor.name!r} has the data_type {tensor.data_type}, which is none of Triton's; correct "
                "it in config.pbtxt"
            )
        shape = tensor.reshape.shape if tensor.HasField("reshape") else ()
        if wrong := [axis for axis in (*tensor.dims, *shape) if axis < 1 and axis != -1]:
            raise InvalidModelError(
                f"the {kind} {tensor.name!r} has an axis of {wrong[0]}; give each axis its length of 1 or more, or -1 "
                "for any"
            )


def is_told(config: Any) -> bool:
    """Whether inputs and outputs are there, each with its datatype and axes."""
    whole = all(tensor.data_type != TYPE_INVALID and tensor.dims for _, tensor in _tensors(config))
    return bool(config.input) and bool(config.output) and whole


def check_graph(config: Any, graph: Signature) -> None:
    """Whether what the configuration names is what the graph has. Raises InvalidModelError.

    Says nothing of inputs that Triton makes up or joins by itself (`batch_input`, ragged batches), nor of what is left
    to it to complete.
    """
    if config.batch_input or config.batch_output:
        return
    for kind, named, there in (("input", config.input, graph.inputs), ("output", config.output, graph.outputs)):
        known = {tensor.name: tensor for tensor in there}
        for tensor in named:
            if tensor.name not in known:
                raise InvalidModelError(
                    f"the configuration names the {kind} {tensor.name!r}, which the graph does not have; it has "
                    f"{_listed(known)}"
                )
            if not getattr(tensor, "allow_ragged_batch", False):
                _compare(kind, tensor, known[tensor.name], config.max_batch_size)


def _compare(kind: str, tensor: Any, graph: Tensor, max_batch_size: int) -> None:
    expected = TYPES.get(graph.element_type)
    told = DataType.Name(tensor.data_type)
    if tensor.data_type != TYPE_INVALID and expected is not None and told != expected:
        raise InvalidModelError(
            f"the {kind} {tensor.name!r} is {told} in the configuration, and {expected} in the graph; correct its "
            "data_type"
        )
    if not tensor.dims:
        return
    if max_batch_size > 0 and (not graph.dims or graph.dims[0] != -1):
        raise InvalidModelError(
            f"max_batch_size is {max_batch_size}, but the graph takes no batches: axis 0 of {tensor.name!r} is not "
            "symbolic; export it with a dynamic batch axis, or set max_batch_size to 0"
        )
    own = tuple(tensor.reshape.shape) if tensor.HasField("reshape") else tuple(tensor.dims)
    # Without max_batch_size, Triton may still find by itself that there is a batch axis in front.
    possible = [(-1, *own)] if max_batch_size > 0 else [own, (-1, *own)]
    if not any(fit(shape, graph.dims) for shape in possible):
        batched = f" beside the batch axis that max_batch_size {max_batch_size} means" if max_batch_size > 0 else ""
        raise InvalidModelError(
            f"the {kind} {tensor.name!r} has the dims {list(own)} in the configuration{batched}, and "
            f"{list(graph.dims)} in the graph; correct its dims"
        )


def fit(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two shapes can be of the same tensor; -1 is any length.

    >>> fit((-1, 4), (2, 4)), fit((2, 3), (2, 4)), fit((4,), (-1, 4))
    (True, False, False)
    """
    return len(one) == len(other) and all(a == b or -1 in (a, b) for a, b in zip(one, other, strict=True))


def _tensors(config: Any) -> Iterator[tuple[str, Any]]:
    yield from (("input", tensor) for tensor in config.input)
    yield from (("output", tensor) for tensor in config.output)


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _LISTED_MOST} more" if len(every) > _LISTED_MOST else ""
    return ", ".join(every[:_LISTED_MOST]) + more
