"""What is to be routed, from watches: ModelDeployments and EndpointSlices become snapshots.

While the API server is away, everything that is known stays.

Whoever may write EndpointSlices or Services in a namespace may bear our labels there, but reaches only the objects of
that namespace: everything is kept by namespace. Addresses that would lead into the gateway's own pod or to its node's
link are left out, wherever they come from, and so are those beyond ENDPOINTS_MOST.
"""

import asyncio
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import structlog
from pydantic import ValidationError

from conch.api import names
from conch.api.gateway import Gateway
from conch.api.model_deployment import parse_status
from conch.api.status import ModelDeploymentStatus
from conch.gateway.routed import Endpoint, ObjectKey, RoutedObject, RoutedShare, Snapshot
from conch.kube import resources
from conch.kube.client import KubeClient
from conch.kube.reflector import Reflector

_log = structlog.get_logger(__name__)

ENDPOINTS_MOST: Final = 1000
"""Of a workload. Each costs every gateway memory and health checks, and a namespace can have any number of pods."""
SLICE_CONTROLLER: Final = "endpointslice-controller.k8s.io"
_SELECTOR: Final = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY},{names.LABEL_MODEL_DEPLOYMENT}"
_STATUS_FIELDS: Final = ("gateway", "traffic", "desiredReplicas")
"""The only parts of the status that are parsed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedObject:
    """A ModelDeployment that has a port, with its gateway settings if they could be read."""

    routed: RoutedObject
    readable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSlice:
    """An EndpointSlice of a workload's own Service."""

    service: str
    ready: frozenset[Endpoint]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicSlice:
    """The EndpointSlice by which an object's Service sends to gateways."""

    name: str
    addresses: frozenset[str]


def project_object(live: Mapping[str, Any]) -> ObservedObject | None:
    """A ModelDeployment; None while it has no port at the gateways."""
    raw = live.get("status") or {}
    status: ModelDeploymentStatus = parse_status({field: raw[field] for field in _STATUS_FIELDS if field in raw})
    if status.gateway is None:
        return None
    metadata = live["metadata"]
    gateway = _gateway((live.get("spec") or {}).get("gateway"))
    return ObservedObject(
        readable=gateway is not None,
        routed=RoutedObject(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            created=metadata.get("creationTimestamp", ""),
            port=status.gateway.port,
            generation=status.gateway.generation,
            gateway=gateway or Gateway(),
            shares=tuple(
                RoutedShare(workload=share.workload, weight=share.weight, draining=frozenset(share.draining))
                for share in status.traffic
            ),
            desired_replicas=status.desired_replicas,
        ),
    )


def _gateway(spec: Mapping[str, Any] | None) -> Gateway | None:
    try:
        return Gateway.model_validate(spec or {})
    except ValidationError:
        return None


def project_slice(live: Mapping[str, Any]) -> WorkloadSlice | PublicSlice | None:
    """An EndpointSlice of a workload's Service or of a public one; None for what neither we nor Kubernetes keep."""
    metadata = live["metadata"]
    labels = metadata.get("labels") or {}
    service = labels.get(names.LABEL_SERVICE, "")
    match labels.get(names.LABEL_SLICE_MANAGED_BY):
        case names.SLICE_MANAGED_BY:
            if service != labels[names.LABEL_MODEL_DEPLOYMENT]:
                return None
            endpoints = live.get("endpoints") or ()
            return PublicSlice(name=service, addresses=frozenset(_addresses(endpoints)))
        case controller if controller == SLICE_CONTROLLER and _is_controlled_by(metadata, service):
            return WorkloadSlice(service=service, ready=frozenset(_ready(live.get("endpoints") or ())))
    return None


def _is_controlled_by(metadata: Mapping[str, Any], service: str) -> bool:
    """Slices that were copied (mirrored) or made by hand bear the labels as well, and outlive their pods."""
    return any(
        owner.get("controller") and owner.get("kind") == "Service" and owner.get("name") == service
        for owner in metadata.get("ownerReferences") or ()
    )


