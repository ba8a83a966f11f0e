"""The children of an object: what each of its workloads was created as, and every object as it should be now."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from conch.api import names
from conch.api.model_deployment import InvalidSpec, ModelDeployment
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import ServedRevision
from conch.core.cache_fallback import template_of
from conch.core.desired.assignment import assignment_config_map, change_to
from conch.core.desired.deployment import deployment
from conch.core.desired.disruption_budget import disruption_budget
from conch.core.desired.gateway_slice import gateway_slice
from conch.core.desired.network_policy import network_policy
from conch.core.desired.object import DesiredObject
from conch.core.desired.route import grpc_route, http_route
from conch.core.desired.service import direct_service, gateway_service, workload_service
from conch.core.desired.workload_record import new_record, workload_record
from conch.core.exposure import Exposure
from conch.core.gateway_api import is_served, wanted_kinds, weights_of
from conch.core.observed import Observed
from conch.core.observed_child import ChildId, ChildKind, ObservedAssignment, WorkloadRecord
from conch.core.pinning import pin_of
from conch.core.policy import InstallationPolicy, NetworkAccess
from conch.core.revision import revision_of
from conch.core.routing import Routing
from conch.core.source_refusal import source_refusal
from conch.core.succession import Succession


def records_of(
    owner: ModelDeployment, observed: Observed, policy: InstallationPolicy, succession: Succession
) -> tuple[WorkloadRecord, ...]:
    """What each workload was created as; of a workload that is to be created now, what the spec makes of it.

    A record that was deleted by hand can only be made again while the spec still asks for that revision; until then its
    workload stays as it is.
    """
    records = []
    for served in succession.workloads:
        record = _record_of(owner, observed, served.workload)
        if (
            record is None
            and isinstance(owner.spec, ModelDeploymentSpec)
            and served.revision == revision_of(owner.spec)
        ):
            if source_refusal(owner.spec, policy.source_policy):
                # Pods would hold GPUs for a model that they may not fetch.
                continue
            record = new_record(
                owner,
                owner.spec,
                served.revision,
                workload=served.workload,
                number=names.workload_number(owner.uid, served.workload, succession.workloads_created),
                policy=policy,
            )
        if record is not None:
            records.append(record)
    return tuple(records)


def _record_of(owner: ModelDeployment, observed: Observed, workload: str) -> WorkloadRecord | None:
    return observed.record_of(owner.uid, names.workload_object(owner.name, workload))


def desired_children(
    owner: ModelDeployment,
    policy: InstallationPolicy,
    succession: Succession,
    routing: Routing,
    records: tuple[WorkloadRecord, ...],
    replicas: int,
    observed: Observed,
    now: datetime,
) -> tuple[DesiredObject, ...]:
    """Every child as it should be, in the order in which they need each other."""
    objects: list[DesiredObject] = []
    if policy.network_access is not None:
        # Before any pod is there, and open before the Service leads to pods.
        objects.append(_network_policy(owner, policy.network_access, routing))
    objects += [workload_record(owner, record) for record in records]
    by_workload = {record.workload: record for record in records}
    for home, asked in routing.replicas.items():
        maker = by_workload.get(home) or _record_of(owner, observed, home)
        if maker is None:
            # Deleted by hand: its Deployment stays as it is.
            continue
        tenants = [served for served in succession.workloads if served.home == home]
        if assigned := _assigned(owner, home, tenants, by_workload, routing, policy, observed):
            objects.append(assigned)
        objects.append(deployment(owner, maker, template_of(owner, maker, observed, now), asked))
    if routing.exposure.port is not None or routing.by_routes:
        objects += [workload_service(owner, home) for home in routing.homes]
    objects += _address(owner, succession, routing.exposure)
    objects += _routes(owner, succession, routing, observed)
    if replicas > 0:
        objects += _disruption_budgets(owner, succession, routing)
    return tuple(objects)


def _network_policy(owner: ModelDeployment, access: NetworkAccess, routing: Routing) -> DesiredObject:
    """In mode GatewayAPI for the platform's Gateways, where the installation says which pods these are."""
    named = access.gateway_api_from if routing.by_routes else ()
    return network_policy(owner, access, to_all_clients=routing.exposure.opens_pods and not named, clients=named)


def _assigned(
    owner: ModelDeployment,
    home: str,
    tenants: Sequence[ServedRevision],
    records: Mapping[str, WorkloadRecord],
    routing: Routing,
    policy: InstallationPolicy,
    observed: Observed,
) -> DesiredObject | None:
    """What the pods of a home are to serve: one revision, or the second of two where it is their turn."""
    known = [(records[served.workload], pin_of(served)) for served in tenants if served.workload in records]
    if not known or known[0][0].workload != tenants[0].workload:
        return None
    record, pin = known[0]
    instances, change = _instances(owner, home, observed), None
    if len(known) > 1 and routing.rollout is not None:
        change = change_to(*known[1], routing.rollout, policy.source_policy, instances)
    return assignment_config_map(owner, home, record, policy.source_policy, pin, instances, change)


def _disruption_budgets(owner: ModelDeployment, succession: Succession, routing: Routing) -> list[DesiredObject]:
    """One for the stable revision, which may have to take everything back, and for a candidate that has traffic."""
    first = succession.stable or succession.candidate
    return [
        disruption_budget(
            owner, served.home, evictions=routing.staffings[served.workload].evictions, is_candidate=served != first
        )
        for served in succession.workloads
        if first and (served == first or (succession.weight_of(served) > 0 and served.home != first.home))
    ]


def _address(owner: ModelDeployment, succession: Succession, exposure: Exposure) -> list[DesiredObject]:
    """What clients reach the object by."""
    objects: list[DesiredObject] = []
    if succession.serving is None:
        return objects
    if exposure.selects_pods:
        objects.append(direct_service(owner, succession.serving.home))
    elif exposure.port is not None:
        objects.append(gateway_service(owner, exposure.port))
    if exposure.port is not None and exposure.listed is not None:
        objects.append(gateway_slice(owner, exposure.port, exposure.listed))
    return objects


def _routes(
    owner: ModelDeployment, succession: Succession, routing: Routing, observed: Observed
) -> list[DesiredObject]:
    """The routes of the Gateway API that the spec asks for, of the kinds that the cluster is known to have."""
    if isinstance(owner.spec, InvalidSpec):
        return []
    kinds = [kind for kind in wanted_kinds(owner) if is_served(kind, observed)]
    weights = weights_of(succession.workloads, routing.traffic)
    versions = [served.version for served in succession.workloads]
    return [
        grpc_route(owner, owner.spec, weights)
        if kind is ChildKind.GRPC_ROUTE
        else http_route(owner, owner.spec, weights, versions)
        for kind in kinds
        if weights
    ]


def _instances(owner: ModelDeployment, home: str, observed: Observed) -> int | None:
    """What every server of a home is to have; None as its model says. What cannot be read changes nothing."""
    if isinstance(owner.spec, InvalidSpec):
        name = names.workload_object(owner.name, home)
        live = observed.children.get(ChildId(kind=ChildKind.CONFIG_MAP, name=name))
        return live.instances if isinstance(live, ObservedAssignment) and live.belongs_to(owner.uid) else None
    asked = owner.spec.runtime.instances
    return asked if isinstance(asked, int) else None
