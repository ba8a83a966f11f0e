"""A rollout's progress for people: a screen, and a line for each change where there is no terminal."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from conch.api.rollout import RolloutPhase, RolloutStatus
from conch.api.shadow import ShadowStatus
from conch.core.autoscaling import autoscaling_of
from conch.core.rollout.phases import UNDER_WAY
from conch.rollouts.printing import duration, one_line, plain, since, table
from conch.rollouts.progress import Place, PodsRow, Progress, StepRow, Wait

_COLOURS: Final = {
    Place.DONE: "green",
    Place.SKIPPED: "dim",
    Place.HERE: "bold",
    Place.ENDED: "bold red",
    Place.TO_COME: "dim",
}
_MARKS: Final = {Place.DONE: "✓", Place.SKIPPED: "-", Place.HERE: "▶", Place.ENDED: "✗", Place.TO_COME: "·"}
# For a terminal or file whose encoding has no others.
_ASCII_MARKS: Final = {Place.DONE: "+", Place.SKIPPED: "-", Place.HERE: ">", Place.ENDED: "x", Place.TO_COME: "."}
_PHASE_COLOURS: Final = {
    RolloutPhase.DONE: "bold green",
    RolloutPhase.ROLLING_BACK: "bold red",
    RolloutPhase.HALTED: "bold red",
}


def screen(progress: Progress, *, now: datetime, encoding: str = "utf-8") -> RenderableType:
    """All that there is to tell."""
    marks = _MARKS if encoding.lower().startswith("utf") else _ASCII_MARKS
    parts: list[RenderableType] = [_headline(progress), _facts(progress, now)]
    if progress.steps:
        legend = ", ".join(f"{marks[place]} {place}" for place in Place)
        parts += [*_title(f"Steps: {legend}"), _steps(progress.steps, marks)]
    if progress.pods:
        parts += [*_title("Pods"), _pods(progress.pods)]
    if progress.rollout and progress.rollout.checks:
        parts += [*_title("Checks"), _checks(progress.rollout)]
    if progress.rollout and progress.rollout.shadow:
        parts += [*_title("Copied requests"), _shadow(progress.rollout.shadow)]
    if progress.owner.status.rejected:
        parts += [*_title("Rejected revisions"), _rejected(progress, now)]
    return Group(*parts)


def as_line(progress: Progress) -> str:
    """How far it is, without times: the same as long as nothing happens."""
    if not progress.observed:
        return "the operator has not looked at the spec yet"
    rollout = progress.rollout
    words = [_standing(progress)]
    if rollout:
        steps = len(rollout.steps)
        words += [f"step {rollout.step + 1} of {steps}" if rollout.step < steps else "", f"weight {rollout.weight} %"]
    words += [f"{row.role} {_count(row)}" for row in progress.pods]
    if rollout:
        words += [f"{check.name}: {check.verdict}" for check in rollout.checks]
    words += [f"waits until {wait.words}" for wait in progress.waits]
    words += [_cause(rollout) if rollout else "", "" if rollout else progress.trouble]
    return one_line(", ".join(filter(None, words)))


def _headline(progress: Progress) -> Text:
    who = f"ModelDeployment {progress.owner.namespace}/{progress.owner.name}"
    colour = _PHASE_COLOURS.get(progress.rollout.phase, "bold") if progress.rollout else "bold"
    share = ""
    if progress.rollout and progress.rollout.phase in UNDER_WAY:
        share = f", {progress.rollout.weight} % of the requests for the new revision"
    return plain(f"{who}: {_standing(progress)}{share}", colour)


def _standing(progress: Progress) -> str:
    if progress.rollout:
        return progress.rollout.phase
    if progress.owner.status.stable:
        return f"no rollout yet, {_first(progress)}"
    return "nothing serves, for no replicas are wanted" if progress.suspended else "its first revision starts"


def _first(progress: Progress) -> str:
    """How the revision stands that nothing has followed."""
    status = progress.owner.status
    if status.desired_replicas == 0:
        asleep = autoscaling_of(progress.owner) is not None
        return f"the first revision has no pods, for {'nobody asks' if asleep else 'no replicas are wanted'}"
    return f"the first revision {'serves' if status.ready_replicas else 'has no ready pod'}"


def _facts(progress: Progress, now: datetime) -> Table:
    rows = Table.grid(padding=(0, 1))
    for title, words in _told(progress, now):
        rows.add_row(Text(f"{title}:"), plain(words))
    return rows


def _told(progress: Progress, now: datetime) -> Iterator[tuple[str, str]]:
    rollout, command, rejected = progress.rollout, progress.owner.status.command, progress.given_up
    if not progress.observed:
        yield "Note", "the operator has not looked at the spec as it is now; what follows may be old"
    if rollout:
        yield "From", progress.from_revision
        yield "To", progress.to_revision
        yield "Strategy", rollout.strategy + (f" ({rollout.strategy_reason})" if rollout.strategy_reason else "")
        took = f", finished {since(rollout.finished_at, now)} ago" if rollout.finished_at else ""
        yield "Started", f"{since(rollout.started_at, now)} ago{took}"
        if rollout.cause:
            yield "Rolled back", _cause(rollout)
        if rollout.stable_lost_since:
            yield "Stable", f"no pod of it is ready, for {since(rollout.stable_lost_since, now)}"
        if rollout.observed_since:
            yield "Shares", f"every gateway sends them so, for {since(rollout.observed_since, now)}"
    for wait in progress.waits:
        yield "Waits until", _wait(wait, now)
    for share in progress.owner.status.traffic:
        if share.draining_since:
            pods = f"{len(share.draining)} pods" if share.draining else "all pods"
            for_ = since(share.draining_since, now)
            yield "Draining", f"{pods} of revision {share.revision} get nothing new, for {for_}"
    if progress.owner.status.rolled_back_to:
        yield "By command", f"revision {progress.owner.status.rolled_back_to} serves in the place of the spec's"
    if rejected:
        yield (
            "Given up",
            f"revision {rejected.revision} is to serve, but was rolled back; another spec, or "
            f"conch retry {progress.owner.name}, starts a rollout",
        )
    if progress.trouble:
        yield "Not ready", progress.trouble
    if command:
        yield "Last command", f"{command.command} ({'accepted' if command.accepted else 'refused'}): {command.message}"


def _wait(wait: Wait, now: datetime) -> str:
    return wait.words if wait.until is None else f"{wait.words} ({duration(wait.until - now)} left)"


def _cause(rollout: RolloutStatus) -> str:
    return f"{rollout.cause}: {rollout.message}" if rollout.cause else ""


def _steps(steps: Iterable[StepRow], marks: Mapping[Place, str]) -> Table:
    rows = Table.grid(padding=(0, 1))
    rows.add_column()
    rows.add_column(justify="right")
    for step in steps:
        colour = _COLOURS[step.place]
        rows.add_row(Text(marks[step.place], style=colour), Text(f"{step.weight} %", style=colour), plain(step.pause))
    return rows


def _pods(pods: Iterable[PodsRow]) -> Table:
    rows = table("", "VERSION", "REVISION", "WORKLOAD", "READY")
    for row in pods:
        rows.add_row(row.role, str(row.version), plain(row.revision), plain(row.workload), _count(row))
    return rows


def _count(row: PodsRow) -> str:
    return f"{row.ready}/{row.wanted}"


def _checks(rollout: RolloutStatus) -> Table:
    rows = table("NAME", "VERDICT", "VALUE", "LIMIT", "SAMPLES", "MESSAGE")
    for check in rollout.checks:
        numbers = ("-" if number is None else f"{number:g}" for number in (check.value, check.limit))
        rows.add_row(plain(check.name), plain(check.verdict), *numbers, str(check.samples), plain(check.message))
    return rows


def _shadow(shadow: ShadowStatus) -> Table:
    rows = Table.grid(padding=(0, 1))
    told = f"{shadow.compared} compared, {shadow.disagreed} differ, {shadow.failed} failed"
    left = f"{shadow.skipped} not to be compared, {shadow.dropped} beyond what gateways compare at a time"
    rows.add_row(Text("Answers:"), Text(f"{told} ({shadow.share.percent} % are copied; {left})"))
    for role, half, most in (
        ("stable", shadow.stable_p50_ms, shadow.stable_p90_ms),
        ("candidate", shadow.candidate_p50_ms, shadow.candidate_p90_ms),
    ):
        if half is not None and most is not None:
            rows.add_row(Text(f"Latency, {role}:"), Text(f"p50 {half:g} ms, p90 {most:g} ms"))
    if shadow.example:
        rows.add_row(Text("Such as:"), plain(shadow.example))
    return rows


def _rejected(progress: Progress, now: datetime) -> Table:
    rows = table("REVISION", "CAUSE", "WHEN", "MESSAGE")
    for rejected in reversed(progress.owner.status.rejected):
        rows.add_row(
            plain(rejected.revision), str(rejected.cause), f"{since(rejected.at, now)} ago", plain(rejected.message)
        )
    return rows


def _title(text: str) -> tuple[Text, Text]:
    return Text(), Text(text, style="bold")
