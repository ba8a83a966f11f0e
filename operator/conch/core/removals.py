"""What of an object's children is to go."""

from collections.abc import Set

from conch.api import names
from conch.api.model_deployment import InvalidSpec, ModelDeployment
from conch.core.actions import Delete, DeleteEndpoints
from conch.core.desired.object import DesiredObject
from conch.core.observed import Observed
from conch.core.observed_child import ROUTE_KINDS, ChildId, ChildKind, ObservedChild, ObservedRoute
from conch.core.routing import Routing
from conch.core.succession import Succession


def removals(
    owner: ModelDeployment,
    observed: Observed,
    succession: Succession,
    routing: Routing,
    desired: tuple[DesiredObject, ...],
    remembered: Set[str],
) -> list[Delete | DeleteEndpoints]:
    """Children that are no longer named: but a workload only once the Service is seen to send elsewhere.

    `remembered` are the names of records that outlive their workloads.
    """
    wanted = {object_.id for object_ in desired}
    switched = all(
        (live := observed.children.get(object_.id)) is not None and live.owned_hash == object_.hash
        for object_ in desired
        if object_.id == ChildId(kind=ChildKind.SERVICE, name=names.service(owner.name))
    )
    # Of a workload whose pods are another one's nothing but its record is there.
    workloads = (*(served.workload for served in succession.workloads), *routing.retiring)
    in_use = {names.workload_object(owner.name, home) for home in routing.homes}
    records = in_use | {names.workload_object(owner.name, workload) for workload in workloads}

    # Gateways would answer what they send to a Service that is gone with errors.
    routed_to = {
        service
        for live in observed.children.values()
        if isinstance(live, ObservedRoute) and live.belongs_to(owner.uid)
        for service in live.weights
    }

    def unwanted(live: ObservedChild) -> bool:
        if live.id in wanted or live.deleting or not live.belongs_to(owner.uid):
            return False
        if live.id.kind in ROUTE_KINDS:
            # What it should say cannot be told where the spec cannot be read.
            return not isinstance(owner.spec, InvalidSpec)
        if live.id.kind is ChildKind.SERVICE and live.id.name in routed_to:
            return False
        if live.id.kind in (ChildKind.POD_DISRUPTION_BUDGET, ChildKind.ENDPOINT_SLICE, ChildKind.NETWORK_POLICY):
            return True
        if live.id.kind is ChildKind.CONTROLLER_REVISION:
            return switched and live.id.name not in records | remembered
        return switched and (live.id.name not in in_use or live.id.kind is ChildKind.SERVICE)

    left_behind = routing.exposure.left_behind
    gone = [live for live in observed.children.values() if unwanted(live)]
    return [
        *([DeleteEndpoints(service=names.service(owner.name))] if left_behind else ()),
        *(
            Delete(id=live.id, uid=live.uid, resource_version=live.resource_version)
            for live in (*gone, *left_behind)
            if not live.deleting
        ),
    ]
