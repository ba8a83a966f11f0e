"""A model whose servers are simulated, in compressed time, while a real Deployment says how many there are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from conch.simulate.fleet import Fleet, FleetSettings
from conch.simulate.look import Look
from conch.simulate.outcome import Moment, Outcome
from conch.simulate.replay import moment_of
from conch.simulate.rules.bounds import Bounds
from conch.simulate.rules.hpa import Hpa, PodMetric, PodsMetric
from conch.simulate.trace import Trace

SAMPLE_SECONDS: Final = 1.0
"""Of the trace: how finely counts are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """What is played: a trace, the servers for it, and the HPA that scales them."""

    name: str
    load: str
    """The name of the trace."""
    trace: Trace
    fleet: FleetSettings
    bounds: Bounds
    metric: PodMetric
    target: float

    def rule(self) -> Hpa:
        """The simulator's own rule, afresh."""
        return Hpa(self.metric, self.target, self.bounds)


class PlayedModel:
    """Told what the Deployment asks for and which pods run; answers what the pods do.

    Beside it the simulator's rule is asked at each question of the real HPA, with the same figures and the same pods:
    `agreed` counts how often what the Deployment asked for next was the rule's answer.
    """

    def __init__(self, play: Play, *, compression: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`compression` seconds of the trace go by in one of the clock's."""
        self.play = play
        self.running: tuple[str, ...] = ()
        """Names of the Deployment's pods that run, the oldest first; the simulated servers take them in this order."""
        self.pending = 0
        self.asked_at: list[float] = []
        """Seconds of the trace at which the HPA asked."""
        self.compared = self.agreed = 0
        self._fleet = Fleet(play.fleet, play.trace.seconds.tolist())
        self._compression = compression
        self._clock = clock
        self._began: float | None = None
        self._desired = play.fleet.replicas
        self._moments: list[Moment] = [moment_of(self._fleet.look())]
        self._metric = PodsMetric(play.metric)
        self._shadow = play.rule()
        self._expected: int | None = None
        self.last_look = self._fleet.look()
        """What the HPA was answered by last."""

    @property
    def now(self) -> float:
        """Seconds of the trace, from `begin` on."""
        return 0.0 if self._began is None else (self._clock() - self._began) * self._compression

    def begin(self) -> None:
        """The trace begins now."""
        self._began = self._clock()

    def scaled(self, desired: int) -> None:
        """The Deployment asks for so many servers."""
        if desired == self._desired or self._began is None:
            return
        self._desired = desired
        self._fleet.advance(self.now)
        self._fleet.scale(desired)
        self._moments.append(moment_of(self._fleet.look()))

    def measured(self) -> Sequence[tuple[str, float]]:
        """What the HPA is answered: by running pod, its metric."""
        if self._began is None:
            return ()
        self._fleet.advance(self.now)
        whole = self._fleet.look()
        self._moments.append(moment_of(whole))
        look = self.last_look = self._seen(whole)
        self.asked_at.append(look.now)
        if self._expected is not None:
            self.compared += 1
            self.agreed += self._expected == self._desired
        self._expected = self._shadow.desired(look)
        return tuple(zip(self.running, self._metric.values(look), strict=False))

    def _seen(self, look: Look) -> Look:
        """With as many servers ready as pods run: what the API server does not show yet nobody asks."""
        ready = [pod for pod in look.pods if pod.ready][: len(self.running)]
        shown = {pod.number for pod in ready}
        others = [replace(pod, ready=False) for pod in look.pods if pod.number not in shown][: self.pending]
        return replace(look, pods=(*ready, *others))

    def finish(self) -> Outcome:
        """Play on to the trace's end and until all is answered, with the servers that there are."""
        end = max(self.play.trace.span_seconds, self.now)
        self._fleet.advance(end)
        self._moments.append(moment_of(self._fleet.look()))
        return _outcome(self.play, self._fleet, self._moments, rule=f"real {self._shadow.name}")


def simulated(play: Play, asked_at: Sequence[float]) -> Outcome:
    """The simulator's rule, asked at these moments."""
    fleet, rule = Fleet(play.fleet, play.trace.seconds.tolist()), play.rule()
    moments = [moment_of(fleet.look())]
    for at in asked_at:
        fleet.advance(at)
        desired = rule.desired(fleet.look())
        fleet.scale(desired)
        moments.append(moment_of(fleet.look()))
    fleet.advance(max(play.trace.span_seconds, fleet.now))
    return _outcome(play, fleet, moments, rule=rule.name)


def _outcome(play: Play, fleet: Fleet, moments: Sequence[Moment], *, rule: str) -> Outcome:
    """With everything answered, by the servers that there are."""
    while not fleet.idle:
        fleet.advance(fleet.now + SAMPLE_SECONDS)
    return Outcome(
        rule=rule,
        arrivals=play.trace.seconds,
        latencies=fleet.latencies,
        objective_seconds=play.fleet.objective_seconds,
        span_seconds=play.trace.span_seconds,
        placed=fleet.placed,
        moments=tuple(moments),
    )


def counts(outcome: Outcome) -> NDArray[np.int64]:
    """What was asked for, second by second of the trace."""
    at = [moment.now for moment in outcome.moments]
    wanted = np.array([moment.desired for moment in outcome.moments], dtype=np.int64)
    seconds = np.arange(0.0, outcome.span_seconds, SAMPLE_SECONDS)
    return wanted[np.searchsorted(at, seconds, side="right") - 1]


def apart(one: NDArray[np.int64], other: NDArray[np.int64], *, shift_seconds: float) -> NDArray[np.int64]:
    """By second, how far the one is from what the other had, or passed, within so many seconds before or after."""
    reach = round(shift_seconds / SAMPLE_SECONDS)
    padded = np.pad(other, reach, mode="edge")
    shifted = np.stack([padded[start : start + len(one)] for start in range(2 * reach + 1)])
    least, most = shifted.min(axis=0), shifted.max(axis=0)
    beyond: NDArray[np.int64] = np.maximum(np.maximum(least - one, one - most), 0)
    return beyond
