"""The object's routes in gateway.mode GatewayAPI: what they are to say, and whether the Gateways do it yet.

A weight counts once every Gateway's controller says so of the route as it is now: it accepts the route, finds all that
the route sends to, and speaks of the newest generation.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from conch.api import names
from conch.api.gateway import GatewayMode
from conch.api.gateway_api import ParentReference, RouteProtocol
from conch.api.model_deployment import InvalidSpec, ModelDeployment
from conch.api.status import ModelDeploymentStatus, ServedRevision, TrafficShare
from conch.core.in_place import shares_home
from conch.core.observed import Observed
from conch.core.observed_child import ROUTE_KINDS, ChildId, ChildKind, ObservedRoute, ParentVerdict

KIND_OF: Final[Mapping[RouteProtocol, ChildKind]] = {
    RouteProtocol.HTTP: ChildKind.HTTP_ROUTE,
    RouteProtocol.GRPC: ChildKind.GRPC_ROUTE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """A route that is not done yet by one of its Gateways, or by any."""

    route: ChildId
    parent: ParentReference | None = None
    """None: the route itself is not as it should be."""
    verdict: ParentVerdict | None = None
    """What the Gateway's controller says of the route as it is now; None: nothing yet."""


def has_routes(owner: ModelDeployment, observed: Observed) -> bool:
    """Whether requests come by routes; of a spec that cannot be read, whether there are some."""
    if isinstance(owner.spec, InvalidSpec):
        return any(child.belongs_to(owner.uid) for child in observed.children.values() if child.id.kind in ROUTE_KINDS)
    return _goes_by_routes(owner)


def _goes_by_routes(owner: ModelDeployment) -> bool:
    """An edit in the middle of an in-place change waits for its end: no route can leave out the pod that changes."""
    if isinstance(owner.spec, InvalidSpec) or owner.spec.gateway.mode is not GatewayMode.GATEWAY_API:
        return False
    return not shares_home(owner.status.stable, owner.status.candidate)


def wanted_kinds(owner: ModelDeployment) -> tuple[ChildKind, ...]:
    """The kinds of routes that the spec asks for."""
    if isinstance(owner.spec, InvalidSpec) or not _goes_by_routes(owner):
        return ()
    return tuple(kind for protocol, kind in KIND_OF.items() if owner.spec.gateway.parents_of(protocol))


def is_served(kind: ChildKind, observed: Observed) -> bool | None:
    """Whether the cluster knows this kind of route; None as long as nobody could look and none has been seen."""
    if observed.absent_kinds is not None:
        return kind not in observed.absent_kinds
    return True if any(id_.kind is kind for id_ in observed.children) else None


def weights_of(served: Iterable[ServedRevision], traffic: Iterable[TrafficShare]) -> dict[str, int]:
    """By the workload that has its pods, what each revision gets; those that only finish what they have get no route.

    One that gets nothing yet is named with 0, so that the Gateways know its servers by the time that it gets some. Of
    two revisions in the same pods (a rollout in place that began in mode Gateway) a route cannot tell one from the
    other: these pods get what both get.
    """
    shares = {share.workload: share.weight for share in traffic}
    weights: dict[str, int] = {}
    for each in served:
        weights[each.home] = weights.get(each.home, 0) + shares.get(each.workload, 0)
    return weights


def behind(owner: ModelDeployment, status: ModelDeploymentStatus, observed: Observed) -> tuple[Behind, ...]:
    """The routes that do not do yet what this status asks for, with the Gateways that do not."""
    if isinstance(owner.spec, InvalidSpec):
        # What the routes should say cannot be told, so nothing is taken from anybody.
        name = names.gateway_api_route(owner.name)
        return tuple(Behind(route=ChildId(kind=kind, name=name)) for kind in ROUTE_KINDS)
    served = [each for each in (status.stable, status.candidate) if each]
    weights = {
        names.workload_service(owner.name, home): weight for home, weight in weights_of(served, status.traffic).items()
    }
    found: list[Behind] = []
    for protocol, kind in KIND_OF.items():
        parents = owner.spec.gateway.parents_of(protocol)
        if not parents:
            continue
        id_ = ChildId(kind=kind, name=names.gateway_api_route(owner.name))
        live = observed.children.get(id_)
        if not isinstance(live, ObservedRoute) or not live.belongs_to(owner.uid) or dict(live.weights) != weights:
            found.append(Behind(route=id_))
            continue
        for parent in parents:
            verdict = _verdict_on(parent, live, owner.namespace)
            if verdict is None or not verdict.accepts:
                found.append(Behind(route=id_, parent=parent, verdict=verdict))
    return tuple(found)


def _verdict_on(parent: ParentReference, live: ObservedRoute, namespace: str) -> ParentVerdict | None:
    """What is said of the newest generation; where two controllers speak for a Gateway, who accepts counts."""
    asked = (parent.name, parent.namespace or namespace, parent.section_name, parent.port)
    said = [
        verdict
        for verdict in live.verdicts
        if (verdict.name, verdict.namespace, verdict.section_name, verdict.port) == asked
        and verdict.generation >= live.generation
    ]
    return next((verdict for verdict in said if verdict.accepts), said[0] if said else None)
