"""Versions that come and go in the same pods under a load: nothing may be lost, and how long a pod is busy with it."""

import json
import statistics
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from tests.cluster.client import Cluster
from tests.e2e.conftest import Namespace
from tests.e2e.versioned_model import NAME, Model
from tests.load import Load, Protocol
from tests.perf import courses
from tests.perf.namespaces import fresh_namespace
from tests.perf.timeline import Timeline
from tests.support import versions
from tests.support.gateways import digits_load
from tests.support.installation import install
from tests.support.model_store import ModelStore

NAMESPACE: Final = "perf-in-place"
SWAPS: Final = 5
"""Forth and back each."""
_LONGEST_SECONDS: Final = 1800
_OF_LOAD: Final = 1.2
_BEYOND_SECONDS: Final = 1.0

console = Console()


def main(
    requests: Annotated[int, typer.Option(help="At least so many for each number of replicas.")] = 10_000,
    rate_per_second: Annotated[float, typer.Option(help="Of HTTP and gRPC together.")] = 100,
) -> None:
    """Change the model of one and of two pods forth and back under a load; exits with 1 if a request was lost.

    Example: python -m tests.perf.in_place --requests 2000
    """
    cluster = Cluster.current()
    install(cluster)
    results = []
    table = Table("", "median", "worst", "goal")
    for replicas in (2, 1):
        namespace = fresh_namespace(cluster, NAMESPACE)
        store = ModelStore(cluster)
        try:
            model = Model(namespace, store, replicas=replicas)
            model.begin(versions.recorded(1))
            course = Course(namespace, model, replicas)
            results += courses.play(
                requests,
                lambda folder, at=namespace: digits_load(  # type: ignore[misc]  # mypy infers no lambda's default
                    *(at.address(NAME), NAME, folder),
                    rate_per_second=rate_per_second,
                    duration_seconds=_LONGEST_SECONDS,
                    protocols=(Protocol.HTTP, Protocol.GRPC),
                ),
                course.run,
            )
            loads = bare_loads(namespace)
        finally:
            store.close()
            cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
        goal = _OF_LOAD * statistics.median(loads) + _BEYOND_SECONDS
        _row(table, f"{replicas} replicas: Triton's load, s", loads)
        _row(table, f"{replicas} replicas: a pod's turn -> it is verified, s", course.turns, goal=goal)
        _row(table, f"{replicas} replicas: applied -> the version is stable, s", course.wholes)
    console.print(table)
    courses.judge(results)


class Course:
    """Two versions in turn, in the same pods."""

    def __init__(self, namespace: Namespace, model: Model, replicas: int) -> None:
        self._namespace = namespace
        self._model = model
        self._replicas = replicas
        self.turns: list[float] = []
        self.wholes: list[float] = []

    def run(self, load: Load) -> None:
        """Five times forth and back."""
        pods = self._model.pods()
        for swap in range(SWAPS):
            for version in (2, 1):
                load.mark(f"swap {swap + 1} to version {version}")
                self._change(version)
        load.mark("end")
        assert self._model.pods() == pods, "the same pods"

    def _change(self, version: int) -> None:
        facts: dict[str, Any] = {"stable": lambda live: _stable(live) == version}
        for number in range(1, self._replicas + 1):
            facts[f"turn {number}"] = lambda live, n=number: len(_rollout(live, version).get("turned", ())) >= n
            facts[f"back {number}"] = lambda live, n=number: _rollout(live, version).get("ready", 0) >= n
        with Timeline(self._namespace.cluster, NAMESPACE, "mdep", facts) as timeline:
            timeline.start()
            self._model.deploy(version, versions.recorded(version), strategy="InPlace")
            self.wholes.append(timeline.wait("stable"))
        self._model.wait_served(version)
        assert self._model.status["rollout"]["strategy"] == "InPlace", self._model.status["rollout"]
        for number in range(1, self._replicas + 1):
            self.turns.append(timeline.seconds[f"back {number}"] - timeline.seconds[f"turn {number}"])


def _stable(live: dict[str, Any]) -> int:
    version: int = live.get("status", {}).get("stable", {}).get("version", 0)
    return version


def _rollout(live: dict[str, Any], version: int) -> dict[str, Any]:
    """The rollout to a version; of another one nothing."""
    status = live.get("status", {})
    is_its = version in (status.get("candidate", {}).get("version"), _stable(live))
    is_news = status.get("observedGeneration") == live["metadata"]["generation"]
    rollout: dict[str, Any] = status.get("rollout", {}) if is_its and is_news else {}
    return rollout


def bare_loads(namespace: Namespace) -> list[float]:
    """Seconds that Triton took for each load, by the agents that asked it."""
    seconds = []
    for pod in namespace.pods(NAME):
        log = namespace.cluster.kubectl("logs", pod["metadata"]["name"], "-c", "agent", "-n", namespace.name).stdout
        lines = (json.loads(line) for line in log.splitlines() if line.startswith("{"))
        seconds += [line["seconds"] for line in lines if line.get("event") == "step" and line.get("step") == "Load"]
    return seconds


def _row(table: Table, what: str, seconds: Sequence[float], *, goal: float | None = None) -> None:
    met = "" if goal is None else f"<= {goal:.1f}: {'met' if statistics.median(seconds) <= goal else 'MISSED'}"
    table.add_row(what, f"{statistics.median(seconds):.2f}", f"{max(seconds):.2f}", met)


if __name__ == "__main__":
    typer.run(main)
