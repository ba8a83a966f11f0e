"""Tensors of a model as numpy arrays: from JSON, and from and to the bytes that Triton takes and gives."""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor, triton_to_np_dtype

Array = NDArray[Any]

BYTES: Final = "BYTES"
FLOATS: Final = frozenset({"FP16", "BF16", "FP32", "FP64"})
DATATYPES: Final = (
    "BOOL",
    *(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)),
    "FP16",
    "BF16",
    "FP32",
    "FP64",
    BYTES,
)
_SHOWN_MOST: Final = 48


class TensorError(ValueError):
    """Values that are not of the datatype or do not fill the shape; the message does not name the tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or output. The array has the datatype's own type; of BYTES it holds `bytes` objects."""

    name: str
    datatype: str
    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """As many numbers as axes."""
        return self.array.shape


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSignature:
    """An input or output of a model; without the batch axis, -1 is any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    whole_shape: tuple[int, ...] | None = None
    """With one more axis in front, where it is not known whether that is the batch's or the model's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSignature:
    """What a served model takes and gives."""

    inputs: Mapping[str, TensorSignature]
    outputs: Mapping[str, TensorSignature]
    max_batch_size: int = 0
    """0 where the model has no batch axis."""
    one_answer: bool = True
    """Whether a request has one answer that depends on nothing else: neither decoupled nor part of a sequence."""


def dtype_of(datatype: str) -> np.dtype[Any]:
    """numpy's type for a datatype. Raises TensorError."""
    if datatype not in DATATYPES:
        raise TensorError(f"{datatype!r} is no datatype; there are {', '.join(DATATYPES)}")
    dtype: np.dtype[Any] = np.dtype(triton_to_np_dtype(datatype))
    return dtype


def from_values(datatype: str, values: Any) -> Array:
    """An array of (nested lists of) JSON values, none of them changed by the conversion. Raises TensorError."""
    dtype = dtype_of(datatype)
    nested = np.array(values, dtype=object)
    items = nested.ravel().tolist()
    if any(isinstance(item, list) for item in items):
        raise TensorError("its lists do not all have the same length")
    if datatype == BYTES:
        flat = _bytes_array(items)
    elif datatype in FLOATS:
        flat = _float_array(datatype, dtype, items)
    elif datatype == "BOOL":
        _check_types(datatype, items, bool)
        flat = np.array(items, dtype=dtype)
    else:
        flat = _integer_array(datatype, dtype, items)
    return flat.reshape(nested.shape)


def from_raw(datatype: str, raw: bytes) -> Array:
    """A flat array from the protocol's bytes: little-endian, BYTES with their lengths. Raises TensorError."""
    dtype = dtype_of(datatype)
    try:
        if datatype == BYTES:
            return _object_array(deserialize_bytes_tensor(raw).tolist())
        return np.frombuffer(raw, dtype=dtype)
    except (ValueError, struct.error) as error:
        raise TensorError(f"its {len(raw)} bytes are no {datatype}") from error


def to_raw(tensor: Tensor) -> bytes:
    """The protocol's bytes of a tensor."""
    if tensor.datatype != BYTES:
        return np.ascontiguousarray(tensor.array).tobytes()
    return bytes(serialize_byte_tensor(tensor.array).item()) if tensor.array.size else b""


def shaped(array: Array, shape: Sequence[int]) -> Array:
    """The array in this shape, of which one length may be -1: whatever is left. Raises TensorError."""
    try:
        return array.reshape(tuple(shape))
    except (ValueError, TypeError, OverflowError) as error:
        raise TensorError(f"{array.size} values do not fill the shape {list(shape)}") from error


def shown(value: Any) -> str:
    """One value for a person; texts are cut."""
    if isinstance(value, bytes):
        cut = value[:_SHOWN_MOST]
        return ascii(cut.decode(errors="backslashreplace")) + ("…" if len(cut) < len(value) else "")
    # Of bfloat16 numpy itself knows nothing.
    return f"{float(value):.9g}" if not isinstance(value, np.integer | np.bool_) else str(value)


def _check_types(datatype: str, items: Sequence[Any], *allowed: type) -> None:
    # type() and not isinstance(): True is an int.
    wrong = next((item for item in items if type(item) not in allowed), None)
    if wrong is not None or None in items:
        raise _wrong_type(datatype, wrong)


def _wrong_type(datatype: str, value: Any) -> TensorError:
    called = "texts (BYTES)" if datatype == BYTES else datatype
    return TensorError(f"its values are no {called}, such as {str(value)[:_SHOWN_MOST]!r}")


def _integer_array(datatype: str, dtype: np.dtype[Any], items: list[Any]) -> Array:
    _check_types(datatype, items, int, float)
    # Some programs write 1 as 1.0.
    broken = next((item for item in items if type(item) is float and not item.is_integer()), None)
    if broken is not None:
        raise _wrong_type(datatype, broken)
    limits = np.iinfo(dtype)
    if items and not (limits.min <= min(items) and max(items) <= limits.max):
        raise TensorError(f"not all of its values are {datatype} ({limits.min} to {limits.max})")
    return np.array([int(item) for item in items], dtype=dtype)


def _float_array(datatype: str, dtype: np.dtype[Any], items: list[Any]) -> Array:
    _check_types(datatype, items, int, float)
    try:
        wide = np.array([float(item) for item in items], dtype=np.float64)
    except OverflowError as error:
        raise TensorError(f"not all of its values are {datatype}") from error
    with np.errstate(over="ignore"):
        array = wide.astype(dtype)
    if not np.array_equal(np.isinf(array.astype(np.float64)), np.isinf(wide)):
        raise TensorError(f"not all of its values are {datatype}, such as {wide[np.argmax(np.abs(wide))]:.3g}")
    return array


def _bytes_array(items: list[Any]) -> Array:
    # bytes come from arrays, not from JSON.
    _check_types(BYTES, items, str, bytes)
    try:
        return _object_array([item.encode() if isinstance(item, str) else item for item in items])
    except UnicodeEncodeError as error:
        raise TensorError("its texts are no Unicode; give them as bytes") from error


def _object_array(items: list[bytes]) -> Array:
    # numpy would take texts of equal length for something else.
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def size_bytes(array: Array) -> int:
    """What an array takes in memory, about."""
    return array.nbytes + (sum(len(item) + 40 for item in array.flat) if array.dtype == object else 0)


def fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether a shape is what a model takes, where -1 is any length."""
    return len(shape) == len(wanted) and all(asked in (-1, length) for length, asked in zip(shape, wanted, strict=True))


def allowed_shape(shape: Any) -> bool:
    """Whether this is a list of lengths whose product is no absurdity."""
    lengths = isinstance(shape, list) and all(type(length) is int and 0 <= length < 2**31 for length in shape)
    return lengths and len(shape) <= 32 and math.prod(shape) < 2**40
