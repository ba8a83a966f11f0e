"""The model cache on the cluster: one pod fetches for all nodes, and whatever is wrong with it, models are served."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.client import Cluster
from tests.e2e.conftest import SAMPLE, Namespace
from tests.support.installation import install
from tests.support.model_store import ModelStore
from tests.support.waiting import until

pytestmark = pytest.mark.alone

CLAIM = "model-cache"
MODEL = SAMPLE.read_bytes()


@pytest.fixture(scope="module", autouse=True)
def _with_a_cache(cluster: Cluster) -> Iterator[None]:
    install(cluster, "--set", f"modelCache.claimName={CLAIM}", "--set", "modelCache.limit=8Mi")
    yield
    install(cluster)


@contextmanager
def _cache(namespace: Namespace) -> Iterator[Path]:
    """The namespace's cache: a folder of this machine, which every node of the local cluster sees."""
    with tempfile.TemporaryDirectory(prefix="conch-cache-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o777)
        size, modes, volume = {"storage": "1Gi"}, ["ReadWriteMany"], f"{CLAIM}-{namespace.name}"
        namespace.cluster.apply(
            [
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolume",
                    "metadata": {"name": volume},
                    "spec": {
                        "capacity": size,
                        "accessModes": modes,
                        "hostPath": {"path": str(folder)},
                        "storageClassName": "",
                        "persistentVolumeReclaimPolicy": "Retain",
                    },
                },
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "metadata": {"name": CLAIM, "namespace": namespace.name},
                    "spec": {
                        "accessModes": modes,
                        "resources": {"requests": size},
                        "volumeName": volume,
                        "storageClassName": "",
                    },
                },
            ]
        )
        # A pod that comes before that says that the cache keeps it waiting.
        until(lambda: _is_bound(namespace), "the claim to have its volume")
        yield folder
        # Its pods end with the namespace, and what they have mounted is there until then.
        namespace.cluster.kubectl("delete", "pv", volume, "--wait=false")


def _is_bound(namespace: Namespace) -> bool:
    claim = namespace.cluster.get("pvc", CLAIM, "-n", namespace.name)
    return bool(claim["status"].get("phase") == "Bound")


def _cache_status(namespace: Namespace, name: str) -> dict[str, Any]:
    status: dict[str, Any] = namespace.mdep(name).get("status", {}).get("cache") or {}
    return status


def _wait_counts(namespace: Namespace, name: str, **counts: int) -> dict[str, Any]:
    def told() -> dict[str, Any] | None:
        status = _cache_status(namespace, name)
        return status if all(status.get(outcome, 0) == count for outcome, count in counts.items()) else None

    return until(told, f"{name} to say {counts}")


def _events(namespace: Namespace, name: str) -> list[str]:
    uid = namespace.mdep(name)["metadata"]["uid"]
    events = namespace.cluster.get("events.v1.events.k8s.io", "-n", namespace.name)["items"]
    return [
        each["note"]
        for each in events
        if each["regarding"].get("uid") == uid and each["reason"] == "ModelCacheUnavailable"
    ]


def test_pods_of_two_nodes_and_of_another_object_fetch_a_model_once(namespace: Namespace, store: ModelStore) -> None:
    path = f"/{namespace.name}/digits.onnx"
    uri = store.put(path, MODEL)
    with _cache(namespace) as folder:
        namespace.deploy("digits", uri)
        namespace.wait_ready("digits")
        _wait_counts(namespace, "digits", filled=1)
        reads = store.reads(path)
        namespace.cluster.kubectl("scale", "mdep", "digits", "--replicas=2", "-n", namespace.name)
        namespace.wait_ready("digits", replicas=2)
        _wait_counts(namespace, "digits", filled=1, hit=1)
        nodes = {pod["spec"]["nodeName"] for pod in namespace.pods("digits")}
        assert len(nodes) == 2, "the pods spread over the nodes"
        assert store.reads(path) == reads, "the pin says which files these are: the store is not asked"
        namespace.wait_answers("digits")
        digest = namespace.mdep("digits")["status"]["source"]["digest"]
        assert [each.name for each in (folder / "entries").iterdir()] == [digest.removeprefix("sha256:")]
        # Another object from a place that has nothing: its digest is enough.
        namespace.deploy("again", store.uri(f"{path}-gone"), model={"source": {"digest": digest}, "name": "digits"})
        namespace.wait_ready("again")
        _wait_counts(namespace, "again", hit=1)
        assert not _events(namespace, "digits") + _events(namespace, "again")


