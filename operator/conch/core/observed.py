"""What the planner is told of the cluster: one frozen snapshot of everything that belongs to one ModelDeployment.

Built by `conch.app.projections` from live objects and by the tests' simulated world. Holds no decisions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final

from conch.api.gateway_report import ObjectTraffic
from conch.core.analysis.copies import NOTHING_COPIED, Copies
from conch.core.analysis.samples import Samples
from conch.core.observed_child import (
    ChildId,
    ChildKind,
    Controller,
    ObservedChild,
    ObservedDeployment,
    ObservedRecord,
    ObservedSlice,
    WorkloadRecord,
)
from conch.core.observed_pod import ObservedPod
from conch.core.scaling.view import ScalingView

_OVER: Final = ("Failed", "Succeeded")


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
