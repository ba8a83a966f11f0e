"""Tensors from a person's values, arrays and bytes; what is wrong with them is told with the tensor's name."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import ml_dtypes
import numpy as np

from conch.client.errors import ClientError
from conch.triton import tensors
from conch.triton.tensors import BYTES, DATATYPES, Array, Tensor, TensorError, dtype_of, shaped

_BY_DTYPE: Final = {dtype_of(datatype): datatype for datatype in DATATYPES if datatype != BYTES}


def from_array(name: str, array: Array) -> Tensor:
    """A tensor of the datatype that an array has; text becomes UTF-8. Raises ClientError."""
    if array.dtype.kind in "OSU":
        return from_values(name, BYTES, array.ravel().tolist(), array.shape)
    native = array.dtype.newbyteorder("=")
    if array.dtype.kind == "V" and array.dtype.itemsize == np.dtype(ml_dtypes.bfloat16).itemsize:
        # How npz keeps bfloat16, a type that numpy itself does not have.
        array, native = array.view(ml_dtypes.bfloat16), np.dtype(ml_dtypes.bfloat16)
    if native not in _BY_DTYPE:
        raise ClientError(f"{name}: numpy's {array.dtype} has no counterpart in the protocol.")
    return Tensor(name=name, datatype=_BY_DTYPE[native], array=array.astype(native, copy=False))


def from_values(name: str, datatype: str, values: Any, shape: Sequence[int] | None = None) -> Tensor:
    """A tensor from (nested lists of) JSON values; `shape` says how a flat list is meant. Raises ClientError."""
    with _named(name):
        array = tensors.from_values(datatype, values)
        return Tensor(name=name, datatype=datatype, array=array if shape is None else shaped(array, shape))


def from_raw(name: str, datatype: str, raw: bytes, shape: Sequence[int]) -> Tensor:
    """A tensor from the protocol's bytes. Raises ClientError."""
    with _named(name):
        return Tensor(name=name, datatype=datatype, array=shaped(tensors.from_raw(datatype, raw), shape))


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except TensorError as error:
        raise ClientError(f"{name}: {error}.") from error
