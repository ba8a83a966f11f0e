"""`spec.autoscaling`: how many servers a load gets, and `status.autoscaling`: what is known of it and what was decided.

What is not given is left out of the stored object; the defaults are here.
"""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from conch.api.cel import Rule, rules
from conch.api.types import ApiModel, Count, Message, ShortText, Timestamp

DEFAULT_PERCENTILE: Final = 95.0
DEFAULT_IDLE_SECONDS: Final = 300
DECISIONS_KEPT: Final = 5

Replicas = Annotated[int, Field(ge=0, le=1000)]
FIGURE_MOST: Final = 1e12
COUNT_MOST: Final = 2**31 - 1
Figure = Annotated[float, Field(ge=0, le=FIGURE_MOST)]


class Objective(ApiModel):
    """The latency that is owed to clients."""

    latency_ms: Annotated[
        int, Field(ge=1, le=3_600_000, description="From the request at the gateway to the whole answer, milliseconds.")
    ]
    percentile: Annotated[
        float | None,
        Field(ge=50, le=99.9, description=f"Of the requests that keep it ({DEFAULT_PERCENTILE:g} if not given)."),
    ] = None

    @property
    def effective_percentile(self) -> float:
        """The percentile, with the default."""
        return self.percentile or DEFAULT_PERCENTILE


class TargetMetric(StrEnum):
    """What a fixed target counts."""

    CONCURRENCY = "Concurrency"
    """Requests at one server at the same time, queued or executed."""
    QUEUE_TIME = "QueueTimeMs"
    """How long a request waits before it is executed, on average."""
    REQUESTS_PER_SECOND = "RequestsPerSecond"


class Target(ApiModel):
    """What one server is to carry, for who knows it better than what is learnt."""

    metric: TargetMetric
    value: Annotated[float, Field(ge=0.001, le=1_000_000, description="Of one server.")]


class ScaleToZero(ApiModel):
    """No servers while nobody asks; the first request is held and wakes the model."""

    idle_seconds: Annotated[
        int, Field(ge=10, le=7 * 86_400, description="How long nobody must have asked before the last server goes.")
    ] = DEFAULT_IDLE_SECONDS


class PolicyType(StrEnum):
    """What a scaling policy's value counts."""

    PODS = "Pods"
    PERCENT = "Percent"


class ScalingPolicy(ApiModel):
    """At most so much change within a period."""

    type: PolicyType
    value: Annotated[int, Field(ge=1, le=10_000)]
    period_seconds: Annotated[int, Field(ge=1, le=1800)]


class PolicySelect(StrEnum):
    """Which of several policies counts."""

    MAX = "Max"
    """The one that allows the most change."""
    MIN = "Min"
    DISABLED = "Disabled"
    """No change in this direction at all."""


class ScalingRules(ApiModel):
    """Limits on changes in one direction, in the HorizontalPodAutoscaler's words."""

    stabilization_window_seconds: Annotated[
        int,
        Field(
            ge=0, le=3600, description="Of all counts wanted within so long, the one that changes the least is used."
        ),
    ] = 0
    select_policy: PolicySelect = PolicySelect.MAX
    policies: Annotated[tuple[ScalingPolicy, ...], Field(max_length=8)] = ()


class Behavior(ApiModel):
    """Limits on how fast the count may change. None if not given: what is right is learnt."""

    scale_up: ScalingRules | None = None
    scale_down: ScalingRules | None = None


class Autoscaling(ApiModel):
    """How many servers there are follows the load."""

    min_replicas: Annotated[
        Replicas | None, Field(description="1 if not given; 0 lets the last server go while nobody asks.")
    ] = None
    max_replicas: Annotated[int, Field(ge=1, le=1000, description="Never more replicas than this.")]
    objective: Objective | None = None
    target: Annotated[
        Target | None,
        Field(
            json_schema_extra=rules(
                # As a bound of the schema 0.001 is cut to 0 for a value that is written as an integer.
                Rule(rule="double(self.value) > 0.0", message="target.value is what one server carries: more than 0")
            )
        ),
    ] = None
    scale_to_zero: ScaleToZero | None = None
    behavior: Behavior | None = None
    paused: Annotated[bool, Field(description="Keep the count as it is; a request that is held still wakes.")] = False

    @property
    def effective_min_replicas(self) -> int:
        """The minimum, with the default."""
        return 1 if self.min_replicas is None else self.min_replicas

    @property
    def effective_idle_seconds(self) -> int | None:
        """How long nobody must have asked before there is no server; None where there always is one."""
        return (self.scale_to_zero or ScaleToZero()).idle_seconds if self.min_replicas == 0 else None


