"""From counters that only grow to what has happened between two looks, for the autoscaler.

Gateways and agents count from the beginning of a life of theirs (`epoch`). Each source's counters are remembered as
they were last read; a source that is new has nothing to tell yet, and one that began anew is new.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from typing import Final

from conch.api.gateway_report import LATENCY_BOUNDS_MILLISECONDS, WorkloadTraffic
from conch.api.inference_counts import InferenceCounts
from conch.app.counted_arrivals import CountedArrivals, Source
from conch.app.executed_batches import ExecutedBatches
from conch.app.pod_starts import PodStarts
from conch.core.observed import ObservedGateway
from conch.core.observed_pod import ObservedPod
from conch.core.scaling.signals import SeenInstances, Signals

_STALE_SECONDS: Final = 10.0
"""An agent's word that is older says nothing of now; gateways' reports bear whether they are (`heard`)."""


@dataclass(slots=True)
class SignalReader:
    """Reads one object's counters, again and again."""

    looked_at: float | None = None
    arrivals: CountedArrivals = field(default_factory=CountedArrivals)
    answers: dict[tuple[Source, str], tuple[int, ...]] = field(default_factory=dict)
    """Latency histograms, by source and workload."""
    inference: dict[str, InferenceCounts] = field(default_factory=dict)
    """The last word of each pod, by its uid."""
    batches: ExecutedBatches = field(default_factory=ExecutedBatches)
    starts: PodStarts = field(default_factory=PodStarts)

    def read(
        self,
        gateways: Iterable[ObservedGateway],
        pods: Iterable[ObservedPod],
        *,
        told_at: Mapping[str, float],
        through_gateways: bool,
        limit_milliseconds: float | None,
        hold_seconds: float,
        floor: int,
        workload: str,
        at: float,
        now: datetime,
    ) -> Signals:
        """What has happened since the last look; the first one only begins to count.

        `told_at`: when each gateway, by its name, had counted what it says here; it and `at`, the moment of this look,
        are seconds of one monotonic clock. `workload` is the one that most requests go to: of its pods the curve is
        learnt.
        """
        elapsed = None if self.looked_at is None else max(0.0, at - self.looked_at)
        self.looked_at = at
        alive = [pod for pod in pods if not pod.deleting and pod.phase in ("Pending", "Running")]
        ready = [pod for pod in alive if pod.ready]
        blocked = [pod for pod in alive if pod.unschedulable_message and not pod.scheduled]
        executed = self.batches.since_last_look(alive, workload)
        common = {
            "ready": len(ready),
            "starting": len(alive) - len(ready) - len(blocked),
            "blocked": len(blocked),
            "starts": self.starts.since_last_look(alive, now),
            "batches": executed.batches,
            "executed": executed.requests,
            "workload": workload,
            "instances": _instances(ready),
            "hold_seconds": hold_seconds,
            "floor": floor,
        }
        if not through_gateways:
            return self._direct(ready, elapsed, at, common)
        asked = [gateway for gateway in gateways if gateway.ready or gateway.heard]
        return self._routed(asked, told_at, limit_milliseconds, elapsed, at, common)

    def _routed(
        self,
        gateways: list[ObservedGateway],
        told_at: Mapping[str, float],
        limit_milliseconds: float | None,
        elapsed: float | None,
        at: float,
        common: Mapping[str, object],
    ) -> Signals:
        heard = [gateway for gateway in gateways if gateway.heard]
        if not heard:
            return Signals(arrived=None, complete=False, **common)  # type: ignore[arg-type]  # named above, each typed
        answered, late, seconds, in_flight, held = 0, 0, 0.0, 0, 0
        totals: dict[Source, tuple[int, float]] = {}
        for gateway in heard:
            source = (gateway.name, gateway.epoch)
            # A gateway that does not know the object yet has carried nothing for it.
            totals[source] = (gateway.traffic.arrivals if gateway.traffic else 0, told_at.get(gateway.name, at))
            if gateway.traffic is None:
                continue
            held += gateway.traffic.held
            for workload, traffic in gateway.traffic.workloads.items():
                in_flight += traffic.in_flight
                new = self._answered((source, workload), traffic)
                answered += sum(new)
                seconds += sum(count * _middle_seconds(bucket) for bucket, count in enumerate(new))
                late += _later_than(new, limit_milliseconds)
        arrived, all_known = self.arrivals.since_last_look(totals, elapsed)
        self._forget({(gateway.name, gateway.epoch) for gateway in gateways})
        return Signals(
            arrived=arrived,
            complete=all_known and len(heard) == len(gateways),
            answered=answered,
            late=late,
            mean_latency_seconds=seconds / answered if answered else None,
            in_flight=in_flight,
            held=held,
            **common,  # type: ignore[arg-type]  # named above, each typed
        )

    def _direct(
        self, ready: list[ObservedPod], elapsed: float | None, at: float, common: Mapping[str, object]
    ) -> Signals:
        """Without gateways, what the servers have answered, and what they have still to do."""
        told = {pod.uid: pod.report.inference for pod in ready if pod.report and pod.report.inference}
        totals: dict[Source, tuple[int, float]] = {}
        in_flight = 0
        for uid, counts in told.items():
            before = self.arrivals.last_of((uid, counts.epoch))
            is_same = before is not None and self.inference.get(uid) is counts
            told_at = before.at if before is not None and is_same else at
            if at - told_at <= _STALE_SECONDS:
                totals[(uid, counts.epoch)] = (counts.requests + counts.failures + counts.pending, told_at)
                in_flight += counts.pending
        self.inference = told
        arrived, all_known = self.arrivals.since_last_look(totals, elapsed)
        self._forget({(uid, counts.epoch) for uid, counts in told.items()})
        return Signals(
            arrived=arrived,
            complete=all_known and len(totals) == len(ready),
            in_flight=in_flight,
            **common,  # type: ignore[arg-type]  # named above, each typed
        )

    def _answered(self, key: tuple[Source, str], traffic: WorkloadTraffic) -> tuple[int, ...]:
        before = self.answers.get(key)
        self.answers[key] = traffic.latency
        if before is None:
            return ()
        return tuple(max(0, new - old) for new, old in zip_longest(traffic.latency, before, fillvalue=0))

    def _forget(self, alive: set[Source]) -> None:
        self.arrivals.forget_all_but(alive)
        for key in [key for key in self.answers if key[0] not in alive]:
            del self.answers[key]


