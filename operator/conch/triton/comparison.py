"""Answers of a model held against its golden set, with words that say how far off they are."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from conch.triton.golden_set import EXACT, Expected, SameLabel, Within
from conch.triton.tensors import FLOATS, Array, Tensor, shown

_CHUNK_VALUES: Final = 1 << 16
"""So many at once: the wide copies that are compared must not multiply a large tensor."""
_MESSAGE_MOST: Final = 1024
_WORDS_MOST: Final = 300
"""Of one difference: Triton's words may be the traceback of a program."""
_LONG_INTEGERS: Final = ("INT64", "UINT64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One output held against its record."""

    values: int = 0
    """How many were compared, or labels; none where the output is another one altogether."""
    wrong: int = 0
    worst: str = ""
    """The worst value: its place, what it is and what it should be, to follow the output's name. Empty if it passes."""
    severity: float = 0.0
    """The worst deviation as a multiple of what is allowed; infinite where nothing is, or where it has no size."""
    largest_deviation: float | None = None
    """Of numbers with a tolerance, and of all floats that are not labels; NaN has none."""

    @property
    def passed(self) -> bool:
        """Whether the output is as recorded."""
        return not self.worst

    @property
    def count(self) -> str:
        """How many values differ, in words; empty where there is nothing to count."""
        return f"{self.wrong} of {self.values} values differ" if self.wrong else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One output of one sample that is not as recorded."""

    sample: int
    words: str
    severity: float
    """Its Comparison's."""


def compare(sample: int, expected: Expected, answer: Tensor | None, *, batch: int = 1) -> Difference | None:
    """None when the answer (without a batch axis, from a batch of this many) passes."""
    found = comparison(expected, answer)
    if found.passed:
        return None
    words = "; ".join(filter(None, (f"{expected.tensor.name}{found.worst}", found.count)))
    return difference(sample, words, batch=batch, severity=found.severity)


def difference(sample: int, words: str, *, batch: int, severity: float = math.inf) -> Difference:
    """A difference in words, with the place in front."""
    place = f"sample {sample}" if batch == 1 else f"sample {sample} in a batch of {batch}"
    return Difference(sample=sample, words=f"{place}: {_cut(' '.join(words.split()), _WORDS_MOST)}", severity=severity)


def summary(samples: int, differences: Iterable[Difference]) -> tuple[int, str]:
    """How many samples differ, and in what; of each sample the worst, and the worst sample first."""
    # A stable sort: of what is equally bad, samples alone come before batches, which may have failed because of one.
    ordered = sorted(differences, key=lambda each: -each.severity)
    worst: dict[int, Difference] = {}
    for each in ordered:
        worst.setdefault(each.sample, each)
    if not worst:
        return 0, ""
    message = f"{len(worst)} of {samples} samples differ; " + "; ".join(each.words for each in worst.values())
    return len(worst), _cut(message, _MESSAGE_MOST)


def comparison(expected: Expected, answer: Tensor | None) -> Comparison:
    """How an answer, which has as many axes as its record, compares with that."""
    wanted = expected.tensor
    if answer is None:
        return Comparison(worst=" is not in the answer", severity=math.inf)
    if (answer.datatype, answer.shape) != (wanted.datatype, wanted.shape):
        was = f"{wanted.datatype} {list(wanted.shape)}"
        words = f" is {answer.datatype} {list(answer.shape)}, expected {was}"
        return Comparison(worst=words, severity=math.inf)
    if isinstance(expected.tolerance, SameLabel):
        return _labels(answer.array, wanted.array)
    if expected.tolerance == EXACT and wanted.datatype not in FLOATS:
        return _exact(answer.array, wanted.array)
    return _close(answer.array, wanted.array, expected.tolerance, long=wanted.datatype in _LONG_INTEGERS)


def _exact(got: Array, wanted: Array) -> Comparison:
    # As they are: a float holds no integer beyond 2**53.
    wrong = np.asarray(got != wanted, dtype=bool)
    if not wrong.any():
        return Comparison(values=wrong.size)
    return _differs(wrong, _one(got, wanted, int(np.argmax(wrong)), "must be equal"))


def _labels(got: Array, wanted: Array) -> Comparison:
    answer, right = (array.astype(np.float64).reshape(-1, array.shape[-1]) for array in (got, wanted))
    places = answer.argmax(axis=-1)
    # Of several largest values in the record, any will do.
    chosen = np.take_along_axis(right, places[:, None], axis=-1)[:, 0]
    with_nan: Array = np.asarray(np.isnan(answer).any(axis=-1))
    wrong = (~with_nan & (chosen != right.max(axis=-1))) | (with_nan != np.isnan(right).any(axis=-1))
    if not wrong.any():
        return Comparison(values=wrong.size)
    row = int(np.argmax(wrong))
    where = _place(row * got.shape[-1], wanted.shape, axes=wanted.ndim - 1)
    label = "NaN" if with_nan[row] else str(places[row])
    return _differs(wrong, f"{where} has the label {label}, expected {right[row].argmax()}")


def _close(got: Array, wanted: Array, tolerance: Within, *, long: bool) -> Comparison:
    """In chunks; of long integers in a type that holds them."""
    wide: type[Any] = np.longdouble if long else np.float64
    flat, right = got.reshape(-1), wanted.reshape(-1)
    wrong, worst, worst_ratio, largest = 0, 0, -1.0, 0.0
    for start in range(0, flat.size, _CHUNK_VALUES):
        answers, records = (array[start : start + _CHUNK_VALUES].astype(wide) for array in (flat, right))
        close = np.isclose(answers, records, atol=tolerance.atol, rtol=tolerance.rtol, equal_nan=True)
        with np.errstate(invalid="ignore"):  # of two infinities
            away = np.abs(answers - records)
        largest = max(largest, float(np.fmax.reduce(away)))
        if close.all():
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = away / (tolerance.atol + tolerance.rtol * np.abs(records))
        ratios = np.where(close, -1.0, np.where(np.isnan(ratios), np.inf, ratios))
        wrong += close.size - int(np.count_nonzero(close))
        if float(ratios.max()) > worst_ratio:
            worst, worst_ratio = start + int(ratios.argmax()), float(ratios.max())
    if not wrong:
        return Comparison(values=flat.size, largest_deviation=largest)
    off, record = abs(wide(flat[worst]) - wide(right[worst])), abs(wide(right[worst]))
    if tolerance == EXACT or np.isinf(record):
        how = "must be equal"
    else:
        how = f"off by {off:.3g}, allowed {tolerance.atol + tolerance.rtol * record:.3g}"
    return Comparison(
        values=flat.size,
        wrong=wrong,
        worst=_one(got, wanted, worst, how),
        severity=worst_ratio if np.isfinite(off) else math.inf,
        largest_deviation=largest,
    )


def _differs(wrong: Array, worst: str) -> Comparison:
    """Of what either is as recorded or is not."""
    return Comparison(values=wrong.size, wrong=int(np.count_nonzero(wrong)), worst=worst, severity=math.inf)


def _one(got: Array, wanted: Array, index: int, more: str) -> str:
    where = _place(index, wanted.shape, axes=wanted.ndim)
    return f"{where} is {shown(got.flat[index])}, expected {shown(wanted.flat[index])}: {more}"


def _place(index: int, shape: tuple[int, ...], *, axes: int) -> str:
    """`[1, 2]` for a flat index, of the first axes only."""
    return str([int(each) for each in np.unravel_index(index, shape)[:axes]]) if axes else ""


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
