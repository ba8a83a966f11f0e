"""What the autoscaler's decisions cost: CPU of `decide` and `tune`, with four hours of history behind them.

Printed as ratios to a fixed numpy workload that is measured in the same run, so that machines can be compared, and in
milliseconds of this one. Goal: 1,000 objects looked at every 2 s within a quarter of a core, which is 0.5 ms per look.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from time import process_time
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from conch.core.scaling.decide import decide
from conch.core.scaling.level import LevelPolicy
from conch.core.scaling.settings import Metric, ScalingSettings
from conch.core.scaling.signals import BatchTimes, Signals
from conch.core.scaling.state import ScalingState
from conch.core.scaling.tuning import tune
from conch.core.scaling.view import view_of

OBJECTS: Final = 1000
LOOK_SECONDS: Final = 2.0
_HISTORY_LOOKS: Final = 4 * 3600 // 2
_LOOKS: Final = 300
_ROUNDS: Final = 5
_AGENTS_EVERY: Final = 5
SETTINGS: Final = ScalingSettings(minimum=1, maximum=50, metric=Metric.LATENCY, value=200.0, behavior=None)


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of CPU, the median of some rounds."""

    name: str
    seconds: float
    goal_seconds: float | None = None


def signals(number: int, random: np.random.Generator) -> Signals:
    """About 100 requests per second on three servers; agents tell with every fifth look."""
    arrived = int(random.poisson(200))
    told = (
        BatchTimes(
            name="model",
            max_batch=8,
            instances=1,
            requests=arrived * _AGENTS_EVERY,
            sizes=tuple((size, arrived // size, arrived // size * (0.004 + 0.001 * size)) for size in (1, 2, 3, 4)),
        ),
    )
    return Signals(
        arrived=arrived,
        answered=arrived,
        mean_latency_seconds=0.01,
        in_flight=3,
        ready=3,
        batches=told if number % _AGENTS_EVERY == 0 else (),
    )


def with_history() -> tuple[float, ScalingState]:
    """An object that was looked at for four hours."""
    random, now = np.random.default_rng(1), 0.0
    state = ScalingState.initial(3, now)
    for number in range(_HISTORY_LOOKS):
        now += LOOK_SECONDS
        state = decide(now, SETTINGS, state, signals(number, random)).state
    return now, state


def looks(now: float, state: ScalingState, settings: ScalingSettings = SETTINGS) -> float:
    """Seconds per look, `view_of` included, as the operator does it."""
    random = np.random.default_rng(2)
    seen = [signals(number, random) for number in range(_LOOKS)]
    started = process_time()
    for number, each in enumerate(seen, 1):
        decision = decide(now + LOOK_SECONDS * number, settings, state, each)
        state = decision.state
        view_of(decision, settings)
    return (process_time() - started) / _LOOKS


def reference() -> float:
    """Seconds of a fixed piece of numpy: as many small arrays as a look may touch."""
    series = np.random.default_rng(3).random(1000)
    started = process_time()
    for _ in range(1000):
        sums = np.cumsum(series)
        np.searchsorted(sums, series)
    return (process_time() - started) / 1000


def timed(measure: Callable[[], float]) -> float:
    """The median of some rounds."""
    return median(measure() for _ in range(_ROUNDS))


def took(action: Callable[[], object]) -> float:
    """Seconds of CPU."""
    started = process_time()
    action()
    return process_time() - started


def costs() -> list[Cost]:
    """All that is measured."""
    now, state = with_history()
    tuning = tune(now, SETTINGS, state)
    goal = 0.25 * LOOK_SECONDS / OBJECTS
    calm, busy = (
        state.with_tuning(replace(tuning, policy=LevelPolicy(window_seconds=window, factor=1.2, hold_seconds=hold)))
        for window, hold in ((15.0, 180.0), (300.0, 1800.0))
    )
    return [
        Cost("look, load kept for 3 min", timed(lambda: looks(now, calm)), goal),
        Cost("look, load kept for 30 min", timed(lambda: looks(now, busy)), goal),
        Cost("look, before anything was tuned", timed(lambda: looks(now, state)), goal),
        Cost("tune, curve known", timed(lambda: took(lambda: tune(now, SETTINGS, calm)))),
        Cost("tune, new curve", timed(lambda: took(lambda: tune(now, SETTINGS, state)))),
    ]


def main() -> None:
    """Print a table; fails if a look costs more than its goal."""
    unit = timed(reference)
    table = Table("what", "by the reference", "ms", "1,000 objects, cores", "goal, cores")
    measured = costs()
    for cost in measured:
        is_look = cost.goal_seconds is not None
        table.add_row(
            cost.name,
            f"{cost.seconds / unit:,.1f}",
            f"{1000 * cost.seconds:.3f}",
            f"{cost.seconds * OBJECTS / LOOK_SECONDS:.3f}" if is_look else "",
            f"{(cost.goal_seconds or 0) * OBJECTS / LOOK_SECONDS:.2f}" if is_look else "",
        )
    Console().print(table, f"reference: {1e6 * unit:.1f} µs")
    missed = [cost.name for cost in measured if cost.goal_seconds is not None and cost.seconds > cost.goal_seconds]
    if missed:
        raise SystemExit(f"over the goal: {', '.join(missed)}")


if __name__ == "__main__":
    main()
