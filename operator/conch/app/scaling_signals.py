"""From counters that only grow to what has happened between two looks, for the autoscaler.

Gateways and agents count from the beginning of a life of theirs (`epoch`). Each source's counters are remembered as
they were last read; a source that is new has nothing to tell yet, and one that began anew is new.

Looks and reports each have a rhythm of their own: between two looks there are one, two or three reports of a gateway
that is asked every second, and now and then none of an agent. Counted as they come, a steady load would swing by half.
So what came is taken to be what each source's rate, from one report to the next, makes of the time since the last look.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from typing import Final

from conch.api.assignment import InferenceCounts, ModelCounts
from conch.api.gateway_report import LATENCY_BOUNDS_MILLISECONDS, WorkloadTraffic
from conch.core.observed import ObservedGateway, ObservedPod
from conch.core.scaling.signals import BatchTimes, SeenInstances, Signals

_START_SECONDS_MOST: Final = 3600.0
"""A pod that took longer waited for something that says nothing of the next."""
_STALE_SECONDS: Final = 10.0
"""An agent's word that is older says nothing of now; gateways' reports bear whether they are (`heard`)."""
_NEW_SECONDS: Final = 30.0
"""A pod that is older when it is first seen may have served before."""

_Source = tuple[str, str]
"""Who counts, and which life of it."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """A source's counter of arrivals, as it was last reported."""

    total: int
    at: float
    per_second: float | None = None
    """Since the report before; None: there was none."""


