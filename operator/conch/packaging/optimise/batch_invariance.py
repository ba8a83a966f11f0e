"""Whether a sample's answer depends on the samples that happen to share its batch."""

from typing import Final

import numpy as np

from conch.packaging.errors import PackagingError
from conch.packaging.graph.session import Runner
from conch.packaging.tensors import Array, Tensors, repeated, rows, taken

BATCH: Final = 64


def deviation_in_batch(runner: Runner, inputs: Tensors, *, batch: int = BATCH) -> float:
    """The largest change of any output value between a sample alone and within a batch of so many different ones.

    In the units of the outputs; of text and booleans each change counts 1, NaN beside a number is infinite. Under
    dynamic batching a request's answers differ by so much: golden tolerances and a rollout's gates must allow it.

    Raises PackagingError for fewer than two samples: with copies of itself as neighbours any sample looks invariant.
    """
    count = rows(inputs)
    if count < 2 or batch < 2:
        raise PackagingError(
            f"{count} samples in batches of {batch}: how an answer depends on its batch needs two different samples"
        )
    together = runner.run(repeated(inputs, batch))
    largest = 0.0
    for index in range(min(count, batch)):
        alone = runner.run(taken(inputs, [index]))
        for name, array in alone.items():
            largest = max(largest, _change(array[0], together[name][index]))
    return largest


def _change(alone: Array, together: Array) -> float:
    alone, together = np.asarray(alone), np.asarray(together)
    if alone.dtype.kind not in "fiu":
        return float(np.any(alone != together))
    if alone.size == 0:
        return 0.0
    with np.errstate(invalid="ignore"):
        difference = np.abs(alone.astype(np.float64) - together.astype(np.float64))
    same = (alone == together) | (np.isnan(alone.astype(np.float64)) & np.isnan(together.astype(np.float64)))
    difference = np.where(same, 0.0, difference)
    return float(np.where(np.isnan(difference), np.inf, difference).max())
