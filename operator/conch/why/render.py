"""A report as text: for a terminal, or one fact a line for a pipe."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from io import StringIO
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from conch.api.status import FetchProgress
from conch.why.report import ContainerRow, Outcome, PodRow, Report, RevisionRow, WarningRow

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
        console.print(_plain(note))
    legend = (("passed", Outcome.PASSED), ("this is it", Outcome.FAILED), ("not looked at yet", Outcome.NOT_REACHED))
    _title(console, "Checks: " + ", ".join(f"{marks[outcome]} {words}" for words, outcome in legend))
    _print_checks(console, report, marks)
    _print_seen(console, report, now, blocks="█░" if marks is _MARKS else "#-")
    _title(console, "Next step")
    console.print(_plain(report.next_step))
    text = "\n".join(line.rstrip() for line in into.getvalue().splitlines())
    # What others wrote may hold what the encoding has not.
    return text.encode(encoding, errors="replace").decode(encoding)


def _headline(report: Report, now: datetime) -> Text:
    who = f"ModelDeployment {report.namespace}/{report.name}"
    if not report.observed:
        return Text(f"{who}: the operator has not looked at it yet", style="bold yellow")
    since = f" for {_ago(report.since, now)}" if report.since else ""
    if report.ready:
        return Text(f"{who}: ready{since} ({_clean(report.reason)}: {_clean(report.message)})", style="bold green")
    return Text(f"{who}: not ready{since} ({_clean(report.reason)})", style="bold red")


def _print_checks(console: Console, report: Report, marks: Mapping[Outcome, str]) -> None:
    rows = Table.grid(padding=(0, 1))
    for check in report.checks:
        holds = check.holds
        if check.outcome is Outcome.FAILED and report.observed:
            holds += f" -> {report.reason}: {report.message}"
        colour = _COLOURS[check.outcome]
        rows.add_row(Text(marks[check.outcome], style=colour), _plain(holds, colour))
    console.print(rows)


def _print_seen(console: Console, report: Report, now: datetime, *, blocks: str) -> None:
    if report.revisions or report.fetch or report.pin:
        _title(console, "Revisions" if report.observed else "Revisions, as the operator saw them last")
    for revision in report.revisions:
        console.print(_plain(_revision(revision)))
    if report.pin:
        resolved = f", which {report.pin.resolved} stood for" if report.pin.resolved else ""
        console.print(_plain(f"Pinned: {report.pin.digest}{resolved}"))
    if report.fetch:
        console.print(_plain(_fetch(report.fetch, now, blocks)))
    if report.pods is not None:
        _title(console, "Pods")
        for sentence in _pods(report.pods, now):
            console.print(_plain(sentence))
    if report.warnings:
        _title(console, "Last warnings")
        for warning in report.warnings:
            console.print(_plain(_warning(warning, now)))
    if report.left_out:
        _title(console, "Left out")
        for sentence in report.left_out:
            console.print(_plain(sentence))


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
    total = f" of {_size(progress.total_bytes)}" if progress.total_bytes else ""
    return (
        f"Fetching: {bar}{_size(progress.bytes)}{total}, {progress.files} files, "
        f"{_size(progress.bytes_per_second)}/s, {_ago(progress.observed_at, now)} ago"
    )


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
        f"{_ago(pod.created_at, now)} old",
        f"{restarts} restarts",
    )
    return f"{pod.name} ({pod.role or 'of no revision any more'}): {', '.join(facts)}"


def _container(container: ContainerRow, now: datetime) -> str:
    words = []
    if container.waiting_reason:
        words.append(": ".join(filter(None, (f"waits, {container.waiting_reason}", container.waiting_message))))
    # An init container that is through has ended too.
    if container.last_exit and (container.restarts or not container.last_exit.startswith("Completed")):
        ago = f" {_ago(container.last_exit_at, now)} ago" if container.last_exit_at else ""
        words.append(f"ended{ago}, {container.last_exit}")
    return f"{container.name} {', '.join(words)}" if words else ""


def _warning(warning: WarningRow, now: datetime) -> str:
    times = f", {warning.count} times" if warning.count > 1 else ""
    return f"{_ago(warning.at, now)} ago{times}: {warning.regarding}: {warning.reason}: {warning.message}"


def _title(console: Console, text: str) -> None:
    console.print()
    console.print(Text(text, style="bold"))


def _plain(text: str, style: str = "") -> Text:
    return Text(_clean(text), style=style)


def _clean(text: str) -> str:
    """One line without control characters: events and messages hold what others wrote, also for the terminal."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())


def _ago(stamp: str, now: datetime) -> str:
    seconds = max(0, int((now.astimezone(UTC) - datetime.fromisoformat(stamp)).total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
