"""Which revision has the traffic and which is being brought up: `status.stable` and `status.candidate`.

A new revision gets a workload of its own beside the one that serves. It takes the traffic when as many of its pods as
are wanted are verified; until then nothing is taken from the old one. Whatever is no longer named here is removed.
"""

from dataclasses import dataclass

from conch.api import names
from conch.api.assignment import AgentPhase, AgentReport
from conch.api.model_deployment import ModelDeployment
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import ServedRevision
from conch.core.observed import Observed, ObservedPod
from conch.core.pinning import pinned


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """The revisions that have a workload. At least one of the two is set once a spec could be read."""

    stable: ServedRevision | None
    candidate: ServedRevision | None
    workloads_created: int

    @property
    def wanted(self) -> ServedRevision | None:
        """The revision that the spec asks for, as long as the spec can be read."""
        return self.candidate or self.stable

    @property
    def serving(self) -> ServedRevision | None:
        """The revision that the Service sends to."""
        return self.stable or self.candidate

    @property
    def workloads(self) -> tuple[ServedRevision, ...]:
        """Everything that has pods."""
        return tuple(revision for revision in (self.stable, self.candidate) if revision)


def succeed(owner: ModelDeployment, spec: ModelDeploymentSpec, wanted: str, observed: Observed) -> Succession:
    """One step from what status says towards the wanted revision."""
    status = owner.status
    stable, candidate, created = status.stable, status.candidate, status.workloads_created
    if stable and stable.revision == wanted:
        return Succession(
            stable=pinned(stable, spec.model.source.digest, observed), candidate=None, workloads_created=created
        )
    if spec.desired_replicas == 0:
        # Nothing serves, so there is nothing to keep until the new revision is proven.
        stable = None
    if stable is None and candidate and candidate.revision != wanted and ready_pods(candidate, observed):
        # It serves, if not with all of its pods: nothing is taken from it before another is proven.
        stable = candidate
    if candidate is None or candidate.revision != wanted:
        created += 1
        candidate = ServedRevision(
            revision=wanted, version=spec.model.version, workload=names.workload_id(owner.uid, created)
        )
    candidate = pinned(candidate, spec.model.source.digest, observed)
    if 0 < spec.desired_replicas <= len(verified_pods(candidate, observed)):
        return Succession(stable=candidate, candidate=None, workloads_created=created)
    return Succession(stable=stable, candidate=candidate, workloads_created=created)


def verified_pods(served: ServedRevision, observed: Observed) -> tuple[ObservedPod, ...]:
    """Pods that are ready and whose agent says that they serve exactly this revision."""
    return tuple(pod for pod in ready_pods(served, observed) if pod.report is not None)


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


def _serves(report: AgentReport, served: ServedRevision) -> bool:
    """Whether an agent says that its pod serves this revision, from its pinned files."""
    same_files = served.digest is None or report.digest == served.digest
    return report.phase is AgentPhase.READY and report.revision == served.revision and same_files
