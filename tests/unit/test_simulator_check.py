"""The comparison of the simulator with the real Triton, without a Triton: what it sends, learns and concludes."""

import asyncio
import math
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from conch.agent.counting import Counting
from conch.agent.wanted import Wanted
from conch.api.inference_counts import BatchCounts, InferenceCounts, ModelCounts
from conch.core.scaling.service_curve import ServiceCurve
from conch.simulate.fleet import Fleet, FleetSettings
from conch.simulate.trace import Trace
from conch.triton.config_pbtxt import parse_config
from tests.load.recorder import RequestFailedError, Sending
from tests.perf.simulator_check import (
    CURVE,
    Compared,
    Learner,
    LeastRequests,
    Load,
    Row,
    Sent,
    compared,
    model_files,
    objectives,
    send,
    simulated,
    the_loads,
)
from tests.support.virtual_time import run_virtually, virtual_now


def trace(*seconds: float) -> Trace:
    return Trace(name="made", seconds=np.array(seconds), span_seconds=seconds[-1])


def test_the_model_sleeps_what_the_curve_says_for_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    files = model_files(ServiceCurve(base_seconds=0.5, per_item_seconds=0.25, max_batch=6, instances=2))
    config = parse_config(files["timed/config.pbtxt"])
    assert (config.max_batch_size, config.instance_group[0].count) == (6, 2)
    assert config.HasField("dynamic_batching")
    backend = SimpleNamespace(
        get_input_tensor_by_name=lambda request, _: SimpleNamespace(as_numpy=lambda: request),
        Tensor=lambda _, content: content,
        InferenceResponse=lambda tensors: tensors,
    )
    slept: list[float] = []
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", cast(Any, backend))
    monkeypatch.setattr(time, "sleep", slept.append)
    space: dict[str, Any] = {}
    exec(files["timed/1/model.py"], space)  # noqa: S102 - our own
    first, second = np.zeros((1, 1)), np.ones((2, 1))
    answers = space["TritonPythonModel"]().execute([first, second])
    assert slept == [0.5 + 3 * 0.25]
    assert [each.tolist() for (each,) in answers] == [first.tolist(), second.tolist()]


def test_loads_are_the_same_each_time_and_as_heavy_as_they_say() -> None:
    once, again = list(the_loads(CURVE, seed=1)), list(the_loads(CURVE, seed=1))
    assert [each.trace.seconds.tolist() for each in once] == [each.trace.seconds.tolist() for each in again]
    busy = [each.trace.mean_rate / (each.servers * CURVE.ceiling) for each in once if each.name != "bursts"]
    assert busy == pytest.approx([0.5, 0.7, 0.85] * 2, rel=0.15)
    assert {each.servers for each in once if each.name == "bursts"} == {1, 2}


def test_the_client_chooses_as_the_fleet_does_with_the_same_seed() -> None:
    arrivals = np.cumsum(np.random.default_rng(3).exponential(0.02, 300)).tolist()
    settings = FleetSettings(curve=CURVE, objective_seconds=1, gateways=1, replicas=3, seed=5)
    fleet, client = Fleet(settings, arrivals), LeastRequests(3, seed=5)
    idle_looks = 0
    for at in arrivals:
        # What is over by then is over for the client too.
        fleet.advance(math.nextafter(at, 0))
        before = fleet.look().pods
        for server, pod in enumerate(before):
            for _ in range(client.in_flight[server] - pod.in_flight):
                client.give_back(server)
        idle_looks += sum(not pod.in_flight for pod in before) > 1
        fleet.advance(at)
        chosen = [pod.taken - was.taken for pod, was in zip(fleet.look().pods, before, strict=True)].index(1)
        assert client.take() == chosen
    assert idle_looks > 10, "chance never had to choose"


class _Server:
    """Answers after its time."""

    def __init__(self, seconds: float, failing: int = -1) -> None:
        self._seconds = seconds
        self._failing = failing
        self.sent_at: list[float] = []

    async def send(self, sending: Sending) -> None:
        number = len(self.sent_at)
        self.sent_at.append(virtual_now())
        assert sending.due == pytest.approx(virtual_now())
        await asyncio.sleep(self._seconds)
        if number == self._failing:
            raise RequestFailedError("UNAVAILABLE")

    async def close(self) -> None:
        pass


def test_requests_go_at_their_time_whatever_the_answers_do() -> None:
    server = _Server(5.0, failing=1)
    result = run_virtually(lambda: send(trace(0.0, 0.5, 2.0), [server], seed=1))
    assert np.diff(server.sent_at) == pytest.approx([0.5, 1.5])
    assert result.latencies == pytest.approx([5.0, math.inf, 5.0])
    assert result.lateness == pytest.approx([0.0] * 3, abs=1e-9)


