"""Like `stub_pods`, but every model has traffic: gateways count requests, and agents what their servers executed.

POST /step?name=NAME lets a model's requests come five times as often from now on.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np
from aiohttp import web

from conch.api.agent_report import AgentPhase, AgentReport
from conch.api.assignment import Assignment
from conch.api.gateway_report import LATENCY_BOUNDS_MILLISECONDS, GatewayReport, ObjectTraffic, WorkloadTraffic
from conch.api.inference_counts import BatchCounts, InferenceCounts, ModelCounts
from conch.kube.client import KubeClient
from tests.perf.scale.stub_agents import StubAgents
from tests.perf.scale.stub_gateways import StubGateways
from tests.perf.scale.stub_pods import serve

MOST: Final = 10_000
STEP: Final = 5.0
MAX_BATCH: Final = 4
_GATEWAYS: Final = 2
_BURSTING: Final = 10
"""One in so many models has bursts: four times as much for 30 s, every five minutes, each at its own time."""
_BURST_SECONDS, _BURST_EVERY_SECONDS, _BURST_FACTOR = 30.0, 300.0, 4.0
_DIGEST: Final = "sha256:" + "0" * 64


def is_steady(index: int) -> bool:
    """Whether a model has no bursts."""
    return index % _BURSTING != 0


def service_seconds(index: int) -> tuple[float, float]:
    """Of a model: base and per item, no two neighbours alike."""
    return 0.020 + 0.001 * (index % 17), 0.010 + 0.001 * (index % 7)


def _ceiling(index: int) -> float:
    """Requests per second that one server of a model does at most."""
    base, each = service_seconds(index)
    return MAX_BATCH / (base + MAX_BATCH * each)


class Traffic:
    """Requests of all models, as chance lets them come (Poisson): 12 to 16 a second of each."""

    def __init__(self) -> None:
        self._chance = np.random.default_rng(0)
        self._rates = 12.0 + np.arange(MOST) % 5
        self._factors = np.ones(MOST)
        self._ceilings = np.array([_ceiling(index) for index in range(MOST)])
        self._stepped_at = np.full(MOST, np.inf)
        self._phases = self._chance.uniform(0, _BURST_EVERY_SECONDS, MOST)
        self._bursting = np.array([not is_steady(index) for index in range(MOST)])
        self._arrivals: dict[str, np.ndarray] = {}
        self._read_at: dict[str, float] = {}

    async def step(self, request: web.Request) -> web.Response:
        """Five times as much of a model from now on."""
        index = index_of(request.query["name"])
        self._factors[index], self._stepped_at[index] = STEP, time.monotonic()
        return web.json_response({"at": time.time()})

    def arrivals(self, gateway: str) -> np.ndarray:
        """Of each model at one of the gateways so far."""
        now = time.monotonic()
        elapsed = now - self._read_at.get(gateway, now)
        self._read_at[gateway] = now
        before = self._arrivals.get(gateway, np.zeros(MOST, dtype=np.int64))
        self._arrivals[gateway] = before + self._chance.poisson(self.rates(now) * elapsed / _GATEWAYS)
        return self._arrivals[gateway]

    def rates(self, now: float) -> np.ndarray:
        """Requests per second of each model."""
        in_burst = self._bursting & ((now + self._phases) % _BURST_EVERY_SECONDS < _BURST_SECONDS)
        return self._rates * self._factors * np.where(in_burst, _BURST_FACTOR, 1.0)

    def in_flight(self, now: float) -> np.ndarray:
        """Requests of each model at its servers: after a step, what its one server does not get done waits there."""
        rates, since = self.rates(now), np.maximum(0.0, now - self._stepped_at)
        there: np.ndarray = rates * 0.05 + np.maximum(0.0, rates - self._ceilings) * since
        return there

    def executed(self, index: int) -> int:
        """Requests of a model that were answered so far."""
        return sum(int(each[index]) for each in self._arrivals.values())


class BusyAgents(StubAgents):
    """Half of the requests were executed alone, the others two at a time."""

    def __init__(self, client: KubeClient, traffic: Traffic) -> None:
        super().__init__(client)
        self._traffic = traffic

    def report(self, address: str, assignment: Assignment) -> AgentReport:
        """With what Triton has counted."""
        report = super().report(address, assignment)
        if report.phase is not AgentPhase.READY:
            return report
        index = index_of(assignment.name)
        base, each = service_seconds(index)
        requests = self._traffic.executed(index)
        executions = {1: requests // 2, 2: requests // 4}
        counts = InferenceCounts(
            epoch=address,
            requests=requests,
            failures=0,
            queue_seconds=0.01 * requests,
            models=(
                ModelCounts(
                    name=assignment.name,
                    max_batch=MAX_BATCH,
                    instances=1,
                    decoupled=False,
                    requests=requests,
                    queue_seconds=0.01 * requests,
                    batches=tuple(
                        BatchCounts(size=size, executions=times, compute_seconds=times * (base + each * size))
                        for size, times in executions.items()
                    ),
                ),
            ),
        )
        return report.model_copy(update={"inference": counts})


class BusyGateways(StubGateways):
    """Two gateways that share the requests."""

    def __init__(self, client: KubeClient, *, token_file: Path, traffic: Traffic) -> None:
        super().__init__(client, token_file=token_file)
        self._busy = traffic
        self._came_before: dict[tuple[str, int], int] = {}
        """Requests of a model before a gateway had a port for it: nobody has counted those."""

    def body(self, gateway: str) -> bytes:
        """A new report each time."""
        arrivals = self._busy.arrivals(gateway)
        in_flight = np.rint(self._busy.in_flight(time.monotonic()) / _GATEWAYS).astype(int)
        objects = {}
        for (namespace, name), traffic in self.traffic.items():
            if traffic is not None:
                index = index_of(name)
                came = int(arrivals[index])
                counted = came - self._came_before.setdefault((gateway, index), came)
                objects[f"{namespace}/{name}"] = _busy(traffic, counted, int(in_flight[index]))
        report = GatewayReport(gateway=gateway, epoch="stub", version="stub", objects=objects)
        return report.model_dump_json(by_alias=True).encode()


def _busy(traffic: ObjectTraffic, arrivals: int, in_flight: int) -> ObjectTraffic:
    """All of its requests at the workload that serves, answered within 50 ms."""
    bucket = LATENCY_BOUNDS_MILLISECONDS.index(50)
    served = WorkloadTraffic(in_flight=in_flight, arrivals=arrivals, latency=(*(0,) * bucket, arrivals))
    return traffic.model_copy(
        update={
            "arrivals": arrivals,
            "in_flight": in_flight,
            "workloads": dict.fromkeys(traffic.workloads, served),
        }
    )


def index_of(name: str) -> int:
    """The number of a model."""
    return int(name.rpartition("-")[2])


async def main(kubeconfig: Path, token_file: Path) -> None:
    """Answer until SIGTERM."""
    client = await KubeClient.connect(kubeconfig)
    traffic = Traffic()
    gateways = BusyGateways(client, token_file=token_file, traffic=traffic)
    try:
        await serve(BusyAgents(client, traffic), gateways, web.post("/step", traffic.step))
    finally:
        await client.close()


if __name__ == "__main__":
    asyncio.run(main(*(Path(each) for each in sys.argv[1:])))
