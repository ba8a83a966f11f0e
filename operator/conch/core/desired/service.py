"""The Services of an object: the one that clients call, and one per workload that the gateways read."""

from typing import Any

from conch.api import names, pod
from conch.api.model_deployment import ModelDeployment
from conch.core.desired.object import DesiredObject, child
from conch.core.observed_child import ChildKind


def gateway_service(owner: ModelDeployment, port: int) -> DesiredObject:
    """The Service, sending to the gateways: it selects nothing, its EndpointSlice is ours."""
    return _public(owner, {}, http=port, grpc=port)


def direct_service(owner: ModelDeployment, workload: str) -> DesiredObject:
    """The Service, sending to the pods of this workload."""
    selector = {"selector": names.workload_selector(owner.name, workload)}
    return _public(owner, selector, http=pod.HTTP_PORT, grpc=pod.GRPC_PORT)


def workload_service(owner: ModelDeployment, workload: str) -> DesiredObject:
    """A workload's own Service. Without an address: its endpoints are all that anybody wants of it."""
    return child(
        owner,
        ChildKind.SERVICE,
        names.workload_service(owner.name, workload),
        labels=names.workload_labels(owner.name, workload),
        fields={
            "spec": {
                "type": "ClusterIP",
                "clusterIP": "None",
                "selector": names.workload_selector(owner.name, workload),
                "ports": _ports(pod.HTTP_PORT, pod.GRPC_PORT),
            }
        },
    )


def _public(owner: ModelDeployment, selector: dict[str, Any], *, http: int, grpc: int) -> DesiredObject:
    return child(
        owner,
        ChildKind.SERVICE,
        names.service(owner.name),
        labels=names.object_labels(owner.name),
        fields={"spec": {"type": "ClusterIP", **selector, "ports": _ports(http, grpc)}},
    )


def _ports(http: int, grpc: int) -> list[dict[str, Any]]:
    return [
        {"name": "http", "port": pod.HTTP_PORT, "protocol": "TCP", "targetPort": http},
        {"name": "grpc", "port": pod.GRPC_PORT, "protocol": "TCP", "targetPort": grpc},
    ]
