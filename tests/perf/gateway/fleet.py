"""A gateway that serves many models: how long a change takes, and what the gateway costs."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from tests.cluster.progress import step
from tests.load.recorder import quantiles
from tests.perf.gateway import held
from tests.perf.gateway.pod import GatewayPod, Model, gateway_pod
from tests.perf.gateway.report import Results
from tests.perf.scale.process import usage

ACKNOWLEDGED_P99_MS_GOAL: Final = 1000
BURST: Final = 100
_WORKERS: Final = 2
"""As in the chart."""
_PORTS_FIRST: Final = 10_000
_IDLE_SECONDS: Final = 10
_REPORTS: Final = 10
_REPORT_PAUSE_SECONDS: Final = 1.0


async def measure(results: Results, folder: Path, *, models: int, samples: int, held_repetitions: int) -> None:
    """Two workloads each with one server, and one more model that has none."""
    fleet = [
        Model(name=f"m{number}", port=_PORTS_FIRST + number, workloads=(f"m{number}a", f"m{number}b"))
        for number in range(models)
    ]
    sleeping = Model(name="sleeping", port=_PORTS_FIRST + models, workloads=("sleeping1",))
    async with gateway_pod(folder / "fleet", concurrency=_WORKERS) as pod:
        for model in fleet:
            pod.put_model(model, [90, 10])
            for workload in model.workloads:
                pod.put_servers(model, workload, [_server(model, 0)])
        pod.put_model(sleeping, [100])
        with step(f"starting with {models} models", expected_seconds=15):
            started_seconds = await pod.start()
        clusters = 4 * models + 2
        results.add(f"{models} models, {clusters:,} clusters: started and all acknowledged, s", started_seconds)
        with step("single changes", expected_seconds=samples * 1.5):
            async with pod.asked_each_second():
                await _changes(results, "weights", samples, lambda at: _reweigh(pod, fleet[at % models], at))
                await _changes(results, "one server", samples, lambda at: _grow(pod, fleet[at % models]))
        with step("bursts", expected_seconds=5):
            await _burst(results, pod, fleet[:BURST], weights=[70, 30], pause_seconds=0)
            await _burst(results, pod, fleet[:BURST], weights=[30, 70], pause_seconds=0.01)
        await held.measure(results, pod, sleeping, beside=f" beside {models} models", repetitions=held_repetitions)
        with step("idle", expected_seconds=2 * _IDLE_SECONDS):
            await _costs(results, pod)


def _server(model: Model, number: int) -> str:
    return f"10.{65 + number}.{model.port // 250}.{model.port % 250 + 1}"


async def _changes(results: Results, what: str, samples: int, change: Callable[[int], Awaitable[float]]) -> None:
    seconds = [await change(number) for number in range(samples)]
    told = quantiles(seconds)
    results.add(f"{what} changed: published -> acknowledged, p50, ms", told.p50_ms)
    results.add(f"{what} changed: the same, p99 of {samples}, ms", told.p99_ms, goal=ACKNOWLEDGED_P99_MS_GOAL)
    results.raw[f"acknowledged_{what}"] = seconds


async def _reweigh(pod: GatewayPod, model: Model, number: int) -> float:
    since, published = pod.log_bytes(), time.monotonic()
    generation = pod.put_model(model, [50 + number % 40, 50 - number % 40])
    return await pod.until_routed({model: {"generation": generation}}, since=since) - published


async def _grow(pod: GatewayPod, model: Model) -> float:
    """A second server of the first workload."""
    since, published = pod.log_bytes(), time.monotonic()
    pod.put_servers(model, model.workloads[0], [_server(model, 0), _server(model, 1)])
    return await pod.until_routed({model: {"endpoints": 3}}, since=since) - published


async def _burst(
    results: Results, pod: GatewayPod, fleet: Sequence[Model], *, weights: Sequence[int], pause_seconds: float
) -> None:
    since, before, published = pod.log_bytes(), pod.deliveries(), time.monotonic()
    wanted = {}
    for model in fleet:
        wanted[model] = {"generation": pod.put_model(model, weights)}
        await asyncio.sleep(pause_seconds)
    last = time.monotonic()
    acknowledged = await pod.until_routed(wanted, since=since)
    how = f"{1 / pause_seconds:.0f} a second" if pause_seconds else "at once"
    results.add(f"{len(fleet)} changes {how}: deliveries to Envoy", pod.deliveries() - before)
    results.add("the same, the last published -> all acknowledged, ms", (acknowledged - last) * 1000)
    results.raw[f"burst_{how}"] = {"published_seconds": last - published, "acknowledged_seconds": acknowledged - last}


async def _costs(results: Results, pod: GatewayPod) -> None:
    processes = {"sidecar": pod.sidecar_pid, "Envoy": pod.envoy.pid}
    for name, pid in processes.items():
        now = usage(pid)
        results.add(f"{name} resident, MiB", now.resident_mib)
        results.add(f"{name} at most, MiB", now.peak_mib)
    before = {name: usage(pid).cpu_seconds for name, pid in processes.items()}
    began = time.monotonic()
    await asyncio.sleep(_IDLE_SECONDS)
    _shares(results, processes, before, began, "idle")
    before = {name: usage(pid).cpu_seconds for name, pid in processes.items()}
    began = time.monotonic()
    seconds, size = [], 0
    for _ in range(_REPORTS):
        asked = time.monotonic()
        size = len(await pod.report())
        seconds.append(time.monotonic() - asked)
        await asyncio.sleep(max(0.0, asked + _REPORT_PAUSE_SECONDS - time.monotonic()))
    _shares(results, processes, before, began, "asked for a report each second")
    results.add("GET /report, ms, median", statistics.median(seconds) * 1000)
    results.add("the same, bytes", size)
    results.raw["report_seconds"] = seconds


def _shares(results: Results, processes: dict[str, int], before: dict[str, float], began: float, when: str) -> None:
    elapsed = time.monotonic() - began
    for name, pid in processes.items():
        share = (usage(pid).cpu_seconds - before[name]) / elapsed
        results.add(f"CPU of {'the ' if name == 'sidecar' else ''}{name}, {when}, % of a core", share * 100)
