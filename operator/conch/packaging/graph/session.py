"""A graph on this machine's CPU, run by onnxruntime: what Triton's backend of the same name does with the file."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np

from conch.packaging.errors import PackagingError
from conch.packaging.tensors import Array, Tensors

_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(bfloat16)": np.dtype(ml_dtypes.bfloat16),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(int16)": np.dtype(np.int16),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(uint16)": np.dtype(np.uint16),
    "tensor(uint32)": np.dtype(np.uint32),
    "tensor(uint64)": np.dtype(np.uint64),
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(string)": np.dtype(np.object_),
}
# What onnxruntime puts before its reason: its code, and where in its own source the reason arose.
_NOISE: Final = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : |\S*/\S+:\d+ [^()]*\([^()]*\)( const)?( \[[^]]*\])? ")
_REASON_MOST: Final = 600
_FATAL: Final = 4  # every other message reaches us as an exception already


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An input or output of a graph."""

    name: str
    dtype: np.dtype[Any]
    """Strings are `object`, as onnxruntime has them."""
    dims: tuple[int | str, ...]
    """A number, or the name of a symbolic axis; "" for one without a name."""

    @property
    def shape(self) -> str:
        """As people write it: `float32[batch, 4]`."""
        dtype = "string" if self.dtype == np.object_ else self.dtype.name
        return f"{dtype}[{', '.join(str(dim or '?') for dim in self.dims)}]"


class Runner:
    """A graph ready to run. Raises PackagingError where onnxruntime cannot load it, or is not installed."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def __init__(self, graph: bytes | Path, *, threads: int = 1) -> None:
        onnxruntime = _onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL
        try:
            self._session = onnxruntime.InferenceSession(
                graph if isinstance(graph, bytes) else str(graph), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise PackagingError(
                f"onnxruntime {onnxruntime.__version__} cannot load the graph: {_reason(error)}; export the model with "
                "operators and an opset that it has, or upgrade onnxruntime"
            ) from error
        self.inputs = tuple(_port(value) for value in self._session.get_inputs())
        self.outputs = tuple(_port(value) for value in self._session.get_outputs())

    @property
    def takes_batches(self) -> bool:
        """Whether axis 0 of every input is symbolic."""
        return all(port.dims and isinstance(port.dims[0], str) for port in self.inputs)

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """Every output by name. The inputs must be the graph's, with its types and shapes; raises PackagingError."""
        names = {port.name for port in self.inputs}
        if missing := sorted(names - inputs.keys()):
            raise PackagingError(
                f"there is no array for the input {', '.join(map(repr, missing))} of the graph; given: "
                f"{', '.join(map(repr, inputs)) or 'none'}"
            )
        if unknown := sorted(inputs.keys() - names):
            raise PackagingError(
                f"the graph has no input {', '.join(map(repr, unknown))}; it has "
                f"{', '.join(f'{port.name!r} {port.shape}' for port in self.inputs)}"
            )
        given = {port.name: _fitting(port, inputs[port.name]) for port in self.inputs}
        try:
            values = self._session.run(None, given)
        except Exception as error:  # as above
            shapes = ", ".join(f"{name!r} {list(array.shape)}" for name, array in given.items())
            raise PackagingError(
                f"the graph fails on inputs of the shapes {shapes}: {_reason(error)}; give it an example that the "
                "model accepts (ids within its vocabulary, lengths that it was made for), or correct the model and "
                "export it again"
            ) from error
        return {port.name: np.asarray(value) for port, value in zip(self.outputs, values, strict=True)}


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise PackagingError(
            f"onnxruntime is needed to run the graph and cannot be imported ({error}); pip install 'conch[package]'"
        ) from error
    onnxruntime.disable_telemetry_events()  # newer Linux wheels carry a telemetry client
    return onnxruntime


def _port(value: Any) -> Port:
    if value.type not in _DTYPES:
        raise PackagingError(
            f"the graph's {value.name!r} is a {value.type}, which Triton's onnxruntime backend cannot serve; cast it "
            "to a plain tensor in the model (scikit-learn: export with zipmap=False)"
        )
    return Port(
        name=value.name,
        dtype=_DTYPES[value.type],
        dims=tuple(
            dim if isinstance(dim, int) and dim > 0 else dim if isinstance(dim, str) else "" for dim in value.shape
        ),
    )


def _fitting(port: Port, array: Array) -> Array:
    """The array as onnxruntime takes it; raises PackagingError where type or shape is another."""
    if port.dtype == np.object_ and array.dtype.kind in "USO":
        array = _texts(port, array)
    if array.dtype != port.dtype:
        raise PackagingError(
            f"the array for input {port.name!r} is {array.dtype}{list(array.shape)}, the graph takes {port.shape}; "
            f"convert it before saving it: x.astype({port.dtype.name!r})"
        )
    fits = len(array.shape) == len(port.dims) and all(
        isinstance(dim, str) or dim == length for dim, length in zip(port.dims, array.shape, strict=True)
    )
    if not fits:
        raise PackagingError(
            f"the array for input {port.name!r} is {array.dtype}{list(array.shape)}, the graph takes {port.shape}"
        )
    return np.ascontiguousarray(array) if array.ndim else array


def _texts(port: Port, array: Array) -> Array:
    """As str: onnxruntime would take bytes for what Python prints of them, `b'...'`."""
    texts = np.empty(array.shape, dtype=np.object_)
    for index in np.ndindex(array.shape):
        text = array[index]
        try:
            texts[index] = text.decode() if isinstance(text, bytes) else text
        except UnicodeDecodeError as error:
            raise PackagingError(
                f"the array for input {port.name!r} has bytes at {list(index)} that are no UTF-8 text, which the "
                "graph's strings are"
            ) from error
        if not isinstance(texts[index], str):
            raise PackagingError(
                f"the array for input {port.name!r} has a {type(text).__name__} at {list(index)}, the graph takes "
                "strings"
            )
    return texts


def _reason(error: Exception) -> str:
    return _NOISE.sub("", str(error).strip()).rstrip(".")[:_REASON_MOST]
