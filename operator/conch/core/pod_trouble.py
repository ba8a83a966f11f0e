"""What keeps a revision's pods from serving until somebody acts: told by kubelets and agents, found in any of them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from conch.api.agent_report import AgentPhase, ChangeReport
from conch.api.pod import TRITON_CONTAINER
from conch.api.reasons import Reason
from conch.core.finding import Finding, stalled
from conch.core.observed_pod import ObservedContainer, ObservedPod

_IMAGE_REASONS: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
_RESTARTS_TOLERATED: Final = 2
_ATTEMPTS: Final = 4
"""Of an agent, until its failure counts as lasting: by its back-off 10 s and more. An older agent does not tell."""
_AGENT_PATIENCE: Final = timedelta(seconds=20)
"""A pod's first seconds are those in which its network may not be there yet."""
_PATIENCE: Final = timedelta(seconds=60)
_RECENTLY: Final = timedelta(minutes=10)


def trouble(pods: Sequence[ObservedPod], now: datetime) -> Finding | None:
    """The first thing that keeps one of these pods from serving, in the order in which a person should look."""
    return failed_agent(pods) or missing_image(pods) or missing_configuration(pods) or crash_loop(pods, now)


def trouble_lasts(pods: Sequence[ObservedPod], now: datetime) -> bool:
    """Whether one of these pods is in trouble that did not pass by itself: what was tried once proves nothing."""
    tried = [pod for pod in pods if _was_tried(pod) and _is_older(pod, _AGENT_PATIENCE, now)]
    old = [pod for pod in pods if _is_older(pod, _PATIENCE, now)]
    run = [pod if _is_older(pod, _PATIENCE, now) else _without_first_starts(pod) for pod in pods]
    return (failed_agent(tried) or missing_image(old) or missing_configuration(old) or crash_loop(run, now)) is not None


def _was_tried(pod: ObservedPod) -> bool:
    """Whether its agent, if it fails, has failed often enough."""
    return pod.report is not None and (pod.report.attempts == 0 or pod.report.attempts >= _ATTEMPTS)


def _is_older(pod: ObservedPod, age: timedelta, now: datetime) -> bool:
    return bool(pod.created) and now - datetime.fromisoformat(pod.created) >= age


def _without_first_starts(pod: ObservedPod) -> ObservedPod:
    """The pod, but for containers that only failed to start so far."""
    return replace(pod, containers=tuple(each for each in pod.containers if not _failed_to_start(each)))


def failed_agent(pods: Sequence[ObservedPod]) -> Finding | None:
    """A pod whose agent failed to fetch, verify or load the model."""
    reports = [pod.report for pod in pods if pod.report and pod.report.phase is AgentPhase.FAILED]
    for report in reports:
        return stalled(
            report.reason or Reason.MODEL_LOAD_FAILED,
            f"{report.message} ({len(reports)} of {len(pods)} pods; tried again with back-off)",
        )
    return None


def refusal_of(change: ChangeReport) -> str:
    """Why a pod that serves one revision can never be changed to another; a pod of its own may have room for that."""
    is_too_much = change.phase is AgentPhase.FAILED and change.reason is Reason.SOURCE_TOO_LARGE
    return change.refused or (
        f"there is no room for both models on the pod's volume: {change.message}" if is_too_much else ""
    )


def failed_change(changes: Sequence[ChangeReport], *, lasting: bool = False) -> Finding | None:
    """A pod that serves one revision and fails to prepare another; with `lasting`, again and again."""
    for change in changes:
        if (
            change.phase is AgentPhase.FAILED
            and not refusal_of(change)
            and (not lasting or change.attempts >= _ATTEMPTS)
        ):
            reason = change.reason or Reason.MODEL_LOAD_FAILED
            return stalled(reason, f"{change.message} (while the old version serves; tried again with back-off)")
    return None


def missing_image(pods: Sequence[ObservedPod]) -> Finding | None:
    """A pod that cannot get its images."""
    for pod in pods:
        for container in pod.containers:
            if container.waiting_reason in _IMAGE_REASONS:
                return stalled(
                    Reason.IMAGE_PULL_FAILED,
                    f"Pod {pod.name} cannot get the image of its container {container.name}: "
                    f"{container.waiting_message or container.waiting_reason}. "
                    "Check runtime.image and imagePullSecrets.",
                )
    return None


def missing_configuration(pods: Sequence[ObservedPod]) -> Finding | None:
    """A pod whose kubelet does not find what its containers name."""
    for pod in pods:
        for container in pod.containers:
            if container.waiting_reason in ("CreateContainerConfigError", "CreateContainerError"):
                return stalled(
                    Reason.CONTAINER_CONFIG_ERROR,
                    f"Pod {pod.name} cannot start its container {container.name}: "
                    f"{container.waiting_message or container.waiting_reason}",
                )
    return None


def crash_loop(pods: Sequence[ObservedPod], now: datetime) -> Finding | None:
    """A container that crashes again and again."""
    for pod in pods:
        for container in pod.containers:
            crashing = container.waiting_reason in ("CrashLoopBackOff", "RunContainerError")
            # Between two back-offs it runs for a moment; that is no news.
            again = container.restarts >= _RESTARTS_TOLERATED and not container.ready
            recently = container.last_exit_at is not None and now - container.last_exit_at < _RECENTLY
            if crashing or (again and recently):
                detail = container.last_exit or container.waiting_message or container.waiting_reason
                crashes = f"keeps crashing ({container.restarts} restarts)"
                return stalled(
                    Reason.CRASH_LOOPING,
                    f"{_crash_hint(container)}Container {container.name} of pod {pod.name} "
                    f"{'could not be started' if _failed_to_start(container) else crashes}: {detail}",
                )
    return None


def _failed_to_start(container: ObservedContainer) -> bool:
    """Whether its runtime could not start it, once or twice: a busy node looks like that, and it passes."""
    return container.waiting_reason == "RunContainerError" and container.restarts < _RESTARTS_TOLERATED


def _crash_hint(container: ObservedContainer) -> str:
    if container.name != TRITON_CONTAINER:
        return ""
    if "OOM" in f"{container.last_exit}{container.waiting_message}":
        return "Raise runtime.resources.memory. "
    return "Check runtime.image and runtime.env. "
