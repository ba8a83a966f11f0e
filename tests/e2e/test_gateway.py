"""The gateway on the whole cluster: one address per model, balanced per request, held at zero, nothing lost."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from tests.cluster.client import Cluster
from tests.e2e.conftest import SAMPLE, Namespace
from tests.e2e.course import Course
from tests.load import Protocol, Result
from tests.support.gateways import digits_load, gateway_pods, ready_gateways
from tests.support.inference import digits, infer
from tests.support.installation import NAMESPACE as CONCH_NAMESPACE
from tests.support.model_store import ModelStore
from tests.support.waiting import until

PIXELS = np.stack([digit.pixels for digit in digits()])
ON_CPU = {"gpu": {"count": 0}}
REQUEST = json.dumps(
    {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": digits()[0].pixels.tolist()}]}
)


def _has_restarted(namespace: Namespace, pod: str, container: str) -> bool:
    found = namespace.cluster.get("pod", pod, "-n", namespace.name)["status"].get("containerStatuses", ())
    return any(each["name"] == container and each["restartCount"] >= 1 for each in found)


def _executed(namespace: Namespace, name: str) -> dict[str, int]:
    """Requests that each pod has executed, by Triton's own count."""
    counts = {}
    for pod in namespace.pods(name):
        stats = httpx.get(f"http://{pod['status']['podIP']}:8000/v2/models/{name}/stats", trust_env=False).json()
        counts[pod["metadata"]["name"]] = int(stats["model_stats"][0]["inference_stats"]["success"]["count"])
    return counts


def _lost(result: Result) -> str:
    """Why this load may not pass, or nothing."""
    assert result.on_schedule, result.summary()
    return result.summary() if result.failed else ""


def test_each_request_of_one_connection_goes_to_whichever_replica_is_free(
    namespace: Namespace, store: ModelStore
) -> None:
    namespace.deploy("digits", store.uri("/digits.onnx"), replicas=2, **ON_CPU)
    namespace.wait_ready("digits", replicas=2)
    before = _executed(namespace, "digits")
    client = triton_grpc.InferenceServerClient(f"{namespace.address('digits')}:8001")
    try:
        tensor = triton_grpc.InferInput("pixels", [1, 64], "FP32")
        tensor.set_data_from_numpy(PIXELS[:1])
        for _ in range(60):
            client.infer("digits", [tensor])
    finally:
        client.close()

    def counted() -> dict[str, int] | None:
        # A moment after the answer.
        served = {pod: count - before[pod] for pod, count in _executed(namespace, "digits").items()}
        return served if sum(served.values()) == 60 else None

    served = until(counted, "60 requests to be counted")
    assert min(served.values()) >= 15, "one channel, two servers"


def _is_open(address: str) -> bool:
    socket.create_connection((address, 8000), 5).close()
    return True


def test_requests_that_come_before_the_first_replica_are_answered(namespace: Namespace, store: ModelStore) -> None:
    """With curl's one request: created, and called at once."""
    path = f"/{namespace.name}/late.onnx"
    namespace.deploy("digits", store.uri(path), gateway={"hold": {"seconds": 300}}, **ON_CPU)
    until(lambda: namespace.mdep("digits")["status"]["gateway"]["port"], "the address")
    until(lambda: len(namespace.slices("digits")[0]["endpoints"]) == 2, "the Service to send to both gateways")
    address = namespace.address("digits")
    url = f"http://{address}:8000/v2/models/digits/infer"
    until(lambda: _is_open(address), "the node to send to them, too")
    with ThreadPoolExecutor(8) as pool:
        held = [pool.submit(httpx.post, url, content=REQUEST, timeout=300, trust_env=False) for _ in range(8)]
        namespace.wait_reason("digits", "SourceNotFound")
        assert not any(future.done() for future in held)
        store.put(path, SAMPLE.read_bytes())
        assert [future.result().status_code for future in held] == [200] * 8
    namespace.wait_ready("digits")


def test_what_nobody_will_answer_is_refused_at_once_with_words(namespace: Namespace, store: ModelStore) -> None:
    namespace.deploy("digits", store.uri("/digits.onnx"), replicas=0, **ON_CPU)
    until(lambda: namespace.slices("digits")[0]["endpoints"], "the Service to send to the gateways")
    url = f"http://{namespace.address('digits')}:8000/v2/models/digits/infer"

    def refused() -> httpx.Response | None:
        answer = httpx.post(url, content=REQUEST, timeout=5, trust_env=False)
        return answer if answer.status_code == 503 else None

    answer = until(refused, "a refusal")
    assert "retry-after" in answer.headers
    assert "replicas" in answer.json()["error"]


def test_two_objects_of_one_name_get_their_own_requests(
    namespace: Namespace, store: ModelStore, cluster: Cluster
) -> None:
    other = Namespace(cluster, f"{namespace.name}-other")
    cluster.kubectl("create", "namespace", other.name)
    try:
        for each in (namespace, other):
            each.deploy("digits", store.uri("/digits.onnx"), **ON_CPU)
        for each in (namespace, other):
            each.wait_ready("digits")
            each.wait_answers("digits")
        # The one request of each that was waited for is counted a moment after its answer.
        until(lambda: sum(_executed(other, "digits").values()) >= 1, "its own requests to be counted")
        before = _executed(other, "digits")
        hostile = {"Host": f"digits.{other.name}.svc", "x-conch-route": f"{other.name}.digits"}
        for _ in range(5):
            url = f"http://{namespace.address('digits')}:8000/v2/models/digits/infer"
            assert httpx.post(url, content=REQUEST, headers=hostile, trust_env=False).status_code == 200
        assert _executed(other, "digits") == before, "no header reaches another object"
    finally:
        cluster.kubectl("delete", "namespace", other.name, "--wait=false")


