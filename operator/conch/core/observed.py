"""What the planner is told of the cluster: one frozen snapshot of everything that belongs to one ModelDeployment.

Built by `conch.app.projections` from live objects and by the tests' simulated world. Holds no decisions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from conch.api import names
from conch.api.assignment import AgentReport
from conch.api.gateway_report import ObjectTraffic
from conch.core.analysis.copies import NOTHING_COPIED, Copies
from conch.core.analysis.samples import Samples
from conch.core.scaling.view import ScalingView


class ChildKind(StrEnum):
    """The kinds of objects that a ModelDeployment owns."""

    CONFIG_MAP = "ConfigMap"
    CONTROLLER_REVISION = "ControllerRevision"
    DEPLOYMENT = "Deployment"
    ENDPOINT_SLICE = "EndpointSlice"
    GRPC_ROUTE = "GRPCRoute"
    HTTP_ROUTE = "HTTPRoute"
    NETWORK_POLICY = "NetworkPolicy"
    POD_DISRUPTION_BUDGET = "PodDisruptionBudget"
    SECRET = "Secret"  # noqa: S105 - a kind, not a secret
    SERVICE = "Service"


ROUTE_KINDS: Final = (ChildKind.HTTP_ROUTE, ChildKind.GRPC_ROUTE)
"""Of the Gateway API, which a cluster need not have."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ChildId:
    """Kind and name of a child within the object's namespace."""

    kind: ChildKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """The object that controls another one (the owner reference with `controller: true`)."""

    kind: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedChild:
    """A live object that carries Conch's label.

    `owned_hash` is the hash of exactly the fields that Conch's field manager owns now: it differs from the hash of the
    desired object as soon as anybody changes or removes one of them.
    """

    id: ChildId
    uid: str
    resource_version: str
    controller: Controller | None
    owned_hash: str
    deleting: bool = False

    def belongs_to(self, uid: str) -> bool:
        """Whether the ModelDeployment of this uid controls it: only then may it be written."""
        return self.controller is not None and self.controller.uid == uid


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedAssignment(ObservedChild):
    """The ConfigMap of a workload's assignment."""

    instances: int | None
    """That it asks each server to have; None: as the model says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedDeployment(ObservedChild):
    """A workload's Deployment with the part of its status that explains missing pods."""

    workload: str
    replicas: int
    mounts_cache: bool
    """Whether its pods mount the model cache."""
    creation_error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedService(ObservedChild):
    """A Service, and whether it selects pods by itself."""

    selects: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedSlice(ObservedChild):
    """An EndpointSlice: of ours, or of one of Kubernetes' own controllers."""

    service: str
    """The Service that it belongs to."""
    managed_by: str
    ready: frozenset[str]
    """Addresses that get connections."""

    @property
    def is_ours(self) -> bool:
        """Whether Conch keeps it; it then lists gateways."""
        return self.managed_by == names.SLICE_MANAGED_BY

    @property
    def is_left_behind_without_selector(self) -> bool:
        """Whether one of Kubernetes' controllers made it, which keeps it no longer once a Service selects nothing."""
        return self.managed_by in _SLICE_CONTROLLERS


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentVerdict:
    """What a Gateway's controller says of a route that names this Gateway."""

    name: str
    namespace: str
    section_name: str | None
    port: int | None
    generation: int
    """Of the route, that the controller speaks of: the oldest that any of its conditions is about."""
    accepts: bool
    """Whether it says that the Gateway takes the whole route, and finds all that the route sends to."""
    reason: str = ""
    """Why it does not, by its own name for that."""
    message: str = ""
    """And in its own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedRoute(ObservedChild):
    """An HTTPRoute or a GRPCRoute."""

    generation: int
    weights: Mapping[str, int]
    """By the name of the Service; empty where its rules do not agree."""
    verdicts: tuple[ParentVerdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadRecord:
    """What a workload was created as; kept in a ControllerRevision so that an operator upgrade restarts no pod.

    The objects in it are JSON texts, here and there: a tree of small dicts takes six times the memory, and the API
    server would keep account of every field in it.
    """

    workload: str
    number: int
    """The how manieth workload of its object it is; newer ones have higher numbers."""
    revision: str
    version: int
    spec_json: str
    """What makes the revision, so that it can be had again whatever the object's spec says by then."""
    pod_template_json: str
    assignment_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedRecord(ObservedChild):
    """A ControllerRevision and the record in it."""

    record: WorkloadRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedContainer:
    """One container's state as the kubelet reports it."""

    name: str
    ready: bool = False
    restarts: int = 0
    waiting_reason: str = ""
    waiting_message: str = ""
    last_exit: str = ""
    last_exit_at: datetime | None = None


