"""Other rules at their best: the knob that would have been right, known only afterwards."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from conch.simulate.fleet import FleetSettings
from conch.simulate.outcome import Outcome
from conch.simulate.replay import Progress, Rule, simulate
from conch.simulate.rules.bounds import Bounds
from conch.simulate.rules.hpa import Hpa, PodMetric
from conch.simulate.rules.keda import Keda
from conch.simulate.rules.kpa import Kpa
from conch.simulate.trace import Trace

_COARSE: Final = 9
_FINE: Final = 2
"""Rounds of looking between the best knob and its neighbours, two looks each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A rule of others with the one knob that its user has to guess."""

    make: Callable[[float], Rule]
    least: float
    most: float
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The knob that was best, and what came of it."""

    knob: float
    unit: str
    outcome: Outcome


def baselines(settings: FleetSettings, bounds: Bounds) -> tuple[Baseline, ...]:
    """HPA on three metrics, KPA and KEDA, each with the range in which its knob can sensibly be."""
    curve = settings.curve
    slots = float(curve.max_batch * curve.instances)
    objective_milliseconds = 1000 * settings.objective_seconds

    def hpa(metric: PodMetric) -> Callable[[float], Rule]:
        return lambda knob: Hpa(metric, knob, bounds)

    return (
        Baseline(make=hpa(PodMetric.IN_FLIGHT), least=0.1, most=2 * slots, unit="requests"),
        Baseline(make=hpa(PodMetric.RATE), least=0.05 * curve.ceiling, most=1.1 * curve.ceiling, unit="requests/s"),
        Baseline(
            make=hpa(PodMetric.QUEUE_TIME), least=0.002 * objective_milliseconds, most=objective_milliseconds, unit="ms"
        ),
        Baseline(make=lambda knob: Kpa(knob, bounds), least=0.1, most=2 * slots, unit="requests"),
        Baseline(make=lambda knob: Keda(knob, bounds), least=0.1, most=2 * slots, unit="requests"),
    )


def best(
    trace: Trace,
    baseline: Baseline,
    settings: FleetSettings,
    *,
    late_share_most: float,
    progress: Progress | None = None,
) -> Best:
    """The cheapest knob whose late share is within the bound; where none is, the least late one."""
    looks = _COARSE + 2 * _FINE
    tried: dict[float, Outcome] = {}

    def look(knob: float) -> None:
        begun = len(tried)
        tell = None if progress is None else lambda share: progress((begun + share) / looks)
        tried[knob] = simulate(trace, baseline.make(knob), settings, progress=tell)

    def rank(knob: float) -> tuple[float, float]:
        outcome = tried[knob]
        within = outcome.late_share <= late_share_most
        return (0.0, outcome.replica_hours) if within else (outcome.late_share, outcome.replica_hours)

    for knob in np.geomspace(baseline.least, baseline.most, _COARSE).tolist():
        look(knob)
    for _ in range(_FINE):
        knobs = sorted(tried)
        at = knobs.index(min(knobs, key=rank))
        for neighbour in knobs[max(0, at - 1) : at] + knobs[at + 1 : at + 2]:
            look(math.sqrt(knobs[at] * neighbour))
    chosen = min(tried, key=rank)
    return Best(knob=chosen, unit=baseline.unit, outcome=tried[chosen])
