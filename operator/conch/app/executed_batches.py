"""What servers have executed between two looks, by the counters that their agents tell."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from conch.api.inference_counts import ModelCounts
from conch.core.observed_pod import ObservedPod
from conch.core.scaling.signals import BatchTimes

_Model = tuple[str, str, str]
"""Pod, the life of its counters, model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """Since the last look."""

    batches: tuple[BatchTimes, ...]
    """Of each model of the workload that serves."""
    requests: int | None
    """Of the busiest model of each workload, all workloads together; None: nobody tells anything new."""


@dataclass(slots=True)
class ExecutedBatches:
    """The last word on each model of one object's pods, and how many requests had failed by then."""

    told: dict[_Model, tuple[ModelCounts, int]] = field(default_factory=dict)

    def since_last_look(self, pods: Iterable[ObservedPod], serving: str) -> Executed:
        """What is new; `serving` is the workload whose batches are told, empty where none is routed by weight yet."""
        summed: dict[str, dict[str, BatchTimes]] = {}
        known: dict[_Model, tuple[ModelCounts, int]] = {}
        for pod in pods:
            counts = pod.report.inference if pod.report else None
            for model in counts.models if counts else ():
                assert counts is not None  # noqa: S101 - there are no models without
                key = (pod.uid, counts.epoch, model.name)
                known[key] = (model, counts.failures)
                before, failures = self.told.get(key, (None, 0))
                # What an agent had counted before it was first asked was executed too: the curve is known at once.
                if before is not model:
                    of_workload = summed.setdefault(pod.workload, {})
                    sum_ = of_workload.get(model.name)
                    of_workload[model.name] = _added(sum_, model, before, failed=counts.failures > failures)
        self.told = known
        if not serving and summed:
            # Nothing is routed by weight yet: whoever has executed anything.
            serving = max(summed, key=lambda each: sum(model.requests for model in summed[each].values()))
        executed = sum(max(model.requests for model in models.values()) for models in summed.values())
        return Executed(batches=tuple(summed.get(serving, {}).values()), requests=executed if summed else None)


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
