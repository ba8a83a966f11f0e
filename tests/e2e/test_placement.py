"""Where pods run, as the real scheduler sees it; the GPUs are numbers on nodes, and no driver stands behind a claim."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
import yaml

from tests import generate
from tests.cluster.client import Cluster
from tests.e2e.conftest import Namespace
from tests.support.installation import VALUES
from tests.support.model_store import ModelStore
from tests.support.waiting import until

MIG: Final = "nvidia.com/mig-1g.10gb"
A100: Final = "NVIDIA-A100-SXM4-40GB"
NO_GPU: Final = {"count": 0}
CLAIM: Final = {"name": "gpu", "resourceClaimTemplateName": "one-gpu"}


def _nodes(namespace: Namespace) -> list[str]:
    """Of the pods that have one."""
    return sorted(pod["spec"]["nodeName"] for pod in namespace.pods("digits") if pod["spec"].get("nodeName"))


def _blocked(namespace: Namespace) -> str | None:
    """Whether status says that it waits for room; None while it says nothing of the present spec."""
    status: str | None = namespace.condition("digits", "CapacityBlocked").get("status")
    return status


def _limits(pod: dict[str, Any]) -> dict[str, str]:
    (triton,) = pod["spec"]["containers"]
    limits: dict[str, str] = triton["resources"]["limits"]
    return limits


@contextmanager
def _mig_slices(cluster: Cluster, count: int) -> Iterator[None]:
    """Both GPU nodes offer so many slices of this profile."""

    def offer(amount: str | None) -> None:
        patch = json.dumps({"status": {"capacity": {MIG: amount}, "allocatable": {MIG: amount}}})
        for node in ("gpu-1", "gpu-2"):
            cluster.kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", patch)

    offer(str(count))
    try:
        yield
    finally:
        offer(None)


@pytest.mark.group("gpus")
def test_a_mig_slice_of_the_wanted_product(namespace: Namespace, store: ModelStore, cluster: Cluster) -> None:
    with _mig_slices(cluster, 1):
        gpu = {"resource": MIG, "products": [A100]}
        namespace.deploy("digits", store.uri("/digits.onnx"), gpu=gpu)
        namespace.wait_ready("digits")
        (pod,) = namespace.pods("digits")
        assert (pod["spec"]["nodeName"], _limits(pod)[MIG]) == ("gpu-2", "1")
        assert namespace.mdep("digits")["status"]["display"]["gpu"] == f"1 {MIG}"
        # The other node has a slice, but is of another product.
        namespace.deploy("digits", store.uri("/digits.onnx"), gpu=gpu, replicas=2)
        message = namespace.wait_reason("digits", "WaitingForGPU")
        assert f"1 of 2 replicas wait for 1 free {MIG}" in message
        namespace.deploy("digits", store.uri("/digits.onnx"), gpu=gpu, replicas=1)
        namespace.wait_ready("digits")


@pytest.mark.group("gpus")
def test_several_gpus_in_one_pod(namespace: Namespace, store: ModelStore) -> None:
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu={"count": 2})
    namespace.wait_ready("digits")
    (pod,) = namespace.pods("digits")
    assert _limits(pod)["nvidia.com/gpu"] == "2"
    namespace.deploy("five", store.uri("/digits.onnx"), gpu={"count": 5})
    message = namespace.wait_reason("five", "WaitingForGPU")
    assert "wait for 5 free nvidia.com/gpu" in message, "the nodes have eight, but none has five"


@pytest.mark.group("gpus")
def test_a_spread_that_is_demanded_keeps_pods_waiting(
    namespace: Namespace, store: ModelStore, cluster: Cluster
) -> None:
    scheduling = {
        "topologySpread": [{"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}],
        # Else the node without a GPU would count: it is the emptiest.
        "nodeSelector": {"nvidia.com/gpu.present": "true"},
    }
    try:
        cluster.kubectl("cordon", "gpu-2")
        namespace.deploy("digits", store.uri("/digits.onnx"), replicas=2, scheduling=scheduling)
        assert "topology spread" in namespace.wait_reason("digits", "Unschedulable")
        assert _nodes(namespace) == ["gpu-1"], "it has room for four"
    finally:
        cluster.kubectl("uncordon", "gpu-2")
    namespace.wait_ready("digits", replicas=2)
    assert _nodes(namespace) == ["gpu-1", "gpu-2"]


def _claim_template(namespace: Namespace, device_class: str) -> dict[str, object]:
    request = {"name": "gpu", "exactly": {"deviceClassName": device_class}}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": "one-gpu", "namespace": namespace.name},
        "spec": {"spec": {"devices": {"requests": [request]}}},
    }


@contextmanager
def _one_device(namespace: Namespace, node: str) -> Iterator[None]:
    """A device of a driver that does not run, on this node, and a template `one-gpu` that asks for it."""
    cluster = namespace.cluster
    driver = unique = f"{namespace.name}.conch.dev"
    cluster.apply(
        [
            {
                "apiVersion": "resource.k8s.io/v1",
                "kind": "DeviceClass",
                "metadata": {"name": unique},
                "spec": {"selectors": [{"cel": {"expression": f"device.driver == '{driver}'"}}]},
            },
            {
                "apiVersion": "resource.k8s.io/v1",
                "kind": "ResourceSlice",
                "metadata": {"name": unique},
                "spec": {
                    "driver": driver,
                    "nodeName": node,
                    "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
                    "devices": [{"name": "gpu-0"}],
                },
            },
            _claim_template(namespace, unique),
        ]
    )
    try:
        yield
    finally:
        cluster.kubectl("delete", "resourceslice,deviceclass", unique, "--wait=false")


def _allocations(namespace: Namespace) -> list[str]:
    """The devices that claims of this namespace were given."""
    claims = namespace.cluster.get("resourceclaims", "-n", namespace.name)["items"]
    return [
        result["device"]
        for claim in claims
        for result in claim.get("status", {}).get("allocation", {}).get("devices", {}).get("results", ())
    ]


@pytest.mark.group("gpus")
def test_a_claim_is_allocated_and_its_pod_bound_to_the_devices_node(
    namespace: Namespace, store: ModelStore, cluster: Cluster
) -> None:
    """Further it cannot come here: the kubelet asks the driver to prepare the device, and there is none."""
    # The other node would do as well, but for the device.
    with _one_device(namespace, "gpu-2"):
        namespace.deploy("digits", store.uri("/digits.onnx"), gpu={"claims": [CLAIM]})
        until(lambda: _nodes(namespace) == ["gpu-2"], "the pod to be bound")
        assert _allocations(namespace) == ["gpu-0"]
        (pod,) = namespace.pods("digits")
        assert "nvidia.com/gpu" not in _limits(pod)
        until(lambda: _blocked(namespace) == "False", "status to say that it has room")
        assert namespace.mdep("digits")["status"]["display"]["gpu"] == "claim one-gpu"

        def told() -> bool:
            warnings = cluster.kubectl("get", "events", "-n", namespace.name, "--field-selector=type=Warning").stdout
            return "FailedPrepareDynamicResources" in warnings

        until(told, "the kubelet to miss the driver")
        namespace.deploy("digits", store.uri("/digits.onnx"), gpu={"claims": [CLAIM]}, replicas=2)
        message = namespace.wait_reason("digits", "WaitingForGPU")
        assert "the devices that one-gpu (gpu.claims) asks for" in message
        assert _blocked(namespace) == "True"
        assert _allocations(namespace) == ["gpu-0"]


def test_a_claim_without_its_template_says_so(namespace: Namespace, store: ModelStore) -> None:
    gpu = {"claims": [CLAIM]}
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=gpu)
    message = namespace.wait_reason("digits", "Unschedulable", seconds=120)
    assert "is there a ResourceClaimTemplate one-gpu in the namespace?" in message
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=NO_GPU)
    namespace.wait_ready("digits")


def test_a_scheduler_that_does_not_run_is_named(namespace: Namespace, store: ModelStore) -> None:
    scheduling = {"schedulerName": "nobody"}
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=NO_GPU, scheduling=scheduling)
    message = namespace.wait_reason("digits", "Unschedulable", seconds=120)
    assert "the scheduler nobody, which has said nothing" in message
    assert "scheduling.schedulerName" in message
    assert namespace.condition("digits", "CapacityBlocked")["status"] == "True"
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=NO_GPU)
    namespace.wait_ready("digits")


@pytest.mark.group("gpus")
def test_images_are_pulled_beforehand_in_a_restricted_namespace(namespace: Namespace) -> None:
    rendered = yaml.safe_load_all(generate.render("--values", str(VALUES), "--set", "prePull.enabled=true"))
    (daemons,) = [each for each in rendered if each and each["kind"] == "DaemonSet"]
    daemons["metadata"]["namespace"] = namespace.name
    namespace.cluster.apply([daemons])

    def everywhere() -> bool:
        status = namespace.cluster.get("daemonset", "conch-pre-pull", "-n", namespace.name)["status"]
        return bool(status["desiredNumberScheduled"] == status.get("numberReady") == 2)

    until(everywhere, "a pod on both GPU nodes")
    pods = namespace.cluster.get("pods", "-n", namespace.name)["items"]
    assert {pod["spec"]["nodeName"] for pod in pods} == {"gpu-1", "gpu-2"}
    images = {container["image"] for pod in pods for container in pod["spec"]["containers"]}
    assert images == {"localhost/triton:dev", "localhost/conch:dev"}
