"""How soon servers follow a load on the local cluster, up, down and from zero, with real Triton and Envoy."""

import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer
from rich.console import Console
from rich.table import Table

from tests.cluster.client import Cluster
from tests.e2e.conftest import Namespace
from tests.e2e.scaled_model import BASE_PER_SECOND, STEP, Counts, ScaledModel
from tests.load import Load, Plan, Protocol, Result, Stream, Tensor
from tests.perf.namespaces import fresh_namespace
from tests.perf.timeline import Fact, Timeline
from tests.support.inference import digits
from tests.support.installation import install
from tests.support.model_store import ModelStore
from tests.support.waiting import until

NAMESPACE: Final = "perf-autoscaling"
STEP_GOAL_SECONDS: Final = 6
WAKE_GOAL_SECONDS: Final = 0.5
_AT_A_TIME: Final = 5
_TO_ZERO: Final[dict[str, Any]] = {"minReplicas": 0, "scaleToZero": {"idleSeconds": 10}}
_BURST_PER_SECOND: Final = 40

console = Console()


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Steps, and wakes from zero.")] = 10,
    way_down: Annotated[
        bool, typer.Option(help="Also wait until the servers of a step have gone again, 6 min.")
    ] = True,
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
) -> None:
    """Measure steps to five times the load, the way down after one, and wakes from zero.

    Example: python -m tests.perf.autoscaling_cluster --rounds 3 --no-way-down
    """
    cluster = Cluster.current()
    install(cluster)
    namespace = fresh_namespace(cluster, NAMESPACE)
    store = ModelStore(cluster)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="conch-autoscaling-") as temporary:
        bench = _Bench(namespace, store, Path(temporary))
        try:
            figures |= bench.steps(rounds)
            figures |= bench.wakes(rounds)
            if way_down:
                figures |= bench.way_down()
        finally:
            store.close()
            cluster.kubectl("delete", "mdep", "--all", "-n", NAMESPACE, "--wait=false")
            cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
            console.print(_table(figures))
            if json_path is not None:
                json_path.parent.mkdir(parents=True, exist_ok=True)
                json_path.write_text(json.dumps(figures, indent=1))


class _Bench:
    def __init__(self, namespace: Namespace, store: ModelStore, folder: Path) -> None:
        self._namespace, self._store, self._folder = namespace, store, folder

    def _models(self, kind: str, count: int, **autoscaling: Any) -> list[ScaledModel]:
        models = [
            ScaledModel(self._namespace, self._store, self._folder / f"{kind}-{number}", name=f"{kind}-{number}")
            for number in range(count)
        ]
        for model in models:
            model.deploy(**autoscaling)
        for model in models:
            self._namespace.wait_ready(model.name)
        return models

    def steps(self, rounds: int) -> dict[str, Any]:
        """Some models with a load that one server carries; one after the other gets five times as much."""
        seconds, ready, results = [], [], []
        for first in range(0, rounds, _AT_A_TIME):
            models = self._models(f"step-{first}", min(_AT_A_TIME, rounds - first))
            with self._base(models, f"base-{first}") as base:
                for model in models:
                    model.wait_learnt()
                for model in models:
                    larger, served, result = self._step(model)
                    seconds.append(larger)
                    ready.append(served)
                    results.append(result)
                results.append(base.stop())
            self._remove(models)
        return {
            "step_to_write_seconds": seconds,
            "step_to_served_seconds": ready,
            "step_requests": sum(each.scheduled for each in results),
            "step_failed": sum(each.failed for each in results),
        }

    def _base(self, models: list[ScaledModel], name: str) -> Load:
        pixels = Tensor(name="pixels", datatype="FP32", shape=(1, 64), data=tuple(digits()[0].pixels.tolist()))
        streams = tuple(
            Stream(
                protocol=Protocol.HTTP,
                address=f"{self._namespace.address(model.name)}:8000",
                model=model.name,
                rate_per_second=BASE_PER_SECOND,
                poisson=True,
                inputs=(pixels,),
            )
            for model in models
        )
        return Load(Plan(streams=streams, duration_seconds=600, timeout_seconds=120), self._folder / name)

    def _step(self, model: ScaledModel) -> tuple[float, float, Result]:
        """Seconds from the first request more until the Deployment is larger, and until two servers answer."""
        workload = model.status["stable"]["workload"]

        def is_its(live: dict[str, Any]) -> bool:
            return bool(live["metadata"]["labels"].get("conch.dev/workload") == workload)

        facts: dict[str, Fact] = {
            "larger": lambda live: is_its(live) and live["spec"]["replicas"] > 1,
            "served": lambda live: is_its(live) and live["status"].get("readyReplicas", 0) > 1,
        }
        with Timeline(self._namespace.cluster, NAMESPACE, "deployments", facts) as timeline:
            timeline.start()
            started = time.time()
            with model.load((STEP - 1) * BASE_PER_SECOND, seconds=120) as more:
                larger, served = timeline.wait("larger"), timeline.wait("served")
                result = more.stop()
        began = datetime.fromisoformat(result.began_at).timestamp() - started
        return larger - began, served - began, result

    def wakes(self, rounds: int) -> dict[str, Any]:
        """Models at zero; one after the other gets a request, every other one then a burst that is held too.

        Times are those of requests that are alone: in a burst they wait for each other at the server.
        """
        before, after, results = [], [], []
        for first in range(0, rounds, _AT_A_TIME):
            models = self._models(f"wake-{first}", min(_AT_A_TIME, rounds - first), **_TO_ZERO)
            for model in models:
                model.wait_zero()
            for number, model in enumerate(models, first):
                if number % 2:
                    results.append(self._burst(model))
                    continue
                created, answered = self._wake(model)
                before.append(created)
                after.append(answered)
            self._remove(models)
        return {
            "wake_request_to_pod_seconds": before,
            "wake_ready_to_answer_seconds": after,
            "wake_beyond_pod_start_seconds": [sum(each) for each in zip(before, after, strict=True)],
            "wake_requests": sum(each.scheduled for each in results) + rounds,
            "wake_failed": sum(each.failed for each in results),
        }

    def _burst(self, model: ScaledModel) -> Result:
        """What became of a burst that comes with the first request."""
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(_ask, f"http://{model.namespace.address(model.name)}:8000", model.name)
            with model.load(_BURST_PER_SECOND, seconds=2) as burst:
                result = burst.result()
            first.result()
        return result

    def _wake(self, model: ScaledModel) -> tuple[float, float]:
        """Seconds from the only request until its pod is there, and from when that is ready until the answer."""
        facts: dict[str, Fact] = {
            "created": lambda live: _is_of(live, model),
            "ready": lambda live: _serves(live, model),
        }
        with Timeline(self._namespace.cluster, NAMESPACE, "pods", facts) as timeline:
            timeline.start()
            began = time.monotonic()
            answered = _ask(f"http://{model.namespace.address(model.name)}:8000", model.name) - began
            return timeline.wait("created"), answered - timeline.wait("ready")

    def way_down(self) -> dict[str, Any]:
        """A step for three quarters of a minute, and then as before: until one server is left."""
        (model,) = self._models("down", 1)
        with model.counts() as counts, model.load(BASE_PER_SECOND, seconds=1200) as base:
            model.wait_learnt()
            with model.load((STEP - 1) * BASE_PER_SECOND, seconds=45) as more:
                result = more.result()
            ended = time.monotonic()
            until(lambda: model.status["desiredReplicas"] == 1, "one server", seconds=900)
            first_less, alone = _went(counts, ended)
            until(lambda: len(model.namespace.pods(model.name)) == 1, "one pod", seconds=120)
            whole = base.stop()
        return {
            "down_counts": counts.wanted,
            "down_first_less_seconds": first_less,
            "down_one_left_seconds": alone,
            "down_requests": whole.scheduled + result.scheduled,
            "down_failed": whole.failed + result.failed,
        }

    def _remove(self, models: list[ScaledModel]) -> None:
        for model in models:
            self._namespace.cluster.kubectl("delete", "mdep", model.name, "-n", NAMESPACE)
        # They would wait to be drained; nobody asks them any more.
        self._namespace.cluster.kubectl("delete", "pods", "--all", "-n", NAMESPACE, "--grace-period=1")
        for model in models:
            self._namespace.wait_no_pods(model.name)


