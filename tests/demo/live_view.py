"""Shows a ModelDeployment on its way: one table on a terminal, a line per change elsewhere."""

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tests.cluster.client import Cluster

_POLL_SECONDS = 0.3
_LIMIT_SECONDS = 180.0


def watch_until(
    cluster: Cluster, namespace: str, name: str, done: Callable[[dict[str, Any]], bool], console: Console
) -> None:
    """Show the object until `done(object)`; ends the program with the object's own reason when that never comes."""
    started = time.monotonic()
    told = ""
    with Live(console=console, refresh_per_second=4, transient=False) as view:
        while True:
            live = cluster.get("mdep", name, "-n", namespace)
            elapsed = time.monotonic() - started
            if console.is_terminal:
                view.update(_table(live, elapsed))
            elif (line := _line(live)) != told:
                console.print(f"{elapsed:5.1f} s  {line}")
                told = line
            if done(live):
                return
            if elapsed > _LIMIT_SECONDS:
                raise SystemExit(f"{name} did not get there in {_LIMIT_SECONDS:.0f} s: {_line(live)}")
            time.sleep(_POLL_SECONDS)


def _ready(live: dict[str, Any]) -> dict[str, Any]:
    conditions = live.get("status", {}).get("conditions", ())
    return next((condition for condition in conditions if condition["type"] == "Ready"), {})


def _line(live: dict[str, Any]) -> str:
    ready = _ready(live)
    replicas = live.get("status", {}).get("display", {}).get("replicas", "-")
    return f"{replicas:>5}  {ready.get('reason', 'NotObserved'):<16} {ready.get('message', '')}"


def _table(live: dict[str, Any], elapsed: float) -> Table:
    ready, status = _ready(live), live.get("status", {})
    pods = ", ".join(f"{count} {stage}" for stage, count in status.get("pods", {}).items() if count)
    table = Table(title=f"{live['metadata']['name']}  {elapsed:.0f} s", title_justify="left")
    for column in ("VERSION", "READY", "REPLICAS", "PODS", "REASON", "MESSAGE"):
        table.add_column(column, overflow="fold")
    table.add_row(
        str(live["spec"]["model"]["version"]),
        ready.get("status", "Unknown"),
        status.get("display", {}).get("replicas", "-"),
        pods or "-",
        ready.get("reason", "NotObserved"),
        ready.get("message", ""),
    )
    return table
