"""What a user asks of the autoscaler, in the form in which it is calculated with."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from conch.api.autoscaling import Autoscaling, Behavior, TargetMetric

COLD_START_PRIOR_SECONDS: Final = 60.0


class Metric(StrEnum):
    """What a count of servers is held against."""

    LATENCY = "Latency"
    CONCURRENCY = "Concurrency"
    QUEUE_TIME = "QueueTimeMs"
    REQUESTS_PER_SECOND = "RequestsPerSecond"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingSettings:
    """`spec.autoscaling` with its defaults."""

    minimum: int
    maximum: int
    metric: Metric
    value: float
    """Milliseconds (latency, queue time), requests (concurrency) or requests per second, of one server."""
    percentile: float = 95.0
    """Of the requests that keep the latency objective."""
    idle_seconds: float | None = None
    """After so long without a request there is no server; None: there always is one."""
    behavior: Behavior | None = None
    paused: bool = False
    tries_instances: bool = False
    """Whether further instances of the model may be tried on the same GPU."""
    cold_start_prior_seconds: float = COLD_START_PRIOR_SECONDS
    """Assumed from a pod's creation until it serves, until that was seen."""

    @property
    def late_share(self) -> float:
        """The share of requests that may be later than the objective."""
        return 1 - self.percentile / 100

    @property
    def least(self) -> int:
        """Servers that stay as long as somebody asks."""
        return max(1, self.minimum)


def scaling_settings(
    asked: Autoscaling,
    *,
    cold_start_prior_seconds: float = COLD_START_PRIOR_SECONDS,
    tries_instances: bool = False,
) -> ScalingSettings:
    """Read `spec.autoscaling`; raises ValueError where neither objective nor target is given (the CRD refuses it)."""
    percentile = 95.0
    if asked.objective is not None:
        metric, value = Metric.LATENCY, float(asked.objective.latency_ms)
        percentile = asked.objective.effective_percentile
    elif asked.target is not None:
        metric, value = _METRICS[asked.target.metric], asked.target.value
    else:
        raise ValueError("autoscaling needs either objective or target")
    return ScalingSettings(
        minimum=asked.effective_min_replicas,
        maximum=asked.max_replicas,
        metric=metric,
        value=value,
        percentile=percentile,
        idle_seconds=asked.effective_idle_seconds,
        behavior=asked.behavior,
        paused=asked.paused,
        cold_start_prior_seconds=cold_start_prior_seconds,
        tries_instances=tries_instances,
    )


_METRICS: Final = {
    TargetMetric.CONCURRENCY: Metric.CONCURRENCY,
    TargetMetric.QUEUE_TIME: Metric.QUEUE_TIME,
    TargetMetric.REQUESTS_PER_SECOND: Metric.REQUESTS_PER_SECOND,
}