def _ask(url: str, model: str) -> float:
    """When the answer was there, by time.monotonic()."""
    inputs = [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": digits()[0].pixels.tolist()}]
    httpx.post(
        f"{url}/v2/models/{model}/infer", json={"inputs": inputs}, timeout=120, trust_env=False
    ).raise_for_status()
    return time.monotonic()


def _is_of(pod: dict[str, Any], model: ScaledModel) -> bool:
    return bool(pod["metadata"]["labels"].get("conch.dev/model-deployment") == model.name)


def _serves(pod: dict[str, Any], model: ScaledModel) -> bool:
    conditions = pod["status"].get("conditions", ())
    return _is_of(pod, model) and any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _went(counts: Counts, ended: float) -> tuple[float, float]:
    """Seconds from the end of the load until fewer servers were wanted, and until one was."""
    after = [(at - ended, wanted) for at, wanted, _ in counts.told if at > ended]
    most = max(wanted for _, wanted in after)
    return min(at for at, wanted in after if wanted < most), min(at for at, wanted in after if wanted == 1)


def _table(figures: dict[str, Any]) -> Table:
    table = Table("", "median", "worst", "goal")
    rows: tuple[tuple[str, str, float | None], ...] = (
        ("step_to_write_seconds", "load x 5 -> larger Deployment written, s", STEP_GOAL_SECONDS),
        ("step_to_served_seconds", "the same -> a second server answers, s", None),
        ("wake_request_to_pod_seconds", "first request at zero -> its pod is made, s", None),
        ("wake_ready_to_answer_seconds", "its pod is ready -> it is answered, s", None),
        ("wake_beyond_pod_start_seconds", "both: answered beyond the pod's start, s", WAKE_GOAL_SECONDS),
    )
    for name, words, goal in rows:
        if values := figures.get(name):
            met = "" if goal is None else f"<= {goal:g}: {'met' if max(values) <= goal else 'MISSED'}"
            table.add_row(words, f"{statistics.median(values):.2f}", f"{max(values):.2f}", met)
    for kind, words in (("step", "steps"), ("wake", "wakes from zero"), ("down", "way up and down")):
        if f"{kind}_requests" in figures:
            failed = figures[f"{kind}_failed"]
            lost = f"{failed} of {figures[f'{kind}_requests']:,}"
            table.add_row(f"{words}: requests failed", lost, "", f"0: {'MISSED' if failed else 'met'}")
    if "down_counts" in figures:
        table.add_row("counts, one after the other", ", ".join(map(str, figures["down_counts"])), "", "")
        table.add_row("load back -> fewer wanted, s", f"{figures['down_first_less_seconds']:.0f}", "", "")
        table.add_row("load back -> one wanted, s", f"{figures['down_one_left_seconds']:.0f}", "", "")
    return table


if __name__ == "__main__":
    typer.run(main)
