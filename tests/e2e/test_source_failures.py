"""Each way in which a model does not arrive: the reason shows in condition, Event and column, and it heals."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import SAMPLE, Namespace
from tests.stores.https_server import Redirect, Stall, Truncate
from tests.support import hostile_archives
from tests.support.cluster_stores import ClusterStores
from tests.support.model_store import ModelStore

MODEL = SAMPLE.read_bytes()
NO_GPU = {"count": 0}


def _expect(namespace: Namespace, reason: str, *words: str) -> str:
    """The reason shows in condition, column and Event, with these words in the message."""
    message = namespace.wait_reason("digits", reason)
    assert [word for word in words if word not in message] == [], message
    assert namespace.condition("digits", "Stalled")["status"] == "True"
    assert namespace.ready_endpoints("digits") == set()
    return message


def _s3(namespace: Namespace, stores: ClusterStores) -> dict[str, Any]:
    return namespace.secret("store", stores.s3.credentials) | {"endpoint": stores.s3.endpoint}


def test_nothing_at_the_uri_then_the_upload(namespace: Namespace, stores: ClusterStores) -> None:
    uri = stores.s3.uri(f"{namespace.name}/late")
    namespace.deploy("digits", uri, gpu=NO_GPU, model={"source": _s3(namespace, stores)})
    _expect(namespace, "SourceNotFound", uri, "bucket models", "check the URI")
    stores.s3.put_tree(f"{namespace.name}/late", {"digits.onnx": MODEL})
    namespace.wait_ready("digits")


def test_a_missing_bucket_is_told_from_a_missing_object(namespace: Namespace, stores: ClusterStores) -> None:
    namespace.deploy("digits", "s3://no-such-bucket/m", gpu=NO_GPU, model={"source": _s3(namespace, stores)})
    _expect(namespace, "SourceNotFound", "the bucket no-such-bucket does not exist", "NoSuchBucket")


def test_wrong_keys_and_then_the_right_ones(namespace: Namespace, stores: ClusterStores) -> None:
    stores.s3.put_tree(f"{namespace.name}/m", {"digits.onnx": MODEL})
    source = namespace.secret("store", stores.s3.wrong_credentials) | {"endpoint": stores.s3.endpoint}
    namespace.deploy("digits", stores.s3.uri(f"{namespace.name}/m"), gpu=NO_GPU, model={"source": source})
    _expect(namespace, "SourceAccessDenied", "SignatureDoesNotMatch", "credentialsSecretRef")
    namespace.secret("store", stores.s3.credentials)
    # The kubelet brings a changed Secret to its mounts within about a minute and a half.
    namespace.wait_ready("digits", seconds=180)


def test_a_secret_that_is_not_there(namespace: Namespace, stores: ClusterStores) -> None:
    stores.s3.put_tree(f"{namespace.name}/m", {"digits.onnx": MODEL})
    source = {"credentialsSecretRef": {"name": "later"}, "endpoint": stores.s3.endpoint}
    namespace.deploy("digits", stores.s3.uri(f"{namespace.name}/m"), gpu=NO_GPU, model={"source": source})
    _expect(namespace, "SourceAccessDenied", "Secret later", "create it")


def test_an_authority_that_nobody_knows(namespace: Namespace, stores: ClusterStores) -> None:
    stores.https.put(f"{namespace.name}/digits.onnx", MODEL)
    namespace.deploy("digits", stores.https.uri(f"{namespace.name}/digits.onnx"), gpu=NO_GPU)
    _expect(namespace, "SourceUnreachable", "certificate", "ca.crt")


@pytest.fixture
def https_path(namespace: Namespace, stores: ClusterStores) -> Iterator[str]:
    path = f"{namespace.name}/digits.onnx"
    stores.https.put(path, MODEL)
    yield path
    stores.https.heal(path)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Stall(), "did not answer in time"),
        (Stall(after=1000), "did not answer in time"),
        (Truncate(after=1000), "cannot be fetched"),
    ],
    ids=["silent", "stalled", "truncated"],
)
def test_a_store_that_does_not_deliver_is_called_so_and_heals(
    namespace: Namespace, stores: ClusterStores, https_path: str, fault: Any, words: str
) -> None:
    stores.https.fail(https_path, fault)
    source = namespace.secret("authority", {"ca.crt": stores.https.ca_certificate})
    namespace.deploy("digits", stores.https.uri(https_path), gpu=NO_GPU, model={"source": source})
    _expect(namespace, "SourceUnreachable", words, "tried again")
    stores.https.heal(https_path)
    namespace.wait_ready("digits")


def test_a_redirect_to_what_no_model_comes_from_is_not_followed(
    namespace: Namespace, stores: ClusterStores, https_path: str
) -> None:
    """The cloud's metadata address, whose answer would be the node's credentials."""
    stores.https.fail(https_path, Redirect(to="http://169.254.169.254/latest/meta-data/"))
    source = namespace.secret("authority", {"ca.crt": stores.https.ca_certificate})
    namespace.deploy("digits", stores.https.uri(https_path), gpu=NO_GPU, model={"source": source})
    _expect(namespace, "SourceNotAllowed", "169.254.169.254")


def test_an_endpoint_that_leads_to_what_no_model_comes_from(namespace: Namespace) -> None:
    source = {"endpoint": "https://169.254.169.254"}
    namespace.deploy("digits", "s3://models/m", gpu=NO_GPU, model={"source": source})
    _expect(namespace, "SourceNotAllowed", "169.254.169.254", "not public")


def test_a_host_that_is_not_there(namespace: Namespace) -> None:
    namespace.deploy("digits", "https://nowhere.stores.svc/digits.onnx", gpu=NO_GPU)
    _expect(namespace, "SourceUnreachable", "nowhere.stores.svc", "does not resolve")


def test_a_model_that_is_larger_than_its_volume(namespace: Namespace, stores: ClusterStores) -> None:
    stores.s3.put_tree(f"{namespace.name}/m", {"digits.onnx": bytes(20 << 20)})
    with namespace.volume("small", stores.s3.folder / namespace.name):
        storage = {"size": "10Mi", "storageClassName": f"small-{namespace.name}"}
        model = {"source": _s3(namespace, stores), "storage": storage}
        namespace.deploy("digits", stores.s3.uri(f"{namespace.name}/m"), gpu=NO_GPU, model=model)
        _expect(namespace, "SourceTooLarge", "20971520 bytes", "model.storage.size")


def test_a_disk_that_runs_full(namespace: Namespace, stores: ClusterStores, tmp_path: Path) -> None:
    """A volume that holds less than it promised."""
    stores.s3.put_tree(f"{namespace.name}/m", {"digits.onnx": bytes(20 << 20)})
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0777", "tmpfs", str(disk)], check=True)
    try:
        with namespace.volume("full", disk):
            storage = {"size": "1Gi", "storageClassName": f"full-{namespace.name}"}
            model = {"source": _s3(namespace, stores), "storage": storage}
            namespace.deploy("digits", stores.s3.uri(f"{namespace.name}/m"), gpu=NO_GPU, model=model)
            _expect(namespace, "SourceTooLarge", "No space left on device")
            namespace.cluster.kubectl("delete", "mdep", "digits", "-n", namespace.name)
            namespace.wait_no_pods("digits")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_no_volume_for_the_model(namespace: Namespace, stores: ClusterStores) -> None:
    storage = {"size": "1Gi", "storageClassName": "nowhere"}
    namespace.deploy("digits", stores.https.uri("m"), gpu=NO_GPU, model={"storage": storage})
    message = namespace.wait_reason("digits", "VolumeUnavailable")
    assert "model.storage" in message
    assert namespace.condition("digits", "CapacityBlocked")["status"] == "True"


@pytest.mark.parametrize(
    ("archive", "reason", "words"),
    [
        (lambda: hostile_archives.with_a_way_out(MODEL), "InvalidModel", "points outside"),
        (hostile_archives.with_a_link, "InvalidModel", "is a link"),
        (hostile_archives.with_a_device, "InvalidModel", "is a device"),
        (hostile_archives.bomb, "SourceTooLarge", "unpacks to more than"),
    ],
    ids=["way-out", "link", "device", "bomb"],
)
def test_an_archive_from_an_enemy(
    namespace: Namespace, store: ModelStore, archive: Callable[[], bytes], reason: str, words: str
) -> None:
    path = f"/{namespace.name}/m.tar.gz"
    namespace.deploy("digits", store.put(path, archive()), gpu=NO_GPU)
    _expect(namespace, reason, words)
