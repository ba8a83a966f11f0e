"""How far a revision's pods are with fetching its model, for people: told now and then, not with every byte."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from conch.api.agent_report import AgentPhase, AgentReport
from conch.api.status import FetchProgress
from conch.api.types import timestamp
from conch.core.observed_pod import ObservedPod

FETCH_REPORT_INTERVAL: Final = timedelta(seconds=10)


def fetch_progress(pods: tuple[ObservedPod, ...], before: FetchProgress | None, now: datetime) -> FetchProgress | None:
    """The pods that fetch, together; None when none does. What was told less than ten seconds ago stays."""
    reports = [pod.report for pod in pods if pod.report and pod.report.phase is AgentPhase.FETCHING]
    if not reports:
        return None
    if before is not None and timedelta() <= now - _observed_at(before, now) < FETCH_REPORT_INTERVAL:
        return before
    done = _sum(report.fetched_bytes for report in reports)
    total = _total(reports)
    numbers = FetchProgress(
        percent=min(100, done * 100 // total) if total else None,
        bytes=done,
        total_bytes=total,
        files=min(2**31 - 1, sum(report.files for report in reports)),
        bytes_per_second=_sum(report.bytes_per_second for report in reports),
        observed_at=timestamp(now),
    )
    stands_still = before is not None and (before.bytes, before.files) == (numbers.bytes, numbers.files)
    return before if stands_still else numbers


def _observed_at(progress: FetchProgress, now: datetime) -> datetime:
    try:
        then = datetime.fromisoformat(progress.observed_at)
    except ValueError:
        return now - FETCH_REPORT_INTERVAL
    return then if then.tzinfo else then.replace(tzinfo=UTC)


def _sum(amounts: Iterable[int]) -> int:
    """Within what a status can hold, whatever pods say."""
    return min(2**53, sum(amounts))


def _total(reports: list[AgentReport]) -> int | None:
    sizes = [report.total_bytes for report in reports]
    return None if None in sizes else _sum(size or 0 for size in sizes)
