"""The servers: replicas that execute batches, and gateways that balance and hold, event by event."""

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from conch.core.scaling.service_curve import ServiceCurve
from conch.simulate.look import Look, PodLook

DEFAULT_GATEWAYS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """What the servers are like."""

    curve: ServiceCurve
    objective_seconds: float
    """Later than this is late."""
    cold_start_seconds: float | tuple[float, ...] = 60.0
    """From a pod's creation to ready; several: as measured, one of them is drawn for each pod."""
    variation: float = 0.0
    """Standard deviation of a batch's time by its mean (gamma distribution; 1: exponential)."""
    gateways: int = DEFAULT_GATEWAYS
    """Each balances by what it has sent itself, and knows nothing of the others."""
    hold_seconds: float = 60.0
    """How long a request waits for a first server; then it fails, and counts as late."""
    room: int | None = None
    """Pods that the cluster can place; None: any number."""
    replicas: int = 1
    """Ready at the beginning."""
    seed: int = 1


class _Replica:
    """A pod: its queue, and what it executes."""

    __slots__ = (
        "by_gateway",
        "created",
        "draining",
        "executed",
        "gone",
        "idle",
        "in_flight",
        "number",
        "queue",
        "queue_seconds",
        "ready",
        "ready_at",
        "taken",
    )

    def __init__(self, number: int, created: float, settings: FleetSettings) -> None:
        self.number = number
        self.created = created
        self.ready = False
        self.ready_at = created
        self.draining = False
        self.gone = False
        self.idle = settings.curve.instances
        self.queue: deque[int] = deque()
        self.by_gateway = [0] * settings.gateways
        self.in_flight = 0
        self.taken = 0
        self.executed = 0
        self.queue_seconds = 0.0


_Event = tuple[float, int, _Replica, list[int] | None]
"""When, a number against ties, whom, and the requests of a batch that ends; None: the pod becomes ready."""


