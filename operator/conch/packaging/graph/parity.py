"""Whether the graph computes what the model computes, at several batch sizes: an axis that was frozen shows there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from conch.packaging.errors import PackagingError
from conch.packaging.graph.session import Runner
from conch.packaging.tensors import Array, Tensors, repeated, rows

BATCH_SIZES: Final = (1, 2, 3, 7, 32)
BOUND: Final = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far the graph's outputs are from the reference's.

    A deviation is |graph - reference| / max(1, |reference|) of one value: absolute for values up to 1, relative above,
    as rounding in FP32 grows with the value (one step at 100 is 7.6e-6). Strings count 1 where they differ, NaN is
    equal to NaN and infinitely far from everything else.
    """

    largest: float
    by_batch: dict[int, float]
    """The largest deviation at each batch size."""
    output: str
    """The output with the largest one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Worst:
    deviation: float
    output: str
    where: str


def measure_parity(
    reference: Callable[[Tensors], Mapping[str, Array]],
    graph: Runner,
    inputs: Tensors,
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    bound: float = BOUND,
) -> Parity:
    """Run both on the same samples, repeated or cut to each batch size; a graph without a batch axis runs once, as
    given.

    Raises PackagingError where outputs or their shapes differ, or a deviation is over the bound (infinite: measure
    only).
    """
    if graph.takes_batches:
        batches = {size: repeated(inputs, size) for size in batch_sizes}
    else:
        first = next(iter(inputs.values()))
        batches = {rows(inputs) if first.ndim else 1: dict(inputs)}
    worst: dict[int, _Worst] = {}
    for size, batch in batches.items():
        worst[size] = _compare(reference(batch), graph.run(batch), size)
        if not worst[size].deviation <= bound:
            raise PackagingError(
                f"the graph does not compute what the model does: at batch size {size} output {worst[size].output!r} "
                f"deviates by {worst[size].deviation:.3g} (bound {bound:g}), {worst[size].where}; look for a branch on "
                "data, randomness or a value that was fixed from the example in the model's code, correct it and "
                "export again"
            )
    largest = max(worst.values(), key=lambda found: found.deviation)
    return Parity(
        largest=largest.deviation,
        by_batch={size: found.deviation for size, found in worst.items()},
        output=largest.output,
    )


def deviations(reference: Array, graph: Array) -> Array:
    """The deviation of every value, as Parity defines it; both arrays have one shape."""
    if reference.dtype.kind in "OUS":
        return np.asarray(reference.astype(np.str_) != graph.astype(np.str_), dtype=np.float64)
    expected, found = reference.astype(np.float64), graph.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(found - expected) / np.maximum(1.0, np.abs(expected))
    equal = (found == expected) | (np.isnan(found) & np.isnan(expected))
    return np.where(equal, 0.0, np.where(np.isnan(apart), np.inf, apart))


def _compare(reference: Mapping[str, Array], graph: Mapping[str, Array], size: int) -> _Worst:
    if reference.keys() != graph.keys():
        raise PackagingError(
            f"the model gives the outputs {', '.join(map(repr, reference))}, its graph "
            f"{', '.join(map(repr, graph))}; export it again, and give every output a name of its own"
        )
    worst = _Worst(deviation=-1.0, output="", where="")
    for name, found in graph.items():
        expected = np.asarray(reference[name])
        if expected.shape != found.shape:
            raise PackagingError(
                f"at batch size {size} output {name!r} of the model has the shape {list(expected.shape)}, of its graph "
                f"{list(found.shape)}: a length was fixed from the example; take it from the input in the model's code "
                "(x.shape[0]) and export again"
            )
        apart = deviations(expected, found)
        largest = float(apart.max(initial=0.0))
        if largest > worst.deviation:
            worst = _Worst(deviation=largest, output=name, where=_where(apart, expected, found) if apart.size else "")
    return worst


def _where(apart: Array, expected: Array, found: Array) -> str:
    index = np.unravel_index(int(apart.argmax()), apart.shape)
    return f"{found[index]} instead of {expected[index]} at {[int(i) for i in index]}"
