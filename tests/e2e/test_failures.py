"""Each way in which a model does not come up: the reason shows, nothing else is disturbed, and it heals by itself."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from conch.api import names
from conch.store import tree_digest
from tests.cluster.client import Cluster
from tests.e2e.conftest import SAMPLE, Namespace
from tests.support.model_store import ModelStore
from tests.support.waiting import until

MODEL = SAMPLE.read_bytes()
NO_GPU = {"count": 0}


@pytest.fixture
def neighbour(namespace: Namespace, store: ModelStore) -> Iterator[str]:
    """A model that serves beside and must go on doing so, in the same pods."""
    namespace.deploy("neighbour", store.uri("/digits.onnx"), gpu=NO_GPU)
    namespace.wait_ready("neighbour")
    (pod,) = namespace.pods("neighbour")
    yield "neighbour"
    (same,) = namespace.pods("neighbour")
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    namespace.wait_ready("neighbour", seconds=30)


@pytest.mark.usefixtures("neighbour")
def test_a_missing_source_heals_when_it_appears(namespace: Namespace, store: ModelStore) -> None:
    path = f"/{namespace.name}/late.onnx"
    namespace.deploy("digits", store.uri(path), gpu=NO_GPU)
    message = namespace.wait_reason("digits", "SourceNotFound")
    assert path in message
    assert namespace.condition("digits", "Stalled")["status"] == "True"
    assert namespace.ready_endpoints("digits") == set()
    store.put(path, MODEL)
    namespace.wait_ready("digits")


def test_a_denied_source(namespace: Namespace, store: ModelStore) -> None:
    namespace.deploy("digits", store.uri("/denied/m.onnx"), gpu=NO_GPU)
    assert "403" in namespace.wait_reason("digits", "SourceAccessDenied")
    # Heals with the spec as well: another source is another revision.
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=NO_GPU)
    namespace.wait_ready("digits")


def test_a_source_that_the_installation_does_not_allow_gets_no_pod(namespace: Namespace) -> None:
    namespace.deploy("digits", "http://elsewhere.example.com/m.onnx", gpu=NO_GPU)
    assert "policy.sources.httpHosts" in namespace.wait_reason("digits", "SourceNotAllowed")
    assert namespace.pods("digits") == []


def test_a_private_address_is_not_fetched_from(namespace: Namespace) -> None:
    """The API server itself, by its name: allowed as a host, but its address is private."""
    namespace.deploy("digits", "https://kubernetes.default.svc/api", gpu=NO_GPU)
    namespace.wait_reason("digits", "SourceNotAllowed")


@pytest.mark.usefixtures("neighbour")
def test_a_wrong_digest_loads_nothing_until_the_right_bytes_are_there(
    namespace: Namespace, store: ModelStore, tmp_path: Path
) -> None:
    path = f"/{namespace.name}/m.onnx"
    uri = store.put(path, MODEL + b"\x00")
    right = tmp_path / "m.onnx"
    right.write_bytes(MODEL)
    digest = tree_digest(right)
    namespace.deploy("digits", uri, gpu=NO_GPU, model={"source": {"digest": digest}})
    message = namespace.wait_reason("digits", "DigestMismatch")
    assert digest in message
    assert namespace.ready_endpoints("digits") == set()
    store.put(path, MODEL)
    namespace.wait_ready("digits")


@pytest.mark.usefixtures("neighbour")
def test_a_model_that_triton_refuses_shows_tritons_own_words(namespace: Namespace, store: ModelStore) -> None:
    path = f"/{namespace.name}/m.onnx"
    # Readable as ONNX, so it gets as far as Triton; its only operator does not exist.
    broken = MODEL.replace(b"Softmax", b"Softmex")
    assert broken != MODEL
    namespace.deploy("digits", store.put(path, broken), gpu=NO_GPU)
    assert "Softmex" in namespace.wait_reason("digits", "ModelLoadFailed")
    assert namespace.condition("digits", "Stalled")["status"] == "True"
    assert namespace.ready_endpoints("digits") == set()
    store.put(path, MODEL)
    namespace.wait_ready("digits")


def test_a_missing_claim_is_named(namespace: Namespace) -> None:
    namespace.deploy("digits", "pvc://nowhere/model", gpu=NO_GPU)
    assert "nowhere" in namespace.wait_reason("digits", "SourceNotFound")


@pytest.mark.group("gpus")
def test_no_free_gpu_is_waited_for(namespace: Namespace, store: ModelStore) -> None:
    namespace.deploy("greedy", store.uri("/digits.onnx"), gpu={"count": 4}, replicas=2)
    namespace.wait_ready("greedy", replicas=2)
    namespace.deploy("digits", store.uri("/digits.onnx"))
    message = namespace.wait_reason("digits", "WaitingForGPU")
    assert "Insufficient nvidia.com/gpu" in message
    assert namespace.condition("digits", "CapacityBlocked")["status"] == "True"
    assert namespace.condition("digits", "Reconciling")["status"] == "True"
    assert namespace.condition("digits", "Stalled")["status"] == "False"
    namespace.cluster.kubectl("delete", "mdep", "greedy", "-n", namespace.name)
    namespace.wait_ready("digits")


@pytest.mark.group("gpus")
def test_a_quota_is_named(namespace: Namespace, store: ModelStore) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": namespace.name},
        "spec": {"hard": {"requests.nvidia.com/gpu": "0"}},
    }
    namespace.cluster.kubectl("apply", "-f", "-", input=json.dumps(quota))
    # A quota counts from the moment in which the controller has published it.
    until(lambda: namespace.cluster.get("resourcequota", "none", "-n", namespace.name)["status"].get("hard"), "quota")
    namespace.deploy("digits", store.uri("/digits.onnx"))
    assert "exceeded quota" in namespace.wait_reason("digits", "QuotaBlocked")
    namespace.cluster.kubectl("delete", "resourcequota", "none", "-n", namespace.name)
    # The Deployment controller's own back-off decides when it tries again.
    namespace.wait_ready("digits", seconds=240)


def test_an_image_that_cannot_be_pulled(namespace: Namespace, store: ModelStore) -> None:
    image = {"image": "localhost/no-such-image:1", "resources": {"cpu": "100m", "memory": "512Mi"}}
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=NO_GPU, runtime={**image, "sharedMemory": "64Mi"})
    message = namespace.wait_reason("digits", "ImagePullFailed")
    assert "triton" in message
    assert "runtime.image" in message
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=NO_GPU)
    namespace.wait_ready("digits")


@pytest.mark.usefixtures("neighbour")
def test_a_container_that_keeps_crashing(namespace: Namespace, store: ModelStore) -> None:
    # An image that is there but holds no Triton.
    image = {"image": "localhost/conch:dev", "resources": {"cpu": "100m", "memory": "512Mi"}}
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=NO_GPU, runtime={**image, "sharedMemory": "64Mi"})
    assert "triton" in namespace.wait_reason("digits", "CrashLooping")
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=NO_GPU)
    namespace.wait_ready("digits")


def test_a_missing_service_account(namespace: Namespace, store: ModelStore, cluster: Cluster) -> None:
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=NO_GPU, serviceAccountName="later")
    assert "later" in namespace.wait_reason("digits", "PodRefused")
    cluster.kubectl("create", "serviceaccount", "later", "-n", namespace.name)
    namespace.wait_ready("digits", seconds=240)


def _admin_key_secret(namespace: Namespace) -> str:
    return names.admin_key_secret("digits", namespace.mdep("digits")["metadata"]["uid"])


def test_a_deleted_admin_key_comes_back_equal_when_a_pod_needs_it(namespace: Namespace, store: ModelStore) -> None:
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=NO_GPU)
    namespace.wait_ready("digits")
    secret = ("secret", _admin_key_secret(namespace), "-n", namespace.name)
    before = namespace.cluster.get(*secret)["data"]
    namespace.cluster.kubectl("delete", *secret)
    # While one of a node's pods uses an immutable Secret, its kubelet gives later ones what it remembers of it.
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=NO_GPU, suspend=True)
    pods = ("pods", "-n", namespace.name)
    until(lambda: not namespace.cluster.get(*pods)["items"], "the last user of the key to be gone", seconds=120)
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=NO_GPU, suspend=False)
    until(lambda: namespace.cluster.get(*secret)["data"] == before, "the same key to be back")
    namespace.wait_ready("digits")


@pytest.mark.parametrize("content", [{"other": "eA=="}, {"admin-key": "eHh4"}], ids=["no-key", "another-key"])
def test_a_strangers_secret_is_named_and_left_alone(
    namespace: Namespace, store: ModelStore, content: dict[str, str]
) -> None:
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=NO_GPU, suspend=True)
    name = _admin_key_secret(namespace)
    secret = ("secret", name, "-n", namespace.name)
    metadata = {"name": name, "namespace": namespace.name}
    stranger = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": content}
    namespace.cluster.kubectl("create", "-f", "-", input=json.dumps(stranger))
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=NO_GPU, suspend=False)
    assert name in namespace.wait_reason("digits", "NameConflict")
    assert namespace.cluster.get(*secret)["data"] == content
    namespace.cluster.kubectl("delete", *secret)
    namespace.cluster.kubectl("delete", "pods", "--all", "-n", namespace.name, "--grace-period=1")
    namespace.wait_ready("digits")


def test_an_object_made_again_under_its_name_comes_up(namespace: Namespace, store: ModelStore) -> None:
    """Garbage collection takes the earlier object's children while the new one's pods start."""
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=NO_GPU)
    namespace.wait_ready("digits")
    namespace.cluster.kubectl("delete", "mdep", "digits", "-n", namespace.name, "--wait=false")
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=NO_GPU)
    namespace.wait_ready("digits")
    assert len(namespace.pods("digits")) == 1


def test_no_node_that_fits(namespace: Namespace, store: ModelStore) -> None:
    scheduling = {"nodeSelector": {"disk": "of-gold"}}
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=NO_GPU, scheduling=scheduling)
    message = namespace.wait_reason("digits", "Unschedulable")
    assert "node" in message
    assert namespace.condition("digits", "CapacityBlocked")["status"] == "True"
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=NO_GPU)
    namespace.wait_ready("digits")


def test_a_pod_that_its_node_evicts_is_replaced_and_named(namespace: Namespace, store: ModelStore) -> None:
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu=NO_GPU)
    namespace.wait_ready("digits")
    (pod,) = namespace.pods("digits")
    name = pod["metadata"]["name"]
    # More than the scratch volume may hold: the kubelet counts within twenty seconds, and looks at the count every ten.
    fill = "open('/tmp/full', 'wb').write(bytes(100 << 20))"
    namespace.cluster.kubectl("exec", name, "-c", "agent", "-n", namespace.name, "--", "python3", "-c", fill)
    message = namespace.wait_reason("digits", "PodFailed", seconds=120)
    assert name in message
    assert "Evicted" in message
    namespace.wait_ready("digits")


@pytest.mark.group("gpus")
def test_a_node_that_is_gone_is_named_and_its_replica_replaced(
    namespace: Namespace, store: ModelStore, cluster: Cluster
) -> None:
    cluster.kubectl("cordon", "gpu-2")
    try:
        namespace.deploy("digits", store.uri("/digits.onnx"))
        namespace.wait_ready("digits")
        (pod,) = namespace.pods("digits")
        assert pod["spec"]["nodeName"] == "gpu-1"
        cluster.kubectl("uncordon", "gpu-2")
        cluster.stop_node("gpu-1")
        # The cluster waits for a minute until it gives a node up, and its pods live with that for half a minute more.
        assert "gpu-1" in namespace.wait_reason("digits", "NodeLost", seconds=180)
        namespace.wait_ready("digits", seconds=120)
        (other,) = namespace.pods("digits")
        assert other["spec"]["nodeName"] == "gpu-2"
    finally:
        cluster.start_node("gpu-1")
        cluster.kubectl("uncordon", "gpu-2")
