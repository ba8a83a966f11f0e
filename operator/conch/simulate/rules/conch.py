"""Conch's own rule: the very `decide` and `tune` of the operator."""

from collections.abc import Mapping
from typing import Final

from conch.core.scaling.decide import decide
from conch.core.scaling.service_curve import ServiceCurve
from conch.core.scaling.settings import ScalingSettings
from conch.core.scaling.signals import BatchTimes, Signals
from conch.core.scaling.state import ScalingState
from conch.core.scaling.tuning import tune, wants_tuning
from conch.simulate.look import Look

TICK_SECONDS: Final = 2.0
_AGENTS_SECONDS: Final = 10.0
"""How often agents are asked for what was executed."""


class Conch:
    """`decide` each 2 s with what has happened since, as the operator does; `tune` whenever it is due, at once."""

    name = "Conch"
    interval_seconds = TICK_SECONDS

    def __init__(self, settings: ScalingSettings, curve: ServiceCurve, *, replicas: int, hold_seconds: float) -> None:
        """Of the curve only what Triton's configuration says is told: the times have to be learnt."""
        self._settings = settings
        self._curve = curve
        self._hold_seconds = hold_seconds
        self._state = ScalingState.initial(replicas, 0.0)
        self._before: Look | None = None
        self._batches: Mapping[int, tuple[int, float]] = {}
        self._batches_next = 0.0
        self.reason = ""
        """Of the last decision."""

    @property
    def state(self) -> ScalingState:
        """What it remembers."""
        return self._state

    def desired(self, look: Look) -> int:
        """One tick of the operator."""
        decision = decide(look.now, self._settings, self._state, self.signals(look))
        self._state = decision.state
        self.reason = decision.message
        if wants_tuning(look.now, self._settings, self._state):
            self._state = self._state.with_tuning(tune(look.now, self._settings, self._state))
        return decision.desired

    def signals(self, look: Look) -> Signals:
        """What has happened since the tick before."""
        before, self._before = self._before, look
        finished = look.answered - (before.answered if before else 0)
        seconds = look.answered_seconds - (before.answered_seconds if before else 0.0)
        return Signals(
            arrived=look.arrived - (before.arrived if before else 0),
            answered=finished,
            late=look.late - (before.late if before else 0),
            mean_latency_seconds=seconds / finished if finished else None,
            in_flight=look.in_flight,
            held=look.held,
            hold_seconds=self._hold_seconds,
            ready=look.ready,
            starting=look.starting,
            blocked=look.blocked,
            starts=look.starts[len(before.starts) if before else 0 :],
            batches=self._executed(look),
        )

    def _executed(self, look: Look) -> tuple[BatchTimes, ...]:
        if look.now < self._batches_next:
            return ()
        self._batches_next = look.now + _AGENTS_SECONDS
        before, self._batches = self._batches, look.batches
        known = {size: before.get(size, (0, 0.0)) for size in look.batches}
        sizes = tuple(
            (size, executions - known[size][0], seconds - known[size][1])
            for size, (executions, seconds) in sorted(look.batches.items())
            if executions > known[size][0]
        )
        return (
            BatchTimes(name="model", max_batch=self._curve.max_batch, instances=self._curve.instances, sizes=sizes),
        )