@dataclass(slots=True)
class SignalReader:
    """Reads one object's counters, again and again."""

    looked_at: float | None = None
    arrivals: dict[_Source, _Counted] = field(default_factory=dict)
    left_over: float = 0.0
    """Parts of requests that earlier looks have not told, or told too many."""
    answers: dict[tuple[_Source, str], tuple[int, ...]] = field(default_factory=dict)
    """Latency histograms, by source and workload."""
    inference: dict[str, InferenceCounts] = field(default_factory=dict)
    """The last word of each pod, by its uid."""
    models: dict[tuple[_Source, str], tuple[ModelCounts, int]] = field(default_factory=dict)
    """The last word on each model, and how many requests had failed by then."""
    starting: dict[str, datetime] = field(default_factory=dict)
    """Pods that were seen when they did not serve yet, and when they were made."""

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

        `told_at`: when each gateway, by its name, said what it says here; it and `at`, the moment of this look, are
        seconds of one monotonic clock. `workload` is the one that most requests go to: of its pods the curve is learnt.
        """
        elapsed = None if self.looked_at is None else max(0.0, at - self.looked_at)
        self.looked_at = at
        alive = [pod for pod in pods if not pod.deleting and pod.phase in ("Pending", "Running")]
        ready = [pod for pod in alive if pod.ready]
        blocked = [pod for pod in alive if pod.unschedulable_message and not pod.scheduled]
        common = {
            "ready": len(ready),
            "starting": len(alive) - len(ready) - len(blocked),
            "blocked": len(blocked),
            "starts": self._starts(alive, now),
            **self._batches(alive, workload),
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
        totals: dict[_Source, tuple[int, float]] = {}
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
        arrived, all_known = self._arrived(totals, elapsed)
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
        totals: dict[_Source, tuple[int, float]] = {}
        in_flight = 0
        for uid, counts in told.items():
            before = self.arrivals.get((uid, counts.epoch))
            is_same = before is not None and self.inference.get(uid) is counts
            told_at = before.at if before is not None and is_same else at
            if at - told_at <= _STALE_SECONDS:
                totals[(uid, counts.epoch)] = (counts.requests + counts.failures + counts.pending, told_at)
                in_flight += counts.pending
        self.inference = told
        arrived, all_known = self._arrived(totals, elapsed)
        self._forget({(uid, counts.epoch) for uid, counts in told.items()})
        return Signals(
            arrived=arrived,
            complete=all_known and len(totals) == len(ready),
            in_flight=in_flight,
            **common,  # type: ignore[arg-type]  # named above, each typed
        )

    def _arrived(self, totals: Mapping[_Source, tuple[int, float]], elapsed: float | None) -> tuple[int | None, bool]:
        """What came since the last look, None if nobody can tell; and whether all could."""
        rates: list[float] = []
        has_grown = False
        for source, (total, told_at) in totals.items():
            before = self.arrivals.get(source)
            if before is None:
                # It may have counted for long.
                self.arrivals[source] = _Counted(total, told_at)
                continue
            counted = before
            if told_at > before.at:
                grown = max(0, total - before.total)
                has_grown = has_grown or grown > 0
                counted = _Counted(max(total, before.total), told_at, grown / (told_at - before.at))
                self.arrivals[source] = counted
            if counted.per_second is not None:
                rates.append(counted.per_second)
        all_known = len(rates) == len(totals)
        if elapsed is None:
            return (0 if totals else None), False
        if not rates:
            return None, False
        exact = sum(rates) * elapsed + self.left_over
        # However short the time since the last look: that somebody asked at all must not get lost.
        whole = max(int(exact), 1 if has_grown else 0)
        self.left_over = max(-1.0, exact - whole)
        return whole, all_known

    def _answered(self, key: tuple[_Source, str], traffic: WorkloadTraffic) -> tuple[int, ...]:
        before = self.answers.get(key)
        self.answers[key] = traffic.latency
        if before is None:
            return ()
        return tuple(max(0, new - old) for new, old in zip_longest(traffic.latency, before, fillvalue=0))

    def _forget(self, alive: set[_Source]) -> None:
        for source in self.arrivals.keys() - alive:
            del self.arrivals[source]
        for key in [key for key in self.answers if key[0] not in alive]:
            del self.answers[key]

    def _batches(self, pods: list[ObservedPod], serving: str) -> dict[str, object]:
        """What was executed: by the models of the serving workload, and in all."""
        summed: dict[str, dict[str, BatchTimes]] = {}
        known: dict[tuple[_Source, str], tuple[ModelCounts, int]] = {}
        for pod in pods:
            counts = pod.report.inference if pod.report else None
            for model in counts.models if counts else ():
                assert counts is not None  # noqa: S101 - there are no models without
                key = ((pod.uid, counts.epoch), model.name)
                known[key] = (model, counts.failures)
                before, failures = self.models.get(key, (None, 0))
                # What an agent had counted before it was first asked was executed too: the curve is known at once.
                if before is not model:
                    of_workload = summed.setdefault(pod.workload, {})
                    sum_ = of_workload.get(model.name)
                    of_workload[model.name] = _added(sum_, model, before, failed=counts.failures > failures)
        self.models = known
        if not serving and summed:
            # Nothing is routed by weight yet: whoever has executed anything.
            serving = max(summed, key=lambda each: sum(model.requests for model in summed[each].values()))
        executed = sum(max(model.requests for model in models.values()) for models in summed.values())
        return {
            "batches": tuple(summed.get(serving, {}).values()),
            "executed": executed if summed else None,
        }

    def _starts(self, pods: list[ObservedPod], now: datetime) -> tuple[float, ...]:
        """How long the pods took that serve now and did not when they were seen before."""
        took = []
        waiting: dict[str, datetime] = {}
        for pod in pods:
            if not pod.ready:
                made = datetime.fromisoformat(pod.created) if pod.created else None
                # A pod that served once and is ready again did not start anew.
                if made and (pod.uid in self.starting or (now - made).total_seconds() < _NEW_SECONDS):
                    waiting[pod.uid] = made
            elif (made := self.starting.get(pod.uid)) is not None:
                took.append(max(0.0, (now - made).total_seconds()))
        self.starting = waiting
        return tuple(seconds for seconds in took if seconds <= _START_SECONDS_MOST)


def _added(sum_: BatchTimes | None, model: ModelCounts, before: ModelCounts | None, *, failed: bool) -> BatchTimes:
    known = {batch.size: batch for batch in before.batches} if before else {}
    sizes = {size: (executions, seconds) for size, executions, seconds in (sum_.sizes if sum_ else ())}
    new_items = 0
    for batch in model.batches:
        then = known.get(batch.size)
        executions = batch.executions - (then.executions if then else 0)
        seconds = batch.compute_seconds - (then.compute_seconds if then else 0.0)
        if executions > 0 and seconds > 0:
            summed = sizes.get(batch.size, (0, 0.0))
            sizes[batch.size] = (summed[0] + executions, summed[1] + seconds)
            new_items += batch.size * executions
    # Of a first report it is not known when they were: for a rate they must not count.
    new_requests = max(0, model.requests - before.requests) if before else 0
    # Failed executions bring items too, and Triton counts no requests for them.
    is_clear = before is not None and not failed
    return BatchTimes(
        name=model.name,
        max_batch=model.max_batch,
        instances=model.instances,
        decoupled=model.decoupled,
        joins_requests=model.joins_requests,
        requests=(sum_.requests if sum_ else 0) + new_requests,
        items=(sum_.items if sum_ else 0) + (new_items if is_clear else 0),
        item_requests=(sum_.item_requests if sum_ else 0) + (new_requests if is_clear else 0),
        sizes=tuple((size, executions, seconds) for size, (executions, seconds) in sorted(sizes.items())),
    )


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
