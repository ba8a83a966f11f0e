"""From Envoy's statistics to what the operator is told of the traffic.

What is counted, and by which of Envoy's numbers (tried on Envoy 1.40):

* An object's arrivals: `downstream_rq_total` of its listener, whatever became of the requests. Where not everybody is
  let in it is the counter of those that were (`Admission.admitted_stat`), for by arrivals models are scaled. In flight:
  `downstream_rq_active`, those that are held included.
* A workload's arrivals: a request is one however often it is tried. Envoy counts attempts: those that got a connection
  (`upstream_rq_total`) and those that did not (`upstream_rq_pending_failure_eject`); each but the first is an
  `upstream_rq_retry`. Requests for which there was no server at all were never sent, and are not in it.
* Failures: see `envoy/failure_counters.py`; only what a client was answered counts, not what a retry mended. `server`
  are the bad answers that came from a server.
* Latency: `upstream_rq_time`, from the whole request to the whole answer, of requests that a server answered; what it
  took to wait for a server is not in it. It moves once a second (`stats_flush_interval`).
* Refused: by the hold, and by `maxInFlight` (`upstream_rq_pending_overflow`).
"""

import asyncio
import math
import re
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from conch.api.gateway_report import (
    LATENCY_BOUNDS_MILLISECONDS,
    FailureClass,
    GatewayReport,
    ObjectTraffic,
    ShadowTraffic,
    WorkloadTraffic,
)
from conch.gateway.envoy import failure_counters
from conch.gateway.envoy.admin import EnvoyAdmin, Histogram
from conch.gateway.envoy.admission import NOTHING_CHECKED, REFUSED_STATS, Admission
from conch.gateway.envoy.admission import STATS as ADMISSION_STATS
from conch.gateway.envoy.failure_counters import FailureCounter, parse_failure_stat
from conch.gateway.envoy.naming import ClusterId, parse_cluster_stat, parse_route_stat
from conch.gateway.envoy.naming import Protocol as Spoken
from conch.gateway.routed import ObjectKey, RoutedObject, Snapshot
from conch.gateway.sync import RouteState

_ACTIVE: Final = ("upstream_rq_active", "upstream_rq_pending_active")
_ATTEMPTS: Final = ("upstream_rq_total", "upstream_rq_pending_failure_eject")
_RETRIES: Final = "upstream_rq_retry"
_OVERFLOW: Final = "upstream_rq_pending_overflow"
_CLUSTER_STATS: Final = (*_ACTIVE, *_ATTEMPTS, _RETRIES, _OVERFLOW)
_SENT: Final = (*_ACTIVE, "upstream_rq_total")
_LISTENER_ACTIVE: Final = "downstream_rq_active"
_CLUSTER: Final = r"^cluster\..+/(http|grpc)\."
STATS: Final = "|".join(
    (
        rf"{_CLUSTER}({'|'.join(_CLUSTER_STATS)})$",
        rf"^http\.[^.]+\.[^.]+\.({'|'.join(map(re.escape, (*ADMISSION_STATS, _LISTENER_ACTIVE)))})$",
        failure_counters.STATS,
    )
)
HISTOGRAMS: Final = rf"{_CLUSTER}upstream_rq_time$"

WorkloadKey = tuple[str, str]
"""(namespace, workload)"""


