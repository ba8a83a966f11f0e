"""What the workloads of an object were seen doing since a window was opened, from counters that only grow.

Kept in memory: after a restart of the operator a window begins anew, and what is concluded from it takes longer.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from conch.api.gateway_report import FailureClass, WorkloadTraffic
from conch.core.analysis.samples import Samples
from conch.core.observed import ObservedGateway, ObservedWindow
from conch.core.observed_pod import ObservedPod

_Source = tuple[str, str, str]
"""Who counts (a gateway or a pod, and which life of it), and what for (a workload)."""


@dataclass(slots=True)
class _Window:
    name: str
    before: dict[_Source, Samples] = field(default_factory=dict)
    """Each source's counters when they were last read. Those of one that is new say nothing of what was before."""
    totals: dict[str, Samples] = field(default_factory=dict)


class SampleBook:
    """One window per object."""

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}

    def open(self, uid: str, name: str) -> None:
        """Begin a window of this name, in the place of the one before."""
        self._windows[uid] = _Window(name=name)

    def forget(self, uid: str) -> None:
        """The object is gone, or nothing of it is judged."""
        self._windows.pop(uid, None)

    def read(
        self, uid: str, gateways: Iterable[ObservedGateway], pods: Iterable[ObservedPod], *, by_pods: bool = False
    ) -> ObservedWindow | None:
        """The window with what was counted by now; None where none is open.

        `by_pods`: requests do not come through Conch's gateways, so that only Triton itself counts them.
        """
        window = self._windows.get(uid)
        if window is None:
            return None
        for source, now in (*(() if by_pods else _of_gateways(gateways)), *_of_pods(pods, requests=by_pods)):
            before = window.before.get(source)
            # A counter may fall for a moment (a request is sent again); what it grew before is not counted twice.
            window.before[source] = now if before is None else _most(before, now)
            if before is not None:
                workload = source[2]
                window.totals[workload] = _sum(window.totals.get(workload, Samples()), _grown(before, now))
        return ObservedWindow(name=window.name, samples=dict(window.totals))


def _of_gateways(gateways: Iterable[ObservedGateway]) -> Iterator[tuple[_Source, Samples]]:
    for gateway in gateways:
        for workload, traffic in gateway.traffic.workloads.items() if gateway.traffic else ():
            yield (gateway.name, gateway.epoch, workload), _counted(traffic)


def _counted(traffic: WorkloadTraffic) -> Samples:
    # Requests for which there was no server were never sent to one, so they are no arrivals of it.
    unavailable = traffic.failures.get(FailureClass.UNAVAILABLE, 0)
    return Samples(
        requests=max(0, traffic.arrivals - traffic.in_flight) + unavailable,
        failures=sum(traffic.failures.values()),
        latency=traffic.latency,
    )


def _of_pods(pods: Iterable[ObservedPod], *, requests: bool) -> Iterator[tuple[_Source, Samples]]:
    for pod in pods:
        told = pod.report.inference if pod.report else None
        if told is None or (requests and _replays_golden_set(pod)):
            continue
        counted = Samples(
            requests=told.requests + told.failures if requests else 0,
            failures=told.failures if requests else 0,
            queued_requests=told.requests,
            queue_seconds=told.queue_seconds,
        )
        yield (pod.uid, told.epoch, pod.workload), counted


def _replays_golden_set(pod: ObservedPod) -> bool:
    """Whether what its Triton counts now are its own agent's requests."""
    return pod.report is not None and pod.report.replays_golden_set and pod.report.golden is None


def _most(one: Samples, other: Samples) -> Samples:
    return _each(max, one, other)


def _grown(before: Samples, now: Samples) -> Samples:
    return _each(lambda then, new: max(0, new - then), before, now)


def _sum(one: Samples, other: Samples) -> Samples:
    return _each(lambda a, b: a + b, one, other)


def _each(combine: Callable[[Any, Any], Any], one: Samples, other: Samples) -> Samples:
    return Samples(
        requests=combine(one.requests, other.requests),
        failures=combine(one.failures, other.failures),
        latency=tuple(combine(a, b) for a, b in zip_longest(one.latency, other.latency, fillvalue=0)),
        queued_requests=combine(one.queued_requests, other.queued_requests),
        queue_seconds=combine(one.queue_seconds, other.queue_seconds),
    )
