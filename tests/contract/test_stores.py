"""The model stores of the tests work as their clients expect, and refuse whom they should."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from tests.cluster import waiting
from tests.stores import registry, tls
from tests.stores.azure import ACCOUNT, Azure
from tests.stores.gcs import Gcs
from tests.stores.https_server import (
    ByClient,
    Changing,
    HttpsServer,
    NoRanges,
    Redirect,
    Reset,
    Slow,
    Stall,
    Status,
    Truncate,
    WrongLength,
)
from tests.stores.hugging_face import HuggingFace
from tests.stores.registry import Registry
from tests.stores.s3 import S3
from tests.stores.store import BUCKET, Store

if TYPE_CHECKING:
    from obstore.store import ClientConfig

pytestmark = pytest.mark.contract

FILES = {"model.onnx": b"weights" * 1000, "config.pbtxt": b'name: "x"', "deep/er/labels.txt": b"a\nb\n"}

Bucket = S3 | Gcs | Azure
Login = Mapping[str, str]


def open_bucket(store: Bucket, login: Login) -> S3Store | GCSStore | AzureStore:
    options: ClientConfig = {"allow_http": True}
    if "ca.crt" in login:
        options["root_certificate"] = login["ca.crt"].encode()
    match store:
        case S3():
            return S3Store(
                BUCKET,
                endpoint=store.endpoint,
                region=store.region,
                access_key_id=login["AWS_ACCESS_KEY_ID"],
                secret_access_key=login["AWS_SECRET_ACCESS_KEY"],
                virtual_hosted_style_request=False,
                client_options=options,
            )
        case Gcs():
            return GCSStore(BUCKET, base_url=store.endpoint, skip_signature=True, client_options=options)
        case Azure():
            return AzureStore(
                BUCKET,
                endpoint=store.endpoint,
                account_name=ACCOUNT,
                account_key=login["AZURE_STORAGE_ACCOUNT_KEY"],
                client_options=options,
            )


def read_bucket(store: Bucket, login: Login, prefix: str) -> dict[str, bytes]:
    client = open_bucket(store, login)
    keys = [meta["path"] for page in obstore.list(client, prefix=prefix) for meta in page]
    return {key.removeprefix(f"{prefix}/"): bytes(obstore.get(client, key).bytes()) for key in keys}


@pytest.mark.parametrize("encrypted", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("kind", [S3, Gcs, Azure])
def test_a_bucket_gives_what_was_put(kind: Callable[..., Bucket], encrypted: bool, tmp_path: Path) -> None:
    certificate = tls.issue(tmp_path / "tls", "127.0.0.1") if encrypted else None
    with kind(tmp_path / "store", tls=certificate) as store:
        store.put_tree("classifier", FILES)
        store.put("classifier-2/model.onnx", b"other")
        assert read_bucket(store, store.credentials, "classifier") == FILES
        store.await_requests("classifier/model.onnx")
        store.delete("classifier/deep")
        store.delete("classifier/config.pbtxt")
        assert list(read_bucket(store, store.credentials, "classifier")) == ["model.onnx"]
        assert read_bucket(store, store.credentials, "classifier-2") == {"model.onnx": b"other"}
        if store.authenticates:
            with pytest.raises(BaseError, match="403"):
                read_bucket(store, store.wrong_credentials, "classifier")


def test_a_stopped_store_starts_again_with_what_it_had(tmp_path: Path) -> None:
    with S3(tmp_path) as store:
        store.put("a", b"content")
        store.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((store.address, store.port))
        store.start()
        assert bytes(obstore.get(open_bucket(store, store.credentials), "a").bytes()) == b"content"


def test_no_store_outlives_the_tests(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.stores.s3 import S3\n"
        "with S3(Path(sys.argv[1])) as store: print(store.port, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout
        port = int(tests.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)):
            pass
        tests.send_signal(signal.SIGKILL)

    def gone() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            return True
        return False

    waiting.until(gone, what="The end of the store", timeout_seconds=60)


def docker_login(login: Login) -> httpx.BasicAuth:
    [entry] = json.loads(login[".dockerconfigjson"])["auths"].values()
    username, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
    return httpx.BasicAuth(username, password)


class Puller:
    """Pulls as Docker's specifications say."""

    def __init__(self, store: Registry, login: Login, repository: str) -> None:
        assert store.tls
        self.client = httpx.Client(
            base_url=f"{store.endpoint}/v2/{repository}/",
            verify=store.tls.client_context(),
            trust_env=False,
            timeout=60,
        )
        self.auth = docker_login(login)

    def get(self, path: str) -> httpx.Response:
        headers = {"Accept": registry.MANIFEST}
        response = self.client.get(path, headers=headers)
        assert response.status_code == 401
        scheme, _, parameters = response.headers["WWW-Authenticate"].partition(" ")
        if scheme == "Basic":
            return self.client.get(path, headers=headers, auth=self.auth)
        asked = dict(part.split("=", 1) for part in parameters.replace('"', "").split(","))
        token = self.client.get(asked.pop("realm"), params=asked, auth=self.auth)
        if token.status_code != 200:
            return token
        return self.client.get(path, headers=headers | {"Authorization": f"Bearer {token.json()['token']}"})

    def pull(self, reference: str) -> tuple[dict[str, Any], list[tuple[dict[str, str], bytes]]]:
        with self.client:
            manifest = self.get(f"manifests/{reference}").raise_for_status().json()
            layers = [
                (layer["annotations"], self.get(f"blobs/{layer['digest']}").raise_for_status().content)
                for layer in manifest["layers"]
            ]
        return manifest, layers


