"""The autoscaler on the whole cluster: real Triton, real Envoy, open-loop loads; no request is lost on any way.

On the way down in steps what was needed is kept for minutes (`tests.perf.autoscaling_cluster` waits for it); here the
way down is the one to zero.
"""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from tests.cluster.client import Cluster
from tests.e2e.conftest import Namespace
from tests.e2e.operators import kill_operators
from tests.e2e.scaled_model import (
    BASE_PER_SECOND,
    CEILING,
    OBJECTIVE,
    SERVICE_SECONDS,
    STEP,
    ScaledModel,
    long_drawing,
    turns,
)
from tests.load import Result
from tests.support.installation import NAMESPACE as CONCH_NAMESPACE
from tests.support.model_store import ModelStore
from tests.support.waiting import until

pytestmark = pytest.mark.alone

TO_ZERO: dict[str, Any] = {"minReplicas": 0, "scaleToZero": {"idleSeconds": 10}}
STEPPED = STEP * BASE_PER_SECOND
NEEDED_MOST = math.ceil(2 * 1.1 * STEPPED / (0.55 * CEILING))
"""For twice the stepped load with a tenth as spare (a load that grows is followed to twice what came), at a utilisation
of 0.55, which is what one server alone keeps the objective at."""


@pytest.fixture
def model(namespace: Namespace, store: ModelStore, tmp_path: Path) -> ScaledModel:
    """Not deployed yet."""
    return ScaledModel(namespace, store, tmp_path)


def _lost(*results: Result) -> str:
    """Why these loads may not pass, or nothing."""
    assert all(result.on_schedule and result.answered for result in results), [each.summary() for each in results]
    return "\n".join(result.summary() for result in results if result.failed)


def test_servers_follow_a_step_of_the_load_and_go_when_it_ends(model: ScaledModel) -> None:
    model.begin()
    with model.counts() as counts, model.load(BASE_PER_SECOND) as base:
        told = model.wait_learnt()
        curve = told["curve"]
        each = curve["baseMilliseconds"] + curve["perItemMilliseconds"]
        assert SERVICE_SECONDS * 1000 <= each < SERVICE_SECONDS * 2000, told
        assert (curve["maxBatch"], model.status["desiredReplicas"]) == (1, 1), "one carries this"
        with model.load((STEP - 1) * BASE_PER_SECOND) as more:
            until(
                lambda: model.status["desiredReplicas"] * told["capacityPerReplica"] >= STEPPED, "servers to be asked"
            )
            until(lambda: model.status["readyReplicas"] * CEILING > STEPPED, "more servers to answer")
            until(lambda: more.progress()["in_flight"] < CEILING, "what had queued to be worked off")
            more.mark("followed")
            settled = more.progress()["scheduled"] + 5 * STEPPED
            until(lambda: more.progress()["scheduled"] >= settled, "a while")
            told, decisions, wanted = model.scaling, model.decisions, counts.wanted
            step = more.stop()
        model.deploy(**TO_ZERO)
        whole = base.stop()
        model.wait_zero()
    assert _lost(whole, step) == ""
    assert turns(wanted) <= 1, f"up; back only from what was expected to come: {wanted}"
    assert wanted[-1] <= NEEDED_MOST, wanted
    assert told["demand"] > 1.3 * BASE_PER_SECOND, "as it was at the last change, while the load was new"
    assert 0.4 * CEILING < told["capacityPerReplica"] < CEILING, told
    assert "kept for" in told["policy"], "in words"
    grown = [each for each in decisions if each["before"]]
    assert grown[-1]["reason"] == "Surge", decisions
    assert {each["reason"] for each in grown} <= {"Surge", "Queues", "Load", "Stabilising"}, decisions
    assert all("requests" in each["message"] for each in grown), "with numbers"
    followed = [group.latency for group in step.groups if group.phase == "followed"]
    assert all(latency.p50_ms < OBJECTIVE["latencyMs"] for latency in followed), step.summary()
    newest = model.decisions[0]
    assert (newest["after"], newest["reason"]) == (0, "Idle"), newest