def _middle_seconds(bucket: int) -> float:
    """The middle of a bucket of latencies."""
    bounds = LATENCY_BOUNDS_MILLISECONDS
    lower = bounds[bucket - 1] if bucket else 0
    upper = bounds[min(bucket, len(bounds) - 1)]
    return (lower + upper) / 2000


def _instances(pods: list[ObservedPod]) -> SeenInstances | None:
    """What the servers say of their instances, as long as all say the same; of their GPUs, the fullest."""
    reports = [pod.report for pod in pods if pod.report and pod.report.instances]
    running = {report.instances for report in reports if report.instances}
    if len(reports) != len(pods) or len(running) != 1:
        return None
    fullest = max(reports, key=lambda each: (each.gpu_memory_used_bytes or 0) / (each.gpu_memory_total_bytes or 1))
    return SeenInstances(
        running=running.pop(),
        refused=next((report.instances_refused for report in reports if report.instances_refused), ""),
        memory_used_bytes=fullest.gpu_memory_used_bytes,
        memory_total_bytes=fullest.gpu_memory_total_bytes,
    )


def _later_than(counts: tuple[int, ...], limit_milliseconds: float | None) -> int:
    """How many took longer; of the bucket that the limit is in, in proportion."""
    if limit_milliseconds is None:
        return 0
    late = 0.0
    for bucket, count in enumerate(counts):
        lower = LATENCY_BOUNDS_MILLISECONDS[bucket - 1] if bucket else 0
        upper = LATENCY_BOUNDS_MILLISECONDS[bucket] if bucket < len(LATENCY_BOUNDS_MILLISECONDS) else float("inf")
        if lower >= limit_milliseconds:
            late += count
        elif upper > limit_milliseconds:
            late += count * (upper - limit_milliseconds) / (upper - lower) if upper != float("inf") else count
    return round(late)
