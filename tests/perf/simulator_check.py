"""Whether `conch simulate` tells the truth: the same arrivals into the real Triton and into its simulated servers.

A model of Triton's Python backend sleeps a + b n for a batch of n, so its speed is known and several servers fit on a
small machine. Each load goes, in an open loop, to one or two Tritons over gRPC; the client balances as a gateway does.
A latency counts from when its request was due. The simulated servers do not get the true curve but the one that Conch
has learnt by the end of the load, as in a cluster: Triton's statistics, the agent's counting, the operator's signals
and fit.
Objectives are where the simulator says that 20, 10, 5 and 1 % are late. Goal: at most 2 points apart.

The simulator knows servers, not the way to them. What requests that are alone take longer than their batch is measured
before and after each load and added to every simulated latency; the last line tells how it were without.

No cluster is needed. It goes by the clock, so it is no contract test: on a machine that is too busy requests are late
for reasons that no curve knows. How late they were sent is in the table.
"""

import asyncio
import json
import math
import selectors
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray

from conch.agent.counting import Counting
from conch.agent.wanted import Wanted
from conch.api.agent_report import AgentPhase, AgentReport
from conch.api.assignment import Assignment
from conch.api.model import ModelSource
from conch.app.scaling_signals import SignalReader
from conch.core.observed_pod import ObservedPod
from conch.core.scaling.service_curve import SeenBatches, ServiceCurve
from conch.simulate import loads
from conch.simulate.fleet import FleetSettings
from conch.simulate.replay import Fixed, simulate
from conch.simulate.trace import Trace
from conch.triton.client import TritonClient
from conch.triton.metrics import MetricsReader
from tests.contract.models import written
from tests.contract.processes import ADMIN_KEY, Triton
from tests.load.grpc_sender import GrpcSender
from tests.load.plan import Protocol, Stream, Tensor
from tests.load.recorder import RequestFailedError, Sending
from tests.load.sender import Sender
from tests.perf.autoscaling import header
from tests.support.async_waiting import until

CURVE: Final = ServiceCurve(base_seconds=0.040, per_item_seconds=0.010, max_batch=8)
LATE_SHARES: Final = (0.2, 0.1, 0.05, 0.01)
APART_POINTS_MOST: Final = 2.0
MODEL: Final = "timed"
WANTED: Final = Wanted.of(
    Assignment(revision="r1", name=MODEL, version=1, source=ModelSource(uri="https://models.example/timed.tar.gz"))
)
_SERVERS: Final = (1, 2)
_SEED: Final = 20_231_116
_SIMULATIONS: Final = 10
"""With two servers chance decides between equals; the simulated latencies are those of so many plays together."""
_ROUND_SECONDS: Final = 0.005
"""Objectives are whole multiples of it."""
_ALONE: Final = 10
_LOOK_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 30.0
_LEAD_SECONDS: Final = 0.2

_CONFIG: Final = """
backend: "python"
max_batch_size: {max_batch}
input {{ name: "x" data_type: TYPE_FP32 dims: 1 }}
output {{ name: "y" data_type: TYPE_FP32 dims: 1 }}
instance_group {{ count: {instances} kind: KIND_CPU }}
dynamic_batching {{ }}
"""
_CODE: Final = """
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        time.sleep({base_seconds!r} + {per_item_seconds!r} * sum(map(len, inputs)))
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x)]) for x in inputs]
"""


def model_files(curve: ServiceCurve) -> dict[str, str]:
    """A model repository with the one model whose batches take what the curve says."""
    config = _CONFIG.format(max_batch=curve.max_batch, instances=curve.instances)
    code = _CODE.format(base_seconds=curve.base_seconds, per_item_seconds=curve.per_item_seconds)
    return {f"{MODEL}/config.pbtxt": config, f"{MODEL}/1/model.py": code}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Requests to so many servers."""

    name: str
    servers: int
    trace: Trace


def the_loads(curve: ServiceCurve, *, seed: int) -> Iterator[Load]:
    """Steady ones at three utilisations and one of bursts, for one server and for two."""
    for servers in _SERVERS:
        full = servers * curve.ceiling
        # Two servers get the more requests in less time.
        seconds = 18.0 if servers == 1 else 16.0
        for utilisation in (0.5, 0.7, 0.85):
            trace = loads.steady(utilisation * full, seconds, seed=seed)
            yield Load(name=f"{100 * utilisation:.0f} % busy", servers=servers, trace=trace)
        trace = loads.bursts(0.4 * full, 1.6 * full, seconds, seed=seed, quiet_seconds=3, burst_seconds=0.7)
        yield Load(name="bursts", servers=servers, trace=trace)


def alone() -> Trace:
    """One request after the other, each answered before the next is due."""
    seconds = np.arange(_ALONE, dtype=np.float64) * 3 * CURVE.least_seconds
    return Trace(name="alone", seconds=seconds, span_seconds=float(seconds[-1]))


class LeastRequests:
    """To the server with the fewest requests in flight, among equals by chance: as a gateway and the fleet do it.

    It draws as the fleet draws, for each request one of its gateways and where among the servers it begins to look: of
    one seed, and with the same requests in flight, both choose the same.
    """

    def __init__(self, servers: int, *, seed: int) -> None:
        self.in_flight = [0] * servers
        self._random = Random(seed)

    def take(self) -> int:
        """The server of one more request; who takes gives back."""
        self._random.random()
        count = len(self.in_flight)
        first = int(self._random.random() * count)
        server = min(((first + step) % count for step in range(count)), key=self.in_flight.__getitem__)
        self.in_flight[server] += 1
        return server

    def give_back(self, server: int) -> None:
        """One request of it is over."""
        self.in_flight[server] -= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of a load; in the order of arrival."""

    latencies: NDArray[np.float64]
    """Seconds from when each was due; infinite: it failed."""
    lateness: NDArray[np.float64]
    """Seconds by which each was sent too late; part of its latency."""


async def send(trace: Trace, senders: Sequence[Sender], *, seed: int) -> Sent:
    """Every request at its time, whatever the answers do."""
    clock = asyncio.get_running_loop().time
    balance = LeastRequests(len(senders), seed=seed)
    latencies, lateness = np.full(trace.requests, math.inf), np.zeros(trace.requests)

    async def request(number: int, due: float) -> None:
        lateness[number] = clock() - due
        server = balance.take()
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await senders[server].send(Sending(protocol=Protocol.GRPC, due=due))
        except (RequestFailedError, TimeoutError):
            return
        finally:
            balance.give_back(server)
        latencies[number] = clock() - due

    began = clock() + _LEAD_SECONDS
    async with asyncio.TaskGroup() as group:
        for number, at in enumerate(trace.seconds.tolist()):
            await asyncio.sleep(max(0.0, began + at - clock()))
            group.create_task(request(number, began + at))
    return Sent(latencies=latencies, lateness=lateness)


class Learner:
    """Learns the curve as the operator does: the agents' counts, of which the signals are made, of which the fit."""

    def __init__(self, counting: Sequence[Counting]) -> None:
        self._counting = counting
        self._reader = SignalReader()
        self._seen = SeenBatches()

    def curve(self) -> ServiceCurve:
        """Of everything that was executed by the last look."""
        curve = self._seen.curve()
        if curve is None:
            raise RuntimeError(f"no curve was learnt of {self._seen.executions:.0f} executions; send more requests")
        return curve

    async def look(self) -> None:
        """Learns from what was executed since the last look."""
        pods = [await self._pod(number) for number in range(len(self._counting))]
        signals = self._reader.read(
            (),
            pods,
            told_at={},
            through_gateways=False,
            limit_milliseconds=None,
            hold_seconds=0.0,
            floor=0,
            workload="w",
            at=time.monotonic(),
            now=datetime.now(UTC),
        )
        self._seen = self._seen.with_(signals.batches)

    async def looking(self) -> None:
        """Again and again, until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _pod(self, number: int) -> ObservedPod:
        report = AgentReport(phase=AgentPhase.READY, inference=await self._counting[number].read(WANTED))
        return ObservedPod(
            name=f"p{number}", uid=f"u{number}", workload="w", phase="Running", ready=True, report=report
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One load at one objective: late shares."""

    objective_seconds: float
    triton: float
    simulated: float
    servers_alone: float
    """Simulated too, without the way to the servers."""

    @property
    def apart_points(self) -> float:
        """Percentage points; above zero: the real one is late more often."""
        return 100 * (self.triton - self.simulated)

    @property
    def apart_points_without_way(self) -> float:
        """The same, if the way is left out."""
        return 100 * (self.triton - self.servers_alone)

    @property
    def is_near(self) -> bool:
        """Whether the goal is met."""
        return abs(self.apart_points) <= APART_POINTS_MOST


def simulated(load: Load, curve: ServiceCurve, *, seed: int) -> NDArray[np.float64]:
    """Latencies at servers with that curve, of several plays."""
    plays = []
    for number in range(_SIMULATIONS):
        # The objective makes no difference to latencies.
        fleet = FleetSettings(curve=curve, objective_seconds=1.0, gateways=1, replicas=load.servers, seed=seed + number)
        plays.append(simulate(load.trace, Fixed(load.servers), fleet).latencies)
    return np.concatenate(plays)


def objectives(latencies: NDArray[np.float64]) -> tuple[float, ...]:
    """Round ones, in seconds, at which about `LATE_SHARES` are late."""
    exact = [float(np.quantile(latencies, 1 - share)) for share in LATE_SHARES]
    return tuple(round(math.ceil(each / _ROUND_SECONDS) * _ROUND_SECONDS, 6) for each in exact)


def compared(
    measured: NDArray[np.float64], servers_alone: NDArray[np.float64], way_seconds: float
) -> tuple[Compared, ...]:
    """Measured latencies beside simulated ones, at the objectives that these suggest."""
    return tuple(
        Compared(
            objective_seconds=objective,
            triton=float(np.mean(measured > objective)),
            simulated=float(np.mean(servers_alone + way_seconds > objective)),
            servers_alone=float(np.mean(servers_alone > objective)),
        )
        for objective in objectives(servers_alone + way_seconds)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One load, measured."""

    load: Load
    sent: Sent
    curve: ServiceCurve
    """As it was learnt."""
    way_seconds: float
    """What requests that were alone took longer than that."""
    compared: tuple[Compared, ...]

    @property
    def verdict(self) -> str:
        """Whether the goal is met, else where it is missed."""
        missed = [f"{1000 * each.objective_seconds:.0f} ms" for each in self.compared if not each.is_near]
        return f"missed: {', '.join(missed)}" if missed else "met"

    @property
    def lateness_p99_seconds(self) -> float:
        """Of sending."""
        return float(np.percentile(self.sent.lateness, 99))

    def as_text(self) -> str:
        """One line of the table."""
        shares = [
            f"{1000 * each.objective_seconds:.0f} ms: {100 * each.triton:.1f} / {100 * each.simulated:.1f} "
            f"({each.apart_points:+.1f})"
            for each in self.compared
        ]
        cells = [
            f"{self.load.name}, {self.load.servers}",
            str(self.load.trace.requests),
            *shares,
            f"{1000 * self.curve.base_seconds:.1f} + {1000 * self.curve.per_item_seconds:.2f} n",
            f"{1000 * self.way_seconds:.1f}",
            f"{1000 * self.lateness_p99_seconds:.1f}",
            self.verdict,
        ]
        return f"| {' | '.join(cells)} |"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "load": self.load.name,
            "servers": self.load.servers,
            "requests": self.load.trace.requests,
            "failed": int(np.isinf(self.sent.latencies).sum()),
            "sentLateP99Ms": 1000 * self.lateness_p99_seconds,
            "baseMs": 1000 * self.curve.base_seconds,
            "perItemMs": 1000 * self.curve.per_item_seconds,
            "wayMs": 1000 * self.way_seconds,
            "lateShares": [
                {
                    "objectiveMs": 1000 * each.objective_seconds,
                    "triton": each.triton,
                    "simulated": each.simulated,
                    "simulatedWithoutWay": each.servers_alone,
                }
                for each in self.compared
            ],
            "goal": self.verdict,
        }


@asynccontextmanager
async def tritons(folder: Path, count: int) -> AsyncIterator[list[Triton]]:
    """Real servers that serve the model, until the block ends."""
    repository = folder / "repository"
    for path, content in model_files(CURVE).items():
        written(repository / path, content.encode())
    servers: list[Triton] = []
    try:
        for number in range(count):
            place = folder / f"triton{number}"
            place.mkdir()
            servers.append(Triton(place, repository))
            servers[-1].start()
        for server in servers:
            async with TritonClient(f"127.0.0.1:{server.grpc}", ADMIN_KEY) as client:
                await until(f"Triton, which logs to {server.log}", client.live)
                await client.load(MODEL, timeout_seconds=60)
        yield servers
    finally:
        for server in servers:
            server.stop(9)


def sender(triton: Triton) -> GrpcSender:
    """Sends the model a request of one item."""
    item = Tensor(name="x", datatype="FP32", shape=(1, 1), data=(0.5,))
    address = f"127.0.0.1:{triton.grpc}"
    # The rate is the plan's; here the trace says when.
    return GrpcSender(Stream(protocol=Protocol.GRPC, address=address, model=MODEL, rate_per_second=1, inputs=(item,)))


async def measured(seed: int) -> AsyncIterator[Row]:
    """Every load, as soon as it is over."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conch-simulator-")))
        servers = await stack.enter_async_context(tritons(folder, max(_SERVERS)))
        senders, counting = [], []
        for server in servers:
            senders.append(sender(server))
            stack.push_async_callback(senders[-1].close)
            client = await stack.enter_async_context(TritonClient(f"127.0.0.1:{server.grpc}", ADMIN_KEY))
            metrics = await stack.enter_async_context(MetricsReader(f"127.0.0.1:{server.metrics}"))
            counting.append(Counting(client, metrics))
        learner = Learner(counting)
        # The first requests open the connections.
        await send(alone(), senders, seed=seed)
        for load in the_loads(CURVE, seed=seed):
            yield await _row(load, senders[: load.servers], learner, seed=seed)


async def _row(load: Load, senders: Sequence[Sender], learner: Learner, *, seed: int) -> Row:
    looking = asyncio.create_task(learner.looking())
    before = await send(alone(), senders, seed=seed)
    sent = await send(load.trace, senders, seed=seed)
    after = await send(alone(), senders, seed=seed)
    looking.cancel()
    await asyncio.wait({looking})
    if not looking.cancelled():
        looking.result()  # it only ever ends by what went wrong
    await learner.look()
    curve = learner.curve()
    alone_seconds = float(np.median(np.concatenate((before.latencies, after.latencies))))
    way_seconds = alone_seconds - curve.least_seconds
    return Row(
        load=load,
        sent=sent,
        curve=curve,
        way_seconds=way_seconds,
        compared=compared(sent.latencies, simulated(load, curve, seed=seed), way_seconds),
    )


async def run(seed: int) -> list[Row]:
    """Measure and print."""
    base, per_item = 1000 * CURVE.base_seconds, 1000 * CURVE.per_item_seconds
    typer.echo(f"a batch of n sleeps {base:g} + {per_item:g} n ms, {CURVE.max_batch} at most")
    typer.echo("Late share in %: Triton / simulated (points apart)")
    shares = [f"about {100 * share:g} % late" for share in LATE_SHARES]
    typer.echo(header("load, servers", "requests", *shares, "learnt, ms", "the way, ms", "sent late, p99 ms", "goal"))
    rows: list[Row] = []
    async for row in measured(seed):
        rows.append(row)
        typer.echo(row.as_text())
    every = [each for row in rows for each in row.compared]
    typer.echo(
        f"\nat most {max(abs(each.apart_points) for each in every):.1f} points apart; "
        f"{max(abs(each.apart_points_without_way) for each in every):.1f} if the way were left out"
    )
    return rows


def _loop() -> asyncio.SelectorEventLoop:
    """Its timers are not rounded up to whole milliseconds, as epoll's are."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main(
    seed: Annotated[int, typer.Option(help="Of arrivals and choices.")] = _SEED,
    json_path: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path(".cluster/simulator.json"),
) -> None:
    """Compare for three minutes, and print. The exit code is 1 if any late share is more than 2 points apart.

    Example: python -m tests.perf.simulator_check --seed 7
    """
    with asyncio.Runner(loop_factory=_loop) as runner:
        rows = runner.run(run(seed))
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_text(json.dumps([row.as_json() for row in rows], indent=1))
    if not all(each.is_near for row in rows for each in row.compared):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