def test_a_request_that_is_never_answered_has_failed() -> None:
    assert run_virtually(lambda: send(trace(0.0), [_Server(1e6)], seed=1)).latencies.tolist() == [math.inf]


def test_requests_go_to_the_server_that_has_the_least() -> None:
    quick, slow = _Server(0.1), _Server(100.0)
    run_virtually(lambda: send(trace(*np.arange(20.0)), [quick, slow], seed=1))
    assert len(slow.sent_at) <= 1


def _counts(executions: dict[int, int]) -> InferenceCounts:
    batches = tuple(
        BatchCounts(size=size, executions=count, compute_seconds=count * CURVE.batch_seconds(size))
        for size, count in executions.items()
    )
    requests = sum(size * count for size, count in executions.items())
    model = ModelCounts(
        name="timed", max_batch=8, instances=1, decoupled=False, requests=requests, queue_seconds=0, batches=batches
    )
    return InferenceCounts(epoch="1", requests=requests, failures=0, queue_seconds=0, pending=0, models=(model,))


class _Counted:
    """Tells one thing after the other."""

    def __init__(self, *told: InferenceCounts) -> None:
        self._told: Iterator[InferenceCounts] = iter(told)

    async def read(self, wanted: Wanted) -> InferenceCounts:
        assert wanted.assignment.name == "timed"
        return next(self._told)


async def test_the_curve_is_learnt_of_what_all_servers_have_executed() -> None:
    first = _Counted(_counts({}), _counts({2: 400}))
    second = _Counted(_counts({}), _counts({8: 400}))
    learner = Learner([cast(Counting, first), cast(Counting, second)])
    await learner.look()
    with pytest.raises(RuntimeError, match="no curve was learnt of 0 executions"):
        learner.curve()
    await learner.look()
    curve = learner.curve()
    assert (curve.max_batch, curve.instances) == (8, 1)
    assert curve.base_seconds == pytest.approx(CURVE.base_seconds, rel=0.02)
    assert curve.per_item_seconds == pytest.approx(CURVE.per_item_seconds, rel=0.02)


def test_objectives_are_round_and_no_more_than_their_share_is_late() -> None:
    latencies = np.arange(1, 1001) / 10_000
    assert objectives(latencies) == (0.085, 0.095, 0.1, 0.1)


def test_the_way_is_added_to_what_is_simulated_and_told_apart() -> None:
    servers = np.arange(1, 1001) / 1000
    first = compared(servers + 0.01, servers, 0.01)[0]
    assert first.objective_seconds == 0.815
    assert (first.triton, first.simulated, first.servers_alone) == pytest.approx((0.195, 0.195, 0.185), abs=0.0011)
    assert first.apart_points == pytest.approx(0, abs=0.11)
    assert first.apart_points_without_way == pytest.approx(1, abs=0.11)


def _row(*triton: float) -> Row:
    return Row(
        load=Load(name="steady", servers=1, trace=trace(0.0, 1.0)),
        sent=Sent(latencies=np.array([0.1, math.inf]), lateness=np.array([0.0, 0.0])),
        curve=CURVE,
        way_seconds=0.002,
        compared=tuple(
            Compared(objective_seconds=0.2 + number, triton=share, simulated=0.05, servers_alone=0.05)
            for number, share in enumerate(triton)
        ),
    )


def test_more_than_two_points_apart_is_too_much_either_way() -> None:
    assert _row(0.069, 0.031).verdict == "met"
    assert _row(0.071, 0.05, 0.029).verdict == "missed: 200 ms, 2200 ms"
    assert "200 ms: 7.1 / 5.0 (+2.1)" in _row(0.071).as_text()
    told = _row(0.071).as_json()
    assert (told["failed"], told["goal"]) == (1, "missed: 200 ms")
    assert told["lateShares"][0]["triton"] == 0.071


def test_simulated_servers_have_the_curve_and_the_count_that_are_given() -> None:
    curve = ServiceCurve(base_seconds=1.0, per_item_seconds=0.5, max_batch=1)
    one = simulated(Load(name="two", servers=1, trace=trace(0.0, 0.0)), curve, seed=1)
    two = simulated(Load(name="two", servers=2, trace=trace(0.0, 0.0)), curve, seed=1)
    assert (set(one.tolist()), set(two.tolist())) == ({1.5, 3.0}, {1.5})
