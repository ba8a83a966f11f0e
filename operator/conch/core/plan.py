"""The plan: from what is wanted and what is there to what has to be done. Reads as the table of contents of Conch."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from conch.api import names
from conch.api.assignment import AgentPhase
from conch.api.model_deployment import InvalidSpec, ModelDeployment
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import ModelDeploymentStatus
from conch.core.actions import Action, Apply, Delete, EnsureAdminKey, TellPin
from conch.core.desired.admin_key_secret import admin_key_secret
from conch.core.desired.assignment import assignment_config_map
from conch.core.desired.deployment import deployment
from conch.core.desired.disruption_budget import disruption_budget
from conch.core.desired.object import DesiredObject
from conch.core.desired.service import service
from conch.core.desired.workload_record import new_record, workload_record
from conch.core.fetch_progress import FETCH_REPORT_INTERVAL
from conch.core.observed import ChildKind, Observed, WorkloadRecord
from conch.core.pinning import pin_of, pinned
from conch.core.policy import InstallationPolicy
from conch.core.revision import revision_of
from conch.core.situation import Situation
from conch.core.status import render_status
from conch.core.succession import Succession, succeed


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now.

    `status_first`: the status is written before anything is done, with the object's version as its precondition. That
    is the proof that this plan was not made from an old view (of an object that is gone, or whose traffic has moved),
    and by it the id of a new workload outlives a crash. An edit of what is there does not wait for its report.
    """

    status: ModelDeploymentStatus
    status_first: bool
    actions: tuple[Action, ...] = ()
    requeue_after: timedelta | None = None


def plan(*, owner: ModelDeployment, observed: Observed, policy: InstallationPolicy, now: datetime) -> Plan:
    """Plan one object. Pure: the same arguments give the same plan, and a plan that was carried out plans no action."""
    succession = _succession(owner, observed)
    records = _records(owner, observed, policy, succession)
    replicas = _desired_replicas(owner, observed, succession)
    desired = _desired(owner, policy, succession, records, replicas)
    writes: tuple[Apply | EnsureAdminKey, ...] = (
        *_admin_key(owner, observed, records, replicas),
        *_writes(owner, observed, desired),
    )
    situation = Situation(
        owner=owner,
        spec=owner.spec,
        policy=policy,
        observed=observed,
        succession=succession,
        desired_replicas=replicas,
        now=now,
        needed=frozenset(object_.id for object_ in desired),
        unwritten=frozenset(write.desired.id for write in writes),
    )
    actions: tuple[Action, ...] = (
        ()
        if owner.deleting
        else (*writes, *_removals(owner, observed, succession, desired), *_pin_orders(observed, succession))
    )
    unwatched = bool(situation.unwritten & (observed.strangers.keys() | observed.refusals.keys()))
    status = render_status(situation, now)
    return Plan(
        status=status,
        status_first=_pins(status) != _pins(owner.status) or not all(_is_edit(action) for action in actions),
        actions=actions,
        requeue_after=_requeue_after(policy, status, unwatched=unwatched),
    )


def _requeue_after(policy: InstallationPolicy, status: ModelDeploymentStatus, *, unwatched: bool) -> timedelta | None:
    """When to look again without a cause: at what cannot be watched, and at how far a fetch is."""
    waits = [policy.recheck_after] if unwatched else []
    if status.fetch is not None:
        waits.append(FETCH_REPORT_INTERVAL)
    return min(waits, default=None)


def _pins(status: ModelDeploymentStatus) -> tuple[str | None, ...]:
    return tuple(served.digest if served else None for served in (status.stable, status.candidate))


def _is_edit(action: Action) -> bool:
    """Whether it moves no traffic, and makes no pods where there are none: a new workload is never an edit."""
    if not isinstance(action, Apply):
        return False
    kind = action.desired.id.kind
    changes_what_is_there = action.uid is not None and kind in (ChildKind.DEPLOYMENT, ChildKind.CONFIG_MAP)
    return changes_what_is_there or kind is ChildKind.POD_DISRUPTION_BUDGET


def _succession(owner: ModelDeployment, observed: Observed) -> Succession:
    if isinstance(owner.spec, InvalidSpec):
        # Nothing can be derived from it: what runs stays.
        status = owner.status
        # But for pods that wait for their pin; where a digest was declared, none does.
        waiting = any(pod.report and pod.report.phase is AgentPhase.FETCHED for pod in observed.pods)
        candidate = status.candidate and (pinned(status.candidate, None, observed) if waiting else status.candidate)
        return Succession(stable=status.stable, candidate=candidate, workloads_created=status.workloads_created)
    return succeed(owner, owner.spec, revision_of(owner.spec), observed)


