"""What the autoscaler costs for many objects, and how soon it acts on a gateway's word; fake pods, no request is sent.

The operator prints when it decides (`watched_operator`), and the API server's audit log tells when it has written.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import aiohttp
import numpy as np
import typer
from rich.table import Table

from conch.kube.resources import DEPLOYMENTS, MODEL_DEPLOYMENTS
from tests.cluster.progress import console, say, step
from tests.perf.scale import audit
from tests.perf.scale.busy_pods import is_steady
from tests.perf.scale.loopback import enter
from tests.perf.scale.process import usage
from tests.perf.scale.watched_operator import MARK
from tests.perf.scale.world import MODELS, Count, World, model, world
from tests.support.operator_process import OperatorProcess
from tests.support.waiting import until

_PROGRAMS: Final = ("etcd", "kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler", "kwok", "helm")
_STUBS: Final = "http://127.0.0.1:8080"
_SPEC: Final[Mapping[str, Any]] = {"maxReplicas": 10, "objective": {"latencyMs": 250}}
GOALS: Final[Mapping[str, float]] = {
    "operator_cores": 0.5,
    "operator_mib": 400,
    "step_to_write_p99_seconds": 6,
    "word_to_write_p99_seconds": 0.5,
}
_WORDS: Final[Mapping[str, str]] = {
    "ready_seconds": "all created at once, until each was Ready, s",
    "learning_cores": "the first minute, while most is learnt: operator, cores",
    "learnt_objects": "objects whose curve is known after it",
    "operator_cores": "the minute after: operator, cores",
    "operator_mib": "operator RSS at the end, MiB",
    "operator_peak_mib": "operator RSS at most, MiB",
    "tunings_per_second": "tunings per second in that minute",
    "requests_per_second": "its requests to the API server per second",
    "counts_changed": "counts changed in that minute",
    "step_to_write_p50_seconds": "load x 5 -> larger Deployment written, p50, s",
    "step_to_write_p99_seconds": "the same, p99, s",
    "word_to_write_p50_seconds": "gateway's word that shows it -> larger Deployment written, p50, s",
    "word_to_write_p99_seconds": "the same, p99, s",
    "decision_to_write_p50_seconds": "of that, decision -> larger Deployment written, p50, s",
    "decision_to_write_p99_seconds": "the same, p99, s",
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Example: python -m tests.perf.scale.autoscaled --objects 50 --steps 5 --seconds 20")
def main(
    objects: Annotated[int, typer.Option(help="How many autoscaled ModelDeployments.", min=1, max=10_000)] = 1000,
    steps: Annotated[int, typer.Option(help="How many of them get five times the load.", min=1)] = 30,
    seconds: Annotated[float, typer.Option(help="How long the operator is watched, twice.", min=1)] = 60,
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
) -> None:
    """Measure the autoscaler: a real API server, fake nodes, pods, agents and gateways in a network of loopback."""
    enter("tests.perf.scale.autoscaled", programs=_PROGRAMS)
    figures: dict[str, float] = {}
    try:
        asyncio.run(_measure(figures, objects, steps=steps, seconds=seconds))
    finally:
        console.print(_table(objects, figures))
        if json_path is not None:
            json_path.parent.mkdir(parents=True, exist_ok=True)
            json_path.write_text(json.dumps({"objects": objects, "figures": figures}, indent=1))


async def _measure(figures: dict[str, float], objects: int, *, steps: int, seconds: float) -> None:
    async with world(profiling=False, pods="tests.perf.scale.busy_pods") as made:
        with made.operator(module="tests.perf.scale.watched_operator") as operator:
            ready = made.count_ready_models()
            with step(f"{objects} autoscaled ModelDeployments", expected_seconds=objects * 0.1):
                started = time.monotonic()
                await made.create(MODEL_DEPLOYMENTS, (_autoscaled(index) for index in range(objects)))
                await ready.were_once(objects, "models Ready", seconds=900)
                figures["ready_seconds"] = time.monotonic() - started
            await ready.stop()
            with step("learning", expected_seconds=seconds):
                figures["learning_cores"] = (await _watched(made, operator, seconds))["cores"]
            figures["learnt_objects"] = await _learnt(made)
            with step("with all that is learnt", expected_seconds=seconds):
                seen = await _watched(made, operator, seconds)
            figures |= {
                "operator_cores": seen["cores"],
                "operator_mib": usage(operator.pid).resident_mib,
                "operator_peak_mib": usage(operator.pid).peak_mib,
                "tunings_per_second": seen["tunings"] / seconds,
                "requests_per_second": seen["requests"] / seconds,
                "counts_changed": seen["changes"],
            }
            await _steps(made, operator, figures, objects, steps)
            assert operator.metric("conch_scaling_faults_total") == 0, f"it failed at something: {operator.log}"


def _autoscaled(index: int) -> dict[str, Any]:
    body = model(index)
    body["spec"]["autoscaling"] = dict(_SPEC)
    return body


async def _watched(made: World, operator: OperatorProcess, seconds: float) -> dict[str, float]:
    before, began = _counters(operator), time.monotonic()
    made.audit.skip()
    await asyncio.sleep(seconds)
    after, elapsed = _counters(operator), time.monotonic() - began
    requests = audit.without_lease(made.operator_requests(made.audit.read()))
    return {
        "cores": (after["cpu"] - before["cpu"]) / elapsed,
        "tunings": after["tunings"] - before["tunings"],
        "changes": after["changes"] - before["changes"],
        "requests": sum(1 for _ in requests),
    }


def _counters(operator: OperatorProcess) -> dict[str, float]:
    return {
        "cpu": usage(operator.pid).cpu_seconds,
        "tunings": operator.metric("conch_tuning_seconds_count"),
        "changes": operator.metric("conch_scalings_total"),
    }


async def _learnt(made: World) -> int:
    pages = made.editor.pages(MODEL_DEPLOYMENTS)
    items = [item async for page in pages for item in page["items"]]
    return sum("curve" in item.get("status", {}).get("autoscaling", {}) for item in items)


async def _steps(made: World, operator: OperatorProcess, figures: dict[str, float], objects: int, steps: int) -> None:
    """Five times the load for one after the other; each is over when its Deployment is larger."""
    replicas = Count(made.editor, DEPLOYMENTS, _wanted, selector="app.kubernetes.io/managed-by=conch")
    pages = made.editor.pages(MODEL_DEPLOYMENTS)
    live = {item["metadata"]["name"]: item["status"] async for page in pages for item in page["items"]}
    chosen = [
        name
        for name in (f"model-{index}" for index in range(objects) if is_steady(index))
        if live[name]["desiredReplicas"] == 1 and "capacityPerReplica" in live[name].get("autoscaling", {})
    ][:steps]
    async with aiohttp.ClientSession(_STUBS) as stubs:
        with step(f"{len(chosen)} steps", expected_seconds=6.0 * len(chosen)):
            delays = [await _one_step(made, operator, stubs, replicas, name, live[name]) for name in chosen]
    await replicas.stop()
    kinds = ("step_to_write", "word_to_write", "decision_to_write")
    for what, values in zip(kinds, zip(*delays, strict=True), strict=True):
        say(f"  {what}: {', '.join(f'{value:.2f}' for value in sorted(values))}")
        for share in (50, 99):
            quantile = float(np.percentile(values, share, method="inverted_cdf"))
            figures[f"{what}_p{share}_seconds"] = quantile


async def _one_step(
    made: World,
    operator: OperatorProcess,
    stubs: aiohttp.ClientSession,
    replicas: Count,
    name: str,
    status: Mapping[str, Any],
) -> tuple[float, float, float]:
    """Seconds until the Deployment is written: from the step, the gateways' last word before the decision, and that."""
    key = (MODELS, f"{name}-{status['stable']['workload']}")
    made.audit.skip()
    async with stubs.post("/step", params={"name": name}) as response:
        began = (await response.json())["at"]
    await replicas.until(lambda: int(str(replicas.value(key) or 0)) > 1, f"{key[1]} to be larger", seconds=60)
    # The log is written a moment after the watch tells.
    written = await asyncio.to_thread(until, lambda: _written(made, made.audit.read(), key[1]), "the log of the write")
    decided_at, word_at = decided(operator.log.read_text(), name, began)
    return written - began, written - word_at, written - decided_at


