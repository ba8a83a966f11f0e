"""What has come of the rules, for people and for programs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from conch.simulate.asked import Asked
from conch.simulate.outcome import Outcome
from conch.simulate.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One rule."""

    outcome: Outcome
    setting: str = ""
    """What its user would have had to know."""


def as_text(trace: Trace, asked: Asked, rows: Sequence[Row], *, gpu_hour_cost: float | None) -> RenderableType:
    """A line on the trace, a table, and how to read it."""
    fleet, scaling = asked.fleet, asked.scaling
    cold_start = fleet.cold_start_seconds
    head = (
        f"{trace.name}: {trace.requests:,} requests in {trace.span_seconds / 60:.1f} min ({trace.mean_rate:.2f}/s); "
        f"{scaling.percentile:g} % within {1000 * fleet.objective_seconds:g} ms, {scaling.minimum} to "
        f"{scaling.maximum} replicas, {cold_start:g} s to start one, {fleet.curve.ceiling:.1f} requests/s at most each"
    )
    parts: list[RenderableType] = [Text(head), Text(""), _table(rows, asked, gpu_hour_cost)]
    if len(rows) > 1:
        parts += [
            Text(""),
            Text(
                "The others' settings were chosen afterwards: of all, the cheapest that keeps the objective on this "
                "very trace, or the least late.",
                style="dim",
            ),
        ]
    return Group(*parts)


def _table(rows: Sequence[Row], asked: Asked, gpu_hour_cost: float | None) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("RULE", no_wrap=True)
    table.add_column("SETTING", no_wrap=True)
    for header in ("LATE", "FAILED", "P95", "REPLICA-HOURS", "COST", "MOST", "TURNS"):
        if header != "COST" or gpu_hour_cost is not None:
            table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        outcome = row.outcome
        kept = outcome.late_share <= asked.scaling.late_share
        cells: list[RenderableType] = [
            outcome.rule,
            row.setting or "-",
            Text(f"{100 * outcome.late_share:.2f} %", style="green" if kept else "red"),
            f"{outcome.failed:,}",
            _milliseconds(outcome.percentile_seconds(95)),
            f"{outcome.replica_hours:.2f}",
            *([f"{outcome.cost(gpu_hour_cost, asked.gpus):,.2f}"] if gpu_hour_cost is not None else []),
            str(outcome.peak),
            str(outcome.direction_changes),
        ]
        table.add_row(*cells)
    return table


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms" if math.isfinite(seconds) else "none"


def as_json(trace: Trace, asked: Asked, rows: Sequence[Row], *, gpu_hour_cost: float | None) -> dict[str, Any]:
    """The same, and more exactly. What has no number (the latency of failed requests) is null."""
    fleet, scaling = asked.fleet, asked.scaling
    return {
        "trace": {
            "name": trace.name,
            "requests": trace.requests,
            "seconds": trace.span_seconds,
            "began": trace.began.isoformat() if trace.began else None,
        },
        "objective": {"latencyMs": 1000 * fleet.objective_seconds, "percentile": scaling.percentile},
        "minReplicas": scaling.minimum,
        "maxReplicas": scaling.maximum,
        "coldStartSeconds": fleet.cold_start_seconds,
        "curve": {
            "baseMilliseconds": 1000 * fleet.curve.base_seconds,
            "perItemMilliseconds": 1000 * fleet.curve.per_item_seconds,
            "maxBatch": fleet.curve.max_batch,
            "instances": fleet.curve.instances,
        },
        "rules": [_rule(row, asked.gpus, gpu_hour_cost) for row in rows],
    }


def _rule(row: Row, gpus: int, gpu_hour_cost: float | None) -> dict[str, Any]:
    outcome = row.outcome
    latencies = {f"p{percentile}": outcome.percentile_seconds(percentile) for percentile in (50, 95, 99)}
    return {
        "rule": outcome.rule,
        "setting": row.setting or None,
        "lateShare": outcome.late_share,
        "failedRequests": outcome.failed,
        "latencyMs": {name: 1000 * value if math.isfinite(value) else None for name, value in latencies.items()},
        "replicaHours": outcome.replica_hours,
        "cost": None if gpu_hour_cost is None else outcome.cost(gpu_hour_cost, gpus),
        "mostReplicas": outcome.peak,
        "directionChanges": outcome.direction_changes,
    }