@pytest.mark.parametrize("tokens", [False, True], ids=["password", "token"])
def test_a_registry_gives_what_was_pushed(tokens: bool, tmp_path: Path) -> None:
    with Registry(tmp_path, tokens=tokens) as store:
        store.put_tree("team/classifier", FILES)
        _, layers = Puller(store, store.credentials, "team/classifier").pull("latest")
        assert {annotations["org.opencontainers.image.title"]: content for annotations, content in layers} == FILES

        packed = [registry.model_pack_file("model.onnx", b"raw"), registry.model_pack_tar("deep", {"a": b"1"})]
        digest = store.put_artifact("team/packed", "v1", packed, kind=registry.MODEL_PACK)
        manifest, [(first, raw), (second, tar)] = Puller(store, store.credentials, "team/packed").pull(digest)
        assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
        assert (first["org.cncf.model.filepath"], raw) == ("model.onnx", b"raw")
        assert second["org.cncf.model.filepath"] == "deep"
        with tarfile.open(fileobj=BytesIO(tar), mode="r:") as archive:
            assert archive.getnames() == ["deep/a"]

        store.put_artifact("team/folder", "v1", [registry.oras_folder("deep", {"a": b"1"})])
        _, [(folder, content)] = Puller(store, store.credentials, "team/folder").pull("v1")
        assert folder["io.deis.oras.content.unpack"] == "true"
        with tarfile.open(fileobj=BytesIO(content), mode="r:gz") as archive:
            assert archive.getnames() == ["deep/a"]

        with pytest.raises(httpx.HTTPStatusError, match="401"):
            Puller(store, store.wrong_credentials, "team/classifier").pull("latest")
        store.delete("team/classifier")
        with pytest.raises(httpx.HTTPStatusError, match="404"):
            Puller(store, store.credentials, "team/classifier").pull("latest")
        store.await_requests("GET /v2/team/classifier/manifests/latest", least=3)
        assert bool(store.requests["GET /token"]) == tokens


def https_client(store: HttpsServer) -> httpx.Client:
    assert store.tls
    return httpx.Client(base_url=store.endpoint, verify=store.tls.client_context(), trust_env=False, timeout=30)


def test_the_web_server_gives_files_and_parts(tmp_path: Path) -> None:
    with HttpsServer(tmp_path) as store, https_client(store) as client:
        store.put_tree("classifier", FILES)
        whole = client.get("/classifier/model.onnx")
        assert (whole.status_code, whole.content) == (200, FILES["model.onnx"])
        etag = whole.headers["ETag"]
        for wanted, status, content in (
            ("bytes=10-19", 206, FILES["model.onnx"][10:20]),
            ("bytes=6990-", 206, FILES["model.onnx"][6990:]),
            ("bytes=-5", 206, FILES["model.onnx"][-5:]),
            ("bytes=7000-", 416, b""),
        ):
            part = client.get("/classifier/model.onnx", headers={"Range": wanted, "If-Range": etag})
            assert (part.status_code, part.content) == (status, content)
        assert client.get("/classifier/model.onnx", headers={"Range": "bytes=10-19"}).headers["Content-Range"] == (
            "bytes 10-19/7000"
        )
        stale = client.get("/classifier/model.onnx", headers={"Range": "bytes=10-19", "If-Range": '"old"'})
        assert (stale.status_code, stale.content) == (200, FILES["model.onnx"])
        assert client.head("/classifier/model.onnx").headers["Content-Length"] == "7000"
        store.delete("classifier")
        assert client.get("/classifier/model.onnx").status_code == 404
        assert store.log[1].range == "bytes=10-19"


