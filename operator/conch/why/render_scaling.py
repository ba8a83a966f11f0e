"""The autoscaler's part of the report: sentences, and the last changes as a table."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from conch.why.report import Counted, CurveRow, DecisionRow, InstancesRow, ScalingRow
from conch.why.words import ago, figure, one_line, plain


def scaling_parts(row: ScalingRow, now: datetime) -> Iterator[RenderableType]:
    """What to print, one after the other."""
    yield from map(plain, _sentences(row, now))
    if row.decisions:
        yield Text()
        yield Text("Last changes of the count", style="bold")
        yield _decisions(row.decisions, now)


def _sentences(row: ScalingRow, now: datetime) -> Iterator[str]:
    why = ": ".join(filter(None, (row.reason, row.message))) or "the autoscaler has decided nothing yet"
    within = "" if row.max_replicas is None else f"; {row.min_replicas} to {row.max_replicas} allowed"
    yield f"Wanted: {_servers(row.wanted)} ({row.ready} ready{within}). {why}"
    yield f"Objective: {row.goal or 'this conch cannot read spec.autoscaling'}{_late(row)}"
    if row.reason is not None:
        yield _load(row)
    if row.curve:
        yield _curve(row.curve)
    if row.instances:
        yield _instances(row.instances)
    if row.cold_start_seconds is not None:
        seconds = figure(row.cold_start_seconds)
        yield f"Cold start: {seconds} s from a pod's creation until it serves, as nine of ten did"
    if row.policy:
        yield f"Policy: {row.policy}"
    if row.observed_at:
        yield f"These figures are {ago(row.observed_at, now)} old; they are renewed when they change much"


def _late(row: ScalingRow) -> str:
    return "" if row.late_percent is None else f"; {figure(row.late_percent)} % took longer of late"


def _load(row: ScalingRow) -> str:
    unit = "requests per second" if row.counted is Counted.PER_SECOND else "requests at the same time"
    demand = "not known" if row.demand is None else f"{figure(row.demand)} {unit}"
    if row.capacity_per_replica is None:
        return f"Load: {demand}; what a server carries is not known yet"
    return f"Load: {demand}; a server carries {figure(row.capacity_per_replica)} of them"


def _curve(curve: CurveRow) -> str:
    member = f" (of {curve.model}, which limits the ensemble)" if curve.model else ""
    instances = "" if curve.instances == 1 else f", in {curve.instances} instances"
    full = curve.base_milliseconds + curve.per_item_milliseconds * curve.max_batch
    most = f": {figure(1000 * curve.instances * curve.max_batch / full)} requests per second at most" if full else ""
    took = f"{figure(curve.base_milliseconds)} + {figure(curve.per_item_milliseconds)} n ms"
    return f"Learnt: a batch of n takes {took}, n up to {curve.max_batch}{instances}{member}{most}"


def _instances(row: InstancesRow) -> str:
    settled = "as the model says" if row.count is None else f"{row.count} in each server"
    trying = "" if row.trying is None else f", {row.trying} are being tried"
    return f"Instances: {settled}{trying}{f' ({row.message})' if row.message else ''}"


def _decisions(decisions: Sequence[DecisionRow], now: datetime) -> Table:
    """Columns without lines, as kubectl prints them; only the last one is ever broken."""
    rows = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in ("WHEN", "SERVERS", "REASON"):
        rows.add_column(header, no_wrap=True)
    rows.add_column("MESSAGE")
    for each in decisions:
        change = f"{each.before} -> {each.after}"
        rows.add_row(f"{ago(each.at, now)} ago", change, one_line(each.reason), plain(each.message))
    return rows


def _servers(count: int) -> str:
    return f"{count} server" if count == 1 else f"{count} servers"