@pytest.mark.alone
@pytest.mark.timeout(900)
def test_nothing_is_lost_while_replicas_operators_and_gateways_come_and_go(
    namespace: Namespace, store: ModelStore, tmp_path: Path
) -> None:
    """One load, one thing after the other; each phase is told by its name where something fails."""
    course = Course(namespace, store.uri("/digits.onnx"))
    course.begin()
    with digits_load(namespace.address("digits"), "digits", tmp_path, rate_per_second=60, duration_seconds=840) as load:
        course.run(load)
        result = load.stop()
    assert not _lost(result), result.summary()
    assert result.scheduled > 2000


@pytest.mark.alone
def test_a_killed_server_or_gateway_loses_no_more_than_it_was_executing(
    namespace: Namespace, store: ModelStore, cluster: Cluster, tmp_path: Path
) -> None:
    namespace.deploy("digits", store.uri("/digits.onnx"), replicas=3, **ON_CPU)
    namespace.wait_ready("digits", replicas=3)
    namespace.wait_answers("digits")
    with digits_load(
        namespace.address("digits"),
        "digits",
        tmp_path,
        rate_per_second=60,
        duration_seconds=300,
        protocols=(Protocol.HTTP, Protocol.GRPC),
    ) as load:
        load.mark("server killed")
        victim = namespace.pods("digits")[0]["metadata"]["name"]
        cluster.kill_container(victim, "triton", namespace.name)
        until(lambda: _has_restarted(namespace, victim, "triton"), "the kubelet to restart the server")
        namespace.wait_ready("digits", replicas=3)
        load.mark("envoy killed")
        killed = gateway_pods(cluster)[0]["metadata"]["name"]
        cluster.kill_container(killed, "envoy", CONCH_NAMESPACE)
        until(lambda: len(ready_gateways(cluster)) == 2, "both gateways", seconds=120)
        load.mark("end")
        result = load.stop()
    assert result.on_schedule, result.summary()
    assert len(result.first_failures) == result.failed, "each failure is told"
    by_server = [each for each in result.first_failures if "upstream connect error" in each.words]
    assert all(each.failed_in == "server killed" for each in by_server), result.summary()
    # What the server was executing: all of these were under way at one moment, and none came later.
    killed_at = min((each.sent_seconds + each.failed_after_seconds for each in by_server), default=0.0)
    assert all(each.sent_seconds <= killed_at + 0.1 for each in by_server), result.summary()
    # What the gateway was carrying, and new connections to it until the kubelet has seen that it is gone.
    by_gateway = [each for each in result.first_failures if each not in by_server]
    gone = result.marks["envoy killed"]
    late = [each for each in by_gateway if each.sent_seconds > gone + 30]
    assert not late, result.summary()


@pytest.mark.alone
@pytest.mark.group("gpus")
def test_the_only_replica_of_a_drained_node_is_replaced_before_it_goes(
    namespace: Namespace, store: ModelStore, cluster: Cluster, tmp_path: Path
) -> None:
    namespace.deploy("digits", store.uri("/digits.onnx"))
    namespace.wait_ready("digits")
    namespace.wait_answers("digits")
    (pod,) = namespace.pods("digits")
    node = pod["spec"]["nodeName"]
    try:
        with digits_load(
            namespace.address("digits"), "digits", tmp_path, rate_per_second=40, duration_seconds=300
        ) as load:
            cluster.kubectl(
                *("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=180s"),
                *("--pod-selector", "conch.dev/model-deployment=digits"),
            )
            namespace.wait_ready("digits")
            until(lambda: len(namespace.pods("digits")) == 1, "one replica")
            result = load.stop()
        (now,) = namespace.pods("digits")
        assert now["spec"]["nodeName"] != node
        assert not _lost(result), result.summary()
    finally:
        cluster.kubectl("uncordon", node)


@pytest.mark.alone
@pytest.mark.group("loads")
def test_a_replica_that_is_recreated_answers_what_came_meanwhile(
    namespace: Namespace, store: ModelStore, cluster: Cluster, tmp_path: Path
) -> None:
    path = f"/{namespace.name}/m.onnx"
    namespace.deploy("digits", store.put(path, SAMPLE.read_bytes()), gateway={"hold": {"seconds": 120}}, **ON_CPU)
    namespace.wait_ready("digits")
    namespace.wait_answers("digits")
    (pod,) = namespace.pods("digits")
    with digits_load(
        namespace.address("digits"),
        "digits",
        tmp_path,
        rate_per_second=20,
        duration_seconds=200,
        timeout_seconds=120,
        protocols=(Protocol.HTTP, Protocol.GRPC),
    ) as load:
        cluster.kubectl("delete", "pod", pod["metadata"]["name"], "-n", namespace.name)
        namespace.wait_ready("digits")
        until(lambda: infer(f"{namespace.address('digits')}:8000", "digits", PIXELS, protocol="http").any(), "answers")
        result = load.stop()
    assert not _lost(result), result.summary()


def test_a_foreign_service_in_the_way_is_told_and_not_touched(
    namespace: Namespace, store: ModelStore, cluster: Cluster
) -> None:
    cluster.kubectl("create", "service", "clusterip", "digits", "--tcp=8000:8000", "-n", namespace.name)
    before = cluster.get("service", "digits", "-n", namespace.name)["spec"]
    namespace.deploy("digits", store.uri("/digits.onnx"), **ON_CPU)
    assert "Service digits" in namespace.wait_reason("digits", "NameConflict")
    assert cluster.get("service", "digits", "-n", namespace.name)["spec"] == before
