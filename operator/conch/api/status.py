"""`status` of a ModelDeployment: what is true now and why. Together with ControllerRevisions the only durable state."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from conch.api.autoscaling import AutoscalingStatus
from conch.api.reasons import Reason
from conch.api.rollout import TURNED_MOST, CommandStatus, RejectedRevision, RolloutStatus
from conch.api.shadow import ShadowShare
from conch.api.types import ApiModel, Count, Digest, Message, Resolved, ShortText, Timestamp

Generation = Annotated[int, Field(ge=0, le=2**53)]


class ConditionType(StrEnum):
    """The conditions of a ModelDeployment, in the order in which they are written."""

    READY = "Ready"
    AVAILABLE = "Available"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    CAPACITY_BLOCKED = "CapacityBlocked"
    ROUTING_SYNCED = "RoutingSynced"


class ConditionStatus(StrEnum):
    """Kubernetes' three values."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """One statement about the object, with the reason and a sentence for a person."""

    type: ConditionType
    status: ConditionStatus
    reason: Reason
    message: Message = ""
    observed_generation: Generation = 0
    last_transition_time: Timestamp


class ServedRevision(ApiModel):
    """A revision and the workload that stands for it."""

    revision: ShortText
    version: Annotated[int, Field(ge=1, le=2**31 - 1)]
    workload: ShortText
    host: Annotated[
        ShortText | None,
        Field(description="The workload whose pods serve it, since they were changed to it in place."),
    ] = None
    digest: Annotated[Digest | None, Field(description="Digest of the files that every pod of it must have.")] = None
    resolved: Annotated[
        Resolved | None, Field(description="What the source's name stood for when they were fetched.")
    ] = None
    loaded: Annotated[
        bool, Field(description="Whether a pod has loaded these files; from then on they are the revision's for good.")
    ] = False

    @property
    def home(self) -> str:
        """The workload whose Deployment makes its pods."""
        return self.host or self.workload


class TrafficShare(ApiModel):
    """What one workload gets of the traffic; gateways follow it."""

    revision: ShortText
    workload: ShortText
    host: Annotated[ShortText | None, Field(description="The workload whose pods serve it, if not its own.")] = None
    pods: Annotated[
        tuple[ShortText, ...] | None,
        Field(max_length=TURNED_MOST, description="Of these pods only those of these names, if given."),
    ] = None
    weight: Annotated[int, Field(ge=0, le=100, description="Percent of the requests.")]
    draining: Annotated[
        tuple[ShortText, ...],
        Field(
            max_length=1000,
            description="Pods that get nothing new: they are about to be removed, or have yet to show that they answer "
            "as the model's golden set records.",
        ),
    ] = ()
    draining_since: Annotated[
        Timestamp | None,
        Field(description="Since when nothing new goes to pods that are about to be removed, or to any of them."),
    ] = None
    shadow: Annotated[
        ShadowShare | None, Field(description="Copies of requests that it gets besides, whose answers nobody sees.")
    ] = None

    @property
    def home(self) -> str:
        """The workload whose Service lists its servers."""
        return self.host or self.workload


class GatewayStatus(ApiModel):
    """The object's place at the gateways."""

    port: Annotated[int, Field(ge=1, le=65535, description="Its port on every gateway.")]
    generation: Annotated[
        ShortText, Field(description="Names what gateways are to do for it now; they repeat it once they do.")
    ] = ""
    unlisted_since: Annotated[
        Timestamp | None,
        Field(description="Since when its Service sends to no gateway (mode Direct); the port is given back soon."),
    ] = None
    unselected_since: Annotated[
        Timestamp | None,
        Field(
            description="Since when its Service no longer sends to pods by itself (it was in mode Direct). Pods from "
            "before are open to all clients, until they end."
        ),
    ] = None


class PodCounts(ApiModel):
    """The pods of the wanted revision by how far they are."""

    pending: Count = 0
    fetching: Count = 0
    loading: Count = 0
    ready: Count = 0
    failed: Count = 0


class PinnedSource(ApiModel):
    """The files that every pod of the wanted revision must have."""

    resolved: Annotated[
        Resolved | None, Field(description="What the source's name stood for: a commit, a manifest digest, an ETag.")
    ] = None
    digest: Digest


class FetchProgress(ApiModel):
    """How far the pods that fetch the model are; together, and written now and then."""

    percent: Annotated[int | None, Field(ge=0, le=100, description="Unknown where the store tells no size.")] = None
    bytes: Annotated[int, Field(ge=0, le=2**53)] = 0
    total_bytes: Annotated[int | None, Field(ge=0, le=2**53)] = None
    files: Count = 0
    bytes_per_second: Annotated[int, Field(ge=0, le=2**53)] = 0
    observed_at: Timestamp


class CacheStatus(ApiModel):
    """What the model cache was good for, by the pods of the wanted revision."""

    hit: Annotated[Count, Field(description="Pods that found the model there.")] = 0
    filled: Annotated[Count, Field(description="Pods that fetched it into the cache.")] = 0
    bypassed: Annotated[Count, Field(description="Pods that fetched it onto their own volume.")] = 0
    message: Annotated[Message, Field(description="What is wrong with the cache.")] = ""


class Display(ApiModel):
    """Joined values for kubectl's columns."""

    replicas: ShortText = ""
    candidate: ShortText = ""
    check: Annotated[ShortText, Field(description="The first check that did not pass; see `conch why`.")] = ""
    gpu: ShortText = ""


class ModelDeploymentStatus(ApiModel):
    """What is true of the object at `observed_generation`."""

    observed_generation: Generation = 0
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = ()
    replicas: Annotated[
        Count,
        Field(description="Pods of the object; during a rollout those of both revisions, as `selector` has them."),
    ] = 0
    ready_replicas: Annotated[Count, Field(description="Those of them that are ready.")] = 0
    desired_replicas: Count = 0
    selector: Annotated[str, Field(max_length=512, description="For /scale.")] = ""
    url: Annotated[str, Field(max_length=512)] = ""
    grpc_url: Annotated[str, Field(max_length=512)] = ""
    stable: Annotated[ServedRevision | None, Field(description="The revision that has the traffic.")] = None
    candidate: Annotated[ServedRevision | None, Field(description="The revision that is being brought up.")] = None
    rollout: Annotated[
        RolloutStatus | None, Field(description="How the candidate takes over, or what became of the last one.")
    ] = None
    rejected: Annotated[
        tuple[RejectedRevision, ...],
        Field(max_length=10, description="Revisions that were rolled back; they are not tried again by themselves."),
    ] = ()
    past: Annotated[
        tuple[ShortText, ...], Field(max_length=50, description="Revisions that were stable before, newest first.")
    ] = ()
    rolled_back_to: Annotated[
        ShortText | None, Field(description="The revision that serves by command, in the place of the spec's.")
    ] = None
    command: CommandStatus | None = None
    traffic: Annotated[
        tuple[TrafficShare, ...],
        Field(
            max_length=16,
            description="Which workload gets how much of the traffic.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["workload"]},
        ),
    ] = ()
    gateway: GatewayStatus | None = None
    workloads_created: Annotated[
        Count, Field(description="Workloads ever begun; the next one's id is made from it.")
    ] = 0
    autoscaling: AutoscalingStatus | None = None
    source: PinnedSource | None = None
    fetch: FetchProgress | None = None
    cache: CacheStatus | None = None
    pods: PodCounts = PodCounts()
    display: Display = Display()

    def condition(self, type_: ConditionType) -> Condition | None:
        """The condition of this type, if it has been written."""
        return next((condition for condition in self.conditions if condition.type is type_), None)
