"""The local cluster itself: what the other e2e tests take for granted about it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import bringup, images, processes, reset, waiting
from tests.cluster.client import Cluster, existing
from tests.cluster.constants import NODES

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(600)]

IMAGE = "localhost/conch-probe:1"
_FOLDER = Path(__file__).parent / "probe"
_TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The local cluster: these tests pull its nodes' plugs, so another one is left alone."""
    if existing():
        pytest.skip("CLUSTER=existing asks for another cluster than the local one")
    up = bringup.up()
    images.load(IMAGE, images.build_image(IMAGE, _FOLDER / "Dockerfile", _FOLDER))
    yield up
    up.kubectl("delete", "namespace", "probe", "--ignore-not-found")


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    for node in NODES:
        # A test that failed may have left one without power.
        cluster.start_node(node.name)
    cluster.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "probe"}}])
    waiting.until(
        lambda: cluster.kubectl("get", "sa", "default", "-n", "probe", check=False).returncode == 0,
        what="service account",
        timeout_seconds=120,
    )
    yield "probe"
    cluster.kubectl("delete", "namespace", "probe", "--timeout=240s")


def pod(name: str, **spec: Any) -> dict[str, object]:
    """A pod that serves its name, unless `spec` says otherwise."""
    containers = [{"name": "main", "image": IMAGE, "ports": [{"containerPort": 8080}]}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "probe", "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 5, "containers": containers, **spec},
    }


def phase(cluster: Cluster, name: str) -> str:
    return str(cluster.get("pod", name, "-n", "probe")["status"].get("phase"))


def wait_ready(cluster: Cluster, *names: str, seconds: int = 60) -> None:
    cluster.kubectl(
        "wait", "-n", "probe", "--for=condition=Ready", f"--timeout={seconds}s", *(f"pod/{n}" for n in names)
    )


def _server_answers(cluster: Cluster, namespace: str, asking: str, host: str) -> bool:
    ask = f"import urllib.request as u; print(u.urlopen('http://{host}/', timeout=5).read().decode())"
    said = cluster.kubectl("exec", "-n", namespace, asking, "--", "python3", "-c", ask, check=False)
    return said.stdout.strip() == "server"


def test_names_services_logs_and_exec(cluster: Cluster, namespace: str) -> None:
    service: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    cluster.apply([service, pod("server"), pod("client")])
    wait_ready(cluster, "server", "client")
    # Also from the pod that the Service leads back to.
    for asking in ("client", "server"):
        for host in ("web", "web.probe.svc.cluster.local"):
            waiting.until(
                partial(_server_answers, cluster, namespace, asking, host),
                what=f"{host} answering {asking}",
                timeout_seconds=120,
            )
    waiting.until(
        lambda: "serving" in cluster.kubectl("logs", "-n", namespace, "server").stdout,
        what="the server's log",
        timeout_seconds=60,
    )
    address = cluster.get("service", "web", "-n", namespace)["spec"]["clusterIP"]
    waiting.until(
        lambda: waiting.answers(f"http://{address}/"), what="the Service's answer to the machine", timeout_seconds=60
    )


def test_nothing_of_a_pod_leaves_the_machine(cluster: Cluster, namespace: str) -> None:
    cluster.apply([pod("client")])
    wait_ready(cluster, "client")
    connect = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"
    result = cluster.kubectl("exec", "-n", namespace, "client", "--", "python3", "-c", connect, check=False)
    assert "refused" in result.stderr or "unreachable" in result.stderr


def test_memory_limits_kill_and_native_sidecars_run_before_and_after(cluster: Cluster, namespace: str) -> None:
    sidecar = {"name": "sidecar", "image": IMAGE, "restartPolicy": "Always"}
    eats = {
        "name": "main",
        "image": IMAGE,
        "command": ["python3", "-c", "import time; time.sleep(2); x = bytearray(300_000_000)"],
        "resources": {"limits": {"memory": "64Mi"}},
    }
    cluster.apply(
        [
            pod(
                "eater",
                initContainers=[sidecar],
                containers=[eats],
                restartPolicy="Never",
                terminationGracePeriodSeconds=60,
            )
        ]
    )
    waiting.until(lambda: phase(cluster, "eater") == "Failed", what="the OOM kill", timeout_seconds=60)
    status = cluster.get("pod", "eater", "-n", namespace)["status"]
    ended = status["containerStatuses"][0]["state"]["terminated"]
    # What killed it and that it ended are told apart, and the kubelet may have read one without the other.
    assert (ended["exitCode"], ended["reason"] in ("OOMKilled", "Error")) == (137, True)
    assert status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0


def test_the_scheduler_enforces_the_fake_gpus(cluster: Cluster, namespace: str) -> None:
    def wants(name: str, count: int) -> dict[str, object]:
        container = {"name": "main", "image": IMAGE, "resources": {"limits": {"nvidia.com/gpu": count}}}
        return pod(name, containers=[container], tolerations=[_TOLERATION])

    cluster.apply([wants("a", 4), wants("b", 3), wants("c", 1)])
    wait_ready(cluster, "a", "b", "c")
    cluster.apply([wants("d", 1)])
    event = ""

    def refused() -> bool:
        nonlocal event
        conditions = cluster.get("pod", "d", "-n", namespace)["status"].get("conditions", [])
        event = " ".join(each.get("message", "") for each in conditions)
        return "Insufficient nvidia.com/gpu" in event

    waiting.until(refused, what="the refusal of a ninth GPU", timeout_seconds=120)
    cluster.kubectl("delete", "pod", "c", "-n", namespace, "--wait=false")
    wait_ready(cluster, "d")
    nodes = {cluster.get("pod", name, "-n", namespace)["spec"]["nodeName"] for name in ("a", "b", "d")}
    assert nodes == {"gpu-1", "gpu-2"}


def test_a_killed_container_is_restarted_and_a_lost_node_comes_back_with_its_gpus(
    cluster: Cluster, namespace: str
) -> None:
    cluster.apply([pod("server", nodeSelector={"conch.local/node": "gpu-1"}, tolerations=[_TOLERATION])])
    wait_ready(cluster, "server")
    cluster.kill_container("server", "main", namespace, signal.SIGKILL)
    restarts = "jsonpath={.status.containerStatuses[0].restartCount}"
    waiting.until(
        lambda: cluster.kubectl("get", "pod", "server", "-n", namespace, "-o", restarts).stdout == "1",
        what="the restart",
        timeout_seconds=120,
    )
    wait_ready(cluster, "server")
    running = cluster.container_pid("server", "main", namespace)
    cluster.stop_node("gpu-1")
    assert processes.start_time(running) is None, "a node without power runs nothing"
    waiting.until(lambda: not cluster.node_ready("gpu-1"), what="the node's loss", timeout_seconds=90)
    cluster.start_node("gpu-1")
    assert cluster.get("node", "gpu-1")["status"]["allocatable"]["nvidia.com/gpu"] == "4"
    wait_ready(cluster, "server")


def test_reset_leaves_what_up_made(cluster: Cluster) -> None:
    made: list[dict[str, object]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mine"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine", "namespace": "default"}},
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "mine"}, "value": 7},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "system:mine"},
            "rules": [],
        },
    ]
    cluster.apply(made)
    cluster.kubectl("cordon", "gpu-2")
    reset.reset(cluster)
    left = cluster.kubectl("get", "ns,cm,priorityclass,clusterrole", "-A").stdout
    assert "mine" not in left
    assert "unschedulable" not in json.dumps(cluster.get("node", "gpu-2")["spec"])
    assert cluster.get("service", "kube-dns", "-n", "kube-system")
