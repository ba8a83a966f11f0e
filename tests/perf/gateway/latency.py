"""What the gateway's Envoy adds to a request, against an Envoy that does nothing but proxy, and against no proxy."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from conch.api.pod import HTTP_PORT
from tests.cluster.ports import free_port
from tests.cluster.progress import step
from tests.load import Load, Plan, Protocol, Stream, Tensor
from tests.load.result import Quantiles
from tests.perf.gateway.pod import GatewayPod, Model, gateway_pod
from tests.perf.gateway.report import Results
from tests.perf.gateway.static_envoy import plain
from tests.perf.scale.process import usage

RATIO_GOAL: Final = 1.05
PROTOCOLS: Final = (Protocol.HTTP, Protocol.GRPC)
_RATE_PER_SECOND: Final = 250
"""Of each protocol: both cores stay half idle, so that nothing but the way itself is measured."""
_WARM_SECONDS: Final = 1.0
"""In which connections are made; not counted."""
_MEASURED: Final = "measured"
_INPUT: Final = Tensor(name="IN", datatype="FP32", shape=(4,), data=(1.0, 2.0, 3.0, 4.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where requests go, and the proxy on the way."""

    address: str
    envoy_pid: int | None = None
    pod: GatewayPod | None = None
    stream: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the load's streams: what clients need to be let in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one load found."""

    latency: Mapping[Protocol, Quantiles]
    requests: int
    envoy_cpu_seconds: float
    lateness_p99_ms: float


async def measure(results: Results, folder: Path, *, rounds: int, seconds: float) -> None:
    """Loads on each way in turn, so that all of them meet the same machine; the medians count."""
    async with _ways(folder) as ways:
        found = await compare("latency", ways, folder, rounds=rounds, seconds=seconds)
    _tell(results, found)


async def compare(
    what: str, ways: Mapping[str, Way], folder: Path, *, rounds: int, seconds: float
) -> dict[str, list[Round]]:
    """What each way's rounds found."""
    found: dict[str, list[Round]] = {}
    expected = rounds * len(ways) * (seconds + _WARM_SECONDS + 1.5)
    with step(f"{what}: {rounds} rounds of {len(ways)} loads", expected_seconds=expected):
        for number in range(rounds):
            # Each goes first as often as the others.
            names = [*ways][number % len(ways) :] + [*ways][: number % len(ways)]
            for name in names:
                one = await _round(ways[name], folder / f"load-{what}-{number}-{name}", seed=number, seconds=seconds)
                found.setdefault(name, []).append(one)
    return found


def median_ms(rounds: Iterable[Round], protocol: Protocol, quantile: str) -> float:
    """Of a quantile (`p50_ms`) over the rounds of a way."""
    return statistics.median(float(getattr(each.latency[protocol], quantile)) for each in rounds)


def cpu_microseconds(rounds: Sequence[Round]) -> float:
    """Of Envoy, per request."""
    return sum(each.envoy_cpu_seconds for each in rounds) / sum(each.requests for each in rounds) * 1e6


@asynccontextmanager
async def _ways(folder: Path) -> AsyncIterator[dict[str, Way]]:
    async with AsyncExitStack() as stack:
        # One worker each: with two it is chance which connections share one.
        pod = await stack.enter_async_context(gateway_pod(folder / "pod", concurrency=1))
        model = Model(name="m", port=free_port("127.0.0.1"), workloads=("m1",))
        pod.put_servers(model, "m1", ["10.64.1.1"])
        pod.put_model(model, [100])
        await pod.start()
        port = free_port("127.0.0.1")
        plain_pid = await stack.enter_async_context(plain(folder / "plain", port))
        yield {
            "direct": Way(address=f"127.0.0.1:{HTTP_PORT}"),
            "plain": Way(address=f"127.0.0.1:{port}", envoy_pid=plain_pid),
            "gateway": Way(address=f"127.0.0.1:{model.port}", envoy_pid=pod.envoy.pid, pod=pod),
        }


async def _round(way: Way, folder: Path, *, seed: int, seconds: float) -> Round:
    if way.pod is None:
        return await asyncio.to_thread(_load, way, folder, seed, seconds)
    async with way.pod.asked_each_second():
        return await asyncio.to_thread(_load, way, folder, seed, seconds)


def _load(way: Way, folder: Path, seed: int, seconds: float) -> Round:
    streams = tuple(
        Stream(
            protocol=protocol,
            address=way.address,
            model="m",
            rate_per_second=_RATE_PER_SECOND,
            poisson=True,
            inputs=(_INPUT,),
            **way.stream,
        )
        for protocol in PROTOCOLS
    )
    with Load(Plan(streams=streams, duration_seconds=_WARM_SECONDS + seconds, seed=seed * 10), folder) as load:
        time.sleep(_WARM_SECONDS)
        load.mark(_MEASURED)
        before = _cpu_seconds(way)
        result = load.result()
        after = _cpu_seconds(way)
    assert result.failed == 0, result.summary()
    groups = {group.protocol: group for group in result.groups if group.phase == _MEASURED}
    return Round(
        latency={protocol: groups[protocol].latency for protocol in PROTOCOLS},
        requests=sum(group.answered for group in groups.values()),
        envoy_cpu_seconds=after - before,
        lateness_p99_ms=result.lateness.p99_ms,
    )


def _cpu_seconds(way: Way) -> float:
    return 0.0 if way.envoy_pid is None else usage(way.envoy_pid).cpu_seconds


def _tell(results: Results, found: Mapping[str, list[Round]]) -> None:
    raw: dict[str, object] = {
        "lateness_p99_ms": {name: [each.lateness_p99_ms for each in rounds] for name, rounds in found.items()},
    }
    for protocol in PROTOCOLS:
        for quantile in ("p50_ms", "p99_ms"):
            values = {
                name: [float(getattr(each.latency[protocol], quantile)) for each in rounds]
                for name, rounds in found.items()
            }
            raw[f"{protocol}_{quantile}"] = values
            medians = {name: median_ms(each, protocol, quantile) for name, each in found.items()}
            what = f"{protocol} {quantile.removesuffix('_ms')}"
            results.add(f"{what}, ms", medians["gateway"], reference=medians["plain"], goal=RATIO_GOAL)
            results.add(
                f"{what} over direct ({medians['direct']:.3f}), ms",
                medians["gateway"] - medians["direct"],
                reference=medians["plain"] - medians["direct"],
            )
    cpu = {name: cpu_microseconds(rounds) for name, rounds in found.items()}
    results.add("CPU of Envoy per request, us", cpu["gateway"], reference=cpu["plain"])
    results.raw["latency"] = raw
