"""Autoscaling for Prometheus: what was decided last for each object and by which figures, read at each scrape.

As with rollouts, only who leads registers this: only the leader decides. What it has not looked at yet is told by the
status, which says the same with figures that may be a minute old.
"""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from conch.api.autoscaling import AutoscalingStatus
from conch.api.model_deployment import ModelDeployment
from conch.app.cluster_view import ClusterView
from conch.core.autoscaling import autoscaling_of
from conch.core.scaling.view import ScalingView

_OBJECT: Final = ("namespace", "name")


class ScalingMetrics(Collector):
    """Every autoscaled object that is known. `scaling` gives what was decided last for one."""

    def __init__(self, view: ClusterView, scaling: Callable[[ModelDeployment], ScalingView | None]) -> None:
        self._view = view
        self._scaling = scaling

    def collect(self) -> Iterator[Metric]:
        """One scrape."""
        families = _Families()
        for key in self._view.known():
            owner = self._view.model_deployment(key)
            asked = autoscaling_of(owner) if owner is not None else None
            if owner is None or asked is None:
                continue
            labels = (owner.namespace, owner.name)
            families.minimum.add_metric(labels, asked.effective_min_replicas)
            families.maximum.add_metric(labels, asked.max_replicas)
            decided = self._scaling(owner)
            if (known := decided or owner.status.autoscaling) is not None:
                families.add(labels, known, decided.desired if decided else owner.status.desired_replicas)
        yield from families.all


class _Families:
    def __init__(self) -> None:
        def gauge(name: str, documentation: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"conch_autoscaling_{name}", documentation, labels=(*_OBJECT, *labels))

        self.minimum = gauge("min_replicas", "The least that autoscaling may ask for.")
        self.maximum = gauge("max_replicas", "The most that autoscaling may ask for.")
        self._desired = gauge("desired_replicas", "What was decided last.")
        self._reason = gauge("reason", "1 for the reason of that.", "reason")
        self._demand = gauge(
            "demand", "What comes: requests per second; with target Concurrency, at the same time. None if unknown."
        )
        self._capacity = gauge(
            "capacity_per_replica", "How much of that one replica carries as it should. None until it is learnt."
        )
        self._late = gauge("late_percent", "Of the requests of the last minutes, those later than the objective.")
        self._cold_start = gauge("cold_start_seconds", "From a pod's creation until it serves, as nine of ten did.")
        self.all = (
            *(self.minimum, self.maximum, self._desired, self._reason),
            *(self._demand, self._capacity, self._late, self._cold_start),
        )

    def add(self, labels: tuple[str, str], known: ScalingView | AutoscalingStatus, desired: int) -> None:
        self._desired.add_metric(labels, desired)
        self._reason.add_metric((*labels, known.reason.value), 1)
        for family, value in (
            (self._demand, known.demand),
            (self._capacity, known.capacity_per_replica),
            (self._late, known.late_percent),
            (self._cold_start, known.cold_start_seconds),
        ):
            if value is not None:
                family.add_metric(labels, value)
