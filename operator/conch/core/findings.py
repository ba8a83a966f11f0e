"""Why an object is not what it should be: an ordered chain of small checks over one gathered situation.

Each check looks for one thing and returns a finding or None; the first finding becomes the reason of the conditions.
"""

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Final

from conch.api import names
from conch.api.assignment import AgentPhase
from conch.api.model_deployment import InvalidSpec
from conch.api.pod import AGENT_PORT, TRITON_CONTAINER
from conch.api.reasons import Reason
from conch.api.source import parse_source_uri
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import ConditionStatus, ConditionType
from conch.core.observed import ChildId, ChildKind, ObservedContainer, ObservedPod
from conch.core.situation import Finding, Severity, Situation

Check = Callable[[Situation], Finding | None]


def spec_is_readable(situation: Situation) -> Finding | None:
    """The spec fits this version of the API."""
    if isinstance(situation.spec, InvalidSpec):
        return _stalled(Reason.INVALID_SPEC, f"{situation.spec.message}. What runs is left as it is; correct the spec.")
    return None


def source_is_allowed(situation: Situation) -> Finding | None:
    """The installation's policy lets this source be used."""
    assert isinstance(situation.spec, ModelDeploymentSpec)  # noqa: S101 - an earlier check's promise
    refusal = situation.policy.source_policy.refusal(parse_source_uri(situation.spec.model.source.uri))
    return _stalled(Reason.SOURCE_NOT_ALLOWED, f"model.source.uri: {refusal}.") if refusal else None


def names_are_free(situation: Situation) -> Finding | None:
    """No object of somebody else's stands where a child has to be."""
    observed, owner = situation.observed, situation.owner
    foreign = {
        id_: child.controller
        for id_, child in observed.children.items()
        if id_ in situation.needed and not child.belongs_to(owner.uid)
    }
    met = {id_: controller for id_, controller in observed.strangers.items() if id_ in situation.unwritten}
    for child, controller in sorted({**foreign, **met}.items(), key=lambda item: item[0]):
        if controller and controller.kind == names.KIND and controller.name == owner.name:
            # Left by an earlier object of the same name; garbage collection is about to take it.
            return _progressing(Reason.STARTING, f"Waits until {child} of an earlier {controller} is removed.")
        belongs = f"belongs to {controller}" if controller else "was not made by Conch"
        return _name_conflict(child, belongs)
    return None


def admin_key_is_ours(situation: Situation) -> Finding | None:
    """The pods run with the key that Conch made; a Secret cannot be read, so its content shows by its effect."""
    secret = ChildId(kind=ChildKind.SECRET, name=names.admin_key_secret(situation.owner.name, situation.owner.uid))
    if any(pod.key_refused for pod in situation.pods):
        return _name_conflict(secret, "holds another key than the one Conch makes")
    for _, container in _containers(situation):
        message = container.waiting_message
        if container.waiting_reason == "CreateContainerConfigError" and (
            f"find key {names.ADMIN_KEY_SECRET_KEY} in" in message
        ):
            return _name_conflict(secret, "holds no admin key")
    return None


def children_are_accepted(situation: Situation) -> Finding | None:
    """The API server took every child that was written."""
    refusals = {id_: said for id_, said in situation.observed.refusals.items() if id_ in situation.unwritten}
    for child, detail in sorted(refusals.items()):
        if _EXCEEDED_QUOTA in detail:
            return _quota_blocked(f"{child}: {detail}")
        return _stalled(Reason.INVALID_SPEC, f"The API server refuses {child}: {detail}")
    return None


def earlier_obstacles_are_gone(situation: Situation) -> Finding | None:
    """What stood in the way of a child before a restart of the operator does so until that child was written.

    Obstacles are in memory only: without this, each restart would call the object ready until it meets them again.
    """
    before = situation.owner.status.condition(ConditionType.READY)
    if before is None or before.status is not ConditionStatus.FALSE or before.reason not in _OBSTACLES:
        return None
    untried = situation.unwritten - situation.observed.children.keys()
    if not untried or before.observed_generation != situation.owner.generation:
        return None
    return Finding(severity=_OBSTACLES[before.reason], reason=before.reason, message=before.message)


