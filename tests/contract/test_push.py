"""`conch push` to real stores: what it prints is what a model pod then fetches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
import yarl
from aiohttp import web

from conch.api.model import ModelSource
from conch.api.source_policy import SourcePolicy
from conch.store.credentials import Credentials
from conch.store.digest import tree_digest
from conch.store.fetch import Request, fetch
from conch.store.transfer import Progress
from tests.cluster.ports import free_port
from tests.stores import tls
from tests.stores.azure import Azure
from tests.stores.gcs import Gcs
from tests.stores.https_server import HttpsServer
from tests.stores.hugging_face import HuggingFace
from tests.stores.registry import Registry
from tests.stores.s3 import S3
from tests.stores.store import Store
from tests.stores.web import WebServer

pytestmark = pytest.mark.contract

EVERYTHING = SourcePolicy(http_hosts=("*",), private_hosts=("*",))
FILES = {
    "config.pbtxt": b'name: "x"',
    "1/model.onnx": bytes(range(256)) * 100_000,
    "1/model.copy": bytes(range(256)) * 100_000,
    "empty": b"",
    "labels for ü%41 +#?.txt": b"a\nb\n",
}


class Uploads(HttpsServer):
    """The web server of the tests, where files can be put."""

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.method != "PUT":
            return await super()._handle(request)
        if not self._authorized(request):
            return web.Response(status=HTTPStatus.UNAUTHORIZED)
        assert request.content_length is not None
        self.files[request.path.removeprefix("/")] = await request.read()
        return web.Response(status=HTTPStatus.CREATED)


class XmlUploads(Gcs):
    """Google's store of the tests, with the plain PUT that it knows only as part of a signed URL."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._front_port = free_port(self.address)
        self._front = WebServer(self._forward, address=self.address, port=self._front_port)

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}:{self._front_port}"

    def start(self) -> None:
        super().start()
        self._front.start()

    def stop(self) -> None:
        self._front.stop()
        super().stop()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        query = "?X-Goog-Algorithm=none" if request.method == "PUT" else f"?{request.query_string}"
        url = yarl.URL(f"{self.local_endpoint}{request.rel_url.raw_path}{query}", encoded=True)
        headers = {name: value for name, value in request.headers.items() if name in ("Range", "If-Match")}
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, url, data=await request.read(), headers=headers) as answer,
        ):
            kept = ("ETag", "Last-Modified", "Content-Range", "X-Goog-Generation", "Content-Type")
            own = {name: answer.headers[name] for name in kept if name in answer.headers}
            if request.method == "PUT" and answer.status == HTTPStatus.OK:
                own["ETag"] = (await answer.json())["md5Hash"]
            if request.method == "HEAD":
                own["Content-Length"] = answer.headers.get("Content-Length", "0")
            return web.Response(status=answer.status, body=await answer.read(), headers=own)


