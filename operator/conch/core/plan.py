"""The plan: from what is wanted and what is there to what has to be done. Reads as the table of contents of Conch."""

from collections.abc import Iterable, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from conch.api import names
from conch.api.model_deployment import InvalidSpec, ModelDeployment
from conch.api.rollout import RolloutPhase
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import ModelDeploymentStatus
from conch.core.actions import Action, Apply, EnsureAdminKey, MarkForRemoval, OpenWindow, ShowChange, TellPin, TellTurn
from conch.core.autoscaling import autoscaled
from conch.core.cache_fallback import decided_after
from conch.core.children import desired_children, records_of
from conch.core.desired.admin_key_secret import admin_key_secret
from conch.core.desired.object import DesiredObject
from conch.core.evictions import given_up_after
from conch.core.fetch_progress import FETCH_REPORT_INTERVAL
from conch.core.findings.scheduler import silence_due_after
from conch.core.following import followed_by_heard
from conch.core.history import kept_records, remembered, spec_with, to_go_back_to
from conch.core.in_place import as_they_serve, shares_home
from conch.core.observed import Observed
from conch.core.observed_child import ChildId, ChildKind, WorkloadRecord
from conch.core.pinning import pin_of
from conch.core.policy import InstallationPolicy
from conch.core.removals import removals
from conch.core.revision import revision_of
from conch.core.rollout.commands import Obeyed, answer_due_after, obey
from conch.core.rollout.machine import window_of
from conch.core.rollout.phases import UNDER_WAY
from conch.core.routing import Routing, route
from conch.core.situation import Situation
from conch.core.status import render_status
from conch.core.succession import Succession, succeed, without_spec

_DRAIN_CHECK: Final = timedelta(seconds=1)
"""How often what drains is looked at where no gateway says anything new."""

_JUDGED_CHECK: Final = timedelta(seconds=1)
"""How often a candidate is judged that gets its share of the traffic."""
_ROLLOUT_CHECK: Final = timedelta(seconds=5)
"""How often another rollout is looked at where nothing else happens: its deadlines come by themselves."""


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
    observed = as_they_serve(observed, owner.status)
    records = remembered(owner, observed)
    past = to_go_back_to(records, owner.status)
    asked = revision_of(owner.spec) if isinstance(owner.spec, ModelDeploymentSpec) else None
    obeyed = obey(owner.command, owner.status, asked=asked, past=past, now=now)
    if (
        isinstance(owner.spec, ModelDeploymentSpec)
        and obeyed.rolled_back_to
        and (spec := spec_with(obeyed.rolled_back_to, owner.spec, records))
    ):
        # From here on it is as if the spec said so.
        owner = replace(owner, spec=spec)
    owner = autoscaled(owner, observed)
    succession = _succession(owner, obeyed, observed, policy, now)
    replicas = _desired_replicas(owner, observed, succession)
    routing = route(owner, succession, replicas, observed, policy, now)
    created_as = records_of(owner, observed, policy, succession)
    desired = desired_children(owner, policy, succession, routing, created_as, replicas, observed, now)
    writes: tuple[Apply | EnsureAdminKey, ...] = (
        *_admin_key(owner, observed, created_as, replicas),
        *_writes(owner, observed, desired),
    )
    situation = Situation(
        owner=owner,
        spec=owner.spec,
        policy=policy,
        observed=observed,
        revision=asked,
        succession=succession,
        routing=routing,
        desired_replicas=replicas,
        now=now,
        needed=frozenset(object_.id for object_ in desired),
        unwritten=frozenset(write.desired.id for write in writes),
    )
    actions: tuple[Action, ...] = (
        ()
        if owner.deleting
        else (
            *(
                MarkForRemoval(pod=pod.name, uid=pod.uid)
                for staffing in routing.staffings.values()
                for pod in staffing.removed_first
            ),
            *writes,
            *removals(owner, observed, succession, routing, desired, _kept(owner, records, succession)),
            *_pin_orders(observed, succession),
            *_changes_to_show(owner, observed, succession, routing, writes),
            *_turn_orders(observed, succession, routing),
            *(_windows(observed, succession) if routing.exposure.port is not None or routing.by_routes else ()),
        )
    )
    unwatched = bool(situation.unwritten & (observed.strangers.keys() | observed.refusals.keys()))
    status = render_status(situation, now)
    return Plan(
        status=status,
        status_first=_announced(status) != _announced(owner.status) or not all(_is_edit(action) for action in actions),
        actions=actions,
        requeue_after=_requeue_after(
            owner,
            policy,
            status,
            unwatched=unwatched,
            patience=(
                silence_due_after(observed.pods, now),
                decided_after(owner, created_as, observed, now),
                *(
                    given_up_after(observed.pods_of(workload), staffing.held, now)
                    for workload, staffing in routing.staffings.items()
                ),
            ),
            now=now,
        ),
    )


def _requeue_after(
    owner: ModelDeployment,
    policy: InstallationPolicy,
    status: ModelDeploymentStatus,
    *,
    unwatched: bool,
    patience: Iterable[timedelta | None],
    now: datetime,
) -> timedelta | None:
    """When to look again without a cause: at what cannot be watched, and where a `patience` ends."""
    waits = [policy.recheck_after] if unwatched else []
    waits += [left for left in patience if left is not None]
    if (answer := answer_due_after(owner.command, status.command, now)) is not None:
        waits.append(answer)
    if status.fetch is not None:
        waits.append(FETCH_REPORT_INTERVAL)
    if any(share.draining_since for share in status.traffic) or (status.gateway and status.gateway.unlisted_since):
        waits.append(_DRAIN_CHECK)
    if status.rollout and status.rollout.phase in UNDER_WAY and status.desired_replicas:
        is_judged = status.rollout.observed_since or status.rollout.phase is RolloutPhase.SHADOWING
        waits.append(_JUDGED_CHECK if is_judged else _ROLLOUT_CHECK)
    return min(waits, default=None)


