"""From what was seen to a report: which check does not pass, what goes with it, and what to do. Pure."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from conch.api import names
from conch.api.model_deployment import ModelDeployment, parse
from conch.api.reasons import Reason
from conch.api.status import ConditionStatus, ConditionType, ServedRevision
from conch.app.projections import project_child, project_pod
from conch.core.findings import CHECKS
from conch.core.observed_child import ChildKind, ObservedDeployment
from conch.core.observed_pod import ObservedContainer, ObservedPod
from conch.kube.client import Json
from conch.why.gather import Seen
from conch.why.report import CheckRow, ContainerRow, Outcome, PodRow, Report, RevisionRow, ScalingRow, WarningRow
from conch.why.scaling import scaling_advice, scaling_row, waking

LOOKED: Final = "operator_has_looked"
"""Before the operator's own checks: it has none for its own absence."""

_WARNINGS_KEPT: Final = 10
_OPERATOR_LABELS: Final = "app.kubernetes.io/name=conch,app.kubernetes.io/component=operator"


def explain(seen: Seen) -> Report:
    """What keeps this object from being ready."""
    owner = parse(seen.body)
    roles = _roles(owner)
    conditions = _conditions(seen.body)
    ready = conditions.get(ConditionType.READY, {})
    observed = (
        owner.status.observed_generation >= owner.generation
        and ready.get("status", ConditionStatus.UNKNOWN) != ConditionStatus.UNKNOWN
    )
    is_ready = observed and ready["status"] == ConditionStatus.TRUE
    pods = None if seen.pods is None else tuple(_pod(live, roles) for live in seen.pods)
    scaling = scaling_row(seen.body)
    return Report(
        namespace=owner.namespace,
        name=owner.name,
        ready=is_ready,
        observed=observed,
        reason=ready.get("reason", Reason.NOT_OBSERVED),
        message=ready.get("message", ""),
        since=ready.get("lastTransitionTime") if observed else None,
        notes=tuple(_notes(seen.body, owner, conditions, observed=observed)),
        checks=_checks(observed=observed, ready=is_ready, failing=_failing(seen.body)),
        revisions=tuple(_revision(role, served, owner, seen) for role, served in _revisions(owner)),
        pin=owner.status.source,
        fetch=owner.status.fetch,
        cache=owner.status.cache,
        autoscaling=scaling,
        # Those that serve explain nothing.
        pods=None if pods is None else tuple(sorted(pods, key=lambda pod: (pod.ready, pod.name))),
        warnings=None if seen.warnings is None else _warnings(seen.warnings, owner, {*roles, *_workloads(seen)}),
        left_out=seen.left_out,
        next_step=_next_step(owner, conditions, scaling, observed=observed, ready=is_ready),
    )


def _conditions(body: Json) -> dict[str, Mapping[str, Any]]:
    """By type and as they stand there: a newer operator's reasons are to be shown, and `parse` would drop them."""
    return {each["type"]: each for each in body.get("status", {}).get("conditions", ())}


def _failing(body: Json) -> str:
    return str(body.get("status", {}).get("display", {}).get("check", ""))


def _checks(*, observed: bool, ready: bool, failing: str) -> tuple[CheckRow, ...]:
    """Every check; exactly one has failed unless the object is ready."""
    chain = [(LOOKED, "The operator has looked at the spec as it is now.")]
    chain += [(check.__name__, (check.__doc__ or check.__name__).splitlines()[0]) for check in CHECKS]
    known = [name for name, _ in chain]
    if ready:
        reached = len(chain)
    elif not observed:
        reached = 0
    elif failing in known:
        reached = known.index(failing)
    else:
        # Of another version than this command: where it stands among the others is not known.
        reached = 1
        chain.insert(1, (failing, f"A check of another version of Conch passes ({failing or 'it has no name'})."))
    marks = [Outcome.PASSED] * reached + [Outcome.FAILED] + [Outcome.NOT_REACHED] * len(chain)
    return tuple(
        CheckRow(name=name, holds=holds, outcome=outcome) for (name, holds), outcome in zip(chain, marks, strict=False)
    )


def _notes(
    body: Json, owner: ModelDeployment, conditions: Mapping[str, Mapping[str, Any]], *, observed: bool
) -> Iterable[str]:
    """What a reader has to know before anything else."""
    if owner.deleting:
        holders = ", ".join(body["metadata"].get("finalizers", ())) or "nothing"
        yield f"It is being deleted (finalizers that hold it: {holders})."
    # From the object as it stands: its spec may be of a newer version.
    spec = body.get("spec", {})
    if spec.get("suspend"):
        yield "It is suspended (spec.suspend): no pods are wanted."
    elif spec.get("replicas") == 0:
        yield "No replicas are wanted (spec.replicas is 0)."
    elif "autoscaling" in spec and observed and owner.status.desired_replicas == 0:
        yield "Nobody asks, so no server runs; the next request wakes it."
    available = conditions.get(ConditionType.AVAILABLE, {})
    if available.get("status") == ConditionStatus.TRUE:
        yield f"Meanwhile: {available.get('message', '')}"


def _revisions(owner: ModelDeployment) -> list[tuple[str, ServedRevision]]:
    both = (("stable", owner.status.stable), ("candidate", owner.status.candidate))
    return [(role, served) for role, served in both if served is not None]