@dataclass
class Target:
    """A store, with what a person's shell has for it."""

    store: Store
    uri: str
    folder: Path
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()

    def conch(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command as a person does, with nothing else in its environment."""
        own = {"PATH": os.environ["PATH"], "HOME": str(self.folder / "home"), "TMPDIR": str(self.folder)}
        ran = subprocess.run(
            [sys.executable, "-c", "from conch.cli import main; main()", *arguments],
            env={**own, **self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        for secret in self.secrets:
            assert secret not in ran.stdout + ran.stderr
        return ran

    def push(self, model: Path, *options: str, uri: str | None = None, **environment: str) -> ModelSource:
        """Push, and what it prints."""
        ran = self.conch("push", str(model), uri or self.uri, *self.options, *options, **environment)
        assert ran.returncode == 0, ran.stderr
        return ModelSource.model_validate(yaml.safe_load(ran.stdout)["source"])

    def refused(self, model: Path, *options: str, uri: str | None = None, **environment: str) -> str:
        """Push in vain, and what it says."""
        ran = self.conch("push", str(model), uri or self.uri, *self.options, *options, **environment)
        assert (ran.returncode, ran.stdout) == (1, ""), ran.stderr
        return ran.stderr

    async def fetch(self, source: ModelSource) -> dict[str, bytes]:
        """As a model pod does; the digest is checked there."""
        work = self.folder / f"fetched-{len(list(self.folder.iterdir()))}"
        (work / "fresh").mkdir(parents=True)
        request = Request(
            source=source,
            policy=EVERYTHING,
            claim_mount=work,
            credentials_folder=work,
            credentials=Credentials(self.store.credentials),
            limit_bytes=1 << 30,
            progress=Progress(),
        )
        fetched = await fetch(request, work / "partial", work / "fresh")
        assert fetched is not None
        assert fetched.digest == source.digest
        return read(work / "fresh" / "tree")


def read(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def trusting(store: Store, folder: Path) -> tuple[str, ...]:
    path = folder / "trusted.pem"
    path.write_text(store.credentials["ca.crt"])
    return ("--ca-certificate", str(path))


@contextmanager
def open_target(kind: str, folder: Path) -> Iterator[Target]:
    """A store, with nothing in it yet at the URI."""
    (folder / "home").mkdir()
    at = folder / "store"
    encrypted = tls.issue(folder / "tls", "127.0.0.1")
    match kind:
        case "gs":
            with XmlUploads(at) as gcs:
                key = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
                environment = {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(key)}
                yield Target(gcs, gcs.uri("team/classifier"), folder, ("--endpoint", gcs.endpoint), environment)
        case "s3" | "az":
            kinds: dict[str, type[S3 | Azure]] = {"s3": S3, "az": Azure}
            with kinds[kind](at, tls=encrypted) as store:
                login = {name: value for name, value in store.credentials.items() if name != "ca.crt"}
                options = ("--endpoint", store.endpoint, *trusting(store, folder))
                secrets = tuple(value for name, value in login.items() if name != "AWS_ACCESS_KEY_ID")
                yield Target(store, store.uri("team/classifier"), folder, options, login, secrets)
        case "hf":
            with HuggingFace(at, tls=encrypted) as hub:
                hub.create("acme/models", private=True)
                options = ("--endpoint", hub.endpoint, *trusting(hub, folder))
                login = hub.credentials | {"HF_HOME": str(folder / "home")}
                yield Target(hub, hub.uri("acme/models/classifier"), folder, options, login, (hub.token,))
        case "oci" | "oci-token":
            with Registry(at, tokens=kind == "oci-token") as registry:
                config = folder / "docker"
                config.mkdir()
                (config / "config.json").write_text(registry.credentials[".dockerconfigjson"])
                [entry] = json.loads(registry.credentials[".dockerconfigjson"])["auths"].values()
                environment = {"DOCKER_CONFIG": str(config)}
                uri = registry.uri("team/classifier:v1")
                yield Target(
                    registry, uri, folder, trusting(registry, folder), environment, (entry["password"], entry["auth"])
                )
        case _:
            with Uploads(at, login=("ann", "s3cret-password")) as server:
                (folder / "netrc").write_text("machine 127.0.0.1 login ann password s3cret-password\n")
                environment = {"NETRC": str(folder / "netrc")}
                uri = server.uri("classifier.tar.zst")
                yield Target(server, uri, folder, trusting(server, folder), environment, ("s3cret-password",))


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    with open_target(request.param, tmp_path) as opened:
        yield opened


def on(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("target", kinds, indirect=True)


EVERY_KIND = ("s3", "az", "gs", "hf", "oci", "oci-token", "https")


@on(*EVERY_KIND)
async def test_what_is_pushed_is_fetched(target: Target, tmp_path: Path) -> None:
    # The stand-in for Google's store knows no multipart uploads by this API.
    files = {name: content[: 1 << 20] if isinstance(target.store, Gcs) else content for name, content in FILES.items()}
    model = write(tmp_path / "model", files)
    source = target.push(model)
    assert source.digest == tree_digest(model)
    assert await target.fetch(source) == files
    said = target.conch("digest", source.uri, *target.options)
    assert (said.returncode, said.stdout.strip()) == (0, source.digest), said.stderr


@on("s3", "az", "gs", "hf", "oci")
async def test_a_bare_file_keeps_its_name(target: Target, tmp_path: Path) -> None:
    model = write(tmp_path / "model", {"model.onnx": b"weights"}) / "model.onnx"
    source = target.push(model)
    assert source.digest == tree_digest(model)
    assert await target.fetch(source) == {"model.onnx": b"weights"}
    if not source.uri.startswith("oci://"):
        exact = target.push(model, uri=f"{target.uri}-2/model.onnx")
        assert exact.uri.partition("@")[0] == f"{target.uri}-2/model.onnx"
        assert await target.fetch(exact) == {"model.onnx": b"weights"}


@on("s3", "az", "gs")
async def test_a_bucket_is_overwritten_only_when_that_is_asked_for(target: Target, tmp_path: Path) -> None:
    first = write(tmp_path / "first", {"a": b"1", "deep/b": b"2"})
    second = write(tmp_path / "second", {"a": b"3", "c": b"4"})
    target.store.put("team/classifier-2/kept", b"neighbour")
    old = target.push(first)
    said = target.refused(second)
    assert "team/classifier/a, team/classifier/deep/b" in said
    assert "--overwrite" in said
    assert await target.fetch(old) == {"a": b"1", "deep/b": b"2"}
    assert await target.fetch(target.push(second, "--overwrite")) == {"a": b"3", "c": b"4"}
    bare = write(tmp_path / "bare", {"classifier": b"5"}) / "classifier"
    assert await target.fetch(target.push(bare, "--overwrite")) == {"classifier": b"5"}
    assert "--overwrite" in target.refused(first)
    assert await target.fetch(target.push(first, "--overwrite")) == {"a": b"1", "deep/b": b"2"}
    digest = tree_digest(write(tmp_path / "neighbour", {"kept": b"neighbour"}))
    kept = old.model_copy(update={"uri": target.store.uri("team/classifier-2"), "digest": digest})
    assert await target.fetch(kept) == {"kept": b"neighbour"}


@on("hf")
async def test_a_commit_has_exactly_what_was_pushed(target: Target, tmp_path: Path) -> None:
    first = write(tmp_path / "first", {"a.onnx": b"1", "deep/b": b"2"})
    second = write(tmp_path / "second", {"a.onnx": b"3", "c": b"4"})
    old = target.push(first)
    said = target.refused(second)
    assert "classifier/deep/b" in said
    assert "--overwrite" in said
    new = target.push(second, "--overwrite")
    assert new.uri != old.uri
    assert await target.fetch(new) == {"a.onnx": b"3", "c": b"4"}
    assert await target.fetch(old) == {"a.onnx": b"1", "deep/b": b"2"}
    assert target.push(second).digest == new.digest


@on("hf")
async def test_a_whole_repository_has_a_file_of_the_hub(target: Target, tmp_path: Path) -> None:
    assert isinstance(target.store, HuggingFace)
    target.store.commit("acme/models", {".gitattributes": b"*.onnx filter=lfs\n"})
    model = write(tmp_path / "model", {"model.onnx": b"1"})
    source = target.push(model, uri="hf://acme/models")
    assert source.digest != tree_digest(model)
    assert await target.fetch(source) == {"model.onnx": b"1", ".gitattributes": b"*.onnx filter=lfs\n"}


@on("hf")
async def test_a_repository_is_made_when_that_is_asked_for(target: Target, tmp_path: Path) -> None:
    assert isinstance(target.store, HuggingFace)
    model = write(tmp_path / "model", {"model.onnx": b"1"})
    assert "--create" in target.refused(model, uri="hf://acme/new")
    assert await target.fetch(target.push(model, "--create", uri="hf://acme/new")) == {"model.onnx": b"1"}
    assert target.store.repositories["acme/new"].private


@on("oci-token")
async def test_a_tag_moves_and_manifests_stay(target: Target, tmp_path: Path) -> None:
    first = write(tmp_path / "first", {"a": b"1", "same": b"s"})
    second = write(tmp_path / "second", {"a": b"3", "same": b"s"})
    old, again, new = target.push(first), target.push(first), target.push(second)
    assert old.uri == again.uri != new.uri
    assert old.uri.startswith(f"{target.uri}@sha256:")
    assert await target.fetch(old) == {"a": b"1", "same": b"s"}
    tagged = ModelSource(uri=target.uri, digest=new.digest)
    assert await target.fetch(tagged) == {"a": b"3", "same": b"s"}
    assert "name a tag" in target.refused(first, uri=old.uri)


@on("https")
async def test_a_folder_is_packed_as_the_uri_says(target: Target, tmp_path: Path) -> None:
    assert isinstance(target.store, Uploads)
    model = write(tmp_path / "model", FILES)
    for suffix in (".tar", ".tar.gz", ".tgz"):
        source = target.push(model, uri=target.store.uri(f"m{suffix}"))
        assert await target.fetch(source) == FILES
    assert "--overwrite" in target.refused(model, uri=target.store.uri("m.tar"))
    target.push(model, "--overwrite", uri=target.store.uri("m.tar"))
    assert ".tar.gz" in target.refused(model, uri=target.store.uri("model"))
    bare = write(tmp_path / "bare", {"model.onnx": b"1"}) / "model.onnx"
    assert "/model.onnx" in target.refused(bare, uri=target.store.uri("other.onnx"))
    signed = target.push(bare, uri=target.store.uri("model.onnx?signature=s3cret-password"))
    assert signed.uri == target.store.uri("model.onnx")
    assert await target.fetch(signed) == {"model.onnx": b"1"}


def test_google_is_not_asked_without_credentials(tmp_path: Path) -> None:
    model = write(tmp_path / "model", {"model.onnx": b"1"})
    with open_target("gs", tmp_path) as target:
        target.environment.clear()
        assert "GOOGLE_APPLICATION_CREDENTIALS" in target.refused(model)


WRONG: dict[str, dict[str, Any]] = {
    "s3": {"AWS_SECRET_ACCESS_KEY": "wrong-s3cret"},
    "az": {"AZURE_STORAGE_ACCOUNT_KEY": "d3JvbmctczNjcmV0"},
    "hf": {"HF_TOKEN": "hf_wrong-s3cret"},
    "oci": {"DOCKER_CONFIG": "/nowhere"},
    "oci-token": {"DOCKER_CONFIG": "/nowhere"},
    "https": {"NETRC": "", "CONCH_TOKEN": "wrong-s3cret"},
}
ADVICE = {"s3": "AWS_ACCESS_KEY_ID", "az": "AZURE_STORAGE_ACCOUNT_KEY", "hf": "HF_TOKEN", "https": "CONCH_TOKEN"}


@pytest.mark.parametrize("kind", WRONG)
def test_who_is_not_let_in_is_told_which_credentials_are_read(kind: str, tmp_path: Path) -> None:
    model = write(tmp_path / "model", {"model.onnx": b"1"})
    with open_target(kind, tmp_path) as target:
        for ran in (
            target.refused(model, **WRONG[kind]),
            target.conch("digest", target.uri, *target.options, **WRONG[kind]).stderr,
        ):
            assert ADVICE.get(kind, "docker login") in ran
            assert not any(value in ran for name, value in WRONG[kind].items() if value and name != "DOCKER_CONFIG")


@on("s3", "oci", "https", "hf")
def test_a_server_that_is_not_trusted(target: Target, tmp_path: Path) -> None:
    model = write(tmp_path / "model", {"model.onnx": b"1"})
    target.options = target.options[: target.options.index("--ca-certificate")]
    assert "--ca-certificate" in target.refused(model)
