"""How long a graph takes on this machine, alone and for a full batch."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from conch.packaging.graph.session import Runner
from conch.packaging.progress import Progress, Silent
from conch.packaging.tensors import Array, Tensors, repeated

SECONDS: Final = 1.0
"""Measured for so long, per graph and batch size."""
_SILENT: Final = Silent()
_ROUNDS: Final = 20
_RUNS_LEAST: Final = 3
"""Of a graph that takes longer than all of its time."""

Clock = Callable[[], int]
"""Nanoseconds since any moment, never going back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Medians of single runs, in microseconds."""

    one_us: float
    """One sample."""
    most_us: float
    """As many samples as the server puts into one batch."""


def measure_latency(
    runner: Runner,
    inputs: Tensors,
    *,
    most: int,
    progress: Progress = _SILENT,
    seconds: float = SECONDS,
    clock: Clock = time.perf_counter_ns,
) -> Latency:
    """The latency of one graph; see measure_latencies."""
    return measure_latencies({"": runner}, inputs, most=most, progress=progress, seconds=seconds, clock=clock)[""]


def measure_latencies(
    runners: Mapping[str, Runner],
    inputs: Tensors,
    *,
    most: int,
    progress: Progress = _SILENT,
    seconds: float = SECONDS,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, Latency]:
    """The latencies of several graphs that are to be compared, by name.

    They take turns, twenty short ones each, in an order that moves on: what else the machine does meanwhile meets all
    of them alike. `most` is the largest batch; 0 and 1 mean that there are none, and the inputs go in as they are if it
    is 0. It takes `seconds` for each graph and batch size, longer only where three runs do.
    """
    sizes = sorted({1, most}) if most > 0 else [0]
    medians: dict[int, dict[str, float]] = {}
    for index, size in enumerate(sizes):

        def advance(done: int, before: int = index * _ROUNDS) -> None:
            progress.advance(before + done, len(sizes) * _ROUNDS)

        batch = repeated(inputs, size) if size else dict(inputs)
        medians[size] = _medians(runners, batch, seconds=seconds, clock=clock, advance=advance)
    return {name: Latency(one_us=medians[sizes[0]][name], most_us=medians[sizes[-1]][name]) for name in runners}


def _medians(
    runners: Mapping[str, Runner],
    batch: dict[str, Array],
    *,
    seconds: float,
    clock: Clock,
    advance: Callable[[int], None],
) -> dict[str, float]:
    for runner in runners.values():
        # Memory is allocated and weights are packed at the first run.
        runner.run(batch)
    whole_ns = seconds * 1e9
    turn_ns = whole_ns / _ROUNDS
    taken_ns: dict[str, list[int]] = {name: [] for name in runners}
    spent_ns = dict.fromkeys(runners, 0)
    order = list(runners)
    for done in range(1, _ROUNDS + 1):
        for name in order:
            if spent_ns[name] >= whole_ns and len(taken_ns[name]) >= _RUNS_LEAST:
                continue
            spent_ns[name] += _turn(runners[name], batch, turn_ns, clock, taken_ns[name])
        order = order[1:] + order[:1]
        advance(done)
    return {name: statistics.median(each) / 1e3 for name, each in taken_ns.items()}


def _turn(runner: Runner, batch: dict[str, Array], turn_ns: float, clock: Clock, taken_ns: list[int]) -> int:
    """Runs until the turn is over, once at least; gives what it took."""
    begun = before = clock()
    while True:
        runner.run(batch)
        now = clock()
        taken_ns.append(now - before)
        if now - begun >= turn_ns:
            return now - begun
        before = now
