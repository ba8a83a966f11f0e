"""The routes of the Gateway API: which requests reach the model, and which of its workloads gets how many of them.

Every path and method is named: what Triton has besides (the repository, models' configurations, shared memory, tracing,
logging) needs the admin key, and nobody has a reason to call it through a Gateway. What the API server would fill in is
written out, since a list is owned as a whole: without it, a route would look edited for ever.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from conch.api import names, pod
from conch.api.gateway import Gateway
from conch.api.gateway_api import ParentReference, RouteProtocol
from conch.api.model_deployment import ModelDeployment
from conch.api.spec import ModelDeploymentSpec
from conch.core.desired.object import DesiredObject, child
from conch.core.observed_child import ChildKind

_GROUP: Final = "gateway.networking.k8s.io"

_OF_THE_SERVER: Final = ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats")
_OF_A_MODEL: Final = ("", "/ready", "/stats", "/infer", "/generate", "/generate_stream")
_OF_A_FURTHER_MODEL: Final = ("", "/ready", "/stats", "/infer")
_INFERENCE_SERVICE: Final = "inference.GRPCInferenceService"
_INFERENCE_METHODS: Final = (
    *("ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelStatistics"),
    *("ModelInfer", "ModelStreamInfer"),
)
_HEALTH_SERVICE: Final = "grpc.health.v1.Health"
_HEALTH_METHODS: Final = ("Check",)
_MATCHES_MOST: Final = 64
"""Of one rule."""


def http_route(
    owner: ModelDeployment, spec: ModelDeploymentSpec, weights: Mapping[str, int], versions: Iterable[int]
) -> DesiredObject:
    """The HTTPRoute; `weights` are by workload, `versions` those that a client may name in a path."""
    matches = [{"path": {"type": "Exact", "value": path}} for path in _paths(owner, spec, versions)]
    return _route(owner, spec.gateway, RouteProtocol.HTTP, _in_rules(matches), _backends(owner, weights, pod.HTTP_PORT))


def grpc_route(owner: ModelDeployment, spec: ModelDeploymentSpec, weights: Mapping[str, int]) -> DesiredObject:
    """The GRPCRoute; `weights` are by workload."""
    methods = [
        *((_INFERENCE_SERVICE, method) for method in _INFERENCE_METHODS),
        *((_HEALTH_SERVICE, method) for method in _HEALTH_METHODS),
    ]
    matches = [{"method": {"type": "Exact", "service": service, "method": method}} for service, method in methods]
    return _route(owner, spec.gateway, RouteProtocol.GRPC, _in_rules(matches), _backends(owner, weights, pod.GRPC_PORT))


def _paths(owner: ModelDeployment, spec: ModelDeploymentSpec, versions: Iterable[int]) -> list[str]:
    """At most 78 of the 128 that a route may have: 4, 6 x 3 (two versions), 4 x 7 x 2."""
    entry = f"/v2/models/{spec.model.name or owner.name}"
    of_entry = (entry, *(f"{entry}/versions/{version}" for version in sorted(set(versions))))
    further = [
        base
        for model in spec.models
        for base in (f"/v2/models/{model.name}", f"/v2/models/{model.name}/versions/{model.version}")
    ]
    return [
        *_OF_THE_SERVER,
        *(f"{base}{call}" for base in of_entry for call in _OF_A_MODEL),
        *(f"{base}{call}" for base in further for call in _OF_A_FURTHER_MODEL),
    ]


def _in_rules(matches: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [matches[at : at + _MATCHES_MOST] for at in range(0, len(matches), _MATCHES_MOST)]


def _backends(owner: ModelDeployment, weights: Mapping[str, int], port: int) -> list[dict[str, Any]]:
    return [
        {
            "group": "",
            "kind": "Service",
            "name": names.workload_service(owner.name, workload),
            "port": port,
            "weight": weight,
        }
        for workload, weight in weights.items()
    ]


def _route(
    owner: ModelDeployment,
    gateway: Gateway,
    protocol: RouteProtocol,
    rules: list[list[dict[str, Any]]],
    backends: list[dict[str, Any]],
) -> DesiredObject:
    hostnames = gateway.hostnames_of(protocol)
    return child(
        owner,
        ChildKind.GRPC_ROUTE if protocol is RouteProtocol.GRPC else ChildKind.HTTP_ROUTE,
        names.gateway_api_route(owner.name),
        labels=names.object_labels(owner.name),
        fields={
            "spec": {
                "parentRefs": [_parent(parent) for parent in gateway.parents_of(protocol)],
                **({"hostnames": list(hostnames)} if hostnames else {}),
                "rules": [{"matches": matches, "backendRefs": backends} for matches in rules],
            }
        },
    )


def _parent(parent: ParentReference) -> dict[str, Any]:
    named = parent.to_wire()
    named.pop("protocol", None)
    return {"group": _GROUP, "kind": "Gateway", **named}