def test_triton_cannot_write_to_the_cache(namespace: Namespace, store: ModelStore) -> None:
    uri = store.put(f"/{namespace.name}/digits.onnx", MODEL)
    with _cache(namespace):
        namespace.deploy("digits", uri)
        namespace.wait_ready("digits")
        (pod,) = namespace.pods("digits")
        (triton,) = (each for each in pod["spec"]["containers"] if each["name"] == "triton")
        (mount,) = (each for each in triton["volumeMounts"] if each["name"] == "model-cache")
        touch = ("exec", pod["metadata"]["name"], "-n", namespace.name, "-c", "triton", "--", "touch")
        done = namespace.cluster.kubectl(*touch, f"{mount['mountPath']}/x", check=False)
        assert done.returncode != 0
        assert "Read-only" in done.stderr


def test_a_damaged_entry_is_fetched_anew(namespace: Namespace, store: ModelStore) -> None:
    path = f"/{namespace.name}/digits.onnx"
    uri = store.put(path, MODEL)
    with _cache(namespace) as folder:
        namespace.deploy("digits", uri)
        namespace.wait_ready("digits")
        namespace.deploy("digits", uri, replicas=0)
        namespace.wait_no_pods("digits")
        (file,) = (folder / "entries").glob("*/tree/*")
        file.write_bytes(b"poison")
        reads = store.reads(path)
        namespace.deploy("digits", uri, replicas=1)
        namespace.wait_ready("digits")
        status = _wait_counts(namespace, "digits", filled=1)
        assert "damaged" in status["message"]
        assert store.reads(path) > reads
        namespace.wait_answers("digits")
        until(lambda: _events(namespace, "digits"), "an Event that says so")


def test_a_namespace_without_the_claim_is_served(namespace: Namespace, store: ModelStore) -> None:
    uri = store.put(f"/{namespace.name}/digits.onnx", MODEL)
    namespace.deploy("digits", uri)
    message = namespace.wait_reason("digits", "ModelCacheUnavailable")
    assert f'persistentvolumeclaim "{CLAIM}" not found' in message
    namespace.wait_ready("digits")
    namespace.wait_answers("digits")
    assert f"claim {CLAIM}" in _cache_status(namespace, "digits")["message"]
    (pod,) = namespace.pods("digits")
    assert "model-cache" not in {volume["name"] for volume in pod["spec"]["volumes"]}


def test_a_volume_that_the_agent_cannot_write_to_is_done_without(namespace: Namespace, store: ModelStore) -> None:
    uri = store.put(f"/{namespace.name}/digits.onnx", MODEL)
    with _cache(namespace) as folder:
        folder.chmod(0o555)
        namespace.deploy("digits", uri)
        namespace.wait_ready("digits")
        status = _wait_counts(namespace, "digits", bypassed=1)
        assert "Permission denied" in status["message"]
        namespace.wait_answers("digits")
        folder.chmod(0o777)


def test_what_is_in_use_is_not_taken_away_and_what_is_not_makes_room(namespace: Namespace, store: ModelStore) -> None:
    with _cache(namespace) as folder:
        uri = store.put(f"/{namespace.name}/digits.onnx", MODEL)
        namespace.deploy("digits", uri)
        namespace.wait_ready("digits")
        (entry,) = (folder / "entries").iterdir()
        # More than is left beside it, and no model that could be served.
        large = store.put(f"/{namespace.name}/large.onnx", bytes((8 << 20) - 1))
        namespace.deploy("again", large)
        status = _wait_counts(namespace, "again", bypassed=1)
        assert "no room" in status["message"]
        assert entry.exists()
        namespace.wait_answers("digits")