def _announced(status: ModelDeploymentStatus) -> tuple[object, ...]:
    """What others act on as soon as they read it: agents on the pins, gateways on the traffic, we on the rollout."""
    pins = tuple(served.digest if served else None for served in (status.stable, status.candidate))
    rollout = status.rollout and status.rollout.model_copy(update={"checks": (), "checked_at": None, "shadow": None})
    return (*pins, status.traffic, status.gateway, rollout)


def _is_edit(action: Action) -> bool:
    """Whether it moves no traffic, and makes no pods where there are none: a new workload is never an edit."""
    if not isinstance(action, Apply):
        return False
    kind = action.desired.id.kind
    changes_what_is_there = action.uid is not None and kind in (ChildKind.DEPLOYMENT, ChildKind.CONFIG_MAP)
    return changes_what_is_there or kind is ChildKind.POD_DISRUPTION_BUDGET


def _kept(owner: ModelDeployment, records: tuple[WorkloadRecord, ...], succession: Succession) -> Set[str]:
    """Records that outlive their workloads; of a spec that cannot be read, all."""
    spec, past = owner.spec, to_go_back_to(records, succession)
    limit = len(past) if isinstance(spec, InvalidSpec) else spec.rollout.effective_revision_history_limit
    return kept_records(owner, records, past, limit)


def _succession(
    owner: ModelDeployment, obeyed: Obeyed, observed: Observed, policy: InstallationPolicy, now: datetime
) -> Succession:
    acknowledged = followed_by_heard(owner, observed)
    if isinstance(owner.spec, InvalidSpec):
        return without_spec(owner, obeyed, observed, acknowledged=acknowledged, policy=policy, now=now)
    return succeed(
        owner,
        owner.spec,
        revision_of(owner.spec),
        obeyed,
        observed,
        acknowledged=acknowledged,
        policy=policy,
        now=now,
    )


def _desired_replicas(owner: ModelDeployment, observed: Observed, succession: Succession) -> int:
    if not isinstance(owner.spec, InvalidSpec):
        return owner.spec.desired_replicas
    if succession.under_way:
        # Each of the two has some of the pods, and status.rollout says how many.
        return owner.status.desired_replicas
    # What runs is left as it is, also where an edit was acted on and its report came too late.
    running = observed.deployment_of(succession.wanted.workload) if succession.wanted else None
    return running.replicas if running else owner.status.desired_replicas


def _pin_orders(observed: Observed, succession: Succession) -> list[TellPin]:
    """For every pod whose agent does not know yet what its revision's files are."""
    return [
        TellPin(pod=pod.name, address=pod.ip, revision=served.revision, pin=pin)
        for served in succession.workloads
        if (pin := pin_of(served)) is not None
        for pod in observed.pods
        if pod.ip and not pod.deleting and pod.report
        for told in (pod.report, pod.report.change)
        if told is not None and told.revision == served.revision and told.pin != pin
    ]


def _changes_to_show(
    owner: ModelDeployment,
    observed: Observed,
    succession: Succession,
    routing: Routing,
    writes: tuple[Apply | EnsureAdminKey, ...],
) -> list[ShowChange]:
    """For every pod whose kubelet was not told that there is a change; once its assignment is written."""
    stable, candidate, rollout = succession.stable, succession.candidate, routing.rollout
    if stable is None or candidate is None or rollout is None or not shares_home(stable, candidate):
        return []
    assignment = ChildId(kind=ChildKind.CONFIG_MAP, name=names.workload_object(owner.name, stable.home))
    if assignment not in observed.children or any(write.desired.id == assignment for write in writes):
        return []
    return [
        ShowChange(pod=pod.name, uid=pod.uid, change=rollout.id)
        for served in (stable, candidate)
        for pod in observed.pods_of(served.workload)
        if pod.shown_change != rollout.id
    ]


def _turn_orders(observed: Observed, succession: Succession, routing: Routing) -> list[TellTurn]:
    """For every pod that is at the other of a change's two revisions."""
    stable, candidate, rollout = succession.stable, succession.candidate, routing.rollout
    if stable is None or candidate is None or rollout is None or not shares_home(stable, candidate):
        return []
    both = (stable, candidate)
    return [
        TellTurn(pod=pod.name, address=pod.ip, change=rollout.id, turn=rollout.turn, revision=wanted.revision)
        for pod in (pod for served in both for pod in observed.pods_of(served.workload))
        for wanted in (candidate if pod.name in rollout.turned else stable,)
        if pod.ip and pod.report and pod.report.changes_in_place and pod.report.revision not in ("", wanted.revision)
    ]


def _windows(observed: Observed, succession: Succession) -> list[OpenWindow]:
    """The window in which the candidate is judged from now on."""
    under_way = succession.under_way
    name = window_of(under_way) if under_way else None
    if name is None or (observed.window and observed.window.name == name):
        return []
    return [OpenWindow(name=name)]


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
