"""Which pods serve a revision: by the kubelet's word, by their agent's, and by what the model itself answers."""

from collections.abc import Iterable, Sequence, Set

from conch.api.agent_report import AgentPhase, AgentReport, ChangeReport, GoldenOutcome
from conch.api.analysis import GoldenSetPolicy
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import ServedRevision
from conch.core.observed import Observed
from conch.core.observed_pod import ObservedPod


def ready_pods(served: ServedRevision, observed: Observed) -> tuple[ObservedPod, ...]:
    """Pods that are ready and whose agent does not contradict.

    Right after a start of the operator no agent has been asked yet; then the kubelet's word stands: its probe is the
    model's own readiness, and an agent loads nothing that it has not verified.
    """
    return tuple(
        pod
        for pod in observed.pods_of(served.workload)
        if pod.ready and (pod.report is None or _serves(pod.report, served))
    )


def verified_pods(served: ServedRevision, observed: Observed, golden: GoldenSetPolicy) -> tuple[ObservedPod, ...]:
    """Pods that are ready, whose agent says that they serve exactly this revision, and that answer as recorded."""
    return tuple(pod for pod in ready_pods(served, observed) if pod.report and _answers(pod.report, golden))


def answers_as_recorded(pod: ObservedPod, served: ServedRevision, golden: GoldenSetPolicy) -> bool:
    """Whether its agent says that it serves exactly this revision and answers as recorded; it need not be ready."""
    return pod.report is not None and _serves(pod.report, served) and _answers(pod.report, golden)


def open_pods(
    served: ServedRevision, observed: Observed, golden: GoldenSetPolicy, listed: Set[str]
) -> tuple[ObservedPod, ...]:
    """Pods that may be sent something: verified, or not among those that get nothing new by status (`listed`).

    Who is not heard keeps what it has: see held_back.py.
    """
    return tuple(
        pod
        for pod in ready_pods(served, observed)
        if pod.name not in listed or (pod.report and _answers(pod.report, golden))
    )


def golden_policy(spec: ModelDeploymentSpec) -> GoldenSetPolicy:
    """What the golden set means for this object: by its analysis, or, where that says nothing, if there is one."""
    declared = (check.golden_set for check in spec.rollout.analysis or ())
    return next((golden.policy for golden in declared if golden), GoldenSetPolicy.IF_PRESENT)


def golden_failure(pods: Sequence[ObservedPod], golden: GoldenSetPolicy) -> str:
    """Why the golden set speaks against the revision of these pods; empty if it does not (yet)."""
    if golden is GoldenSetPolicy.IGNORED:
        return ""
    for pod in pods:
        told = pod.report.golden if pod.report else None
        if told and told.outcome is GoldenOutcome.FAILED:
            return f"Pod {pod.name} does not answer as golden.json records: {told.message}"
        if told and told.outcome is GoldenOutcome.ABSENT and golden is GoldenSetPolicy.REQUIRED:
            return "The model has no golden.json, and rollout.analysis requires one. Package it with one."
    return ""


def unproven_change(changes: Iterable[ChangeReport], golden: GoldenSetPolicy) -> str:
    """The same of a revision that was loaded beside another one, under a name of its own."""
    for told in (change.golden for change in changes if golden is not GoldenSetPolicy.IGNORED):
        if told and told.outcome is GoldenOutcome.FAILED:
            return f"Loaded beside the old one, it does not answer as golden.json records: {told.message}"
        if told and told.outcome is GoldenOutcome.ABSENT and golden is GoldenSetPolicy.REQUIRED:
            return "The model has no golden.json, and rollout.analysis requires one. Package it with one."
    return ""


def golden_error(pods: Sequence[ObservedPod], golden: GoldenSetPolicy) -> str:
    """Why the golden set cannot be replayed, which says nothing of the model; empty if it can, or need not."""
    for pod in pods if golden is not GoldenSetPolicy.IGNORED else ():
        told = pod.report.golden if pod.report else None
        if told and told.outcome is GoldenOutcome.ERROR:
            return f"golden.json cannot be replayed on pod {pod.name}: {told.message}"
    return ""


def _serves(report: AgentReport, served: ServedRevision) -> bool:
    """Whether an agent says that its pod serves this revision, from its pinned files."""
    same_files = served.digest is None or report.digest == served.digest
    return report.phase is AgentPhase.READY and report.revision == served.revision and same_files


def _answers(report: AgentReport, golden: GoldenSetPolicy) -> bool:
    if golden is GoldenSetPolicy.IGNORED:
        return True
    if golden is GoldenSetPolicy.IF_PRESENT and report.golden is None and not report.replays_golden_set:
        return True
    outcome = report.golden.outcome if report.golden else None
    return outcome is GoldenOutcome.PASSED or (outcome is GoldenOutcome.ABSENT and golden is GoldenSetPolicy.IF_PRESENT)
