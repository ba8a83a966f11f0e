"""A report as text: for a terminal, or one fact a line for a pipe."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from io import StringIO
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from conch.api.status import CacheStatus, FetchProgress
from conch.why.render_scaling import scaling_parts
from conch.why.report import ContainerRow, Outcome, PodRow, Report, RevisionRow, WarningRow
from conch.why.words import ago, one_line, plain, size

_PODS_SHOWN: Final = 20
_BAR_CELLS: Final = 20
_NO_LINE_BREAKS: Final = 100_000
_COLOURS: Final = {Outcome.PASSED: "green", Outcome.FAILED: "bold red", Outcome.NOT_REACHED: "dim"}
_MARKS: Final = {Outcome.PASSED: "✓", Outcome.FAILED: "✗", Outcome.NOT_REACHED: "·"}
# For a terminal or file whose encoding has no others.
_ASCII_MARKS: Final = {Outcome.PASSED: "+", Outcome.FAILED: "x", Outcome.NOT_REACHED: "."}


def render(report: Report, *, now: datetime, terminal_width: int | None = None, encoding: str = "utf-8") -> str:
    """The text; `terminal_width` is None where it goes to a pipe or file, then without colours and line breaks."""
    into = StringIO()
    console = Console(
        file=into,
        force_terminal=terminal_width is not None,
        width=terminal_width or _NO_LINE_BREAKS,
        highlight=False,
        markup=False,
        emoji=False,
    )
    marks = _MARKS if encoding.lower().startswith("utf") else _ASCII_MARKS
    console.print(_headline(report, now))
    for note in report.notes:
        console.print(plain(note))
    legend = (("passed", Outcome.PASSED), ("this is it", Outcome.FAILED), ("not looked at yet", Outcome.NOT_REACHED))
    _title(console, "Checks: " + ", ".join(f"{marks[outcome]} {words}" for words, outcome in legend))
    _print_checks(console, report, marks)
    if report.autoscaling:
        _title(console, "Autoscaling" if report.observed else "Autoscaling, as the operator saw it last")
        for part in scaling_parts(report.autoscaling, now):
            console.print(part)
    _print_seen(console, report, now, blocks="█░" if marks is _MARKS else "#-")
    _title(console, "Next step")
    console.print(plain(report.next_step))
    text = "\n".join(line.rstrip() for line in into.getvalue().splitlines())
    # What others wrote may hold what the encoding has not.
    return text.encode(encoding, errors="replace").decode(encoding)


def _headline(report: Report, now: datetime) -> Text:
    who = f"ModelDeployment {report.namespace}/{report.name}"
    if not report.observed:
        return Text(f"{who}: the operator has not looked at it yet", style="bold yellow")
    since = f" for {ago(report.since, now)}" if report.since else ""
    if report.ready:
        return Text(f"{who}: ready{since} ({one_line(report.reason)}: {one_line(report.message)})", style="bold green")
    return Text(f"{who}: not ready{since} ({one_line(report.reason)})", style="bold red")


def _print_checks(console: Console, report: Report, marks: Mapping[Outcome, str]) -> None:
    rows = Table.grid(padding=(0, 1))
    for check in report.checks:
        holds = check.holds
        if check.outcome is Outcome.FAILED and report.observed:
            holds += f" -> {report.reason}: {report.message}"
        colour = _COLOURS[check.outcome]
        rows.add_row(Text(marks[check.outcome], style=colour), plain(holds, colour))
    console.print(rows)


def _print_seen(console: Console, report: Report, now: datetime, *, blocks: str) -> None:
    if report.revisions or report.fetch or report.pin or report.cache:
        _title(console, "Revisions" if report.observed else "Revisions, as the operator saw them last")
    for revision in report.revisions:
        console.print(plain(_revision(revision)))
    if report.pin:
        resolved = f", which {report.pin.resolved} stood for" if report.pin.resolved else ""
        console.print(plain(f"Pinned: {report.pin.digest}{resolved}"))
    if report.fetch:
        console.print(plain(_fetch(report.fetch, now, blocks)))
    if report.cache:
        console.print(plain(_cache(report.cache)))
    if report.pods is not None:
        _title(console, "Pods")
        for sentence in _pods(report.pods, now):
            console.print(plain(sentence))
    if report.warnings:
        _title(console, "Last warnings")
        for warning in report.warnings:
            console.print(plain(_warning(warning, now)))
    if report.left_out:
        _title(console, "Left out")
        for sentence in report.left_out:
            console.print(plain(sentence))


def _revision(row: RevisionRow) -> str:
    words = f"{row.role}: version {row.version}, revision {row.revision}, Deployment {row.deployment}"
    if row.replicas is not None:
        words += f" asks for {row.replicas}"
    return f"{words}; the pods are refused: {row.creation_error}" if row.creation_error else words


def _fetch(progress: FetchProgress, now: datetime, blocks: str) -> str:
    bar = ""
    if progress.percent is not None:
        full = progress.percent * _BAR_CELLS // 100
        bar = f"{blocks[0] * full}{blocks[1] * (_BAR_CELLS - full)} {progress.percent}%, "
    total = f" of {size(progress.total_bytes)}" if progress.total_bytes else ""
    return (
        f"Fetching: {bar}{size(progress.bytes)}{total}, {progress.files} files, "
        f"{size(progress.bytes_per_second)}/s, {ago(progress.observed_at, now)} ago"
    )


def _cache(status: CacheStatus) -> str:
    counts = f"Model cache: {status.hit} pods found the model there, {status.filled} fetched it into it"
    without = f", {status.bypassed} did without" if status.bypassed else ""
    return f"{counts}{without}. {status.message}"


# Sentences, no table: with the names that pods and nodes have, a terminal leaves a last column no room.
def _pods(pods: Sequence[PodRow], now: datetime) -> Iterator[str]:
    if not pods:
        yield "There are none."
    for pod in pods[:_PODS_SHOWN]:
        seen = [pod.problem, *(_container(container, now) for container in pod.containers)]
        yield "; ".join(filter(None, (_pod(pod, now), *seen)))
    if len(pods) > _PODS_SHOWN:
        yield f"and {len(pods) - _PODS_SHOWN} more; --output json has them all"


def _pod(pod: PodRow, now: datetime) -> str:
    restarts = sum(container.restarts for container in pod.containers)
    facts = (
        f"{pod.phase}, being deleted" if pod.deleting else pod.phase,
        "ready" if pod.ready else "not ready",
        f"on {pod.node}" if pod.node else "on no node",
        f"{ago(pod.created_at, now)} old",
        f"{restarts} restarts",
    )
    return f"{pod.name} ({pod.role or 'of no revision any more'}): {', '.join(facts)}"


def _container(container: ContainerRow, now: datetime) -> str:
    words = []
    if container.waiting_reason:
        words.append(": ".join(filter(None, (f"waits, {container.waiting_reason}", container.waiting_message))))
    # An init container that is through has ended too.
    if container.last_exit and (container.restarts or not container.last_exit.startswith("Completed")):
        when = f" {ago(container.last_exit_at, now)} ago" if container.last_exit_at else ""
        words.append(f"ended{when}, {container.last_exit}")
    return f"{container.name} {', '.join(words)}" if words else ""


def _warning(warning: WarningRow, now: datetime) -> str:
    times = f", {warning.count} times" if warning.count > 1 else ""
    return f"{ago(warning.at, now)} ago{times}: {warning.regarding}: {warning.reason}: {warning.message}"


def _title(console: Console, text: str) -> None:
    console.print()
    console.print(Text(text, style="bold"))
