"""The table that a run prints: each figure beside its goal and beside what Argo Rollouts (Go) reaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table

from tests.perf.scale.phases import Results


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line. `goal`: the figure must not exceed it. `reference`: Argo Rollouts 1.10 in such a cluster on 2 cores."""

    figure: str
    says: str
    goal: float | None = None
    reference: str = ""


ROWS = (
    Row(figure="floor_ready_seconds", says="floor: as many plain Deployments available, s"),
    Row(
        figure="children_written_seconds",
        says="created at once: all Deployments written, s",
        goal=40,
        reference="27-51",
    ),
    Row(figure="ready_seconds", says="all Ready, s"),
    Row(figure="ready_x_floor", says="all Ready, x of the floor", goal=2, reference="1.9"),
    Row(figure="bare_written_seconds", says="a bare client writes the same children: all written, s"),
    Row(figure="bare_ready_seconds", says="the same: all available, s"),
    Row(figure="ready_x_bare", says="all Ready, x of the bare client"),
    Row(figure="requests_per_object", says="requests to the API server per object", reference="8.7"),
    Row(figure="etcd_bytes_per_object", says="bytes in etcd per object, with all that belongs to it"),
    Row(figure="operator_cpu_seconds", says="CPU of the operator meanwhile, s"),
    Row(figure="api_server_cpu_seconds", says="CPU of the API server meanwhile, s"),
    Row(figure="rss_start_mib", says="operator RSS: start, MiB"),
    Row(figure="rss_peak_mib", says="operator RSS: peak, MiB", goal=200, reference="188"),
    Row(figure="rss_settled_mib", says="operator RSS: settled, MiB"),
    Row(figure="edit_p50_ms", says="edit -> child written, p50, ms"),
    Row(figure="edit_p99_ms", says="edit -> child written, p99, ms", goal=50, reference="27-41"),
    Row(figure="edit_requests_per_edit", says="requests to the API server per edit"),
    Row(figure="poison_edit_p99_ms", says="the same with a poison object among them, p99, ms", goal=50),
    Row(figure="silent_edit_p99_ms", says="the same with every agent silent, p99, ms", goal=50),
    Row(figure="slow_edit_p99_ms", says="the same with 50 ms added to each API call, p99, ms", goal=500),
    Row(figure="idle_writes", says="idle: writes besides the Lease", goal=0),
    Row(figure="idle_requests_per_second", says="idle: API requests per second besides the Lease", goal=1),
    Row(figure="idle_cpu_percent", says="idle: CPU of the operator, % of a core"),
    Row(figure="restart_caught_up_seconds", says="restart: caught up after the Lease is held, s", goal=5),
    Row(figure="restart_writes", says="restart: writes besides the Lease", goal=0),
    Row(figure="restart_events", says="restart: Events", goal=0, reference="1,000"),
    Row(figure="restart_lists_per_resource", says="restart: lists of the most listed resource", goal=1),
    Row(figure="restart_rss_mib", says="restart: operator RSS, MiB"),
    Row(figure="outage_recovered_seconds", says="API server restarted: an edit acted on after, s", goal=30),
    Row(figure="outage_lists_per_resource", says="the same: lists of the most listed resource (410)", goal=1),
    Row(figure="outage_lists_per_second", says="the same: most lists within a second", goal=5),
)


def missed(figures: Mapping[str, float]) -> list[str]:
    """Figures that are over their goal."""
    return [row.figure for row in ROWS if row.goal is not None and figures.get(row.figure, 0) > row.goal]


def table(objects: int, results: Results) -> Table:
    """All figures of a run."""
    drawn = Table(title=f"{objects:,} ModelDeployments", title_justify="left")
    for column in ("", "measured", "goal", "Argo Rollouts"):
        drawn.add_column(column, justify="left" if not column else "right")
    for row in ROWS:
        if row.figure in results.figures:
            value = results.figures[row.figure]
            over = row.goal is not None and value > row.goal
            text = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.2f}"
            goal = "" if row.goal is None else f"<= {row.goal:g}" if row.goal else "0"
            drawn.add_row(row.says, f"[red]{text}[/]" if over else text, goal, row.reference)
    return drawn


def request_table(results: Results) -> Table:
    """The operator's requests by verb and resource, the Lease's left out."""
    drawn = Table(title="the operator's API requests", title_justify="left")
    drawn.add_column("verb and resource")
    kinds = sorted({kind for counts in results.requests.values() for kind in counts})
    for phase in results.requests:
        drawn.add_column(phase, justify="right")
    for kind in kinds:
        drawn.add_row(kind, *(f"{counts.get(kind, 0):,}" for counts in results.requests.values()))
    return drawn