def _addresses(endpoints: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    return (address for endpoint in endpoints for address in endpoint.get("addresses") or ())


def _ready(endpoints: Iterable[Mapping[str, Any]]) -> Iterable[Endpoint]:
    for endpoint in endpoints:
        conditions = endpoint.get("conditions") or {}
        target = endpoint.get("targetRef") or {}
        addresses = endpoint.get("addresses") or ()
        # A missing `ready` means unknown, which Kubernetes counts as ready; a pod's endpoint always says it.
        if not conditions.get("ready") or conditions.get("terminating") or target.get("kind") != "Pod":
            continue
        # Only the first may be used: the others have no meaning (Kubernetes' API says so).
        if addresses and is_reachable(addresses[0]):
            yield Endpoint(pod=target["name"], address=addresses[0])


def is_reachable(address: str) -> bool:
    """Whether it may be sent to: not this machine itself, its link, or no machine at all."""
    ip = _parsed(address)
    return ip is not None and not (ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast)


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The one form of an address that can be written in several; None for what is none."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


class Watch:
    """Follows the cluster. `on_change()` is called when `snapshot()` has something new to say; it must not block."""

    def __init__(self, client: KubeClient, *, own_address: str, on_change: Callable[[], None]) -> None:
        self._own_address = own_address
        self._on_change = on_change
        self._objects: dict[ObjectKey, RoutedObject] = {}
        self._endpoints: dict[tuple[str, str], frozenset[Endpoint]] = {}
        self._gateways: dict[ObjectKey, int] = {}
        self._slices: dict[tuple[str, str], dict[str, WorkloadSlice]] = {}
        """(namespace, internal Service) -> its slices by their names."""
        self._workloads: dict[tuple[str, str], str] = {}
        """(namespace, internal Service) -> the workload that an object says it has there."""
        self._public: dict[ObjectKey, dict[str, PublicSlice]] = {}
        self._listed: set[ObjectKey] = set()
        self._too_many: set[tuple[str, str]] = set()
        """(namespace, workload) of those with more than ENDPOINTS_MOST, which the log tells once."""
        self._snapshot: Snapshot | None = None
        self._model_deployments: Reflector[ObservedObject | None] = Reflector(
            client, resources.MODEL_DEPLOYMENTS, project=project_object, on_change=self.object_changed
        )
        self._endpoint_slices: Reflector[WorkloadSlice | PublicSlice | None] = Reflector(
            client,
            resources.ENDPOINT_SLICES,
            project=project_slice,
            on_change=self.slice_changed,
            label_selector=_SELECTOR,
        )

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._model_deployments.run())
            group.create_task(self._endpoint_slices.run())

    async def synced(self) -> None:
        """Wait until everything has been listed once."""
        await self._model_deployments.synced.wait()
        await self._endpoint_slices.synced.wait()

    def snapshot(self) -> Snapshot:
        """Everything as it is now; the same object as long as nothing changes."""
        if self._snapshot is None:
            # Copies of three flat dictionaries: with 500 objects some ten microseconds.
            self._snapshot = Snapshot(
                objects=MappingProxyType(dict(self._objects)),
                endpoints=MappingProxyType(dict(self._endpoints)),
                gateways=MappingProxyType(dict(self._gateways)),
            )
        return self._snapshot

    @property
    def listed(self) -> int:
        """How many public slices name this gateway, so that clients may still come."""
        return len(self._listed)

    def object_changed(self, key: ObjectKey, before: ObservedObject | None, after: ObservedObject | None) -> None:
        """An object appeared, changed or went."""
        del before
        known = self._objects.get(key)
        if after is None:
            routed = None
        elif not after.readable and known is not None and known.uid == after.routed.uid:
            # An edit that nobody can read must not throw the settings over that are in use.
            routed = replace(after.routed, gateway=known.gateway)
        else:
            routed = after.routed
        if routed == known:
            return
        if routed is None:
            del self._objects[key]
        else:
            self._objects[key] = routed
        self._workloads_changed(key, known, routed)
        self._changed()

    def _workloads_changed(self, key: ObjectKey, before: RoutedObject | None, after: RoutedObject | None) -> None:
        namespace, name = key
        old = {share.workload for share in before.shares} if before else set()
        new = {share.workload for share in after.shares} if after else set()
        for workload in old - new:
            self._workloads.pop((namespace, names.workload_service(name, workload)), None)
            self._endpoints.pop((namespace, workload), None)
            self._too_many.discard((namespace, workload))
        for workload in new - old:
            service = (namespace, names.workload_service(name, workload))
            self._workloads[service] = workload
            self._gather(service)

    def slice_changed(
        self,
        key: tuple[str, str],
        before: WorkloadSlice | PublicSlice | None,
        after: WorkloadSlice | PublicSlice | None,
    ) -> None:
        """A slice appeared, changed (also into another's) or went."""
        namespace, slice_name = key
        services, objects = set(), set()
        for one, is_there in ((before, False), (after, True)):
            match one:
                case WorkloadSlice():
                    services.add((namespace, one.service))
                    _put(self._slices, (namespace, one.service), slice_name, one if is_there else None)
                case PublicSlice():
                    objects.add((namespace, one.name))
                    _put(self._public, (namespace, one.name), slice_name, one if is_there else None)
                case None:
                    pass
        changed = [self._gather(service) for service in services] + [self._count(object_) for object_ in objects]
        if any(changed):
            self._changed()

    def _gather(self, service: tuple[str, str]) -> bool:
        """Bring a workload's endpoints up to date; whether they are others now."""
        workload = self._workloads.get(service)
        if workload is None:
            # The slice may come before the status that names the workload; object_changed looks again.
            return False
        key = (service[0], workload)
        ready = self._bounded(
            key, frozenset[Endpoint]().union(*(each.ready for each in self._slices.get(service, {}).values()))
        )
        if ready == self._endpoints.get(key, frozenset()):
            return False
        if ready:
            self._endpoints[key] = ready
        else:
            del self._endpoints[key]
        return True

    def _bounded(self, key: tuple[str, str], ready: frozenset[Endpoint]) -> frozenset[Endpoint]:
        """Without this gateway itself, which would send to itself for ever, and no more than ENDPOINTS_MOST."""
        own = _parsed(self._own_address)
        others = frozenset(each for each in ready if _parsed(each.address) != own)
        if len(others) <= ENDPOINTS_MOST:
            self._too_many.discard(key)
            return others
        if key not in self._too_many:
            self._too_many.add(key)
            _log.warning("more servers than a gateway sends to", workload="/".join(key), servers=len(others))
        return frozenset(sorted(others)[:ENDPOINTS_MOST])

    def _count(self, key: ObjectKey) -> bool:
        addresses = frozenset[str]().union(*(each.addresses for each in self._public.get(key, {}).values()))
        (self._listed.add if self._own_address in addresses else self._listed.discard)(key)
        if len(addresses) == self._gateways.get(key, 0):
            return False
        if addresses:
            self._gateways[key] = len(addresses)
        else:
            del self._gateways[key]
        return True

    def _changed(self) -> None:
        self._snapshot = None
        self._on_change()


_Kept = WorkloadSlice | PublicSlice


def _put(index: dict[tuple[str, str], dict[str, Any]], key: tuple[str, str], name: str, value: _Kept | None) -> None:
    if value is not None:
        index.setdefault(key, {})[name] = value
    elif key in index:
        index[key].pop(name, None)
        if not index[key]:
            del index[key]
