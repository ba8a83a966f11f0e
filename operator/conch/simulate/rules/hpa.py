"""Kubernetes' HorizontalPodAutoscaler, autoscaling/v2, with a target for a metric of the pods.

The arithmetic is pkg/controller/podautoscaler/replica_calculator.go of Kubernetes (calcPlainMetricReplicas,
GetExternalPerPodMetricReplicas).
"""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from conch.simulate.look import Look
from conch.simulate.rules.bounds import Bounds
from conch.simulate.rules.counters import CounterWindow
from conch.simulate.rules.hpa_behavior import DefaultBehavior

SYNC_SECONDS: Final = 15.0
"""--horizontal-pod-autoscaler-sync-period; Prometheus scrapes as often."""
TOLERANCE: Final = 0.1
RATE_WINDOW_SECONDS: Final = 60.0
"""rate(…[1m]): the shortest that a scrape each 15 s carries safely."""


class PodMetric(StrEnum):
    """What of a pod is compared with the target."""

    IN_FLIGHT = "in-flight"
    """Requests executed or queued in it, now."""
    RATE = "rps"
    """Requests per second."""
    QUEUE_TIME = "queue time"
    """Mean milliseconds a request waited for its batch: what NVIDIA's chart for Triton scales by."""


def replicas_by_pods(
    current: int, values: Sequence[float], target: float, *, unready: int = 0, missing: int = 0
) -> int:
    """A Pods metric: the mean of the pods over the target, times their number.

    `unready` pods (phase Pending) count as 0 where more would be asked for, and not at all where less. `missing` ones,
    which have no metric yet, count as 0 where more would be asked for, and as the target where less.

    >>> replicas_by_pods(2, [30.0, 30.0], 10.0)
    6
    >>> replicas_by_pods(6, [30.0, 30.0], 10.0, unready=4)
    6
    >>> replicas_by_pods(2, [10.9, 10.9], 10.0)
    2
    >>> replicas_by_pods(3, [2.0, 2.0], 10.0, missing=1)
    2
    """
    if not values:
        return current
    usages, target_usage = [quantity(value) for value in values], quantity(target)
    ratio = _ratio(usages, target_usage)
    damped_up = bool(unready) and ratio > 1
    if not damped_up and not missing:
        return current if _tolerated(ratio) else math.ceil(ratio * len(usages))
    filled = [*usages, *[target_usage if ratio < 1 else 0] * missing, *[0] * (unready if damped_up else 0)]
    damped = _ratio(filled, target_usage)
    # What is not known may damp a change, not turn it round.
    if _tolerated(damped) or ratio < 1 < damped or damped < 1 < ratio:
        return current
    wanted = math.ceil(damped * len(filled))
    turned = wanted > current if damped < 1 else wanted < current
    return current if turned else wanted


def replicas_by_total(current: int, total: float, target: float) -> int:
    """An External metric with an averageValue: the total over the target.

    >>> replicas_by_total(3, 61.0, 10.0)
    7
    >>> replicas_by_total(3, 32.0, 10.0)
    3
    """
    usage, target_usage = quantity(total), quantity(target)
    return current if _tolerated(usage / (target_usage * current)) else math.ceil(usage / target_usage)


def _tolerated(ratio: float) -> bool:
    return 1 - TOLERANCE <= ratio <= 1 + TOLERANCE


def quantity(value: float) -> int:
    """In thousandths, in which Kubernetes is told metrics and calculates with them."""
    return round(1000 * value)


def _ratio(usages: Sequence[int], target: int) -> float:
    """The mean over the target; the mean is a whole number, too (GetMetricUsageRatio)."""
    return (sum(usages) // len(usages)) / target


class PodsMetric:
    """What the pods' metric is, as Prometheus has it."""

    def __init__(self, metric: PodMetric) -> None:
        self._metric = metric
        self._window = CounterWindow(RATE_WINDOW_SECONDS)

    def values(self, look: Look) -> list[float]:
        """Of each ready pod that has one."""
        if self._metric is PodMetric.IN_FLIGHT:
            return [float(pod.in_flight) for pod in look.pods if pod.ready]
        self._window.add(look.now, {pod.number: (pod.taken, pod.executed, pod.queue_seconds) for pod in look.pods})
        growths = [growth for pod in look.pods if pod.ready and (growth := self._window.growth(pod.number))]
        if self._metric is PodMetric.RATE:
            return [taken / seconds for seconds, (taken, _, _) in growths]
        return [1000 * waited / executed if executed else 0.0 for _, (_, executed, waited) in growths]


class Hpa:
    """An HPA on a metric of the pods. Never goes to zero, and does nothing at zero."""

    interval_seconds = SYNC_SECONDS

    def __init__(self, metric: PodMetric, target: float, bounds: Bounds) -> None:
        """`target`: requests, requests per second, or milliseconds, of one pod."""
        self.name = f"HPA on {metric.value}"
        self._target = target
        self._metric = PodsMetric(metric)
        # autoscaling/v2 refuses minReplicas 0 without a feature gate.
        self._bounds = Bounds(minimum=max(1, bounds.minimum), maximum=max(1, bounds.maximum))
        self._behavior = DefaultBehavior(self._bounds)

    def desired(self, look: Look) -> int:
        """One sync."""
        values = self._metric.values(look)
        if not look.desired:
            return 0
        wanted = replicas_by_pods(
            look.desired,
            values,
            self._target,
            unready=look.starting + look.blocked,
            missing=look.ready - len(values),
        )
        return self._behavior.limit(look.now, look.desired, self._bounds.clamp(wanted))
