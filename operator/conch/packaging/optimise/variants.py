"""Which of a graph's forms is kept, and why not the others."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from onnx import ModelProto

from conch.packaging.graph.parity import Parity
from conch.packaging.optimise.latency import Latency
from conch.packaging.optimise.score import Score

GAIN_LEAST: Final = 1.05
"""A variant has to be so many times as fast: less is within what repeating the measurement changes."""
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A form of the graph and what was measured of it on this machine's CPU."""

    name: str
    graph: ModelProto
    bytes: int
    """Of the file."""
    score: Score | None
    """None where there is no held-out data."""
    latency: Latency
    batch_deviation: float | None
    """See deviation_in_batch; None where there is only one sample to measure it with."""
    parity: Parity | None
    """From the first variant; None for that one."""
    for_gpu: bool = False
    """The CPU's latency says nothing of its gain."""
    origin: str | None = None
    """Name of the variant that this one was made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The variant that is served."""

    kept: Variant
    reasons: dict[str, str]
    """Why not, of every other that was asked for, by name."""
    why: str
    """Why the kept one."""


def choose(variants: Sequence[Variant], *, max_drop: float) -> Choice:
    """The fastest variant that loses at most `max_drop` of the first one's score and gains; else the first.

    How much faster is the geometric mean over one sample and a full batch, and neither may be slower than the first's
    by more than the margin: which of the two matters depends on the load. Variants for GPUs are asked for by whoever
    has one, so one that keeps the score goes before all gains of a CPU; of several, that whose origin is fastest here.
    """
    first, *others = variants
    refusals = {each.name: _loss(first, each, max_drop) for each in others}
    sound = [each for each in others if refusals[each.name] is None]
    for each in sound:
        refusals[each.name] = None if each.for_gpu else _no_gain(first, each)
    gaining = [first, *(each for each in sound if not each.for_gpu and refusals[each.name] is None)]
    fastest = max(gaining, key=lambda each: speed_up(first, each))
    origins = {each.name: speed_up(first, each) for each in gaining}
    kept = max(
        (each for each in sound if each.for_gpu), key=lambda each: origins.get(each.origin or "", 0.0), default=fastest
    )
    reasons = {
        each.name: refusals.get(each.name) or _passed_over(first, each, kept) for each in variants if each is not kept
    }
    return Choice(kept=kept, reasons=reasons, why=_why(first, kept))


def speed_up(first: Variant, other: Variant) -> float:
    """How many times as fast the other is: geometric mean of one sample and a full batch."""
    return math.sqrt(first.latency.one_us / other.latency.one_us * (first.latency.most_us / other.latency.most_us))


def _loss(first: Variant, other: Variant, max_drop: float) -> str | None:
    if first.score is None or other.score is None:
        return "nobody measured what it costs: there is no held-out data (--data)"
    drop = first.score.value - other.score.value
    # Written so that NaN is refused.
    if drop <= max_drop + _ROUNDING:
        return None
    return f"{_scores(first, other)}, a drop of {drop:.4f}: more than --max-drop {max_drop:g}"


def _no_gain(first: Variant, other: Variant) -> str | None:
    times = speed_up(first, other)
    slower = [
        words
        for words, before, after in (
            ("for one sample", first.latency.one_us, other.latency.one_us),
            ("for a full batch", first.latency.most_us, other.latency.most_us),
        )
        if after > before * GAIN_LEAST
    ]
    if times >= GAIN_LEAST and not slower:
        return None
    judged = f"slower {' and '.join(slower)}" if slower else f"{times:.2f} x as fast, less than {GAIN_LEAST} x"
    return f"{judged}: {_compared(first, other)}; {_sizes(first, other)}"


def _passed_over(first: Variant, other: Variant, kept: Variant) -> str:
    """Why one that might be kept is not."""
    if kept.for_gpu and other.for_gpu:
        return f"{kept.name}'s origin {kept.origin} is faster on this CPU"
    if kept.for_gpu:
        gain = "" if other is first else f"; on this CPU it is {speed_up(first, other):.2f} x as fast as {first.name}"
        return f"{kept.name} was asked for and keeps the score{gain}"
    if other is first:
        return f"{kept.name} is {speed_up(first, kept):.2f} x as fast: {_compared(first, kept)}"
    return (
        f"{speed_up(first, other):.2f} x as fast as {first.name}, but {kept.name} is {speed_up(first, kept):.2f} x: "
        f"{_compared(kept, other)}"
    )


def _why(first: Variant, kept: Variant) -> str:
    if kept is first:
        return "it is the model as it came; nothing that was tried gains and keeps the score"
    scores = _scores(first, kept)
    if kept.for_gpu:
        return f"asked for, and {scores}; its gain shows on a GPU, not in the CPU latencies measured here"
    return f"{speed_up(first, kept):.2f} x as fast as {first.name} and {scores}; {_sizes(first, kept)}"


def _compared(one: Variant, other: Variant) -> str:
    return (
        f"one sample {one.latency.one_us:,.1f} -> {other.latency.one_us:,.1f} us, "
        f"full batch {one.latency.most_us:,.1f} -> {other.latency.most_us:,.1f} us"
    )


def _scores(one: Variant, other: Variant) -> str:
    if one.score is None or other.score is None:
        return "score unknown"
    return f"{other.score.metric} {one.score.value:.4f} -> {other.score.value:.4f}"


def _sizes(one: Variant, other: Variant) -> str:
    return f"{one.bytes:,} -> {other.bytes:,} bytes"
