"""Shows a rollout under load: one frame on a terminal, a line per change elsewhere."""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from conch.api.model_deployment import parse
from conch.core.analysis.judgement import Verdict
from conch.core.rollout.phases import UNDER_WAY
from conch.rollouts.printing import one_line, plain
from conch.rollouts.progress import Progress, look
from conch.rollouts.screen import as_line
from tests.cluster.client import Cluster
from tests.demo.colours import FAILED, of_version
from tests.demo.recording import ALL_PERCENT, Recording
from tests.load import Load, Span

FRAME_LINES_MOST: Final = 20
_POLL_SECONDS: Final = 0.5
_BAR_CELLS: Final = 40
_VERDICT_STYLES: Final = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.ERROR: "red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What the load tells of itself."""

    answered: int
    failed: int
    recent: Span

    @classmethod
    def of(cls, progress: Mapping[str, Any]) -> "Account":
        """From a line of its progress."""
        recent = Span.model_validate(progress["recent"])
        return cls(answered=progress["answered"], failed=progress["failed"], recent=recent)


class NotInTimeError(Exception):
    """What was waited for did not come; with how far it is."""


class RolloutView:
    """Looks at the object and its load twice a second, records what it sees and shows it."""

    def __init__(
        self, cluster: Cluster, namespace: str, name: str, *, load: Load, recording: Recording, console: Console
    ) -> None:
        self._cluster, self._namespace, self._name = cluster, namespace, name
        self._load, self._recording, self._console = load, recording, console
        self._began = time.monotonic()

    def watch(self, done: Callable[[Progress, Account], bool], *, limit_seconds: float) -> Progress:
        """Until it is done. Raises NotInTimeError."""
        end, told = time.monotonic() + limit_seconds, ""
        live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        with live or nullcontext():
            while True:
                progress = look(parse(self._cluster.get("mdep", self._name, "-n", self._namespace)))
                account = Account.of(self._load.progress())
                self._recording.see(progress.owner.status, datetime.now(UTC))
                elapsed = time.monotonic() - self._began
                weights = self._recording.weights(progress.owner.status)
                if live:
                    live.update(frame(progress, account, weights, elapsed), refresh=True)
                elif (line := as_line(progress)) != told:
                    self._console.print(f"{elapsed:5.1f} s  {line}; {_traffic(account)}", markup=False, soft_wrap=True)
                    told = line
                if done(progress, account):
                    return progress
                if time.monotonic() > end:
                    words = "; ".join(filter(None, (as_line(progress), progress.trouble)))
                    raise NotInTimeError(f"not there after {limit_seconds:.0f} s: {words}")
                time.sleep(_POLL_SECONDS)


def frame(progress: Progress, account: Account, weights: Mapping[int, int], elapsed_seconds: float) -> RenderableType:
    """All of it, at most FRAME_LINES_MOST lines on a terminal of 80 columns."""
    parts: list[RenderableType] = [plain(f"{_headline(progress)} ({elapsed_seconds:.0f} s)", "bold")]
    parts += [_bar(version, weight) for version, weight in sorted(weights.items())]
    parts.append(Text(f"load       {_traffic(account)}", style=FAILED if account.recent.failed else "", no_wrap=True))
    if checks := _checks(progress):
        parts.append(checks)
    parts += [_short(f"waits until {wait.words}", "dim") for wait in progress.waits]
    if why := _why(progress):
        parts.append(plain(why, FAILED))
    return Group(*parts)


def _headline(progress: Progress) -> str:
    rollout = progress.rollout
    if rollout is None:
        return f"{progress.owner.name}: no rollout yet"
    steps = len(rollout.steps)
    # The last one is all of the traffic.
    step = f", step {min(rollout.step, steps) + 1} of {steps + 1}" if rollout.phase in UNDER_WAY else ""
    return f"{progress.owner.name}: {rollout.phase}{step}, {rollout.strategy}"


def _bar(version: int, weight: int) -> Text:
    cells = round(weight * _BAR_CELLS / ALL_PERCENT)
    bar = Text(f"version {version}  ", no_wrap=True)
    return (
        bar.append("█" * cells, style=of_version(version))
        .append("░" * (_BAR_CELLS - cells), "dim")
        .append(f" {weight:3d} %")
    )


def _traffic(account: Account) -> str:
    recent = account.recent
    per_second = (recent.answered + recent.failed) / recent.seconds if recent.seconds else 0.0
    return (
        f"{per_second:.0f} requests/s, {account.failed} of {account.answered + account.failed} failed "
        f"({recent.failed} lately), p50 {recent.p50_ms:.1f} p95 {recent.p95_ms:.1f} ms"
    )


def _checks(progress: Progress) -> Table | None:
    if progress.rollout is None or not progress.rollout.checks:
        return None
    rows = Table.grid(padding=(0, 1))
    for _ in range(2):
        rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for check in progress.rollout.checks:
        verdict = next((style for known, style in _VERDICT_STYLES.items() if known == check.verdict), "yellow")
        rows.add_row(plain(check.name), plain(check.verdict, verdict), plain(check.message))
    return rows


def _why(progress: Progress) -> str:
    rollout = progress.rollout
    return f"back, {rollout.cause}: {rollout.message}" if rollout and rollout.cause else ""


def _short(text: str, style: str) -> Text:
    return Text(one_line(text), style=style, no_wrap=True, overflow="ellipsis")