AUTOSCALING_RULES: Final = rules(
    Rule(
        rule="has(self.objective) != has(self.target)",
        message="autoscaling needs what it is to reach: give either objective (milliseconds) or target",
    ),
    Rule(
        rule="(has(self.minReplicas) ? self.minReplicas : 1) <= self.maxReplicas",
        message="autoscaling.minReplicas is more than maxReplicas; lower the one or raise the other",
    ),
    Rule(
        rule="!has(self.scaleToZero) || (has(self.minReplicas) && self.minReplicas == 0)",
        message="autoscaling.scaleToZero needs minReplicas: 0; with a higher minimum there always is a server",
    ),
)


class ScalingReason(StrEnum):
    """Why the count is what it is."""

    LOAD = "Load"
    """What the load of the last while needs, by what was learnt."""
    SURGE = "Surge"
    """Just now more comes than what is ready can carry."""
    QUEUES = "Queues"
    """Requests wait longer than the objective at servers."""
    HELD = "Held"
    """Requests are held, and nothing serves."""
    IDLE = "Idle"
    """Nobody has asked for the time that was given."""
    MINIMUM = "Minimum"
    MAXIMUM = "Maximum"
    ROLLOUT = "Rollout"
    """A rollout needs as many."""
    BEHAVIOR = "Behavior"
    """autoscaling.behavior allows no more change now."""
    STABILISING = "Stabilising"
    """Fewer would do now; that has to stay so for a while."""
    NO_DATA = "NoData"
    """Nobody tells of the load: nothing is changed."""
    LEARNING = "Learning"
    """Not long enough seen, or no request was executed yet: nothing is taken away."""
    PAUSED = "Paused"


class LearntCurve(ApiModel):
    """How long a batch of n takes: base + n x per item."""

    base_milliseconds: Figure
    per_item_milliseconds: Figure
    max_batch: Annotated[int, Field(ge=1, le=COUNT_MOST)]
    instances: Annotated[int, Field(ge=1, le=COUNT_MOST)] = 1
    model: Annotated[ShortText, Field(description="The member of an ensemble that limits it.")] = ""


class ScalingDecision(ApiModel):
    """A change of the count."""

    at: Timestamp
    before: Count
    after: Count
    reason: ScalingReason
    message: Message = ""


class InstancesStatus(ApiModel):
    """`runtime.instances: Auto`: how many instances of the model each server has, and what trials have shown."""

    count: Annotated[
        int | None, Field(ge=1, le=64, description="What is settled; as the model says if nothing was changed.")
    ] = None
    trying: Annotated[int | None, Field(ge=1, le=64, description="What is being measured now.")] = None
    message: Message = ""


class AutoscalingStatus(ApiModel):
    """What is known of the load and the servers; figures are renewed with each change, and else now and then."""

    reason: ScalingReason
    message: Message = ""
    demand: Annotated[
        Figure | None, Field(description="Requests per second (target Concurrency: at the same time); none if unknown.")
    ] = None
    capacity_per_replica: Annotated[
        Figure | None, Field(description="What one server carries of that within the objective.")
    ] = None
    late_percent: Annotated[Figure | None, Field(description="Requests later than the objective, of late.")] = None
    curve: LearntCurve | None = None
    cold_start_seconds: Annotated[
        Figure | None, Field(description="From a pod's creation until it serves, as nine of ten did.")
    ] = None
    policy: Annotated[Message, Field(description="How spare capacity is kept for this load, in words.")] = ""
    instances: InstancesStatus | None = None
    observed_at: Timestamp
    decisions: Annotated[
        tuple[ScalingDecision, ...], Field(max_length=DECISIONS_KEPT, description="The last changes, newest first.")
    ] = ()
