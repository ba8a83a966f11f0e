"""The kinds that Conch speaks of, and the paths under which the API server keeps them."""

from dataclasses import dataclass
from typing import Final

from conch.api import names


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A resource of the API server."""

    group: str
    version: str
    plural: str
    kind: str

    def path(self, *, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path; without a namespace that of the whole cluster."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root]
        if namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


CONFIG_MAPS: Final = Resource(group="", version="v1", plural="configmaps", kind="ConfigMap")
CONTROLLER_REVISIONS: Final = Resource(
    group="apps", version="v1", plural="controllerrevisions", kind="ControllerRevision"
)
DEPLOYMENTS: Final = Resource(group="apps", version="v1", plural="deployments", kind="Deployment")
ENDPOINT_SLICES: Final = Resource(group="discovery.k8s.io", version="v1", plural="endpointslices", kind="EndpointSlice")
ENDPOINTS: Final = Resource(group="", version="v1", plural="endpoints", kind="Endpoints")
NETWORK_POLICIES: Final = Resource(
    group="networking.k8s.io", version="v1", plural="networkpolicies", kind="NetworkPolicy"
)
HTTP_ROUTES: Final = Resource(group="gateway.networking.k8s.io", version="v1", plural="httproutes", kind="HTTPRoute")
GRPC_ROUTES: Final = Resource(group="gateway.networking.k8s.io", version="v1", plural="grpcroutes", kind="GRPCRoute")
"""Of the Gateway API, which a cluster need not have; both since its version 1.1."""
POD_DISRUPTION_BUDGETS: Final = Resource(
    group="policy", version="v1", plural="poddisruptionbudgets", kind="PodDisruptionBudget"
)
SECRETS: Final = Resource(group="", version="v1", plural="secrets", kind="Secret")
SERVICES: Final = Resource(group="", version="v1", plural="services", kind="Service")
NODES: Final = Resource(group="", version="v1", plural="nodes", kind="Node")
"""Without a namespace, unlike all others."""
PODS: Final = Resource(group="", version="v1", plural="pods", kind="Pod")
EVENTS: Final = Resource(group="events.k8s.io", version="v1", plural="events", kind="Event")
CORE_EVENTS: Final = Resource(group="", version="v1", plural="events", kind="Event")
"""The same Events by their older name: the only one that Kubernetes' own role `view` may read."""
LEASES: Final = Resource(group="coordination.k8s.io", version="v1", plural="leases", kind="Lease")
MODEL_DEPLOYMENTS: Final = Resource(group=names.GROUP, version=names.VERSION, plural=names.PLURAL, kind=names.KIND)