_SLICE_CONTROLLERS: Final = ("endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io")
_OVER: Final = ("Failed", "Succeeded")
DEVICES_ALLOCATED: Final = "cannot allocate all claims"
"""What the scheduler says of a node on which no device is left for a pod's claims."""
_SHORTAGES: Final = ("Insufficient ", DEVICES_ALLOCATED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedPod:
    """A pod of a workload. `report` is the agent's own word, absent until it could be asked."""

    name: str
    uid: str
    workload: str
    phase: str = "Pending"
    ready: bool = False
    deleting: bool = False
    failure: str = ""
    """Why the node ended it for good (evicted, not admitted)."""
    node: str = ""
    node_cordoned: bool = False
    """Somebody is about to drain its node."""
    node_lost: bool = False
    """The cluster gave it up because its node does not answer."""
    scheduled: bool = False
    unschedulable_message: str = ""
    gated: bool = False
    """A queue (or another scheduling gate) holds it back from the scheduler."""
    waits_for_scheduler: str = ""
    """Name of the scheduler that has not said anything of it yet; empty once it has."""
    missing_claims: tuple[str, ...] = ()
    """The ResourceClaimTemplates of which no claim was made for it yet; until then the scheduler leaves it alone."""
    ip: str = ""
    created: str = ""
    marked_for_removal: bool = False
    """Of the ready pods of its workload, the Deployment's controller removes it first."""
    shown_change: str = ""
    """The in-place change that its kubelet was last told of."""
    containers: tuple[ObservedContainer, ...] = ()
    report: AgentReport | None = None
    key_refused: bool = False
    """The agent does not know this object's admin key: the pod was started with another Secret's."""
    agent_unreachable: bool = False
    """The agent was asked several times and never answered."""

    @property
    def cannot_be_asked(self) -> bool:
        """Whether its agent was tried and says nothing."""
        return self.report is None and (self.agent_unreachable or self.key_refused)

    @property
    def lacks_room(self) -> bool:
        """Whether it has no node for want of what other pods hold: they would make room for it by ending."""
        return not self.scheduled and (self.gated or any(said in self.unschedulable_message for said in _SHORTAGES))

    @property
    def has_started(self) -> bool:
        """Whether one of its containers was ever started: then everything that they name was there."""
        return any(not container.waiting_reason for container in self.containers)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedGateway:
    """A gateway pod, and what it says of this object."""

    name: str
    address: str
    ready: bool
    leaving: bool = False
    """It is on its way out: it may still carry requests, and gets no new clients."""
    epoch: str = ""
    """Names the life of its Envoy: with another one its counters begin anew."""
    traffic: ObjectTraffic | None = None
    """Its last word about the object, which it knows then; absent when it does not, or was never heard."""
    heard: bool = False
    """Whether it answered lately."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedWindow:
    """What an object's workloads were seen doing since the window of this name was opened."""

    name: str
    samples: Mapping[str, Samples]
    """By workload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything that is known of one object's children and pods.

    `children` are the objects with Conch's labels that bear a child's name, whoever controls them. `strangers` are
    objects without the labels that were met when a child was to be created, each with its controller if it has one;
    `refusals` are the API server's words about children it would not take. `secret_known` says whether this process
    created or found the admin-key Secret: Secrets can be neither read nor watched (least privilege). `port` is the one
    that the object has or may have on the gateways, None when all are taken. `window` is the one in which its candidate
    is judged, as long as this process has one open for the object; `copies` are the requests that were copied to it
    before. `scaling` is what the autoscaler decided last, None where it has not looked yet. `absent_kinds` are kinds of
    children that this cluster does not know, None as long as nobody could look.
    """

    children: Mapping[ChildId, ObservedChild] = field(default_factory=lambda: MappingProxyType({}))
    pods: tuple[ObservedPod, ...] = ()
    strangers: Mapping[ChildId, Controller | None] = field(default_factory=lambda: MappingProxyType({}))
    refusals: Mapping[ChildId, str] = field(default_factory=lambda: MappingProxyType({}))
    secret_known: bool = False
    gateways: tuple[ObservedGateway, ...] = ()
    port: int | None = None
    window: ObservedWindow | None = None
    copies: Copies = NOTHING_COPIED
    scaling: ScalingView | None = None
    homes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """The workloads whose pods are another one's -> that one (in_place.py)."""
    absent_kinds: frozenset[ChildKind] | None = None

    @property
    def slices(self) -> tuple[ObservedSlice, ...]:
        """The EndpointSlices that concern the object, whoever keeps them."""
        return tuple(child for child in self.children.values() if isinstance(child, ObservedSlice))

    def deployment_of(self, workload: str) -> ObservedDeployment | None:
        """The Deployment that makes this workload's pods, if it is there."""
        workload = self.homes.get(workload, workload)
        deployments = (child for child in self.children.values() if isinstance(child, ObservedDeployment))
        return next((deployment for deployment in deployments if deployment.workload == workload), None)

    def record_of(self, uid: str, name: str) -> WorkloadRecord | None:
        """The record in the ControllerRevision of this name, if the object of this uid controls it.

        Pods are made from a record with the operator's rights, so a stranger's is never looked into.
        """
        child = self.children.get(ChildId(kind=ChildKind.CONTROLLER_REVISION, name=name))
        return child.record if isinstance(child, ObservedRecord) and child.belongs_to(uid) else None

    def pods_of(self, workload: str) -> tuple[ObservedPod, ...]:
        """The pods of a workload, without those that are being deleted or are over."""
        return tuple(
            pod for pod in self.pods if pod.workload == workload and not pod.deleting and pod.phase not in _OVER
        )

    def pods_at(self, workload: str) -> tuple[ObservedPod, ...]:
        """The pods that its Deployment makes, whatever they serve, without those that are being deleted or are over."""
        home = self.homes.get(workload, workload)
        return tuple(
            pod
            for pod in self.pods
            if self.homes.get(pod.workload, pod.workload) == home and not pod.deleting and pod.phase not in _OVER
        )

    def has_pods_made_by(self, at: datetime) -> bool:
        """Whether a pod of any workload that was made by then still runs."""
        return any(
            pod.created and datetime.fromisoformat(pod.created) <= at for pod in self.pods if pod.phase not in _OVER
        )

    def pods_left(self, workload: str) -> tuple[ObservedPod, ...]:
        """The pods of a workload that still have what they were given, those on their way out included."""
        return tuple(pod for pod in self.pods if pod.workload == workload and pod.phase not in _OVER)