def pods_can_be_created(situation: Situation) -> Finding | None:
    """The Deployment controller is allowed to create the pods."""
    wanted = situation.succession.wanted
    deployment = situation.observed.deployment_of(wanted.workload) if wanted else None
    if deployment is None or not deployment.creation_error or len(situation.pods) >= situation.desired_replicas:
        return None
    if _EXCEEDED_QUOTA in deployment.creation_error:
        return _quota_blocked(deployment.creation_error)
    return _stalled(Reason.POD_REFUSED, f"The pods are refused: {deployment.creation_error}")


def agents_report_no_failure(situation: Situation) -> Finding | None:
    """No pod's agent failed to fetch, verify or load the model."""
    failed = [pod for pod in situation.pods if pod.report and pod.report.phase is AgentPhase.FAILED]
    for pod in failed:
        assert pod.report  # noqa: S101 - the line above
        return _stalled(
            pod.report.reason or Reason.MODEL_LOAD_FAILED,
            f"{pod.report.message} ({len(failed)} of {len(situation.pods)} pods; tried again with back-off)",
        )
    return None


def images_are_pulled(situation: Situation) -> Finding | None:
    """The kubelets get the images."""
    for pod, container in _containers(situation):
        if container.waiting_reason in _IMAGE_REASONS:
            return _stalled(
                Reason.IMAGE_PULL_FAILED,
                f"Pod {pod.name} cannot get the image of its container {container.name}: "
                f"{container.waiting_message or container.waiting_reason}. "
                "Check runtime.image and imagePullSecrets.",
            )
    return None


def containers_are_configured(situation: Situation) -> Finding | None:
    """The kubelets find everything the containers name."""
    for pod, container in _containers(situation):
        if container.waiting_reason in ("CreateContainerConfigError", "CreateContainerError"):
            return _stalled(
                Reason.CONTAINER_CONFIG_ERROR,
                f"Pod {pod.name} cannot start its container {container.name}: "
                f"{container.waiting_message or container.waiting_reason}",
            )
    return None


def containers_keep_running(situation: Situation) -> Finding | None:
    """No container crashes again and again."""
    for pod, container in _containers(situation):
        crashing = container.waiting_reason in ("CrashLoopBackOff", "RunContainerError")
        # Between two back-offs it runs for a moment; that is no news.
        again = container.restarts >= _RESTARTS_TOLERATED and not container.ready
        recently = container.last_exit_at is not None and situation.now - container.last_exit_at < _RECENTLY
        if crashing or (again and recently):
            detail = container.last_exit or container.waiting_message or container.waiting_reason
            return _stalled(
                Reason.CRASH_LOOPING,
                f"{_crash_hint(container)}Container {container.name} of pod {pod.name} keeps crashing "
                f"({container.restarts} restarts): {detail}",
            )
    return None


def pods_are_not_evicted(situation: Situation) -> Finding | None:
    """No pod was ended by its node; one that comes in its place would most likely end the same way."""
    wanted = situation.succession.wanted
    if wanted is None or situation.ready >= situation.desired_replicas:
        return None
    for pod in situation.observed.pods:
        if pod.workload == wanted.workload and pod.failure:
            return _stalled(Reason.POD_FAILED, f"The node ended pod {pod.name}: {pod.failure}")
    return None


def pods_have_a_node(situation: Situation) -> Finding | None:
    """The scheduler has a place for every pod."""
    waiting = [pod for pod in situation.pods if pod.unschedulable_message and not pod.scheduled]
    if not waiting:
        return None
    message = waiting[0].unschedulable_message.rstrip(". ")
    if "persistentvolumeclaim" in message and "not found" in message:
        return _stalled(
            Reason.SOURCE_NOT_FOUND, f"model.source.uri: {message}. Create the claim, or name one that is there."
        )
    count = f"{len(waiting)} of {situation.desired_replicas} replicas"
    assert isinstance(situation.spec, ModelDeploymentSpec)  # noqa: S101 - an earlier check's promise
    gpu = situation.spec.gpu
    if gpu.count and f"Insufficient {gpu.resource}" in message:
        return _blocked(
            Reason.WAITING_FOR_GPU,
            f"{count} wait for {gpu.count} free {gpu.resource}: {message}. "
            "Free a GPU, add a node, or lower replicas or gpu.count.",
        )
    return _blocked(
        Reason.UNSCHEDULABLE, f"{count} fit on no node: {message}. Check gpu, scheduling and runtime.resources."
    )


