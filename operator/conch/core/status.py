"""Renders `status`: one exit, from one situation, with the same reason in every place that shows one."""

from datetime import datetime

from conch.api import names
from conch.api.agent_report import AgentPhase
from conch.api.gpu import Gpu
from conch.api.model_deployment import ModelDeployment
from conch.api.reasons import Reason
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import (
    Condition,
    ConditionStatus,
    ConditionType,
    Display,
    ModelDeploymentStatus,
    PinnedSource,
    PodCounts,
    ServedRevision,
)
from conch.api.types import bounded, timestamp
from conch.core.addresses import addresses
from conch.core.autoscaling import autoscaling_of, autoscaling_status
from conch.core.cache_status import cache_status
from conch.core.fetch_progress import fetch_progress
from conch.core.finding import Finding, Severity
from conch.core.findings import first_finding
from conch.core.findings.gateways import routing_finding
from conch.core.observed_pod import ObservedPod
from conch.core.rollout.verified import ready_pods
from conch.core.situation import Situation


def render_status(situation: Situation, now: datetime) -> ModelDeploymentStatus:
    """The status of an object in this situation; `now` dates the conditions that change."""
    owner, succession = situation.owner, situation.succession
    finding = first_finding(situation)
    observed = situation.observed
    url, grpc_url = addresses(situation)
    return ModelDeploymentStatus(
        observed_generation=owner.generation,
        conditions=_conditions(situation, finding, now),
        replicas=sum(len(observed.pods_of(served.workload)) for served in succession.workloads),
        ready_replicas=sum(len(ready_pods(served, observed)) for served in succession.workloads),
        desired_replicas=situation.desired_replicas,
        selector=_selector(owner),
        url=url,
        grpc_url=grpc_url,
        stable=succession.stable,
        candidate=succession.candidate,
        rollout=situation.routing.rollout,
        rejected=succession.rejected,
        past=succession.past,
        rolled_back_to=succession.rolled_back_to,
        command=succession.command,
        traffic=situation.routing.traffic,
        gateway=situation.routing.gateway,
        workloads_created=succession.workloads_created,
        autoscaling=autoscaling_status(owner, situation.observed.scaling, now),
        source=_pinned_source(succession.wanted),
        fetch=fetch_progress(situation.pods, owner.status.fetch, now),
        cache=cache_status(situation),
        pods=_pod_counts(situation.pods),
        display=_display(situation, finding),
    )


def _conditions(situation: Situation, finding: Finding | None, now: datetime) -> tuple[Condition, ...]:
    serving = situation.succession.serving
    available = len(ready_pods(serving, situation.observed)) if serving else 0
    suspended = isinstance(situation.spec, ModelDeploymentSpec) and situation.spec.suspend

    def condition(type_: ConditionType, holds: bool, reason: Reason, message: str) -> Condition:
        return _dated(
            situation.owner, type_, ConditionStatus.TRUE if holds else ConditionStatus.FALSE, reason, message, now
        )

    ready_reason, ready_message = _ready(finding, situation, suspended)
    stalled = finding is not None and finding.severity is Severity.STALLED
    blocked = finding is not None and finding.severity is Severity.BLOCKED
    calm = (Reason.AS_EXPECTED, "")
    why = (finding.reason, finding.message) if finding else calm
    return (
        condition(ConditionType.READY, finding is None, ready_reason, ready_message),
        condition(
            ConditionType.AVAILABLE,
            available > 0,
            Reason.SERVING if available else (Reason.SUSPENDED if suspended else Reason.NO_REPLICAS),
            f"{available} replicas serve version {serving.version}." if serving and available else "Nothing serves.",
        ),
        condition(ConditionType.RECONCILING, finding is not None and not stalled, *(why if not stalled else calm)),
        condition(ConditionType.STALLED, stalled, *(why if stalled else calm)),
        condition(ConditionType.CAPACITY_BLOCKED, blocked, *(why if blocked else calm)),
        _routing_synced(situation, now),
    )


