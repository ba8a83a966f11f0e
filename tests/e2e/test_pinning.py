"""Replicas of one revision never serve different bytes, whatever the store does."""

from pathlib import Path

from conch.store.digest import tree_digest
from tests.e2e.conftest import SAMPLE, Namespace
from tests.stores.https_server import ByClient
from tests.support.cluster_stores import ClusterStores
from tests.support.waiting import until

MODEL = SAMPLE.read_bytes()
OTHER = MODEL + b"\x78\x00"  # a field that ONNX does not know
NO_GPU = {"count": 0}


def test_a_store_that_gives_each_of_two_pods_something_else(
    namespace: Namespace, stores: ClusterStores, tmp_path: Path
) -> None:
    path = f"{namespace.name}/digits.onnx"
    stores.https.put(path, MODEL)
    source = namespace.secret("authority", {"ca.crt": stores.https.ca_certificate})
    stores.https.fail(path, ByClient(contents=(MODEL, OTHER)))
    namespace.deploy("digits", stores.https.uri(path), gpu=NO_GPU, replicas=2, model={"source": source})
    message = namespace.wait_reason("digits", "SourceChanged")
    pin = namespace.mdep("digits")["status"]["source"]["digest"]
    assert pin in message
    until(lambda: len(_serving(namespace)) == 1, "one pod to serve")
    assert namespace.mdep("digits")["status"]["source"]["digest"] == pin
    # Whoever told first has pinned it; the other has to find the same.
    stores.https.put(path, next(each for each in (MODEL, OTHER) if _digest(each, tmp_path) == pin))
    stores.https.heal(path)
    namespace.wait_ready("digits", replicas=2)


def test_a_replica_that_comes_later_does_not_serve_what_came_later(namespace: Namespace, stores: ClusterStores) -> None:
    path = f"{namespace.name}/digits.onnx"
    stores.https.put(path, MODEL)
    source = namespace.secret("authority", {"ca.crt": stores.https.ca_certificate})
    namespace.deploy("digits", stores.https.uri(path), gpu=NO_GPU, model={"source": source})
    namespace.wait_ready("digits")
    stores.https.put(path, OTHER)
    namespace.cluster.kubectl("scale", "mdep", "digits", "--replicas=2", "-n", namespace.name)
    assert "spec.model" in namespace.wait_reason("digits", "SourceChanged")
    assert namespace.condition("digits", "Available")["status"] == "True"
    # What is there now is served once somebody asks for it.
    namespace.deploy("digits", stores.https.uri(path), gpu=NO_GPU, replicas=2, model={"version": 2, "source": source})
    namespace.wait_ready("digits", replicas=2)


def _digest(content: bytes, folder: Path) -> str:
    file = folder / "digits.onnx"
    file.write_bytes(content)
    return tree_digest(file)


def _serving(namespace: Namespace) -> list[str]:
    return [
        pod["metadata"]["name"]
        for pod in namespace.pods("digits")
        if any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"]["conditions"])
    ]
