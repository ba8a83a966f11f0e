"""Plays a trace against the servers, with a rule that scales them."""

from collections.abc import Callable
from typing import Protocol

from conch.simulate.fleet import Fleet, FleetSettings
from conch.simulate.look import Look
from conch.simulate.outcome import Moment, Outcome
from conch.simulate.trace import Trace

Progress = Callable[[float], None]
"""Told now and then how much of the trace was played, 0 to 1."""


class Rule(Protocol):
    """Says how many replicas there shall be. Remembers what it has seen, so each replay needs a new one."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def interval_seconds(self) -> float:
        """How often it is asked."""

    def desired(self, look: Look) -> int:
        """How many, by what is seen now."""


class Fixed:
    """As many replicas as ever."""

    name = "fixed"
    interval_seconds = 60.0

    def __init__(self, replicas: int) -> None:
        self._replicas = replicas

    def desired(self, look: Look) -> int:  # noqa: ARG002 - whatever is seen
        """That number."""
        return self._replicas


def simulate(trace: Trace, rule: Rule, settings: FleetSettings, *, progress: Progress | None = None) -> Outcome:
    """Play the whole trace, and go on until every request is answered or has failed."""
    fleet = Fleet(settings, trace.seconds.tolist())
    moments = [moment_of(fleet.look())]
    ticks = 0
    while fleet.now < trace.span_seconds or not fleet.idle:
        # Multiplied: a sum of many intervals would drift.
        ticks += 1
        fleet.advance(ticks * rule.interval_seconds)
        look = fleet.look()
        desired = rule.desired(look)
        if desired != look.desired:
            fleet.scale(desired)
            look = fleet.look()
        moments.append(moment_of(look))
        if progress is not None:
            progress(min(1.0, fleet.now / trace.span_seconds) if trace.span_seconds else 1.0)
    return Outcome(
        rule=rule.name,
        arrivals=trace.seconds,
        latencies=fleet.latencies,
        objective_seconds=settings.objective_seconds,
        span_seconds=trace.span_seconds,
        placed=fleet.placed,
        moments=tuple(moments),
    )


def moment_of(look: Look) -> Moment:
    """How things stand."""
    return Moment(
        now=look.now,
        desired=look.desired,
        ready=look.ready,
        placed=len(look.pods),
        waiting=look.in_flight + look.held,
    )
