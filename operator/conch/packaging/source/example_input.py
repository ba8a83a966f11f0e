"""Example inputs: from a file, or drawn after a description, the same each time."""

import math
import re
import zipfile
import zlib
from pathlib import Path
from typing import Final

import numpy as np

from conch.packaging.errors import PackagingError
from conch.packaging.tensors import Array

_SEED: Final = 20_250_101
_MOST_BYTES: Final = 2**30
_FLOATS: Final = ("float16", "float32", "float64")
_INTEGERS: Final = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_DRAWN: Final = re.compile(
    r"(?P<name>[^=]+)=\s*(?P<dtype>\w+)\s*\[(?P<dims>[\d\s,]*)\]\s*(?:<\s*(?P<below>\d+))?",
)
_FORMS: Final = (
    "give a file of arrays by input name (x.npz), or describe each input, separated by semicolons: "
    "'input=float32[2,10]', 'ids=int64[2,16]<30000' (whole numbers from 0 to 29999)"
)


def parse_example(text: str) -> dict[str, Array]:
    """The arrays by input name: `x.npz`, or `input=float32[2,10];ids=int64[2,16]<30000`. Raises PackagingError.

    Floats are drawn from the standard normal distribution, booleans evenly; whole numbers evenly below their limit,
    which has to be given: a model of texts fails on an id beyond its vocabulary. The seed is fixed.
    """
    if text.strip().endswith(".npz"):
        return read_npz(Path(text.strip()))
    random = np.random.default_rng(_SEED)
    drawn: dict[str, Array] = {}
    for part in text.split(";"):
        match = _DRAWN.fullmatch(part.strip())
        if match is None:
            raise PackagingError(f"the example input {part.strip()!r} is not understood; {_FORMS}")
        name = match["name"].strip()
        if name in drawn:
            raise PackagingError(f"the example input {name!r} is described twice; describe each input once")
        drawn[name] = _draw(random, name, match["dtype"], _dims(name, match["dims"]), match["below"])
    return drawn


def read_npz(path: Path) -> dict[str, Array]:
    """The arrays of a file from `numpy.savez(path, name=array)`; raises PackagingError. Nothing is unpickled."""
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise PackagingError(
                    f"{path} holds one array without a name; save it with numpy.savez(path, input=array)"
                )
            with file:
                arrays = {name: np.asarray(file[name]) for name in file.files}
    except FileNotFoundError as error:
        raise PackagingError(f"there is no file {path}; {_FORMS}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        # RuntimeError: encrypted, or packed in a way that zipfile does not know.
        raise PackagingError(
            f"{path} cannot be read as arrays ({error}); write it with numpy.savez(path, input=array), strings as an "
            "array of dtype str, not object"
        ) from error
    if not arrays:
        raise PackagingError(f"{path} holds no arrays; write it with numpy.savez(path, input=array)")
    for name, array in arrays.items():
        if array.size == 0:
            raise PackagingError(f"the array {name!r} in {path} is empty (shape {list(array.shape)}); it needs samples")
    return arrays


def _dims(name: str, text: str) -> tuple[int, ...]:
    numbers = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise PackagingError(
            f"the shape [{text}] of the example input {name!r} is not understood; lengths are whole numbers from 1 on, "
            "separated by commas, such as [2,10]"
        )
    return tuple(int(number) for number in numbers)


def _draw(random: np.random.Generator, name: str, dtype: str, dims: tuple[int, ...], below: str | None) -> Array:
    if dtype not in (*_FLOATS, *_INTEGERS, "bool"):
        raise PackagingError(
            f"the example input {name!r} cannot be drawn as {dtype}; one of "
            f"{', '.join((*_FLOATS, *_INTEGERS, 'bool'))}, or a file: x.npz"
        )
    if math.prod(dims) * np.dtype(dtype).itemsize > _MOST_BYTES:
        raise PackagingError(f"the example input {name!r} has more than 1 GiB; a few samples are enough")
    if dtype not in _INTEGERS:
        if below is not None:
            raise PackagingError(
                f"the example input {name!r} is {dtype}; a limit (<{below}) belongs to whole numbers only: leave it "
                "away"
            )
        return random.standard_normal(dims).astype(dtype) if dtype in _FLOATS else random.random(dims) < 0.5
    most = int(np.iinfo(dtype).max)
    if below is None:
        raise PackagingError(
            f"the example input {name!r} is {dtype} and needs a limit: '{name}={dtype}[{','.join(map(str, dims))}]<N' "
            "draws from 0 to N-1 (for ids of a text: the size of the vocabulary)"
        )
    if not 0 < int(below) <= most + 1:
        raise PackagingError(f"the limit {below} of the example input {name!r} is outside of what {dtype} holds")
    return random.integers(0, int(below), size=dims, dtype=dtype)