@dataclass(slots=True)
class WorkloadCounts:
    """What Envoy counts for a workload, both protocols together."""

    active: int = 0
    attempts: int = 0
    retries: int = 0
    overflow: int = 0
    counted: int = 0
    """How many requests were told of before."""
    failures: dict[FailureCounter, int] = field(default_factory=dict)
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_MILLISECONDS) + 1))

    @property
    def requests(self) -> int:
        """Each once. While a retry is due, a request is missing in Envoy's numbers; what was told stays."""
        return max(self.counted, self.attempts - self.retries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What Envoy counts, at one moment."""

    at: float | None = None
    """That moment, in seconds of a clock that only grows."""
    arrivals: Mapping[ObjectKey, int] = field(default_factory=dict)
    unauthorized: Mapping[ObjectKey, int] = field(default_factory=dict)
    in_flight: Mapping[ObjectKey, int] = field(default_factory=dict)
    workloads: Mapping[WorkloadKey, WorkloadCounts] = field(default_factory=dict)


def count(
    stats: Mapping[str, int | str], histograms: Mapping[str, Histogram], *, admission: Admission = NOTHING_CHECKED
) -> Counts:
    """From the statistics' names and values."""
    arrivals: dict[ObjectKey, int] = {}
    unauthorized: dict[ObjectKey, int] = {}
    in_flight: dict[ObjectKey, int] = {}
    workloads: dict[WorkloadKey, WorkloadCounts] = {}
    for name, told in stats.items():
        value = int(told)
        if failure := parse_failure_stat(name):
            cluster, counter = failure
            failures = _workload(workloads, cluster).failures
            failures[counter] = failures.get(counter, 0) + value
        elif of_cluster := parse_cluster_stat(name):
            _add(_workload(workloads, of_cluster[0]), of_cluster[1], value)
        elif of_route := parse_route_stat(name):
            key, stat = of_route
            if stat == admission.admitted_stat:
                arrivals[key] = value
            elif stat in REFUSED_STATS:
                unauthorized[key] = unauthorized.get(key, 0) + value
            elif stat == _LISTENER_ACTIVE:
                in_flight[key] = value
    for name, histogram in histograms.items():
        # Of a fleet that is mostly idle, nearly all are empty.
        if any(histogram.counts) and (of_cluster := parse_cluster_stat(name)):
            latency = _workload(workloads, of_cluster[0]).latency
            for bucket, number in enumerate(buckets(histogram)):
                latency[bucket] += number
    return Counts(arrivals=arrivals, unauthorized=unauthorized, in_flight=in_flight, workloads=workloads)


def _workload(workloads: dict[WorkloadKey, WorkloadCounts], cluster: ClusterId) -> WorkloadCounts:
    return workloads.setdefault((cluster.namespace, cluster.workload), WorkloadCounts())


def _add(counts: WorkloadCounts, stat: str, value: int) -> None:
    if stat in _ACTIVE:
        counts.active += value
    elif stat in _ATTEMPTS:
        counts.attempts += value
    elif stat == _RETRIES:
        counts.retries += value
    elif stat == _OVERFLOW:
        counts.overflow += value


def buckets(histogram: Histogram) -> Sequence[int]:
    """One number per bucket of LATENCY_BOUNDS_MILLISECONDS, and one beyond.

    Envoy is told to keep just these, by bounds a little lower (see the bootstrap); each of its own is counted in the
    bucket that its upper bound is in.
    """
    numbers = [0] * (len(LATENCY_BOUNDS_MILLISECONDS) + 1)
    for bound, number in zip((*histogram.bounds, math.inf), histogram.counts, strict=True):
        if number:
            numbers[bisect_left(LATENCY_BOUNDS_MILLISECONDS, bound)] += number
    return numbers


def _without_zeros_at_the_end(numbers: Sequence[int]) -> tuple[int, ...]:
    last = max((place for place, number in enumerate(numbers) if number), default=-1)
    return tuple(numbers[: last + 1])


class Held(Protocol):
    """What the hold says."""

    def held(self) -> Mapping[ObjectKey, int]:
        """Requests that wait now."""

    def refused(self, key: ObjectKey) -> int:
        """Requests that were refused."""


def object_traffic(
    object_: RoutedObject,
    counts: Counts,
    *,
    state: RouteState,
    held: int,
    refused: int,
    shadows: Mapping[str, ShadowTraffic] | None = None,
) -> ObjectTraffic:
    """What is told of one object."""
    keys = {share.workload: (object_.namespace, share.workload) for share in object_.shares}
    known = {workload: counts.workloads.get(key, WorkloadCounts()) for workload, key in keys.items()}
    return ObjectTraffic(
        generation=state.generation,
        waits_for=state.waits_for[:2048],
        rejected=state.rejected,
        endpoints=state.endpoints,
        arrivals=counts.arrivals.get(object_.key, 0),
        unauthorized=counts.unauthorized.get(object_.key, 0),
        in_flight=counts.in_flight.get(object_.key, 0),
        held=held,
        refused=refused + sum(each.overflow for each in known.values()),
        workloads={workload: _workload_traffic(each) for workload, each in known.items()},
        shadows=dict(shadows or {}),
    )


def _workload_traffic(counts: WorkloadCounts) -> WorkloadTraffic:
    told = counts.failures
    of_servers = told.get(FailureCounter.BAD, 0) - told.get(FailureCounter.BAD_OF_ENVOY, 0)
    failures = {
        FailureClass.SERVER: max(0, of_servers),
        FailureClass.TIMEOUT: told.get(FailureCounter.TIMEOUT, 0),
        FailureClass.CONNECTION: told.get(FailureCounter.CONNECTION, 0),
        FailureClass.UNAVAILABLE: told.get(FailureCounter.UNAVAILABLE, 0),
    }
    return WorkloadTraffic(
        in_flight=counts.active,
        arrivals=counts.requests,
        failures={class_: number for class_, number in failures.items() if number},
        latency=_without_zeros_at_the_end(counts.latency),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What Envoy has sent to an object's servers."""

    unfinished: int = 0
    """Requests without a whole answer at this moment."""
    total: int = 0
    """Attempts since Envoy's start."""


class TrafficReader:
    """Reads Envoy's statistics. Raises EnvoyAwayError."""

    def __init__(
        self,
        admin: EnvoyAdmin,
        clock: Callable[[], float] = time.monotonic,
        *,
        admission: Admission = NOTHING_CHECKED,
    ) -> None:
        self._admin = admin
        self._admission = admission
        self._clock = clock
        self._lock = asyncio.Lock()
        self._begun = 0
        """How many times Envoy was asked."""
        self._read: tuple[int, Counts] | None = None
        """The last answer, and the number of its question."""

    async def counts(self) -> Counts:
        """What Envoy counts now: never what was read before this call. All who wait for it get one answer."""
        begun_before = self._begun
        async with self._lock:
            if self._read is None or self._read[0] <= begun_before:
                self._begun += 1
                stats, at = await self._admin.stats(STATS), self._clock()
                histograms = await self._admin.histograms(HISTOGRAMS)
                counts = replace(count(stats, histograms, admission=self._admission), at=at)
                self._read = self._begun, self._never_back(counts)
            return self._read[1]

    def _never_back(self, counts: Counts) -> Counts:
        before = self._read[1].workloads if self._read else {}
        for key, now in counts.workloads.items():
            was = before.get(key)
            # Fewer attempts: it is another Envoy, or the cluster was made anew.
            if was is not None and was.attempts <= now.attempts:
                now.counted = was.requests
        return counts

    async def sent(self, objects: Iterable[RoutedObject]) -> Mapping[ObjectKey, Sent]:
        """What is with the servers of these objects at this very moment."""
        objects = tuple(objects)
        clusters = {
            str(ClusterId(namespace=each.namespace, workload=share.workload, protocol=protocol))
            for each in objects
            for share in each.shares
            for protocol in Spoken
        }
        # The names are DNS labels and slashes: nothing in them has a meaning in a regular expression.
        pattern = rf"^cluster\.({'|'.join(sorted(clusters))})\.({'|'.join(_SENT)})$"
        counts = count(await self._admin.stats(pattern), {})
        return {each.key: _sent(each, counts) for each in objects}


def _sent(object_: RoutedObject, counts: Counts) -> Sent:
    keys = {(object_.namespace, share.workload) for share in object_.shares}
    known = [counts.workloads[key] for key in keys if key in counts.workloads]
    return Sent(unfinished=sum(each.active for each in known), total=sum(each.attempts for each in known))


async def make_report(
    *,
    gateway: str,
    epoch: str,
    version: str,
    leaving: bool,
    snapshot: Snapshot,
    counts: Callable[[], Awaitable[Counts]],
    state: Callable[[ObjectKey], RouteState],
    hold: Held,
    shadows: Callable[[RoutedObject], Mapping[str, ShadowTraffic]] = lambda _object: {},
) -> GatewayReport:
    """Everything that the operator is told. `counts` counts at the time of its call; raises what it raises.

    The states are taken first: whoever reads an acknowledged generation and "nothing in flight" takes what that
    generation sends nothing to for idle, so the counting must not be older than the acknowledgement.
    """
    states = {key: state(key) for key in snapshot.objects}
    counted = await counts()
    held = hold.held()
    return GatewayReport(
        gateway=gateway,
        epoch=epoch,
        version=version,
        leaving=leaving,
        counted_at_seconds=counted.at,
        objects={
            "/".join(key): object_traffic(
                object_,
                counted,
                state=states[key],
                held=held.get(key, 0),
                refused=hold.refused(key),
                shadows=shadows(object_),
            )
            for key, object_ in snapshot.objects.items()
        },
    )
