"""The command line of the benchmark; runs in the environment with torch (`make bench-packaging`)."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.cluster.progress import say
from tests.perf.packaging import report
from tests.perf.packaging.comparison import Comparison, compare
from tests.perf.packaging.samples import package_all
from tests.perf.packaging.services import services, texts_of

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Example: make bench-packaging")
def main(
    rounds: Annotated[int, typer.Option(help="Of each load on each service; 0 leaves the services out.", min=0)] = 3,
    seconds: Annotated[float, typer.Option(help="How long each load is measured.", min=1)] = 6,
    json_path: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path(".cluster/packaging.json"),
) -> None:
    """Train and package the samples, then compare the text service on Triton with a Flask server of the same module."""
    with tempfile.TemporaryDirectory(prefix="conch-packaging-") as temporary:
        folder = Path(temporary)
        packaged = package_all(folder / "samples")
        console = Console(width=150)
        console.print(report.samples_table(packaged))
        console.print(report.variants_table(packaged))
        comparison: Comparison | None = None
        if rounds:
            versions = {each.version: each for each in packaged if each.name == "text"}
            with services(versions, folder) as running:
                texts = texts_of(versions[1].trained)
                comparison = compare(running, texts, rounds=rounds, seconds=seconds)
            console.print(report.services_table(comparison))
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_text(json.dumps(report.as_json(packaged, comparison), indent=1))
    for each in report.missed(packaged, comparison):
        say(f"missed: {each}")


if __name__ == "__main__":
    app()
