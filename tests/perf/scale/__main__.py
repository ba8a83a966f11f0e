"""The command line of the benchmark."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from tests.cluster.progress import console, say
from tests.perf.scale import phases
from tests.perf.scale.loopback import enter
from tests.perf.scale.phases import Results
from tests.perf.scale.report import missed, request_table, table
from tests.perf.scale.world import world

_PROGRAMS = ("etcd", "kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler", "kwok", "helm")

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.command(epilog="Example: python -m tests.perf.scale --objects 2500 --growth-only")
def main(
    objects: Annotated[int, typer.Option(help="How many ModelDeployments.", min=1, max=10_000)] = 1000,
    edits: Annotated[int, typer.Option(help="How many single edits are timed.", min=1)] = 300,
    idle_seconds: Annotated[float, typer.Option(help="How long nothing happens.")] = 300,
    growth_only: Annotated[
        bool, typer.Option(help="Only what shows how cost grows: created at once, edits, restart.")
    ] = False,
    counts_only: Annotated[bool, typer.Option(help="Only what is counted, not timed; as CI does it.")] = False,
    profiles: Annotated[Path | None, typer.Option(help="Profile the timed phases into this folder (slower).")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
) -> None:
    """Measure the operator on many objects: a real API server, fake nodes, a network of loopback alone. Needs root."""
    enter("tests.perf.scale", programs=_PROGRAMS)
    results = Results()
    try:
        asyncio.run(
            _measure(
                results,
                objects,
                edits=edits,
                idle_seconds=idle_seconds,
                growth=growth_only,
                counts=counts_only,
                profiles=profiles,
            )
        )
    finally:
        console.print(table(objects, results))
        console.print(request_table(results))
        if json_path is not None:
            content = {"objects": objects, "figures": results.figures, "requests": results.requests}
            json_path.parent.mkdir(parents=True, exist_ok=True)
            json_path.write_text(json.dumps(content, indent=1))
    if not counts_only and (over := missed(results.figures)):
        say(f"over the goal: {', '.join(over)}")


async def _measure(
    results: Results,
    objects: int,
    *,
    edits: int,
    idle_seconds: float,
    growth: bool,
    counts: bool,
    profiles: Path | None,
) -> None:
    async with world(profiling=profiles is not None) as made:
        whole = not growth and not counts
        if whole:
            await phases.floor(made, results, objects)
            await phases.bare(made, results, objects)
        with made.operator() as operator:
            await phases.burst(made, results, operator, objects, profiles=profiles)
            await phases.edits(made, results, operator, objects, edits=edits, name="edit", profiles=profiles)
            if not growth:
                await phases.idle(made, results, operator, seconds=idle_seconds)
            await phases.restart(made, results, operator, objects)
            if not growth:
                await phases.outage(made, results, operator)
        if whole:
            await phases.silent(made, results, objects, edits_=edits // 3)
            await phases.slow(made, results, objects, edits_=edits // 3, delay_seconds=0.05)
            await phases.poison(made, results, objects, edits_=edits // 3)


if __name__ == "__main__":
    app()