class Fleet:
    """The servers of one model under a sequence of arrivals. Time goes by `advance`; nothing is drawn but by the seed.

    A replica executes as Triton's dynamic batcher without delay: an idle instance takes what is queued, up to the
    largest batch. A gateway balances as Conch's Envoy does: to the ready replica with the fewest requests of its own
    (least request, full scan; among equals by chance). Pods that leave are first those without room, then those that
    start, then the youngest; one that is ready gets nothing new and ends when all it has is answered.
    """

    def __init__(self, settings: FleetSettings, arrivals: Sequence[float]) -> None:
        self._settings = settings
        self._arrivals = arrivals
        self._random = Random(settings.seed)  # noqa: S311 - a simulation is to be repeated
        self._events: list[_Event] = []
        self._sequence = 0
        self._next = 0
        self._now = 0.0
        self._blocked = 0
        self._pods: list[_Replica] = []
        self._ready: list[_Replica] = []
        self._draining: list[_Replica] = []
        self._held: deque[int] = deque()
        self._gateway_of = bytearray(len(arrivals))
        self._latencies = [math.nan] * len(arrivals)
        self._starts: list[float] = []
        self._batches: dict[int, list[float]] = {}
        self._desired = settings.replicas
        self._created = 0
        self._answered = self._late = self._failed = 0
        self._answered_seconds = self._sum_arrived = self._sum_done = 0.0
        self._placed: list[tuple[float, int]] = [(0.0, 0)]
        for _ in range(settings.replicas):
            pod = self._new_pod()
            pod.ready = True
            self._ready.append(pod)
        self._note_placed()

    @property
    def now(self) -> float:
        """Seconds; what `advance` has reached."""
        return self._now

    @property
    def idle(self) -> bool:
        """Whether every request has come, and every one was answered or has failed."""
        return self._next == len(self._arrivals) and self._answered + self._failed == self._next

    @property
    def latencies(self) -> NDArray[np.float64]:
        """Seconds of each request; infinite: it failed, NaN: it is not over."""
        return np.array(self._latencies, dtype=np.float64)

    @property
    def placed(self) -> tuple[tuple[float, int], ...]:
        """From when on how many pods had a GPU, those that start or drain included."""
        return tuple(self._placed)

    def advance(self, until: float) -> None:
        """Let everything happen up to then, that moment included."""
        events, arrivals = self._events, self._arrivals
        last = len(arrivals)
        while True:
            event = events[0][0] if events else math.inf
            arrival = arrivals[self._next] if self._next < last else math.inf
            if min(event, arrival) > until:
                break
            if event <= arrival:
                at, _, replica, batch = heapq.heappop(events)
                self._now = at
                if batch is None:
                    self._become_ready(replica)
                else:
                    self._finish(replica, batch)
            else:
                self._now = arrival
                self._sum_arrived += arrival
                self._next += 1
                self._gateway_of[self._next - 1] = int(self._random.random() * self._settings.gateways)
                self._give(self._next - 1)
        self._now = until
        self._give_up(until)

    def scale(self, desired: int) -> None:
        """Ask for so many pods, now."""
        self._desired = desired
        surplus = len(self._pods) + self._blocked - desired
        if surplus > 0:
            unplaced = min(self._blocked, surplus)
            self._blocked -= unplaced
            self._remove(surplus - unplaced)
        else:
            self._blocked -= surplus
        self._place()
        self._note_placed()

    def look(self) -> Look:
        """What can be measured now."""
        in_flight = self._next - self._answered - self._failed - len(self._held)
        return Look(
            now=self._now,
            desired=self._desired,
            arrived=self._next,
            answered=self._answered,
            answered_seconds=self._answered_seconds,
            late=self._late,
            failed=self._failed,
            in_flight=in_flight,
            held=len(self._held),
            request_seconds=self._now * (in_flight + len(self._held)) - self._sum_arrived + self._sum_done,
            pods=tuple(
                PodLook(
                    number=pod.number,
                    ready=pod.ready,
                    in_flight=pod.in_flight,
                    taken=pod.taken,
                    executed=pod.executed,
                    queue_seconds=pod.queue_seconds,
                )
                for pod in self._pods
            ),
            blocked=self._blocked,
            starts=tuple(self._starts),
            batches={size: (int(count), seconds) for size, (count, seconds) in self._batches.items()},
        )

    # Pods.

    def _new_pod(self) -> _Replica:
        pod = _Replica(self._created, self._now, self._settings)
        self._created += 1
        self._pods.append(pod)
        return pod

    def _place(self) -> None:
        """Pods that wait for room get what there is."""
        room = self._settings.room
        occupied = len(self._pods) + len(self._draining)
        count = self._blocked if room is None else max(0, min(self._blocked, room - occupied))
        self._blocked -= count
        for _ in range(count):
            pod = self._new_pod()
            self._schedule(self._now + self._cold_start(), pod, None)

    def _cold_start(self) -> float:
        cold_start = self._settings.cold_start_seconds
        return self._random.choice(cold_start) if isinstance(cold_start, tuple) else cold_start

    def _remove(self, count: int) -> None:
        # Not ready goes before ready, young before old.
        victims = sorted(self._pods, key=lambda pod: (pod.ready, -pod.number))[:count]
        for pod in victims:
            self._pods.remove(pod)
            if not pod.ready:
                pod.gone = True
                continue
            self._ready.remove(pod)
            if pod.in_flight:
                pod.draining = True
                self._draining.append(pod)

    def _become_ready(self, pod: _Replica) -> None:
        if pod.gone:
            return
        pod.ready = True
        pod.ready_at = self._now
        self._starts.append(self._now - pod.created)
        self._ready.append(pod)
        self._give_up(self._now)
        while self._held:
            self._give(self._held.popleft())

    def _note_placed(self) -> None:
        count = len(self._pods) + len(self._draining)
        if self._placed[-1][0] == self._now:
            self._placed[-1] = (self._now, count)
        elif self._placed[-1][1] != count:
            self._placed.append((self._now, count))

    def _schedule(self, at: float, pod: _Replica, batch: list[int] | None) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (at, self._sequence, pod, batch))

    # Requests.

    def _give(self, request: int) -> None:
        """To a server, or held while there is none."""
        ready = self._ready
        if not ready:
            self._held.append(request)
            return
        gateway = self._gateway_of[request]
        first = int(self._random.random() * len(ready))
        # Begun anywhere: the first of the least is one by chance.
        chosen = ready[first]
        least = chosen.by_gateway[gateway]
        if least:
            for pod in ready[first + 1 :] + ready[:first]:
                if (count := pod.by_gateway[gateway]) < least:
                    chosen, least = pod, count
                    if not count:
                        break
        chosen.by_gateway[gateway] += 1
        chosen.in_flight += 1
        chosen.taken += 1
        chosen.queue.append(request)
        if chosen.idle:
            self._start(chosen)

    def _start(self, pod: _Replica) -> None:
        """An idle instance takes a batch."""
        queue, arrivals, curve = pod.queue, self._arrivals, self._settings.curve
        size = min(len(queue), curve.max_batch)
        batch = [queue.popleft() for _ in range(size)]
        for request in batch:
            # What it was held before is not the server's queue.
            pod.queue_seconds += self._now - max(arrivals[request], pod.ready_at)
        seconds = curve.batch_seconds(size)
        if variation := self._settings.variation:
            shape = 1 / variation**2
            seconds *= self._random.gammavariate(shape, 1 / shape)
        pod.idle -= 1
        pod.executed += size
        statistic = self._batches.setdefault(size, [0, 0.0])
        statistic[0] += 1
        statistic[1] += seconds
        self._schedule(self._now + seconds, pod, batch)

    def _finish(self, pod: _Replica, batch: list[int]) -> None:
        for request in batch:
            latency = self._now - self._arrivals[request]
            self._latencies[request] = latency
            self._answered_seconds += latency
            self._late += latency > self._settings.objective_seconds
            pod.by_gateway[self._gateway_of[request]] -= 1
        self._answered += len(batch)
        self._sum_done += self._now * len(batch)
        pod.in_flight -= len(batch)
        pod.idle += 1
        if pod.queue:
            self._start(pod)
        elif pod.draining and not pod.in_flight:
            self._draining.remove(pod)
            self._place()
            self._note_placed()

    def _give_up(self, now: float) -> None:
        """Requests that were held too long fail, each at its own time."""
        held, hold = self._held, self._settings.hold_seconds
        while held and self._arrivals[held[0]] + hold <= now:
            request = held.popleft()
            self._latencies[request] = math.inf
            self._failed += 1
            self._sum_done += self._arrivals[request] + hold
