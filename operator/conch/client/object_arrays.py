"""Reads one array of an npz file. Object arrays are pickled, and a pickle from somewhere can run anything.

So only what an array of texts is made of is let through.
"""

import io
import pickle
from typing import Any, Final

import numpy as np

from conch.triton.tensors import Array

_ALLOWED: Final = frozenset(
    {
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "_reconstruct"),
        # How older pickle protocols write bytes.
        ("_codecs", "encode"),
    }
)


class _TextsOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"an object array of texts does not hold {module}.{name}")
        # What older versions of numpy called this module is deprecated as a name.
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_npy(content: bytes) -> Array:
    """The array of one .npy file. Raises ValueError."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = header(stream)
    if not dtype.hasobject:
        stream.seek(0)
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
    try:
        array = _TextsOnly(stream).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, TypeError, IndexError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(array, np.ndarray):
        raise ValueError("an object array is expected")
    return array
