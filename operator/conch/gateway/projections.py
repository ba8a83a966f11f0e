"""From live objects to what a gateway keeps of them; run once per event.

Slices count only where Kubernetes' own controller or the operator keeps them, and addresses that would lead into the
gateway's own pod or to its node's link are left out, wherever they come from.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from conch.api import names
from conch.api.gateway import Gateway
from conch.api.model_deployment import parse_status
from conch.api.status import ModelDeploymentStatus
from conch.gateway.routed import Endpoint, RoutedObject, RoutedShare

SLICE_CONTROLLER: Final = "endpointslice-controller.k8s.io"
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
                RoutedShare(
                    workload=share.workload,
                    host=share.host,
                    weight=share.weight,
                    pods=None if share.pods is None else frozenset(share.pods),
                    draining=frozenset(share.draining),
                    shadow=share.shadow,
                )
                for share in status.traffic
            ),
            desired_replicas=status.desired_replicas,
            wakes=_wakes(live.get("spec") or {}),
        ),
    )


def _wakes(spec: Mapping[str, Any]) -> bool:
    """Whether it is scaled to zero by the operator, which a held request ends; a suspended object stays as it is."""
    return bool(spec.get("autoscaling")) and not spec.get("suspend")


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
    ip = parsed_address(address)
    return ip is not None and not (ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast)


def parsed_address(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The one form of an address that can be written in several; None for what is none."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip
