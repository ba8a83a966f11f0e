"""A fleet of servers with dynamic batching, in simulation: how long requests take at a given load.

Arrivals are random (Poisson). Each goes to the server with the fewest requests, as Envoy's least-request balancing does
it. A server takes up to B of what waits as soon as it is free, as Triton's dynamic batcher does it without a queue
delay. The same load gives the same result: the random numbers are always the same.
"""

import heapq
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conch.core.scaling.service_curve import ServiceCurve

_SEED = 20_260_101


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedLoad:
    """What became of the requests."""

    latency_seconds: NDArray[np.float64]
    """From arrival to answer, in the order of arrival."""
    wait_seconds: NDArray[np.float64]
    """From arrival until its batch was begun."""


def simulate_load(curve: ServiceCurve, servers: int, utilisation: float, requests: int) -> SimulatedLoad:
    """Run a load of `utilisation` times what the servers can do at most; the first tenth is not counted."""
    generator = np.random.default_rng(_SEED)
    gaps = generator.exponential(1.0, requests)
    # The load is meant exactly: a few thousand random gaps are some per cent off, and near the ceiling that is a lot.
    arrivals = np.cumsum(gaps / gaps.mean()) / (utilisation * servers * curve.ceiling)
    finished, begun = _run(curve, servers, arrivals.tolist())
    warm = requests // 10
    return SimulatedLoad(
        latency_seconds=(finished - arrivals)[warm:] + curve.others_seconds, wait_seconds=(begun - arrivals)[warm:]
    )


def _run(curve: ServiceCurve, servers: int, arrivals: list[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """When each request is finished and when its batch is begun."""
    finished, begun = np.empty(len(arrivals)), np.empty(len(arrivals))
    most, base, per_item = curve.max_batch, curve.base_seconds, curve.per_item_seconds
    queues: list[deque[int]] = [deque() for _ in range(servers)]
    free = [curve.instances] * servers
    outstanding = [0] * servers
    ends: list[tuple[float, int, int]] = []
    """When a batch ends, on which server, and how many are in it."""

    def start(server: int, at: float) -> None:
        queue = queues[server]
        size = min(most, len(queue))
        end = at + base + per_item * size
        for _ in range(size):
            index = queue.popleft()
            begun[index], finished[index] = at, end
        free[server] -= 1
        heapq.heappush(ends, (end, server, size))

    def settle(until: float) -> None:
        while ends and ends[0][0] <= until:
            end, server, size = heapq.heappop(ends)
            outstanding[server] -= size
            free[server] += 1
            if queues[server]:
                start(server, end)

    for index, at in enumerate(arrivals):
        settle(at)
        server = outstanding.index(min(outstanding))
        outstanding[server] += 1
        queues[server].append(index)
        if free[server]:
            start(server, at)
    settle(float("inf"))
    return finished, begun
