"""What `conch why` found, in a stable shape: `conch why NAME --output json` prints a Report in camelCase.

Fields are added, never renamed. Every field is always there; null means that it is not known or could not be read.
"""

from enum import StrEnum

from conch.api.status import CacheStatus, FetchProgress, PinnedSource
from conch.api.types import ApiModel


class Outcome(StrEnum):
    """What came of one check."""

    PASSED = "Passed"
    FAILED = "Failed"
    """This is why the object is not ready."""
    NOT_REACHED = "NotReached"
    """An earlier check did not pass."""


class CheckRow(ApiModel):
    """One check of the chain; `holds` is the sentence that is true when it passes."""

    name: str
    holds: str
    outcome: Outcome


class RevisionRow(ApiModel):
    """A revision that has a workload. `stable` has the traffic, `candidate` is being brought up."""

    role: str
    version: int
    revision: str
    workload: str
    digest: str | None
    resolved: str | None
    deployment: str
    replicas: int | None
    """What its Deployment asks for; null when that is not there or may not be read."""
    creation_error: str
    """Why the cluster creates no pods for it."""


class ContainerRow(ApiModel):
    """A container as its kubelet tells."""

    name: str
    ready: bool
    restarts: int
    waiting_reason: str
    waiting_message: str
    last_exit: str
    last_exit_at: str | None


class PodRow(ApiModel):
    """A pod of the object; `role` is its revision's, empty when no revision has it any more."""

    name: str
    role: str
    phase: str
    ready: bool
    deleting: bool
    node: str
    created_at: str
    problem: str
    """Why it has no node, or why its node ended it or lost it."""
    containers: tuple[ContainerRow, ...]


class WarningRow(ApiModel):
    """A Warning event of the object, its workloads or pods."""

    at: str
    regarding: str
    reason: str
    message: str
    count: int


class Counted(StrEnum):
    """What `demand` and `capacityPerReplica` are figures of."""

    PER_SECOND = "PerSecond"
    """Requests that come."""
    AT_ONCE = "AtOnce"
    """Requests at the servers at the same time."""


class CurveRow(ApiModel):
    """How long a batch of n takes: base + n x per item, in each instance."""

    base_milliseconds: float
    per_item_milliseconds: float
    max_batch: int
    instances: int
    model: str
    """The member of an ensemble that limits it; empty of any other model."""


class InstancesRow(ApiModel):
    """runtime.instances Auto: how many instances of the model each server has, and what trials have shown."""

    count: int | None
    """What is settled; null as long as nothing was changed."""
    trying: int | None
    message: str


class DecisionRow(ApiModel):
    """A change of the count."""

    at: str
    before: int
    after: int
    reason: str
    message: str


class ScalingRow(ApiModel):
    """What the autoscaler wants and why. `reason` and what follows is null where nothing was decided yet."""

    goal: str | None
    """What is to be reached, in words; null where this version of Conch cannot read spec.autoscaling."""
    min_replicas: int | None
    max_replicas: int | None
    wanted: int
    ready: int
    reason: str | None
    message: str
    counted: Counted
    demand: float | None
    capacity_per_replica: float | None
    late_percent: float | None
    curve: CurveRow | None
    cold_start_seconds: float | None
    policy: str
    """How spare capacity is kept for this load, in words."""
    instances: InstancesRow | None
    """Null unless runtime.instances is Auto."""
    observed_at: str | None
    """When these figures were written; they are renewed now and then."""
    decisions: tuple[DecisionRow, ...]
    """The last changes, newest first."""


class Report(ApiModel):
    """One object, looked at once. `reason`, `message` and `since` are those of its condition Ready."""

    namespace: str
    name: str
    ready: bool
    observed: bool
    """Whether the operator has looked at the spec as it is now; if not, everything of the status may be old."""
    reason: str
    message: str
    since: str | None
    notes: tuple[str, ...]
    checks: tuple[CheckRow, ...]
    revisions: tuple[RevisionRow, ...]
    pin: PinnedSource | None
    fetch: FetchProgress | None
    cache: CacheStatus | None
    """Null where pods are not made with a model cache."""
    autoscaling: ScalingRow | None
    """Null where the count is a fixed one, or the object is suspended."""
    pods: tuple[PodRow, ...] | None
    warnings: tuple[WarningRow, ...] | None
    """The last ones, oldest first."""
    left_out: tuple[str, ...]
    """What could not be read, and why."""
    next_step: str
