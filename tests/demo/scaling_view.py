"""Shows how servers follow a load: one frame on a terminal, a line per change elsewhere."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from conch.api.model_deployment import ModelDeployment, parse
from conch.api.status import ModelDeploymentStatus
from conch.rollouts.printing import one_line, plain
from tests.cluster.client import Cluster
from tests.demo.colours import NEUTRAL, of_version
from tests.demo.rollout_view import Account, NotInTimeError
from tests.load import Load

_POLL_SECONDS: Final = 0.5
_BLOCK: Final = 8
"""Cells of a bar for one server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look."""

    at: datetime
    wanted: int
    ready: int


@dataclass(slots=True)
class ScalingView:
    """Looks at the object and its loads twice a second, remembers the counts and shows what it sees."""

    cluster: Cluster
    namespace: str
    name: str
    console: Console
    loads: list[Load] = field(default_factory=list)
    """That run now."""
    samples: list[Sample] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def watch(self, done: Callable[[ModelDeployment], bool], *, limit_seconds: float) -> ModelDeployment:
        """Until it is done. Raises NotInTimeError."""
        end, told = time.monotonic() + limit_seconds, ""
        live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        with live or nullcontext():
            while True:
                owner = parse(self.cluster.get("mdep", self.name, "-n", self.namespace))
                status, accounts = owner.status, [Account.of(load.progress()) for load in self.loads]
                self.samples.append(
                    Sample(at=datetime.now(UTC), wanted=status.desired_replicas, ready=status.ready_replicas)
                )
                elapsed = time.monotonic() - self.began
                if live:
                    live.update(frame(owner, accounts, elapsed), refresh=True)
                elif (line := as_line(owner)) != told:
                    words = f"{elapsed:5.1f} s  {line}; {traffic(accounts)}"
                    self.console.print(words, markup=False, soft_wrap=True)
                    told = line
                if done(owner):
                    return owner
                if time.monotonic() > end:
                    raise NotInTimeError(f"not there after {limit_seconds:.0f} s: {as_line(owner)}")
                time.sleep(_POLL_SECONDS)


def frame(owner: ModelDeployment, accounts: Sequence[Account], elapsed_seconds: float) -> RenderableType:
    """All of it in a few lines of 80 columns."""
    status = owner.status
    starting = max(0, status.desired_replicas - status.ready_replicas)
    bar = Text("servers  ", no_wrap=True)
    bar.append("█" * (_BLOCK * status.ready_replicas), of_version(1)).append("░" * (_BLOCK * starting), NEUTRAL)
    parts: list[RenderableType] = [
        plain(f"{owner.name}: {_servers(status)} ({elapsed_seconds:.0f} s)", "bold"),
        bar,
        Text(f"load     {traffic(accounts)}", no_wrap=True),
        Text(one_line(f"why      {why(status)}"), style="dim", no_wrap=True, overflow="ellipsis"),
    ]
    return Group(*parts)


def as_line(owner: ModelDeployment) -> str:
    """What changes now and then, without the figures that always do."""
    status = owner.status
    newest = status.autoscaling.decisions[0] if status.autoscaling and status.autoscaling.decisions else None
    decided = f"; {newest.before} -> {newest.after}, {newest.reason}: {newest.message}" if newest else ""
    return one_line(f"{_servers(status)}{decided}")


def why(status: ModelDeploymentStatus) -> str:
    """The autoscaler's words."""
    return f"{status.autoscaling.reason}: {status.autoscaling.message}" if status.autoscaling else "not seen yet"


def traffic(accounts: Sequence[Account]) -> str:
    """All loads together."""
    if not accounts:
        return "no requests"
    per_second = sum(
        (each.recent.answered + each.recent.failed) / each.recent.seconds for each in accounts if each.recent.seconds
    )
    failed, answered = sum(each.failed for each in accounts), sum(each.answered for each in accounts)
    slowest = max(each.recent.p95_ms for each in accounts)
    return f"{per_second:.0f} requests/s, {failed} of {answered + failed} failed, p95 {slowest:.0f} ms"


def _servers(status: ModelDeploymentStatus) -> str:
    return f"{status.ready_replicas} of {status.desired_replicas} servers"
