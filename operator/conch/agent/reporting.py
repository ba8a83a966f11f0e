"""What the agent says of itself, to the operator and to its log."""

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from conch.agent.state import Failure, Golden, Resizing
from conch.agent.step_kinds import (
    CleanUp,
    Fetch,
    Idle,
    LayOut,
    Load,
    MakeWay,
    Preparing,
    Replay,
    Resize,
    Restore,
    Step,
    Unload,
)
from conch.agent.volume import Record
from conch.agent.wanted import Wanted
from conch.api.agent_report import AgentPhase, AgentReport, CacheReport
from conch.api.inference_counts import InferenceCounts
from conch.store import Progress
from conch.triton.instances import InstanceGroups
from conch.triton.metrics import TritonMetrics

MESSAGE_MOST = 2048


def phase_of(step: Step) -> AgentPhase:
    """The phase that a step belongs to."""
    match step:
        case Idle(phase=phase):
            return phase
        case Fetch():
            return AgentPhase.FETCHING
        case LayOut() | Load() | MakeWay():
            return AgentPhase.LOADING
        case Unload(phase=phase):
            return phase
        case Replay() | Resize() | Restore() | CleanUp():
            return AgentPhase.READY
        case Preparing(meanwhile=meanwhile):
            return meanwhile.phase


class FetchMeter:
    """How far and how fast one fetch is."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.progress = Progress()
        self._clock = clock
        self._began = clock()

    def fields(self) -> Mapping[str, int | None]:
        """Fields of a report."""
        progress, seconds = self.progress, self._clock() - self._began
        return {
            "fetched_bytes": progress.bytes,
            "total_bytes": progress.total_bytes,
            "files": progress.files,
            "bytes_per_second": int(progress.bytes / seconds) if seconds > 0 else 0,
        }


def make_report(
    *,
    step: Step,
    wanted: Wanted | None,
    failure: Failure | None,
    record: Record | None,
    fetched: Mapping[str, int | None],
    golden: Golden,
    cache: CacheReport | None = None,
    inference: InferenceCounts | None,
    running: InstanceGroups | None = None,
    resizing: Resizing = Resizing(),  # noqa: B008 - immutable
    metrics: TritonMetrics = TritonMetrics(),  # noqa: B008 - immutable
    changed: int = 0,
) -> AgentReport:
    """The report while `step` is done. A failure stays visible through its retries, until the model serves.

    What is said of a model that serves is said only as long as it does.
    """
    phase = phase_of(step)
    serves = phase is AgentPhase.READY
    failed = failure if not serves else None
    if record:
        fetched = {"fetched_bytes": record.bytes, "total_bytes": record.bytes}
    message = failed.message if failed else _message_of(step)
    return AgentReport(
        phase=AgentPhase.FAILED if failed else phase,
        revision=wanted.assignment.revision if wanted else "",
        reason=failed.reason if failed else None,
        attempts=failed.attempts if failed else 0,
        message=_bounded(message),
        digest=record.digest if record else None,
        resolved=record.resolved if record else "",
        pin=wanted.assignment.pin if wanted else None,
        replays_golden_set=True,
        cache=cache,
        golden=golden.report if serves else None,
        inference=inference if serves else None,
        instances=(max(running.counts, default=0) or None) if running and serves else None,
        instances_refused=_bounded(resizing.refused) if serves else "",
        gpu_memory_used_bytes=metrics.gpu_memory_used_bytes if serves else None,
        gpu_memory_total_bytes=metrics.gpu_memory_total_bytes if serves else None,
        changes_in_place=True,
        changed=changed,
        **fetched,
    )


def _message_of(step: Step) -> str:
    match step:
        case Idle(message=message) | Preparing(meanwhile=Idle(message=message)):
            return message
        case MakeWay():
            return "waiting until nobody uses this pod, to unload the model that it serves"
        case _:
            return ""


def _bounded(message: str) -> str:
    return message if len(message) <= MESSAGE_MOST else message[: MESSAGE_MOST - 1] + "…"


def agent_log() -> Any:
    """A logger that writes one JSON object per line to stdout."""
    return structlog.wrap_logger(
        structlog.PrintLogger(),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.BoundLogger,
    )