@pytest.mark.parametrize("options", [{"login": ("ann", "secret")}, {"token": "secret"}], ids=["login", "token"])
def test_the_web_server_refuses_who_is_not_logged_in(options: dict[str, Any], tmp_path: Path) -> None:
    def authorization(login: Login) -> str:
        if "token" in login:
            return f"Bearer {login['token']}"
        pair = f"{login['username']}:{login['password']}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    with HttpsServer(tmp_path, **options) as store, https_client(store) as client:
        store.put("model.onnx", b"x")
        for login, status in ((store.credentials, 200), (store.wrong_credentials, 401)):
            answer = client.get("/model.onnx", headers={"Authorization": authorization(login)})
            assert answer.status_code == status
        assert client.get("/model.onnx").status_code == 401


def test_the_web_server_has_the_faults_that_a_test_wants(tmp_path: Path) -> None:
    with HttpsServer(tmp_path) as store, https_client(store) as client:
        content = bytes(range(256)) * 4000
        store.put("m", content)

        def receive(got: list[bytes]) -> None:
            with client.stream("GET", "/m") as response:
                got.extend(response.iter_raw())

        def broken(fault: Stall | Reset | Truncate, error: type[httpx.HTTPError], received: int | None) -> None:
            store.fail("m", fault)
            got: list[bytes] = []
            with pytest.raises(error):
                receive(got)
            assert received is None or len(b"".join(got)) == received

        patience = client.timeout
        client.timeout = httpx.Timeout(30, read=3)
        broken(Stall(), httpx.ReadTimeout, 0)
        broken(Stall(after=1000), httpx.ReadTimeout, 1000)
        client.timeout = patience
        # Python's TLS tells a reset from an end only sometimes, and bytes on their way may be lost with it.
        broken(Reset(after=1000), httpx.TransportError, None)
        broken(Truncate(after=1000), httpx.RemoteProtocolError, 1000)

        store.fail("m", Redirect(to=store.uri("m")), times=1)
        assert client.get("/m").headers["Location"] == store.uri("m")
        assert client.get("/m").content == content
        store.fail("m", Status(status=503, headers=(("Retry-After", "1"),)))
        assert client.get("/m").headers["Retry-After"] == "1"
        store.fail("m", WrongLength(by=5))
        assert client.head("/m").headers["Content-Length"] == str(len(content) + 5)
        part = client.get("/m", headers={"Range": "bytes=0-9"})
        assert part.headers["Content-Range"] == f"bytes 0-9/{len(content) + 5}"
        store.fail("m", Changing(contents=(b"one", b"two")))
        answers = [client.get("/m") for _ in range(3)]
        assert [answer.content for answer in answers] == [b"one", b"two", b"two"]
        assert len({answer.headers["ETag"] for answer in answers}) == 2
        store.fail("m", ByClient(contents=(b"one", b"two")))
        assert [client.get("/m").content for _ in range(2)] == [b"one", b"one"], "one client"
        store.fail("m", NoRanges())
        whole = client.get("/m", headers={"Range": "bytes=0-9"})
        assert (whole.status_code, whole.content) == (200, content)
        store.fail("m", Slow(bytes_per_second=len(content) * 2))
        started = time.monotonic()
        assert client.get("/m").content == content
        assert time.monotonic() - started > 0.4
        store.heal("m")
        assert client.get("/m", headers={"Range": "bytes=0-9"}).content == content[:10]


HUB_CLIENT = """
import json, sys
from pathlib import Path
from huggingface_hub import HfApi, hf_hub_download, snapshot_download, errors

api, folder = HfApi(), Path(sys.argv[1])
repository = "acme/classifier"
info = api.model_info(repository, files_metadata=True)
tree = [entry.path for entry in api.list_repo_tree(repository, recursive=True)]
down = Path(snapshot_download(repository, revision=info.sha))
files = {path.relative_to(down).as_posix(): path.read_text() for path in down.rglob("*") if path.is_file()}

api.create_repo("acme/uploaded", private=True)
(folder / "up" / "deep").mkdir(parents=True)
(folder / "up" / "model.onnx").write_bytes(b"uploaded weights")
(folder / "up" / "deep" / "a.txt").write_text("a")
(folder / "up" / "README.md").write_text("# Card")
oid = api.upload_folder(repo_id="acme/uploaded", folder_path=folder / "up").oid
api.delete_file("deep/a.txt", repo_id="acme/uploaded")

def refused(call):
    try:
        call()
    except errors.HfHubHTTPError as error:
        return type(error).__name__, error.response.status_code

json.dump({
    "sha": info.sha,
    "sizes": {each.rfilename: each.size for each in info.siblings},
    "sha256": {each.rfilename: each.lfs.sha256 for each in info.siblings if each.lfs},
    "tree": tree,
    "files": files,
    "uploaded": oid,
    "refused": [
        refused(lambda: api.model_info("acme/none")),
        refused(lambda: HfApi(token=False).model_info(repository)),
        refused(lambda: HfApi(token=sys.argv[2]).model_info(repository)),
        refused(lambda: api.model_info(repository, revision="none")),
        refused(lambda: hf_hub_download("acme/gated", "model.onnx")),
        refused(lambda: hf_hub_download(repository, "none.txt")),
    ],
}, sys.stdout)
"""
"""In a process of its own: this one may have given the library the product's own transport, which is for good."""