def _desired_replicas(owner: ModelDeployment, observed: Observed, succession: Succession) -> int:
    if not isinstance(owner.spec, InvalidSpec):
        return owner.spec.desired_replicas
    # What runs is left as it is, also where an edit was acted on and its report came too late.
    running = observed.deployment_of(succession.wanted.workload) if succession.wanted else None
    return running.replicas if running else owner.status.desired_replicas


def _records(
    owner: ModelDeployment, observed: Observed, policy: InstallationPolicy, succession: Succession
) -> tuple[WorkloadRecord, ...]:
    """What each workload was created as; of a workload that is to be created now, what the spec makes of it.

    A record that was deleted by hand can only be made again while the spec still asks for that revision; until then its
    workload stays as it is.
    """
    records = []
    for served in succession.workloads:
        record = observed.record_of(owner.uid, names.workload_object(owner.name, served.workload))
        if (
            record is None
            and isinstance(owner.spec, ModelDeploymentSpec)
            and served.revision == revision_of(owner.spec)
        ):
            if policy.source_policy.refusal(owner.spec.model.source.place):
                # Pods would hold GPUs for a model that they may not fetch.
                continue
            record = new_record(owner, owner.spec, served.revision, served.workload, policy)
        if record is not None:
            records.append(record)
    return tuple(records)


def _desired(
    owner: ModelDeployment,
    policy: InstallationPolicy,
    succession: Succession,
    records: tuple[WorkloadRecord, ...],
    replicas: int,
) -> tuple[DesiredObject, ...]:
    """Every child as it should be, in the order in which they need each other."""
    pins = {served.workload: pin_of(served) for served in succession.workloads}
    objects: list[DesiredObject] = []
    for record in records:
        objects += [
            workload_record(owner, record),
            assignment_config_map(owner, record, policy.source_policy, pins.get(record.workload)),
            deployment(owner, record, replicas),
        ]
    if succession.serving:
        objects.append(service(owner, succession.serving.workload))
    if succession.serving and replicas > 1:
        objects.append(disruption_budget(owner, succession.serving.workload))
    return tuple(objects)


def _pin_orders(observed: Observed, succession: Succession) -> list[TellPin]:
    """For every pod whose agent does not know yet what its revision's files are."""
    return [
        TellPin(pod=pod.name, address=pod.ip, revision=served.revision, pin=pin)
        for served in succession.workloads
        if (pin := pin_of(served)) is not None
        for pod in observed.pods_of(served.workload)
        if pod.ip and pod.report and pod.report.revision == served.revision and pod.report.pin != pin
    ]


def _admin_key(
    owner: ModelDeployment, observed: Observed, records: tuple[WorkloadRecord, ...], replicas: int
) -> tuple[EnsureAdminKey, ...]:
    """The key Secret cannot be watched: a pod that started tells that it is there, one that cannot, that it is gone."""
    missed = any(
        container.waiting_reason == "CreateContainerConfigError"
        for pod in observed.pods
        for container in pod.containers
    )
    known = observed.secret_known or any(pod.has_started for pod in observed.pods) or not replicas
    if not records or (known and not missed):
        return ()
    return (EnsureAdminKey(desired=admin_key_secret(owner)),)


def _writes(owner: ModelDeployment, observed: Observed, desired: tuple[DesiredObject, ...]) -> list[Apply]:
    writes = []
    for wanted in desired:
        live = observed.children.get(wanted.id)
        if live is None:
            writes.append(Apply(desired=wanted, uid=None))
        elif live.belongs_to(owner.uid) and not live.deleting and live.owned_hash != wanted.hash:
            writes.append(Apply(desired=wanted, uid=live.uid))
    return writes


def _removals(
    owner: ModelDeployment, observed: Observed, succession: Succession, desired: tuple[DesiredObject, ...]
) -> list[Delete]:
    """Children that are no longer named: but a workload only once the Service is seen to send elsewhere."""
    wanted = {object_.id for object_ in desired}
    switched = all(
        (live := observed.children.get(object_.id)) is not None and live.owned_hash == object_.hash
        for object_ in desired
        if object_.id.kind is ChildKind.SERVICE
    )
    in_use = {names.workload_object(owner.name, served.workload) for served in succession.workloads}
    return [
        Delete(id=live.id, uid=live.uid, resource_version=live.resource_version)
        for live in observed.children.values()
        if live.belongs_to(owner.uid)
        and not live.deleting
        and live.id not in wanted
        and (live.id.kind is ChildKind.POD_DISRUPTION_BUDGET or (switched and live.id.name not in in_use))
    ]
