"""Which files a revision has: those that were declared, or those that the first of its pods fetched.

Agents load nothing else, and what one of them has loaded stays: replicas of one revision never serve different bytes.
"""

from collections.abc import Iterator
from typing import Final

from conch.api.agent_report import AgentPhase, AgentReport, ChangeReport
from conch.api.assignment import Pin
from conch.api.status import ServedRevision
from conch.core.observed import Observed

_WITHOUT_MODEL: Final = (AgentPhase.FETCHED, AgentPhase.FAILED)


def pin_of(served: ServedRevision) -> Pin | None:
    """What agents are told."""
    return Pin(digest=served.digest, resolved=served.resolved or "") if served.digest else None


def pinned(served: ServedRevision, declared: str | None, observed: Observed) -> ServedRevision:
    """The revision with its files, as soon as they are known; once a pod has loaded them they never change again."""
    reports = list(_fetched(served, observed))
    if not served.digest:
        first = next((report for report in reports if declared in (None, report.digest)), None)
        served = served.model_copy(update={"digest": declared or (first and first.digest)})
    elif declared is None and _none_can_serve(served, observed):
        served = served.model_copy(update={"digest": reports[0].digest, "resolved": None})
    return _described(served, reports, observed)


def _described(served: ServedRevision, reports: list[AgentReport | ChangeReport], observed: Observed) -> ServedRevision:
    """With what the source's name stood for, and whether a pod has loaded the files."""
    same = [report for report in reports if report.digest == served.digest]
    resolved = next((report.resolved for report in same if report.resolved), None)
    ready = {pod.name for pod in observed.pods if pod.workload == served.workload and pod.ready}
    serve = any(isinstance(report, AgentReport) and report.phase is AgentPhase.READY for report in same)
    loaded = served.loaded or bool(ready) or serve
    return served.model_copy(update={"resolved": served.resolved or resolved, "loaded": loaded})


def _none_can_serve(served: ServedRevision, observed: Observed) -> bool:
    """Whether what is pinned was never loaded, and every single pod says that it holds other files.

    Then the source was mended, and the mended files may take the place of the broken ones. A pod that is not heard, is
    on its way out, or has nothing yet may hold, serve or still get what is pinned.
    """
    if served.loaded:
        return False
    pods = [
        pod for pod in observed.pods if pod.workload == served.workload and pod.phase not in ("Failed", "Succeeded")
    ]
    reports = [pod.report for pod in pods]
    return bool(pods) and all(
        report is not None
        and report.revision == served.revision
        and report.phase in _WITHOUT_MODEL
        and report.digest not in (None, served.digest)
        for report in reports
    )


def _fetched(served: ServedRevision, observed: Observed) -> Iterator[AgentReport | ChangeReport]:
    """What this revision's agents say of files that they hold."""
    for pod in observed.pods_of(served.workload):
        if pod.report and pod.report.digest and pod.report.revision == served.revision:
            yield pod.report
    for change in changes_to(served, observed):
        if change.digest:
            yield change


def changes_to(served: ServedRevision, observed: Observed) -> Iterator[ChangeReport]:
    """What is said of a revision by the pods that prepare it while they serve another one."""
    if served.host is None:
        return
    for pod in observed.pods:
        change = pod.report.change if pod.report and not pod.deleting else None
        if change is not None and change.revision == served.revision:
            yield change