def _written(made: World, requests: Sequence[audit.Request], deployment: str) -> float | None:
    mine = (
        each.answered
        for each in made.operator_requests(requests)
        if (each.verb, each.resource, each.name) == ("patch", "deployments", deployment)
    )
    return min(mine, default=None)


def decided(log: str, name: str, began: float) -> tuple[float, float]:
    """When the operator decided on more servers for it, and when the gateways' word came on which it did."""
    for line in log.splitlines():
        if line.startswith(MARK):
            told = json.loads(line.removeprefix(MARK))
            if told["name"] == name and told["at"] > began:
                return told["at"], told["word_at"]
    raise ValueError(f"the operator never decided on more servers for {name}")


def _wanted(live: Mapping[str, Any]) -> int:
    return int(live["spec"]["replicas"])


def _table(objects: int, figures: Mapping[str, float]) -> Table:
    drawn = Table(title=f"{objects:,} autoscaled ModelDeployments", title_justify="left")
    for column in ("", "measured", "goal"):
        drawn.add_column(column, justify="left" if not column else "right")
    for name, words in _WORDS.items():
        if name in figures:
            goal = GOALS.get(name)
            met = "" if goal is None else f"<= {goal:g}: {'met' if figures[name] <= goal else 'MISSED'}"
            drawn.add_row(words, f"{figures[name]:,.2f}", met)
    return drawn


if __name__ == "__main__":
    app()
