"""Which files a revision has: those that were declared, or those that the first of its pods fetched.

Everything else is refused by the agents, so replicas of one revision never serve different bytes.
"""

from collections.abc import Iterator
from typing import Final

from conch.api.assignment import AgentPhase, AgentReport, Pin
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import ServedRevision
from conch.core.observed import Observed

_HAVE_LOADED: Final = (AgentPhase.LOADING, AgentPhase.READY)


def pin_of(served: ServedRevision) -> Pin | None:
    """What agents are told."""
    return Pin(digest=served.digest, resolved=served.resolved or "") if served.digest else None


def pinned(served: ServedRevision, spec: ModelDeploymentSpec, observed: Observed) -> ServedRevision:
    """The revision that the spec asks for, with its files as soon as they are known; these never change again."""
    if served.digest:
        return served
    declared = spec.model.source.digest
    if declared:
        return served.model_copy(update={"digest": declared})
    return _as_fetched(served, next(_fetched(served, observed), None))


def repinned(candidate: ServedRevision, spec: ModelDeploymentSpec, observed: Observed) -> ServedRevision:
    """As `pinned`, but a source may be mended as long as no pod has loaded what is pinned.

    Otherwise a broken model, once fetched, could be served only under a new revision.
    """
    if not candidate.digest or spec.model.source.digest:
        return pinned(candidate, spec, observed)
    reports = list(_fetched(candidate, observed))
    if any(report.phase in _HAVE_LOADED or report.digest == candidate.digest for report in reports):
        return candidate
    return _as_fetched(candidate, next(iter(reports), None))


def _fetched(served: ServedRevision, observed: Observed) -> Iterator[AgentReport]:
    """What this revision's agents say of files that they hold."""
    for pod in observed.pods_of(served.workload):
        if pod.report and pod.report.digest and pod.report.revision == served.revision:
            yield pod.report


def _as_fetched(served: ServedRevision, report: AgentReport | None) -> ServedRevision:
    if report is None:
        return served
    return served.model_copy(update={"digest": report.digest, "resolved": report.resolved or None})
