"""The command line of the benchmark."""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.cluster.ports import free_port
from tests.cluster.progress import say, step
from tests.perf.gateway import fleet, guarded, held, latency
from tests.perf.gateway.pod import Model, gateway_pod
from tests.perf.gateway.report import Results, table
from tests.perf.gateway.static_envoy import server
from tests.perf.scale.loopback import enter

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Example: python -m tests.perf.gateway --rounds 4 --seconds 3")
def main(
    rounds: Annotated[int, typer.Option(help="Loads on each way; 0 leaves the latency out.", min=0)] = 12,
    seconds: Annotated[float, typer.Option(help="How long each load is measured.", min=1)] = 4,
    models: Annotated[int, typer.Option(help="Of the fleet; 0 leaves it out.", min=0, max=1000)] = 500,
    samples: Annotated[int, typer.Option(help="Single changes of each kind.", min=1)] = 40,
    held_repetitions: Annotated[int, typer.Option(help="Bursts of held requests.", min=1)] = 10,
    guarded_rounds: Annotated[int, typer.Option(help="Loads with TLS and API keys; 0 leaves them out.", min=0)] = 8,
    json_path: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path(".cluster/gateway.json"),
) -> None:
    """Measure a gateway: Envoy and `conch gateway` in a network of loopback alone. Needs root."""
    enter("tests.perf.gateway")
    results = Results()
    try:
        asyncio.run(
            _measure(
                results,
                rounds=rounds,
                seconds=seconds,
                models=models,
                samples=samples,
                held_repetitions=held_repetitions,
                guarded_rounds=guarded_rounds,
            )
        )
    finally:
        Console(width=120).print(table(results))
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(results.as_json(), indent=1))
    if missed := [row.says for row in results.rows if not row.is_met]:
        say(f"over the goal: {'; '.join(missed)}")


async def _measure(
    results: Results,
    *,
    rounds: int,
    seconds: float,
    models: int,
    samples: int,
    held_repetitions: int,
    guarded_rounds: int,
) -> None:
    with tempfile.TemporaryDirectory(prefix="conch-gateway-") as temporary:
        folder = Path(temporary)
        async with server(folder / "server"):
            if rounds:
                await latency.measure(results, folder, rounds=rounds, seconds=seconds)
            if guarded_rounds:
                await guarded.measure(results, folder, rounds=guarded_rounds, seconds=seconds)
            await _held(results, folder, repetitions=held_repetitions)
            if models:
                await fleet.measure(results, folder, models=models, samples=samples, held_repetitions=held_repetitions)


async def _held(results: Results, folder: Path, *, repetitions: int) -> None:
    async with gateway_pod(folder / "held", concurrency=1) as pod:
        model = Model(name="sleeping", port=free_port("127.0.0.1"), workloads=("sleeping1",))
        pod.put_model(model, [100])
        await pod.start()
        with step("held requests", expected_seconds=repetitions * 1.5):
            await held.measure(results, pod, model, beside="", repetitions=repetitions)


if __name__ == "__main__":
    app()
