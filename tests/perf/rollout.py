"""How long rollouts take beyond the pods' own start, and how soon a bad version is withdrawn, on the local cluster."""

import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from tests.cluster.client import Cluster
from tests.e2e.conftest import Namespace
from tests.perf.namespaces import fresh_namespace
from tests.perf.timeline import Timeline
from tests.support import versions
from tests.support.gateways import digits_load
from tests.support.installation import install
from tests.support.model_store import ModelStore
from tests.support.waiting import until

NAMESPACE: Final = "perf-rollout"
NAME: Final = "digits"
BEYOND_POD_START_GOAL_SECONDS: Final = 10
WITHDRAWN_GOAL_SECONDS: Final = 10
_ON_CPU: Final = {"gpu": {"count": 0}}
_MINIMUM_SAMPLES: Final = 100
_RATE_PER_SECOND: Final = 120
_WEIGHT_PERCENT: Final = 10

console = Console()


def main(rounds: Annotated[int, typer.Option(min=1, help="Rollouts of each kind.")] = 5) -> None:
    """Measure rollouts of a 2-replica model without pauses, and of a version that fails one request in ten.

    Example: python -m tests.perf.rollout --rounds 3
    """
    cluster = Cluster.current()
    install(cluster)
    namespace = fresh_namespace(cluster, NAMESPACE)
    store = ModelStore(cluster)
    try:
        _deploy(namespace, store, 1, versions.MODEL)
        namespace.wait_ready(NAME, replicas=2)
        namespace.wait_answers(NAME)
        good = [_good(namespace, store, 2 + number) for number in range(rounds)]
        bad = [_bad(namespace, store, 2 + rounds + number) for number in range(rounds)]
    finally:
        store.close()
        cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    table = Table("", "median", "worst", "goal")
    starts, wholes = zip(*good, strict=True)
    _row(table, "pods of the new version: created -> ready, s", starts)
    _row(table, "applied -> the new version is stable, s", wholes)
    beyond = [whole - start for start, whole in good]
    _row(table, "the same beyond the pods' start, s", beyond, goal=BEYOND_POD_START_GOAL_SECONDS)
    _row(table, "bad version: minimum of samples -> no request goes to it, s", bad, goal=WITHDRAWN_GOAL_SECONDS)
    console.print(table)


def _row(table: Table, what: str, seconds: list[float] | tuple[float, ...], *, goal: float | None = None) -> None:
    met = "" if goal is None else f"<= {goal:g}: {'met' if max(seconds) <= goal else 'MISSED'}"
    table.add_row(what, f"{statistics.median(seconds):.1f}", f"{max(seconds):.1f}", met)


def _deploy(namespace: Namespace, store: ModelStore, version: int, content: bytes, **rollout: Any) -> None:
    path = f"/{NAMESPACE}/{version}{'.onnx' if content == versions.MODEL else '.tar.gz'}"
    wanted = {"strategy": "Surge", "keepWarmSeconds": 0, **rollout}
    namespace.deploy(NAME, store.put(path, content), model={"version": version}, rollout=wanted, replicas=2, **_ON_CPU)


def _good(namespace: Namespace, store: ModelStore, version: int) -> tuple[float, float]:
    """Seconds of the slower pod's start, and of the whole rollout."""
    facts = {"stable": lambda live: live.get("status", {}).get("stable", {}).get("version") == version}
    with Timeline(namespace.cluster, NAMESPACE, "mdep", facts) as timeline:
        timeline.start()
        _deploy(namespace, store, version, versions.MODEL)
        whole = timeline.wait("stable")
    workload = namespace.mdep(NAME)["status"]["stable"]["workload"]
    pods = [pod for pod in namespace.pods(NAME) if pod["metadata"]["labels"]["conch.dev/workload"] == workload]
    namespace.wait_ready(NAME, replicas=2)
    until(lambda: len(namespace.mdep(NAME)["status"]["traffic"]) == 1, "the version before to be gone", seconds=90)
    return max(_start_seconds(pod) for pod in pods), whole


def _start_seconds(pod: dict[str, Any]) -> float:
    ready = next(each for each in pod["status"]["conditions"] if each["type"] == "Ready")
    created = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    return (datetime.fromisoformat(ready["lastTransitionTime"]) - created).total_seconds()


def _bad(namespace: Namespace, store: ModelStore, version: int) -> float:
    """Seconds from when the minimum of samples has come, at the load's rate, until the traffic is back."""
    with (
        tempfile.TemporaryDirectory() as folder,
        digits_load(
            namespace.address(NAME), NAME, Path(folder), rate_per_second=_RATE_PER_SECOND, duration_seconds=180
        ) as load,
    ):
        _deploy(
            namespace,
            store,
            version,
            versions.failing(version, each=10),
            steps=[{"weight": _WEIGHT_PERCENT, "pauseSeconds": 3600}],
            analysis=[{"successRate": {"minimumPercent": 99}, "minimumSamples": _MINIMUM_SAMPLES}],
        )
        began = datetime.fromisoformat(until(lambda: _observed_since(namespace, version), "its traffic", seconds=120))
        until(lambda: _is_back(namespace, version), "the traffic to be back", seconds=120)
        withdrawn = time.time()
        load.stop()
    return withdrawn - began.timestamp() - _MINIMUM_SAMPLES / (_RATE_PER_SECOND * _WEIGHT_PERCENT / 100)


def _observed_since(namespace: Namespace, version: int) -> str | None:
    status = namespace.mdep(NAME)["status"]
    is_its = status.get("candidate", {}).get("version") == version
    since: str | None = status["rollout"].get("observedSince") if is_its else None
    return since


def _is_back(namespace: Namespace, version: int) -> bool:
    live = namespace.mdep(NAME)
    is_over = live["status"].get("rollout", {}).get("phase") == "Halted"
    return bool(is_over and live["spec"]["model"]["version"] == version)


if __name__ == "__main__":
    typer.run(main)
