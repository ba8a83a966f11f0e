"""The objects that a ModelDeployment owns, as they are seen in the cluster."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from conch.api import names

_SLICE_CONTROLLERS: Final = ("endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io")


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
