"""Named arrays: what goes into a model and what comes out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]
"""By tensor name. Where the model takes batches, axis 0 of every array is the batch and has the same length."""


def rows(tensors: Tensors) -> int:
    """The length of the common batch axis."""
    return int(next(iter(tensors.values())).shape[0])


def taken(tensors: Tensors, indices: "slice | npt.NDArray[np.intp] | list[int]") -> dict[str, Array]:
    """The samples with these indices."""
    return {name: array[indices] for name, array in tensors.items()}


def repeated(tensors: Tensors, count: int) -> dict[str, Array]:
    """Exactly `count` samples: those that there are, over and over."""
    return taken(tensors, np.arange(count) % rows(tensors))
