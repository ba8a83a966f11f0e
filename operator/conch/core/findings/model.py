"""Checks of how far the model is in the pods, by their agents' word."""

from conch.api.agent_report import AgentPhase
from conch.api.pod import AGENT_CONTAINER, AGENT_PORT
from conch.api.reasons import Reason
from conch.core.finding import UNREACHABLE, Finding, progressing, stalled
from conch.core.observed_pod import ObservedPod
from conch.core.pod_trouble import failed_agent
from conch.core.situation import Situation


def agents_report_no_failure(situation: Situation) -> Finding | None:
    """No pod's agent failed to fetch, verify or load the model."""
    return failed_agent(situation.pods)


def agents_can_be_asked(situation: Situation) -> Finding | None:
    """The operator reaches the agents of a new revision's pods.

    By their word files are pinned, and the revision gets the traffic.
    """
    for pod in situation.pods if situation.succession.candidate else ():
        if pod.agent_unreachable and (pod.ready or _agent_runs(pod)):
            return stalled(
                Reason.AGENT_UNREACHABLE,
                f"The agent of pod {pod.name} runs, but the operator cannot reach it at port {AGENT_PORT} to verify "
                f"what it fetched and serves. {UNREACHABLE}",
            )
    return None


def pods_serve_the_pinned_files(situation: Situation) -> Finding | None:
    """No pod serves other files than the revision's."""
    wanted = situation.succession.wanted
    if wanted is None or wanted.digest is None:
        return None
    for pod in situation.pods:
        if pod.ready and pod.report and pod.report.digest not in (None, wanted.digest):
            return stalled(
                Reason.SOURCE_CHANGED,
                f"Pod {pod.name} serves files with the digest {pod.report.digest}; the revision's have "
                f"{wanted.digest}. Delete the pod: another fetches the revision's files.",
            )
    return None


def replicas_are_ready(situation: Situation) -> Finding | None:
    """As many pods serve as are wanted."""
    if situation.ready >= situation.wanted_replicas:
        return None
    count = f"{situation.ready} of {situation.wanted_replicas} replicas serve"
    for pod in situation.pods:
        if pod.ready or pod.report is None:
            continue
        if pod.report.phase is AgentPhase.FETCHING:
            return progressing(Reason.FETCHING, f"{count}; the model is being fetched{_size(pod)}.")
        if pod.report.phase is AgentPhase.FETCHED:
            return progressing(Reason.FETCHING, f"{count}; the model was fetched and is being pinned.")
        if pod.report.phase is AgentPhase.LOADING:
            return progressing(Reason.LOADING, f"{count}; Triton is loading the model.")
        if pod.report.phase is AgentPhase.READY:
            return progressing(Reason.LOADING, f"{count}; the model is loaded, the kubelet has yet to see it ready.")
    reason = Reason.SCALING if situation.ready else Reason.STARTING
    return progressing(reason, f"{count}; pods are starting.")


def _agent_runs(pod: ObservedPod) -> bool:
    return any(each.name == AGENT_CONTAINER and each.ready for each in pod.containers)


def _size(pod: ObservedPod) -> str:
    total = pod.report.total_bytes if pod.report else None
    return f" ({total / 1e6:,.1f} MB)" if total else ""