def test_the_hub_serves_its_own_library(tmp_path: Path) -> None:
    with HuggingFace(tmp_path / "hub") as store:
        store.put_tree("acme/classifier", FILES)
        store.create("acme/gated", gated=True)
        store.commit("acme/gated", {"model.onnx": b"secret"})
        environment = {
            "PATH": os.environ["PATH"],
            "HF_ENDPOINT": store.endpoint,
            "HF_TOKEN": store.credentials["HF_TOKEN"],
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        (tmp_path / "client").mkdir()
        command = [sys.executable, "-c", HUB_CLIENT, str(tmp_path / "client"), store.wrong_credentials["HF_TOKEN"]]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert ran.returncode == 0, ran.stderr
        said = json.loads(ran.stdout)
        classifier = store.repositories["acme/classifier"]
        assert said["sha"] == classifier.branches["main"]
        assert said["sizes"] == {name: len(content) for name, content in FILES.items()}
        assert list(said["sha256"]) == ["model.onnx"]
        assert sorted(said["tree"]) == ["config.pbtxt", "deep", "deep/er", "deep/er/labels.txt", "model.onnx"]
        assert said["files"] == {name: content.decode() for name, content in FILES.items()}
        uploaded = store.repositories["acme/uploaded"]
        assert uploaded.private
        files = {"model.onnx": b"uploaded weights", "deep/a.txt": b"a", "README.md": b"# Card"}
        assert uploaded.commits[said["uploaded"]] == files
        assert "deep/a.txt" not in uploaded.commits[uploaded.branches["main"]]
        assert said["refused"] == [
            ["RepositoryNotFoundError", 404],
            ["RepositoryNotFoundError", 401],
            ["HfHubHTTPError", 401],
            ["RevisionNotFoundError", 404],
            ["GatedRepoError", 403],
            ["RemoteEntryNotFoundError", 404],
        ]


def test_a_branch_of_the_hub_moves_and_its_commits_stay(tmp_path: Path) -> None:
    with HuggingFace(tmp_path, private=False) as store, httpx.Client(base_url=store.endpoint, timeout=60) as client:
        first = store.commit("acme/m", {"a.txt": b"1", "b.onnx": b"weights"})
        second = store.commit("acme/m", {"a.txt": b"2"}, branch="next/one")
        assert len({first, second}) == 2
        for revision, content in ((first, b"1"), ("main", b"1"), ("next%2Fone", b"2"), (second, b"2")):
            answer = client.get(f"/acme/m/resolve/{revision}/a.txt", headers={"Range": "bytes=0-0"})
            assert (answer.content, answer.headers["X-Repo-Commit"]) == (content, second if content == b"2" else first)
        linked = client.get("/acme/m/resolve/main/b.onnx")
        assert (linked.status_code, linked.headers["X-Linked-Size"]) == (302, "7")
        location = linked.headers["Location"]
        part = client.get(location, headers={"Range": "bytes=3-"})
        assert (part.status_code, part.content) == (206, b"ghts")
        assert client.get(location, headers={"Authorization": "Bearer x"}).status_code == 400
        assert client.get(location.partition("?")[0]).status_code == 403
        assert store.requests["GET /acme/m/resolve/next/one/a.txt"] == 1


def test_uris_name_the_host_that_clients_see(tmp_path: Path) -> None:
    host = "stores.example"
    stores: list[Store] = [kind(tmp_path, host=host) for kind in (S3, Gcs, Azure, HuggingFace, Registry, HttpsServer)]
    assert all(host in store.endpoint and host not in store.local_endpoint for store in stores)
    assert [store.uri("acme/m").partition(f"{host}:")[0] for store in stores] == [
        f"s3://{BUCKET}/acme/m",
        f"gs://{BUCKET}/acme/m",
        f"az://{ACCOUNT}/{BUCKET}/acme/m",
        "hf://acme/m",
        "oci://",
        "https://",
    ]