@pytest.mark.timeout(600)
def test_a_burst_at_zero_is_answered_though_the_operators_end_meanwhile(model: ScaledModel, cluster: Cluster) -> None:
    # Another operator has to lead and a server to start before the first request is answered.
    model.begin(hold_seconds=120, **TO_ZERO)
    model.wait_zero()
    assert "ScaledToZero" in cluster.kubectl("get", "mdep", model.name, "-n", model.namespace.name).stdout
    with model.load(40, seconds=2, timeout_seconds=180) as burst:
        kill_operators(cluster)
        assert not any(_is_ready(pod) for pod in model.namespace.pods(model.name)), "they ended before it came"
        result = burst.result()
    assert _lost(result) == ""
    assert {group.protocol for group in result.groups} == {"http", "grpc"}
    assert result.answered > 40
    assert next(each["reason"] for each in model.decisions if each["before"] == 0) == "Held", model.decisions


def test_after_a_restart_of_the_operator_what_is_at_zero_stays_there(
    model: ScaledModel, cluster: Cluster, store: ModelStore, tmp_path: Path
) -> None:
    model.begin(**TO_ZERO)
    model.wait_zero()
    with model.counts() as counts:
        for words in (["restart"], ["status", "--timeout=120s"]):
            cluster.kubectl("rollout", words[0], "deployment/conch-operator", "-n", CONCH_NAMESPACE, *words[1:])
        # Something that only the new leader does, after its autoscaler has looked at everything.
        ScaledModel(model.namespace, store, tmp_path, name="other").begin()
        assert set(counts.wanted) == {0}
    assert not model.namespace.pods(model.name)


def test_requests_under_way_when_the_idle_time_is_over_are_answered(model: ScaledModel) -> None:
    model.begin()
    address, seconds = model.namespace.address(model.name), 8.0
    with model.counts() as counts, ThreadPoolExecutor(2) as pool:
        # The server takes one after the other: the second is answered after 16 s, and nobody else asks meanwhile.
        began = time.monotonic()
        answers = [pool.submit(ask, address, model.name, seconds) for ask in (_by_http, _by_grpc)]
        # Not before: on a slow machine all of the idle time is over before the first one is sent.
        model.deploy(**TO_ZERO)
        assert [answer.result().shape for answer in answers] == [(1, 10), (1, 10)]
        ended = time.monotonic()
        wanted = [count for at, count, _ in counts.told if began < at < ended]
        assert ended - began >= 2 * seconds, "longer than the idle time"
        assert 0 not in wanted, "something was under way"
        # And one that comes just when the last server is told to go.
        until(lambda: model.status["desiredReplicas"] == 0, "the idle time to be over")
        assert _by_http(address, model.name, 0).shape == (1, 10)


def test_servers_that_start_slowly_are_not_asked_for_twice(model: ScaledModel) -> None:
    model.begin(load_seconds=15)
    with model.counts() as counts, model.load(BASE_PER_SECOND) as base:
        model.wait_learnt()
        with model.load((STEP - 1) * BASE_PER_SECOND) as more:
            until(lambda: model.status["desiredReplicas"] > 1, "more to be asked for", seconds=15)
            asked = model.status["desiredReplicas"]
            # Until the growth of the load is 18 s old, it is expected to go on.
            until(lambda: more.progress()["scheduled"] >= 20 * (STEP - 1) * BASE_PER_SECOND, "the load to be even")
            even, ready = time.monotonic(), model.status["readyReplicas"]
            until(lambda: model.status["readyReplicas"] * CEILING > 1.2 * STEPPED, "more servers to answer", seconds=90)
            results = base.stop(), more.stop()
    assert _lost(*results) == ""
    assert ready * CEILING < STEPPED, "they were on their way still"
    assert max(counts.since(even)) == max(counts.since(even)[:1]), f"asked for again: {counts.told}"
    assert asked <= max(counts.wanted) <= NEEDED_MOST, counts.wanted
    assert turns(counts.wanted) <= 1, f"up; back only from what was expected to come: {counts.told}"


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _by_http(address: str, name: str, seconds: float) -> np.ndarray:
    pixels = long_drawing(seconds)
    inputs = [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": pixels[0].tolist()}]
    url = f"http://{address}:8000/v2/models/{name}/infer"
    answer = httpx.post(url, json={"inputs": inputs}, timeout=60, trust_env=False).raise_for_status().json()
    return np.array(answer["outputs"][0]["data"]).reshape(answer["outputs"][0]["shape"])


def _by_grpc(address: str, name: str, seconds: float) -> np.ndarray:
    client = triton_grpc.InferenceServerClient(f"{address}:8001")
    try:
        tensor = triton_grpc.InferInput("pixels", [1, 64], "FP32")
        tensor.set_data_from_numpy(long_drawing(seconds))
        return np.asarray(client.infer(name, [tensor], client_timeout=60).as_numpy("probabilities"))
    finally:
        client.close()
