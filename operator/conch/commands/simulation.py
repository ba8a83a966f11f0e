"""Try the autoscaler on a trace."""

from pathlib import Path
from typing import Annotated

import typer

from conch.commands.options import Context, Namespace


def simulate(
    trace: Annotated[
        Path,
        typer.Option(
            help="When requests came: a CSV or an access log, may be gzipped.", metavar="FILE", dir_okay=False
        ),
    ],
    column: Annotated[
        str | None, typer.Option(help="The CSV's column of times, by name or number; found if it is obvious.")
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="Later than this is late, such as 200ms.", metavar="TIME")
    ] = None,
    percentile: Annotated[
        float | None, typer.Option(help="Of the requests that keep the objective; 95 if not given.", min=50, max=99.9)
    ] = None,
    curve: Annotated[
        str | None,
        typer.Option(
            help="A batch of n takes A + B x n milliseconds, in each of the instances.",
            metavar="A,B,MAX_BATCH[,INSTANCES]",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--from", help="ModelDeployment to take what is not given from, and what was learnt.", metavar="NAME"
        ),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    minimum: Annotated[
        int | None, typer.Option("--min", help="Fewest replicas; 1 if not given.", min=0, max=1000)
    ] = None,
    maximum: Annotated[
        int | None, typer.Option("--max", help="Most replicas; 100 if not given.", min=1, max=1000)
    ] = None,
    start: Annotated[
        int | None,
        typer.Option(help="Replicas at the beginning; what the first minute needs if not given.", min=0, max=1000),
    ] = None,
    idle: Annotated[
        str | None, typer.Option(help="With --min 0: to zero after so long without a request; 300s if not given.")
    ] = None,
    cold_start: Annotated[
        str | None, typer.Option(help="From a pod's creation until it serves; 60s if not given.", metavar="TIME")
    ] = None,
    gpu_hour_cost: Annotated[
        float | None, typer.Option(help="What an hour of a GPU costs, in any money.", min=0, metavar="COST")
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs of a replica; 1 if not given.", min=1, max=64)] = None,
    compare: Annotated[
        bool, typer.Option("--compare/--no-compare", help="Beside HPA, Knative's KPA and KEDA, each at its best.")
    ] = True,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Draw load, replicas and late requests.", metavar="FILE.png|FILE.html"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, for programs.")] = False,
) -> None:
    """Replay a trace of requests through the autoscaler: who would have been late, and what would it have cost?

    The very code that scales in the cluster runs against simulated replicas, before it is turned on for real. HPA, KPA
    and KEDA run beside it, each with the setting that is the best for this trace, known only afterwards.

    The trace is a CSV with a column of times (ISO 8601, or seconds to nanoseconds since 1970), or an access log with
    the time in brackets. No request is sent, and no cluster is looked at but with --from. Exits with 0, and with 2 when
    it cannot be told.

    \b
    Examples:
      conch simulate --trace access.csv --objective 200ms --curve 5,2.5,8 --cold-start 45s
      conch simulate --trace access.log.gz --from sentiment --output run.html
      conch simulate --trace requests.csv --column started_at --objective 2s --curve 300,80,16,2 --min 0 --idle 5m
      conch simulate --trace access.csv --from sentiment --gpu-hour-cost 2.5 --json --no-compare
    """
    from conch.simulate.command import simulate as replay
    from conch.simulate.options import Options

    options = Options(
        trace=trace,
        column=column,
        objective=objective,
        percentile=percentile,
        minimum=minimum,
        maximum=maximum,
        start=start,
        idle=idle,
        cold_start=cold_start,
        curve=curve,
        name=name,
        namespace=namespace,
        context=context,
        gpu_hour_cost=gpu_hour_cost,
        gpus=gpus,
        compare=compare,
        output=output,
        as_json=as_json,
    )
    raise typer.Exit(replay(options))
