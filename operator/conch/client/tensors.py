"""Tensors of the Open Inference Protocol as numpy arrays, with the bytes that Triton sends and takes for them."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor, triton_to_np_dtype

from conch.client.errors import ClientError

Array = NDArray[Any]

BYTES: Final = "BYTES"
DATATYPES: Final = (
    "BOOL",
    *(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)),
    "FP16",
    "BF16",
    "FP32",
    "FP64",
    BYTES,
)
_BY_DTYPE: Final = {np.dtype(triton_to_np_dtype(datatype)): datatype for datatype in DATATYPES if datatype != BYTES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or output. `array` has the type that belongs to the datatype; of BYTES it holds `bytes` objects."""

    name: str
    datatype: str
    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """As many numbers as axes."""
        return self.array.shape


def dtype_of(datatype: str) -> np.dtype[Any]:
    """numpy's type for a datatype. Raises ClientError."""
    if datatype not in DATATYPES:
        raise ClientError(f"{datatype!r} is no datatype; there are {', '.join(DATATYPES)}.")
    dtype: np.dtype[Any] = np.dtype(triton_to_np_dtype(datatype))
    return dtype


def from_array(name: str, array: Array) -> Tensor:
    """A tensor of the datatype that an array has; text becomes UTF-8. Raises ClientError."""
    if array.dtype.kind in "OSU":
        return Tensor(name=name, datatype=BYTES, array=_as_bytes(name, array))
    native = array.dtype.newbyteorder("=")
    if array.dtype.kind == "V" and array.dtype.itemsize == np.dtype(ml_dtypes.bfloat16).itemsize:
        # How npz keeps bfloat16, a type that numpy itself does not have.
        array, native = array.view(ml_dtypes.bfloat16), np.dtype(ml_dtypes.bfloat16)
    if native not in _BY_DTYPE:
        raise ClientError(f"{name}: numpy's {array.dtype} has no counterpart in the protocol.")
    return Tensor(name=name, datatype=_BY_DTYPE[native], array=array.astype(native, copy=False))


def from_values(name: str, datatype: str, values: Any, shape: Sequence[int] | None = None) -> Tensor:
    """A tensor from (nested lists of) JSON values; `shape` says how a flat list is meant. Raises ClientError."""
    dtype = dtype_of(datatype)
    try:
        array = np.array(values, dtype=object if datatype == BYTES else None)
    except ValueError as error:
        raise ClientError(f"{name}: its lists do not all have the same length.") from error
    if datatype == BYTES:
        array = _as_bytes(name, array)
    elif array.size:
        _check_values(name, datatype, array)
    try:
        array = array.astype(dtype, copy=False)
    except (ValueError, OverflowError, TypeError) as error:
        raise ClientError(f"{name}: its values are no {datatype}: {error}") from error
    return Tensor(name=name, datatype=datatype, array=array if shape is None else shaped(name, array, shape))


def from_raw(name: str, datatype: str, raw: bytes, shape: Sequence[int]) -> Tensor:
    """A tensor from the protocol's bytes: little-endian, BYTES with their lengths. Raises ClientError."""
    dtype = dtype_of(datatype)
    try:
        flat = deserialize_bytes_tensor(raw) if datatype == BYTES else np.frombuffer(raw, dtype=dtype)
    except (ValueError, struct.error) as error:
        raise ClientError(f"{name}: its {len(raw)} bytes are no {datatype}: {error}") from error
    return Tensor(name=name, datatype=datatype, array=shaped(name, flat, shape))


def to_raw(tensor: Tensor) -> bytes:
    """The protocol's bytes of a tensor."""
    if tensor.datatype != BYTES:
        return np.ascontiguousarray(tensor.array).tobytes()
    return bytes(serialize_byte_tensor(tensor.array).item()) if tensor.array.size else b""


def shaped(name: str, array: Array, shape: Sequence[int]) -> Array:
    """The array in this shape. Raises ClientError when it has another number of values."""
    try:
        return array.reshape(tuple(shape))
    except (ValueError, TypeError) as error:
        raise ClientError(f"{name}: {array.size} values do not fill the shape {list(shape)}.") from error


def _check_values(name: str, datatype: str, array: Array) -> None:
    """Refuse what a conversion would change without a word: 0.5 as an integer, 300 as a byte, text as a number."""
    dtype = dtype_of(datatype)
    kind = array.dtype.kind
    if kind not in "biuf" or (kind == "b") != (datatype == "BOOL"):
        raise ClientError(f"{name}: its values are no {datatype}, such as {array.flat[0]!r}.")
    if dtype.kind not in "iu":
        return
    limits = np.iinfo(dtype)
    whole = kind != "f" or bool(np.all(np.isfinite(array) & (array == np.trunc(array))))
    if not whole or int(array.min()) < limits.min or int(array.max()) > limits.max:
        raise ClientError(f"{name}: not all of its values are {datatype} ({limits.min} to {limits.max}).")


def _as_bytes(name: str, array: Array) -> Array:
    def encode(value: Any) -> bytes:
        match value:
            case bytes():
                return value
            case str():
                return value.encode()
            case _:
                raise ClientError(f"{name}: BYTES are texts, not {type(value).__name__}, such as {value!r}.")

    encoded = np.empty(array.size, dtype=object)
    encoded[:] = [encode(value) for value in array.ravel().tolist()]
    return encoded.reshape(array.shape)
