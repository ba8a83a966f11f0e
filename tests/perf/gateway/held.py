"""How soon requests that were held are answered once a server is ready."""

import asyncio
import statistics
import time
from typing import Any, Final

import aiohttp
import grpc

from tests.perf.gateway.pod import GatewayPod, Model
from tests.perf.gateway.report import Results
from tests.support.gateway_sidecar import UNARY

FIRST_SECONDS_GOAL: Final = 0.5
HELD: Final = 100
"""Half of them over gRPC."""
_SERVER: Final = "10.64.2.1"


async def measure(results: Results, pod: GatewayPod, model: Model, *, beside: str, repetitions: int) -> None:
    """The model is published and has no server, before and after."""
    firsts, lasts = [], []
    for _ in range(repetitions):
        seconds = await _burst(pod, model)
        firsts.append(min(seconds))
        lasts.append(max(seconds))
    results.add(f"first of {HELD} held after its server is ready{beside}, s, median", statistics.median(firsts))
    results.add(f"first of {HELD} held{beside}: worst of {repetitions}, s", max(firsts), goal=FIRST_SECONDS_GOAL)
    results.add("the last of them, s, median", statistics.median(lasts))
    results.raw[f"held{beside}"] = {"first_seconds": firsts, "last_seconds": lasts}


async def _burst(pod: GatewayPod, model: Model) -> list[float]:
    """Seconds from when the API server knows the server until each request was answered."""
    (workload,) = model.workloads
    address = f"127.0.0.1:{model.port}"
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        grpc.aio.insecure_channel(address, options=[("grpc.enable_retries", 0)]) as channel,
    ):
        call = channel.unary_unary(UNARY)

        async def http() -> float:
            async with session.post(f"http://{address}/v2/models/{model.name}/infer", data=b"{}") as response:
                await response.read()
                assert response.status == 200, response.status
            return time.monotonic()

        async def over_grpc() -> float:
            await call(b"")
            return time.monotonic()

        waiting: list[asyncio.Task[Any]] = [
            asyncio.create_task(each()) for each in (http, over_grpc) for _ in range(HELD // 2)
        ]
        await pod.until_told({model: {"held": HELD}})
        published = time.monotonic()
        pod.put_servers(model, workload, [_SERVER])
        answered = await asyncio.gather(*waiting)
    pod.put_servers(model, workload, [])
    await pod.until_told({model: {"endpoints": 0, "held": 0, "inFlight": 0, "waitsFor": ""}})
    return [at - published for at in answered]
