"""Servers for the autoscaler's tests, in steps of two seconds: what is done is a flow, so hours cost milliseconds.

What the exact simulation (`conch.simulate.fleet`) cannot show is here: pods that hang, agents and gateways that are
silent, requests that are refused, nodes that come late.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np

from conch.core.scaling.decide import Decision, decide
from conch.core.scaling.service_curve import ServiceCurve
from conch.core.scaling.settings import ScalingSettings
from conch.core.scaling.signals import BatchTimes, Signals
from conch.core.scaling.state import ScalingState
from conch.core.scaling.tuning import tune, wants_tuning

TICK_SECONDS: Final = 2.0
AGENTS_SECONDS: Final = 10.0


@dataclass
class FluidFleet:
    """Pods, the requests they have, and what is seen of them. Fields may be changed at any time."""

    curve: ServiceCurve
    limit_seconds: float
    cold_start_seconds: float = 10.0
    ready: int = 1
    hung: int = 0
    """Of the ready ones, those that take requests and answer none."""
    room: int = 1000
    """Pods that find a place."""
    gateways_heard: bool = True
    complete: bool = True
    agents_heard: bool = True
    refused_per_second: float = 0.0
    """Requests that are answered at once, by nothing that costs anything."""
    decoupled: bool = False
    members: tuple[ServiceCurve, ...] = ()
    """Of an ensemble, as its agents tell of it; the curve is that of its slowest."""
    seed: int = 1

    queue: float = 0.0
    """Requests at the servers that are answered later."""
    stuck: float = 0.0
    """Requests at servers that hang."""
    held: float = 0.0
    executing: float = 0.0
    pods_made: int = 0
    answered: float = 0.0
    came: float = 0.0
    late: float = 0.0
    starting: list[float] = field(default_factory=list)
    """When each pod that is on its way was made."""
    blocked: int = 0
    _executed: dict[int, float] = field(default_factory=dict)
    _agents_at: float = 0.0
    _requests: float = 0.0

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def step(self, now: float, rate: float, desired: int) -> Signals:
        """Two seconds of a load, with so many pods asked for at their beginning; what is seen at their end."""
        self._scale(now, desired)
        starts = self._become_ready(now)
        came = float(self._random.poisson(rate * TICK_SECONDS))
        refused = float(self._random.poisson(self.refused_per_second * TICK_SECONDS))
        in_flight, answered, late, latency = self._serve(came)
        self.came, self.answered, self.late = self.came + came, self.answered + answered, self.late + late
        seen = {
            "ready": self.ready,
            "starting": len(self.starting),
            "blocked": self.blocked,
            "starts": starts,
            "batches": self._told(now),
        }
        if not self.gateways_heard:
            return Signals(arrived=None, complete=False, **seen)  # type: ignore[arg-type]  # fields as the test gives them
        everything = answered + refused
        return Signals(
            arrived=int(came + refused),
            complete=self.complete,
            answered=int(everything),
            late=int(late),
            mean_latency_seconds=(latency * answered + 0.001 * refused) / everything if everything else None,
            in_flight=in_flight + int(self._random.poisson(0.001 * self.refused_per_second)),
            held=int(self.held),
            **seen,  # type: ignore[arg-type]  # fields as the test gives them
        )

    def _scale(self, now: float, desired: int) -> None:
        there = self.ready + len(self.starting) + self.blocked
        if desired > there:
            self.blocked += desired - there
        else:
            for _ in range(there - desired):
                if self.blocked:
                    self.blocked -= 1
                elif self.starting:
                    self.starting.pop()
                else:
                    self.ready -= 1
            self.hung = min(self.hung, self.ready)
        placed = max(0, min(self.blocked, self.room - self.ready - len(self.starting)))
        self.blocked -= placed
        self.pods_made += placed
        self.starting += [now] * placed

    def _become_ready(self, now: float) -> tuple[float, ...]:
        there = [made for made in self.starting if now - made >= self.cold_start_seconds]
        self.starting = [made for made in self.starting if now - made < self.cold_start_seconds]
        self.ready += len(there)
        return tuple(now - made for made in there)

    def _serve(self, came: float) -> tuple[int, float, float, float]:
        """In flight at the end; answered, late, and their mean latency."""
        working = self.ready - self.hung
        if not self.ready:
            self.held += came
            return 0, 0.0, 0.0, 0.0
        self.queue, self.held = self.queue + self.held, 0.0
        if not working:
            self.stuck += came + self.queue
            self.queue = 0.0
            return int(self.stuck), 0.0, 0.0, 0.0
        could = working * self.curve.ceiling * TICK_SECONDS
        done = min(self.queue + came, could)
        self.queue += came - done
        utilisation = done / could
        # By Little's law; of slow requests those of earlier steps are still there.
        executing = min(done / TICK_SECONDS * self.curve.least_seconds, working * self._slots)
        self.executing += (executing - self.executing) * min(1.0, TICK_SECONDS / self.curve.least_seconds)
        at_once = float(self._random.poisson(self.executing)) if self.curve.least_seconds < 1 else self.executing
        # Least request: one that hangs gets as many as the others have, and one more.
        self.stuck = self.hung * max(self.stuck / self.hung, (self.queue + at_once) / working + 1) if self.hung else 0.0
        self._count(done, utilisation)
        latency = self.curve.least_seconds + self.queue / could * TICK_SECONDS
        late = done if latency > self.limit_seconds else done * 0.02 * utilisation**4
        return int(self.queue + at_once + self.stuck), done, late, latency

    @property
    def _slots(self) -> int:
        return self.curve.instances * self.curve.max_batch

    def _count(self, done: float, utilisation: float) -> None:
        self._requests += done
        size = 1 + int((self.curve.max_batch - 1) * utilisation**3 + 0.5)
        # Chance makes larger batches than the mean.
        for share, each in ((0.3, 1), (0.6, size), (0.1, min(2 * size, self.curve.max_batch))):
            self._executed[each] = self._executed.get(each, 0.0) + share * done / each

    def _told(self, now: float) -> tuple[BatchTimes, ...]:
        if not self.agents_heard or now - self._agents_at < AGENTS_SECONDS:
            return ()
        self._agents_at = now
        members = self.members or (self.curve,)
        told = tuple(
            BatchTimes(
                name=f"m{number}",
                max_batch=member.max_batch,
                instances=member.instances,
                decoupled=self.decoupled,
                requests=int(self._requests),
                sizes=tuple(
                    (size, int(executions), int(executions) * member.batch_seconds(size))
                    for size, executions in sorted(self._executed.items())
                    if int(executions)
                ),
            )
            for number, member in enumerate(members)
        )
        self._executed.clear()
        self._requests = 0.0
        return told


@dataclass
class ClosedLoop:
    """The autoscaler and its servers, and every decision."""

    settings: ScalingSettings
    fleet: FluidFleet
    tunes: int = 0
    """How often it may tune: that takes a moment."""
    now: float = 1000.0
    decisions: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = ScalingState.initial(self.fleet.ready, self.now)

    def run(self, seconds: float, rate: float | Callable[[float], float]) -> "ClosedLoop":
        """Go on for a while; a load that changes is told by the seconds since its beginning."""
        began = self.now
        while self.now < began + seconds - 1e-9:
            self.now += TICK_SECONDS
            load = rate(self.now - began) if callable(rate) else rate
            signals = self.fleet.step(self.now, load, self.state.desired)
            decision = decide(self.now, self.settings, self.state, signals)
            self.decisions.append(decision)
            self.state = decision.state
            if self.tunes and wants_tuning(self.now, self.settings, self.state):
                self.tunes -= 1
                self.state = self.state.with_tuning(tune(self.now, self.settings, self.state))
        return self

    @property
    def desired(self) -> int:
        """The last count."""
        return self.state.desired

    def counts(self, since: int = 0) -> list[int]:
        """All counts from that decision on."""
        return [decision.desired for decision in self.decisions[since:]]


def direction_changes(counts: list[int]) -> int:
    """How often a count that went up goes down next, or the other way round."""
    moves = [after > before for before, after in pairwise(counts) if after != before]
    return sum(before != after for before, after in pairwise(moves))