def _roles(owner: ModelDeployment) -> dict[str, str]:
    """By workload."""
    return {served.workload: role for role, served in _revisions(owner)}


def _revision(role: str, served: ServedRevision, owner: ModelDeployment, seen: Seen) -> RevisionRow:
    name = names.workload_object(owner.name, served.home)
    live = (project_child(ChildKind.DEPLOYMENT, each) for each in seen.deployments or ())
    deployment = next((each for each in live if each.id.name == name and each.belongs_to(owner.uid)), None)
    there = deployment if isinstance(deployment, ObservedDeployment) else None
    return RevisionRow(
        role=role,
        version=served.version,
        revision=served.revision,
        workload=served.workload,
        digest=served.digest,
        resolved=served.resolved,
        deployment=name,
        replicas=there.replicas if there else None,
        creation_error=there.creation_error if there else "",
    )


def _pod(live: Json, roles: Mapping[str, str]) -> PodRow:
    pod = project_pod(live)
    return PodRow(
        name=pod.name,
        role=roles.get(pod.workload, ""),
        phase=pod.phase,
        ready=pod.ready,
        deleting=pod.deleting,
        node=pod.node,
        created_at=live["metadata"]["creationTimestamp"],
        problem=_problem(pod),
        containers=tuple(map(_container, pod.containers)),
    )


def _problem(pod: ObservedPod) -> str:
    if pod.failure:
        return pod.failure
    if pod.node_lost:
        return "its node does not answer any more"
    if pod.missing_claims and pod.waits_for_scheduler:
        return f"no claim of {', '.join(pod.missing_claims)} has been made for it yet"
    if pod.waits_for_scheduler:
        return f"the scheduler {pod.waits_for_scheduler} has said nothing of it yet"
    return "" if pod.scheduled else pod.unschedulable_message


def _container(container: ObservedContainer) -> ContainerRow:
    return ContainerRow(
        name=container.name,
        ready=container.ready,
        restarts=container.restarts,
        waiting_reason=container.waiting_reason,
        waiting_message=container.waiting_message,
        last_exit=container.last_exit,
        last_exit_at=_stamp(container.last_exit_at) if container.last_exit_at else None,
    )


def _workloads(seen: Seen) -> set[str]:
    """Also those that no revision has any more: their last words may be the reason."""
    return {
        workload
        for live in (*(seen.pods or ()), *(seen.deployments or ()))
        if (workload := live["metadata"].get("labels", {}).get(names.LABEL_WORKLOAD))
    }


def _warnings(events: Iterable[Json], owner: ModelDeployment, workloads: Iterable[str]) -> tuple[WarningRow, ...]:
    stems = tuple(names.workload_object(owner.name, workload) for workload in workloads)

    def concerns(event: Json) -> bool:
        of = event.get("involvedObject", {})
        if of.get("kind") == names.KIND:
            return bool(of.get("uid") == owner.uid)
        name = of.get("name", "")
        # ReplicaSets and pods, also those that are gone, bear their workload's name and a suffix.
        return of.get("kind") in ("Deployment", "ReplicaSet", "Pod") and any(
            name == stem or name.startswith(f"{stem}-") for stem in stems
        )

    mine = sorted((event for event in events if concerns(event)), key=_last_seen)
    return tuple(map(_warning, mine[-_WARNINGS_KEPT:]))


def _warning(event: Json) -> WarningRow:
    of = event["involvedObject"]
    return WarningRow(
        at=_stamp(_last_seen(event)),
        regarding=f"{of.get('kind', '')} {of.get('name', '')}",
        reason=event.get("reason") or "",
        message=event.get("message") or "",
        count=(event.get("series") or {}).get("count") or event.get("count") or 1,
    )


def _last_seen(event: Json) -> datetime:
    """Which of its dates an Event has depends on the version of the API that it was written in."""
    dates = (
        (event.get("series") or {}).get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        event["metadata"]["creationTimestamp"],
    )
    return datetime.fromisoformat(next(filter(None, dates)))


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _next_step(
    owner: ModelDeployment,
    conditions: Mapping[str, Mapping[str, Any]],
    scaling: ScalingRow | None,
    *,
    observed: bool,
    ready: bool,
) -> str:
    condition = conditions.get(ConditionType.READY, {})
    message = condition.get("message", "")

    def holds(type_: ConditionType) -> bool:
        return bool(conditions.get(type_, {}).get("status") == ConditionStatus.TRUE)

    if not observed:
        return (
            "Give the operator some seconds. If nothing changes, see whether it runs: "
            f"kubectl get pods -A -l {_OPERATOR_LABELS}"
        )
    if ready and condition.get("reason") == Reason.NO_REPLICAS:
        return f"To serve: kubectl scale mdep {owner.name} -n {owner.namespace} --replicas=1"
    if ready and scaling and condition.get("reason") == Reason.SCALED_TO_ZERO:
        return waking(owner, scaling)
    if ready and scaling and (advice := scaling_advice(owner, scaling)):
        return f"It serves. {advice}"
    if ready:
        return message if condition.get("reason") == Reason.SUSPENDED else "Nothing: it serves."
    if holds(ConditionType.STALLED):
        return f"Somebody has to act. {message}"
    if holds(ConditionType.CAPACITY_BLOCKED):
        return f"It waits for room and goes on by itself when there is some. {message}"
    return f"Nothing: it is on its way. To watch it: kubectl get mdep {owner.name} -n {owner.namespace} -w"