def _routing_synced(situation: Situation, now: datetime) -> Condition:
    finding = routing_finding(situation)
    if finding is None:
        mode = situation.routing.exposure.mode
        status, reason, message = ConditionStatus.TRUE, Reason.ROUTED, f"Requests go where they shall ({mode})."
    else:
        status, reason, message = ConditionStatus.FALSE, finding.reason, finding.message
    return _dated(situation.owner, ConditionType.ROUTING_SYNCED, status, reason, message, now)


def _ready(finding: Finding | None, situation: Situation, suspended: bool) -> tuple[Reason, str]:
    if finding:
        return finding.reason, finding.message
    if suspended:
        return Reason.SUSPENDED, "Suspended; set spec.suspend to false to serve again."
    if situation.desired_replicas == 0:
        if autoscaling_of(situation.owner) is not None:
            return Reason.SCALED_TO_ZERO, "Nobody asks, so nothing runs; the next request is held and wakes the model."
        return Reason.NO_REPLICAS, "No replicas are wanted."
    wanted = situation.succession.wanted
    version = wanted.version if wanted else "?"
    return Reason.SERVING, f"{situation.ready} of {situation.desired_replicas} replicas serve version {version}."


def _dated(
    owner: ModelDeployment,
    type_: ConditionType,
    status: ConditionStatus,
    reason: Reason,
    message: str,
    now: datetime,
) -> Condition:
    before = owner.status.condition(type_)
    since = before.last_transition_time if before and before.status is status else timestamp(now)
    return Condition(
        type=type_,
        status=status,
        reason=reason,
        message=bounded(message),
        observed_generation=owner.generation,
        last_transition_time=since,
    )


def _selector(owner: ModelDeployment) -> str:
    """All pods of the object, as a Deployment's selector covers those of both its versions.

    A HorizontalPodAutoscaler averages over the pods that this selects: over those of one revision it would take the
    share of the traffic that has moved to the other for less traffic.
    """
    return f"{names.LABEL_MODEL_DEPLOYMENT}={owner.name}"


def _pinned_source(wanted: ServedRevision | None) -> PinnedSource | None:
    return PinnedSource(resolved=wanted.resolved, digest=wanted.digest) if wanted and wanted.digest else None


def _pod_counts(pods: tuple[ObservedPod, ...]) -> PodCounts:
    stages = [_stage(pod) for pod in pods]
    return PodCounts(**{stage: stages.count(stage) for stage in PodCounts.model_fields})


def _stage(pod: ObservedPod) -> str:
    if pod.report and pod.report.phase is AgentPhase.FAILED:
        return "failed"
    if pod.ready:
        return "ready"
    match pod.report.phase if pod.report else None:
        case AgentPhase.FETCHING | AgentPhase.FETCHED:
            return "fetching"
        case AgentPhase.LOADING | AgentPhase.READY:
            return "loading"
        case _:
            return "pending"


def _display(situation: Situation, finding: Finding | None) -> Display:
    stable, candidate = situation.succession.stable, situation.succession.candidate
    # Of what serves: how a candidate is doing beside it, the next column tells.
    ready = len(ready_pods(stable, situation.observed)) if stable and candidate else situation.ready
    gpu = situation.spec.gpu if isinstance(situation.spec, ModelDeploymentSpec) else None
    return Display(
        replicas=f"{ready}/{situation.desired_replicas}",
        candidate=f"{candidate.version}@{situation.succession.weight_of(candidate)}%" if stable and candidate else "",
        check=finding.check if finding else "",
        gpu=_gpus(gpu) if gpu else "",
    )


def _gpus(gpu: Gpu) -> str:
    counted = [f"{gpu.counted} {gpu.resource}"] if gpu.counted else []
    return bounded(", ".join([*counted, *(f"claim {claim.resource_claim_template_name}" for claim in gpu.claims)]), 256)
