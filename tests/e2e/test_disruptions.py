"""Containers, operators and nodes that are killed or taken away."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.cluster.client import Cluster
from tests.e2e.conftest import SAMPLE, Namespace
from tests.support.inference import digits, infer
from tests.support.installation import NAMESPACE as OPERATOR_NAMESPACE
from tests.support.model_store import ModelStore
from tests.support.waiting import until

PIXELS = np.stack([digit.pixels for digit in digits()])


def _restarts(namespace: Namespace, container: str) -> int:
    (pod,) = namespace.pods("digits")
    status = pod["status"]
    statuses = [*status["initContainerStatuses"], *status["containerStatuses"]]
    return int(next(item["restartCount"] for item in statuses if item["name"] == container))


def _answers(namespace: Namespace) -> bool:
    answer = infer(f"{namespace.address('digits')}:8000", "digits", PIXELS, protocol="http")
    return bool((answer.argmax(axis=1) == [digit.digit for digit in digits()]).mean() > 0.8)


@pytest.mark.parametrize("container", ["triton", "agent"])
def test_a_killed_container_recovers_without_fetching_again(
    namespace: Namespace, store: ModelStore, container: str
) -> None:
    path = f"/{namespace.name}/m.onnx"
    namespace.deploy("digits", store.put(path, SAMPLE.read_bytes()), gpu={"count": 0})
    namespace.wait_ready("digits")
    fetched = store.reads(path)
    (pod,) = namespace.pods("digits")
    namespace.cluster.kill_container(pod["metadata"]["name"], container, namespace.name)
    until(lambda: _restarts(namespace, container) >= 1, f"the kubelet to restart the {container}")
    namespace.wait_ready("digits")
    until(lambda: _answers(namespace), "answers")
    (same,) = namespace.pods("digits")
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    assert store.reads(path) == fetched


def _operators(cluster: Cluster) -> list[dict[str, Any]]:
    selector = "app.kubernetes.io/component=operator"
    items = cluster.get("pods", "-n", OPERATOR_NAMESPACE, "-l", selector)["items"]
    return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]


def _leader(cluster: Cluster) -> str:
    lease = cluster.get("lease", "conch-operator", "-n", OPERATOR_NAMESPACE)
    holder = lease["spec"].get("holderIdentity") or ""
    return next(
        (pod["metadata"]["name"] for pod in _operators(cluster) if holder.startswith(pod["metadata"]["name"])), ""
    )


@pytest.mark.alone
def test_a_killed_operator_leaves_everything_running_and_another_goes_on(
    namespace: Namespace, store: ModelStore, cluster: Cluster
) -> None:
    assert len(_operators(cluster)) == 2
    namespace.deploy("digits", store.uri("/digits.onnx"))
    namespace.wait_ready("digits")
    before = {pod["metadata"]["uid"] for pod in namespace.pods("digits")}
    leader = until(lambda: _leader(cluster), "a leader")
    cluster.kill_container(leader, "operator", OPERATOR_NAMESPACE)
    namespace.deploy("digits", store.uri("/digits.onnx"), replicas=2)
    namespace.wait_ready("digits", replicas=2)
    assert before < {pod["metadata"]["uid"] for pod in namespace.pods("digits")}
    assert len(cluster.get("deployment", "-n", namespace.name)["items"]) == 1


@pytest.mark.alone
def test_a_leader_whose_pod_is_deleted_hands_over(namespace: Namespace, store: ModelStore, cluster: Cluster) -> None:
    leader = until(lambda: _leader(cluster), "a leader")
    cluster.kubectl("delete", "pod", leader, "-n", OPERATOR_NAMESPACE, "--wait=false")
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu={"count": 0})
    namespace.wait_ready("digits")
    until(lambda: _leader(cluster) not in ("", leader), "another leader")


@pytest.mark.group("gpus")
def test_a_drained_node_moves_the_replicas_one_at_a_time(
    namespace: Namespace, store: ModelStore, cluster: Cluster
) -> None:
    try:
        # Both on the node that will be drained: only the disruption budget keeps them from leaving together.
        cluster.kubectl("cordon", "gpu-2")
        namespace.deploy("digits", store.uri("/digits.onnx"), replicas=2)
        namespace.wait_ready("digits", replicas=2)
        assert {pod["spec"]["nodeName"] for pod in namespace.pods("digits")} == {"gpu-1"}
        cluster.kubectl("uncordon", "gpu-2")
        with ThreadPoolExecutor() as pool:
            drain = pool.submit(
                cluster.kubectl,
                *("drain", "gpu-1", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s"),
                *("--pod-selector", "conch.dev/model-deployment=digits"),
            )
            while not drain.done():
                assert namespace.ready_endpoints("digits"), "one replica at least is kept"
            drain.result()
        namespace.wait_ready("digits", replicas=2)
        assert {pod["spec"]["nodeName"] for pod in namespace.pods("digits")} == {"gpu-2"}
        assert _answers(namespace)
    finally:
        cluster.kubectl("uncordon", "gpu-1", "gpu-2")


@pytest.mark.group("gpus")
def test_the_only_replica_leaves_a_drained_node_where_no_other_has_room(
    namespace: Namespace, store: ModelStore, cluster: Cluster
) -> None:
    try:
        cluster.kubectl("cordon", "gpu-2")
        namespace.deploy("digits", store.uri("/digits.onnx"))
        namespace.wait_ready("digits")
        cluster.kubectl(
            *("drain", "gpu-1", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s"),
            *("--pod-selector", "conch.dev/model-deployment=digits"),
        )
        until(lambda: not namespace.ready_endpoints("digits"), "it left")
        cluster.kubectl("uncordon", "gpu-2")
        namespace.wait_ready("digits")
        assert _answers(namespace)
    finally:
        cluster.kubectl("uncordon", "gpu-1", "gpu-2")


@pytest.mark.group("gpus")
def test_replicas_spread_over_nodes(namespace: Namespace, store: ModelStore) -> None:
    namespace.deploy("digits", store.uri("/digits.onnx"), replicas=2)
    namespace.wait_ready("digits", replicas=2)
    assert {pod["spec"]["nodeName"] for pod in namespace.pods("digits")} == {"gpu-1", "gpu-2"}