def agents_can_be_asked(situation: Situation) -> Finding | None:
    """The operator reaches the agents: a new revision gets the traffic only by their word."""
    for pod in situation.pods if situation.succession.candidate else ():
        if pod.ready and pod.agent_unreachable:
            return _stalled(
                Reason.AGENT_UNREACHABLE,
                f"Pod {pod.name} is ready, but the operator cannot reach its agent at port {AGENT_PORT} to verify what "
                "it serves. Let a NetworkPolicy allow that port from the operator's namespace.",
            )
    return None


def replicas_are_ready(situation: Situation) -> Finding | None:
    """As many pods as wanted serve; otherwise says what they are doing."""
    if situation.ready >= situation.desired_replicas:
        return None
    count = f"{situation.ready} of {situation.desired_replicas} replicas serve"
    for pod in situation.pods:
        if pod.ready or pod.report is None:
            continue
        if pod.report.phase is AgentPhase.FETCHING:
            return _progressing(Reason.FETCHING, f"{count}; the model is being fetched{_size(pod)}.")
        if pod.report.phase is AgentPhase.LOADING:
            return _progressing(Reason.LOADING, f"{count}; Triton is loading the model.")
        if pod.report.phase is AgentPhase.READY:
            return _progressing(Reason.LOADING, f"{count}; the model is loaded, the kubelet has yet to see it ready.")
    reason = Reason.SCALING if situation.ready else Reason.STARTING
    return _progressing(reason, f"{count}; pods are starting.")


def traffic_is_routed(situation: Situation) -> Finding | None:
    """The Service sends to the pods that serve; until then nobody reaches them."""
    for child in sorted(situation.unwritten):
        if child.kind is ChildKind.SERVICE:
            return _progressing(Reason.PROGRESSING, f"{child} is being pointed to the pods that serve.")
    return None


CHECKS: Final[tuple[Check, ...]] = (
    spec_is_readable,
    source_is_allowed,
    names_are_free,
    admin_key_is_ours,
    children_are_accepted,
    earlier_obstacles_are_gone,
    pods_can_be_created,
    agents_report_no_failure,
    images_are_pulled,
    containers_are_configured,
    containers_keep_running,
    pods_are_not_evicted,
    pods_have_a_node,
    agents_can_be_asked,
    replicas_are_ready,
    traffic_is_routed,
)

_IMAGE_REASONS: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
_OBSTACLES: Final = {
    Reason.NAME_CONFLICT: Severity.STALLED,
    Reason.INVALID_SPEC: Severity.STALLED,
    Reason.QUOTA_BLOCKED: Severity.BLOCKED,
}
_RESTARTS_TOLERATED: Final = 2
_RECENTLY: Final = timedelta(minutes=10)
_EXCEEDED_QUOTA: Final = "exceeded quota"


def first_finding(situation: Situation) -> Finding | None:
    """The finding of the first check that does not pass."""
    return next((finding for check in CHECKS if (finding := check(situation))), None)


def _containers(situation: Situation) -> Iterable[tuple[ObservedPod, ObservedContainer]]:
    return ((pod, container) for pod in situation.pods for container in pod.containers)


def _size(pod: ObservedPod) -> str:
    total = pod.report.total_bytes if pod.report else None
    return f" ({total / 1e6:,.1f} MB)" if total else ""


def _crash_hint(container: ObservedContainer) -> str:
    if container.name != TRITON_CONTAINER:
        return ""
    if "OOM" in f"{container.last_exit}{container.waiting_message}":
        return "Raise runtime.resources.memory. "
    return "Check runtime.image and runtime.env. "


def _quota_blocked(said: str) -> Finding:
    return _blocked(Reason.QUOTA_BLOCKED, f"The namespace's quota allows no more: {said}. Raise it or lower replicas.")


def _name_conflict(child: ChildId, belongs: str) -> Finding:
    return _stalled(
        Reason.NAME_CONFLICT,
        f"{child} {belongs}. Conch does not touch it: delete or rename it, or give this ModelDeployment another name.",
    )


def _stalled(reason: Reason, message: str) -> Finding:
    return Finding(severity=Severity.STALLED, reason=reason, message=message)


def _blocked(reason: Reason, message: str) -> Finding:
    return Finding(severity=Severity.BLOCKED, reason=reason, message=message)


def _progressing(reason: Reason, message: str) -> Finding:
    return Finding(severity=Severity.PROGRESSING, reason=reason, message=message)
