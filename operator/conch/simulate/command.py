"""What `conch simulate` does: replay, compare, tell and draw."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from conch.client.errors import ClientError
from conch.client.render import printable
from conch.client.run import NOT_DONE
from conch.kube.errors import KubeconfigError
from conch.rollouts.printing import as_text, print_out
from conch.simulate import picture, report
from conch.simulate.asked import Asked, asked, begun
from conch.simulate.options import Options
from conch.simulate.replay import Progress as Tell
from conch.simulate.replay import simulate as replay
from conch.simulate.report import Row
from conch.simulate.rules.conch import Conch
from conch.simulate.sweep import Baseline, baselines, best
from conch.simulate.trace import Trace, TraceError, read_trace

_INTERRUPTED: Final = 130


def simulate(options: Options) -> int:
    """The exit code: 0, or 2 with a sentence on stderr where there is nothing to tell."""
    try:
        if options.output is not None:
            picture.check(options.output)
        wanted = asked(options)
        trace = read_trace(options.trace, options.column)
        wanted = begun(wanted, trace, options.start)
        with _progress() as progress:
            rows = run(trace, wanted, compare=options.compare, progress=progress)
        _tell(options, trace, wanted, rows)
    except (ClientError, KubeconfigError, TraceError) as error:
        typer.echo(printable(str(error)), err=True)
        return NOT_DONE
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def run(trace: Trace, wanted: Asked, *, compare: bool, progress: Progress) -> list[Row]:
    """Conch first, then the others, each at its best."""
    fleet, scaling = wanted.fleet, wanted.scaling
    others = baselines(fleet, wanted.bounds) if compare else ()
    own = Conch(scaling, fleet.curve, replicas=fleet.replicas, hold_seconds=fleet.hold_seconds)
    tells = [_task(progress, name) for name in (own.name, *(_name(other) for other in others))]
    rows = [Row(outcome=replay(trace, own, fleet, progress=tells[0]))]
    for other, tell in zip(others, tells[1:], strict=True):
        found = best(trace, other, fleet, late_share_most=scaling.late_share, progress=tell)
        rows.append(Row(outcome=found.outcome, setting=f"{found.knob:.3g} {found.unit}"))
    return rows


def _name(baseline: Baseline) -> str:
    return baseline.make(baseline.least).name


def _task(progress: Progress, name: str) -> Tell:
    task = progress.add_task(name, total=1.0)
    return lambda share: progress.update(task, completed=share)


@contextmanager
def _progress() -> Iterator[Progress]:
    """On stderr, gone when it is over; nothing where that is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


def _tell(options: Options, trace: Trace, wanted: Asked, rows: list[Row]) -> None:
    cost = options.gpu_hour_cost
    table = report.as_text(trace, wanted, rows, gpu_hour_cost=cost)
    if options.output is not None:
        picture.draw(trace, [row.outcome for row in rows], options.output, summary=as_text(table))
    if options.as_json:
        typer.echo(json.dumps(report.as_json(trace, wanted, rows, gpu_hour_cost=cost), indent=2))
    else:
        print_out(table)
