"""One model from every kind of store, with credentials, on the cluster: fetched, verified, pinned, served."""

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest

from conch.store import tree_digest
from tests.e2e.conftest import SAMPLE, Namespace
from tests.stores.https_server import Slow
from tests.stores.registry import model_pack_file, oras_file
from tests.support.archives import tar_gz, tar_zst
from tests.support.cluster_stores import ClusterStores
from tests.support.waiting import until

MODEL = SAMPLE.read_bytes()
NO_GPU = {"count": 0}


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a folder with the bare sample model."""
    return tree_digest(_tree(tmp_path_factory.mktemp("tree")))


def _tree(folder: Path) -> Path:
    (folder / "digits.onnx").write_bytes(MODEL)
    return folder


def _serves(namespace: Namespace, uri: str, digest: str | None, **source: Any) -> dict[str, Any]:
    """Deploy it and ask it; returns the pin."""
    namespace.deploy("digits", uri, gpu=NO_GPU, model={"source": source})
    namespace.wait_ready("digits")
    namespace.wait_answers("digits")
    pin: dict[str, Any] = namespace.mdep("digits")["status"]["source"]
    assert digest is None or pin["digest"] == digest
    return pin


def test_s3_with_keys_and_a_private_authority(namespace: Namespace, stores: ClusterStores, digest: str) -> None:
    stores.s3.put_tree(f"{namespace.name}/m", {"digits.onnx": MODEL})
    source = namespace.secret("store", stores.s3.credentials) | {"endpoint": stores.s3.endpoint}
    pin = _serves(namespace, stores.s3.uri(f"{namespace.name}/m"), digest, **source)
    assert pin["resolved"].startswith("listing sha256:")


def test_google_cloud_storage(namespace: Namespace, stores: ClusterStores, digest: str) -> None:
    stores.gcs.put(f"{namespace.name}/digits.onnx", MODEL)
    uri = stores.gcs.uri(f"{namespace.name}/digits.onnx")
    assert _serves(namespace, uri, digest, endpoint=stores.gcs.endpoint)["resolved"].startswith("etag ")


def test_azure_with_a_key(namespace: Namespace, stores: ClusterStores) -> None:
    stores.azure.put(f"{namespace.name}/m.tar.zst", tar_zst({"m/digits.onnx": MODEL}))
    source = namespace.secret("store", stores.azure.credentials) | {"endpoint": stores.azure.endpoint}
    _serves(namespace, stores.azure.uri(f"{namespace.name}/m.tar.zst"), None, **source)


def test_https_with_a_private_authority(namespace: Namespace, stores: ClusterStores, digest: str) -> None:
    stores.https.put(f"{namespace.name}/digits.onnx", MODEL)
    source = namespace.secret("authority", {"ca.crt": stores.https.ca_certificate})
    _serves(namespace, stores.https.uri(f"{namespace.name}/digits.onnx"), digest, **source)


def test_a_private_hugging_face_repository_at_a_branch(
    namespace: Namespace, stores: ClusterStores, digest: str
) -> None:
    hub, repository = stores.hugging_face, f"team/{namespace.name}"
    hub.create(repository, private=True)
    commit = hub.commit(repository, {"digits.onnx": MODEL, "README.md": b"# digits"})
    source = namespace.secret("hub", hub.credentials) | {"endpoint": hub.endpoint}
    pin = _serves(namespace, f"hf://{repository}/digits.onnx@main", digest, **source)
    assert commit in pin["resolved"]
    # The branch moves on, and a replica that comes later still gets the commit that was pinned.
    hub.commit(repository, {"digits.onnx": MODEL + b"\x78\x00"})
    namespace.cluster.kubectl("scale", "mdep", "digits", "--replicas=2", "-n", namespace.name)
    namespace.wait_ready("digits", replicas=2)


@pytest.mark.parametrize("kind", ["ORAS", "ModelPack"])
def test_an_artefact_of_a_registry_with_tokens(
    namespace: Namespace, stores: ClusterStores, digest: str, kind: str
) -> None:
    layer = oras_file("digits.onnx", MODEL) if kind == "ORAS" else model_pack_file("digits.onnx", MODEL)
    manifest = stores.registry.put_artifact(namespace.name, "v1", [layer])
    source = namespace.secret("registry", stores.registry.credentials)
    pin = _serves(namespace, stores.registry.uri(f"{namespace.name}:v1"), digest, **source)
    assert pin["resolved"] == manifest


def test_a_claim_is_served_in_place_and_a_change_of_its_files_is_noticed(namespace: Namespace, digest: str) -> None:
    with namespace.claim("models", {"digits/digits.onnx": MODEL}) as folder:
        _serves(namespace, "pvc://models/digits", digest)
        (pod,) = namespace.pods("digits")
        name = pod["metadata"]["name"]
        linked = namespace.cluster.kubectl(
            *("exec", name, "-c", "triton", "-n", namespace.name, "--"),
            *("readlink", "/var/lib/conch/repository/digits/1/digits.onnx"),
        ).stdout.strip()
        assert linked == "/source/digits/digits.onnx", "Triton reads the claim's file"
        (folder / "digits" / "digits.onnx").write_bytes(MODEL + b"\x78\x00")
        namespace.cluster.kill_container(name, "triton", namespace.name)
        namespace.wait_reason("digits", "SourceChanged")
        until(lambda: digest in namespace.condition("digits", "Ready").get("message", ""), "what it was before")
        (folder / "digits" / "digits.onnx").write_bytes(MODEL)
        namespace.wait_ready("digits")


def test_a_volume_of_its_own_holds_the_model(namespace: Namespace, stores: ClusterStores, tmp_path: Path) -> None:
    content = MODEL
    stores.https.put(f"{namespace.name}/digits.onnx", content)
    source = namespace.secret("authority", {"ca.crt": stores.https.ca_certificate})
    with namespace.volume("fast", tmp_path / "disk"):
        storage = {"size": "1Gi", "storageClassName": f"fast-{namespace.name}"}
        model = {"source": source, "storage": storage}
        namespace.deploy("digits", stores.https.uri(f"{namespace.name}/digits.onnx"), gpu=NO_GPU, model=model)
        namespace.wait_ready("digits")
        namespace.wait_answers("digits")
        held = [file for file in (tmp_path / "disk" / "fetched").rglob("*") if file.is_file()]
        assert hashlib.sha256(content).hexdigest() in {hashlib.sha256(f.read_bytes()).hexdigest() for f in held}
        (claim,) = namespace.cluster.get("pvc", "-n", namespace.name)["items"]
        assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"


def test_a_large_fetch_shows_how_far_it_is(namespace: Namespace, stores: ClusterStores) -> None:
    path = f"{namespace.name}/m.tar.gz"
    content = tar_gz({"digits.onnx": MODEL, "noise": random.Random(1).randbytes(4 << 20)})
    stores.https.put(path, content)
    stores.https.fail(path, Slow(bytes_per_second=len(content) // 30))
    source = namespace.secret("authority", {"ca.crt": stores.https.ca_certificate})
    namespace.deploy("digits", stores.https.uri(path), gpu=NO_GPU, model={"source": source})

    def told() -> dict[str, Any] | None:
        fetch: dict[str, Any] | None = namespace.mdep("digits")["status"].get("fetch")
        return fetch if fetch and 0 < fetch.get("percent", 0) < 100 else None

    fetch = until(told, "progress in the status")
    assert fetch["totalBytes"] == len(content)
    assert fetch["bytesPerSecond"] > 0
    stores.https.heal(path)
    namespace.wait_ready("digits")
    assert "fetch" not in namespace.mdep("digits")["status"]
