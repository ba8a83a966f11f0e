"""Artefacts in OCI registries: what the manifest's digest vouches for, under the names that it gives, with a token."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from conch.api.reasons import Reason
from conch.api.source import OciSource, parse_source_uri
from conch.api.source_policy import SourcePolicy
from conch.store.credentials import Credentials
from conch.store.errors import StoreError
from conch.store.remote import Listing, Surroundings, TransientError
from conch.store.sources import oci
from conch.store.sources.oci import OciRemote
from tests.support.http_site import Handler, Names, Site, giving_parts, read, redirecting, serving_tls

LOCAL = SourcePolicy(schemes=("oci",), private_hosts=("*",))
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
TITLE = "org.opencontainers.image.title"
WEIGHTS = b"w" * 5000


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layer(content: bytes, media_type: str = "application/octet-stream", **annotations: str) -> dict[str, Any]:
    named = {name.replace("_", "."): value for name, value in annotations.items()}
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), "annotations": named}


def titled(content: bytes, title: str, **more: str) -> dict[str, Any]:
    return layer(content, **{TITLE: title, **more})


@dataclass
class Registry:
    """As much of a registry as is asked: manifests by tag and digest, blobs, and tokens that it can forget."""

    site: Site
    manifests: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    auth: str = ""
    """`bearer` or `basic`."""
    login: str = "ann:pass"
    valid_tokens: set[str] = field(default_factory=set)
    tokens_given: int = 0
    token_answer: Any = None
    realm: str = ""
    manifest_headers: dict[str, str] = field(default_factory=dict)
    blob_handler: Handler | None = None
    storage: Handler | None = None
    """Answers on the same server, but by another name and without the registry's authorization."""

    def push(self, *layers: dict[str, Any], tag: str = "v1") -> str:
        return self.push_document({"schemaVersion": 2, "mediaType": MANIFEST, "layers": list(layers)}, tag)

    def push_document(self, document: Any, tag: str = "v1") -> str:
        content = json.dumps(document).encode()
        self.manifests[tag] = self.manifests[digest_of(content)] = content
        return digest_of(content)

    def push_blob(self, content: bytes) -> bytes:
        self.blobs[digest_of(content)] = content
        return content

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return self.token(request)
        if request.path == "/storage" and self.storage is not None:
            return await self.storage(request)
        if refusal := self.refused(request):
            return refusal
        kind, _, reference = request.path.removeprefix("/v2/team/model/").partition("/")
        if kind == "manifests" and reference in self.manifests:
            assert INDEX in request.headers["Accept"]
            content = self.manifests[reference]
            headers = {"Content-Type": MANIFEST, "Docker-Content-Digest": digest_of(content), **self.manifest_headers}
            return web.Response(body=content, headers=headers)
        if kind == "blobs" and reference in self.blobs:
            return await (self.blob_handler or giving_parts(self.blobs[reference]))(request)
        return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN"}]}, status=404)

    def refused(self, request: web.Request) -> web.Response | None:
        sent = request.headers.get("Authorization", "")
        if self.auth == "bearer" and sent.removeprefix("Bearer ") not in self.valid_tokens:
            realm = self.realm or self.site.url("/token?client=a")
            challenge = f'Bearer realm="{realm}",service="a registry",scope="repository:team/model:pull"'
        elif self.auth == "basic" and sent != basic(self.login):
            challenge = 'Basic realm="registry, of sorts"'
        else:
            return None
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    def token(self, request: web.Request) -> web.Response:
        assert request.query["service"] == "a registry"
        assert request.query["scope"] == "repository:team/model:pull"
        assert request.query["client"] == "a"
        if self.login and request.headers.get("Authorization") != basic(self.login):
            return web.Response(status=401)
        self.tokens_given += 1
        token = f"token-{self.tokens_given}"
        self.valid_tokens.add(token)
        return web.json_response({"token": token} if self.token_answer is None else self.token_answer)


def basic(login: str) -> str:
    return f"Basic {base64.b64encode(login.encode()).decode()}"


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async with serving_tls(tmp_path, hosts=("127.0.0.1", "registry.example")) as site:
        made = Registry(site)
        site.handler = made.handle
        yield made


def remote_of(registry: Registry, reference: str = ":v1", pinned: str = "", **entries: str) -> OciRemote:
    host = f"registry.example:{registry.site.port}"
    source = parse_source_uri(f"oci://{host}/team/model{reference}")
    assert isinstance(source, OciSource)
    credentials = {name.replace("_", "."): value for name, value in entries.items()}
    surroundings = Surroundings(
        shown="oci://registry/team/model",
        policy=LOCAL,
        credentials=Credentials({"ca.crt": registry.site.authority, **credentials}),
        pinned=pinned,
        resolver=Names({"registry.example": [["127.0.0.1"]]}),
    )
    return OciRemote(source, surroundings)


async def listed(registry: Registry, reference: str = ":v1", **kw: str) -> Listing:
    remote = remote_of(registry, reference, **kw)
    try:
        return await remote.list()
    finally:
        await remote.close()


async def fetched(registry: Registry, reference: str = ":v1", **kw: str) -> dict[str, bytes]:
    remote = remote_of(registry, reference, **kw)
    try:
        return {file.path: await read(remote, file) for file in (await remote.list()).files}
    finally:
        await remote.close()


async def failure(registry: Registry, reference: str = ":v1", **kw: str) -> StoreError:
    with pytest.raises(StoreError) as caught:
        await fetched(registry, reference, **kw)
    assert caught.value.message.startswith("oci://registry/team/model: ")
    assert "s3cret" not in caught.value.message
    return caught.value


async def test_files_under_the_names_of_their_layers(registry: Registry) -> None:
    weights, config = registry.push_blob(WEIGHTS), registry.push_blob(b"config")
    digest = registry.push(
        titled(weights, "1/model.onnx"),
        layer(config, "application/vnd.cncf.model.weight.config.v1.raw", org_cncf_model_filepath="config.pbtxt"),
    )
    listing = await listed(registry)
    assert (listing.resolved, listing.folder) == (digest, True)
    file = listing.files[0]
    assert (file.path, file.size, file.unpack) == ("1/model.onnx", 5000, False)
    assert file.key == file.version == digest_of(weights) == f"sha256:{file.sha256}"
    assert await fetched(registry) == {"1/model.onnx": weights, "config.pbtxt": b"config"}


@pytest.mark.parametrize(
    ("one", "unpack"),
    [
        (titled(WEIGHTS, "model", **{"io.deis.oras.content.unpack": "true"}), True),
        (layer(WEIGHTS, "application/vnd.cncf.model.weight.v1.tar"), True),
        (layer(WEIGHTS, "application/vnd.cncf.model.weight.v1.tar+gzip", org_cncf_model_filepath="model"), True),
        (layer(WEIGHTS, "application/vnd.cncf.model.weight.config.v1.tar+zstd"), True),
        (layer(WEIGHTS, "application/vnd.cncf.model.weight.v1.raw", org_cncf_model_filepath="model"), False),
        (titled(WEIGHTS, "model", **{"io.deis.oras.content.unpack": "false"}), False),
    ],
)
async def test_layers_that_are_folders(registry: Registry, one: dict[str, Any], unpack: bool) -> None:
    registry.push(one)
    listing = await listed(registry)
    (file,) = listing.files
    assert (file.unpack, listing.folder) == (unpack, True)
    assert file.path == (digest_of(WEIGHTS).removeprefix("sha256:") if unpack else "model")


@pytest.mark.parametrize("name", ["m.tar", "m.tar.gz", "M.TGZ", "m.tar.zst", "m.zip"])
async def test_one_archive_stands_for_its_content(registry: Registry, name: str) -> None:
    registry.push(titled(WEIGHTS, name))
    assert not (await listed(registry)).folder
    registry.push(titled(WEIGHTS, name), titled(WEIGHTS, "other"))
    assert (await listed(registry)).folder
    registry.push(titled(WEIGHTS, name, **{"io.deis.oras.content.unpack": "true"}))
    assert (await listed(registry)).folder


async def test_a_part_of_a_blob(registry: Registry) -> None:
    content = registry.push_blob(bytes(range(256)) * 10)
    registry.push(titled(content, "model.onnx"))
    remote = remote_of(registry)
    try:
        (file,) = (await remote.list()).files
        assert await read(remote, file, 1000, 1500) == content[1000:1500]
    finally:
        await remote.close()


async def test_digests_and_pins(registry: Registry) -> None:
    first = registry.push(titled(b"1", "one"))
    second = registry.push(titled(b"2", "two"))
    assert (await listed(registry)).resolved == second
    assert (await listed(registry, f"@{first}")).resolved == first
    assert (await listed(registry, pinned=first)).resolved == first
    assert (await listed(registry, pinned="not a digest")).resolved == second


async def test_a_manifest_that_is_another(registry: Registry) -> None:
    digest = registry.push(titled(b"1", "one"))
    registry.manifests[digest] = registry.manifests["v1"] + b" "
    error = await failure(registry, f"@{digest}")
    assert (error.reason, digest in error.message) == (Reason.DIGEST_MISMATCH, True)
    registry.manifest_headers = {"Docker-Content-Digest": digest_of(b"other")}
    assert (await failure(registry)).reason is Reason.DIGEST_MISMATCH
    registry.manifest_headers = {"Docker-Content-Digest": "sha512:" + "0" * 128}
    assert (await listed(registry)).resolved == digest


async def test_an_index_of_one_manifest(registry: Registry) -> None:
    digest = registry.push(titled(b"1", "one"))
    entry = {"mediaType": MANIFEST, "digest": digest, "size": 1}
    registry.push_document({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
    assert (await listed(registry)).resolved == digest
    registry.push_document({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry, entry]})
    error = await failure(registry)
    assert (error.reason, "index of 2 artefacts" in error.message) == (Reason.INVALID_MODEL, True)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "not one of an OCI artefact"),
        ({"layers": [{"size": 3}]}, "not one of an OCI artefact"),
        ({"layers": [{"digest": "sha256:" + "0" * 64, "size": -1}]}, "not one of an OCI artefact"),
        ({}, "no layers"),
        ({"layers": []}, "no layers"),
        ({"layers": [{**titled(b"1", "one"), "digest": "sha512:" + "0" * 128}]}, "another digest than sha256"),
        ({"layers": [{**titled(b"1", "one"), "digest": "sha256:../../x"}]}, "another digest than sha256"),
        ({"manifests": [{"digest": "md5:0", "size": 1}]}, "another digest than sha256"),
        ({"layers": [layer(b"1", "application/vnd.oci.image.layer.v1.tar+gzip")]}, "no file name"),
        ({"layers": [{**layer(b"1"), "annotations": None}]}, "no file name"),
    ],
)
async def test_manifests_that_are_no_models(registry: Registry, document: Any, words: str) -> None:
    registry.push_document(document)
    error = await failure(registry)
    assert (error.reason, words in error.message) == (Reason.INVALID_MODEL, True)


async def test_a_manifest_without_end(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.push(titled(b"1", "one"))
    monkeypatch.setattr(oci, "MANIFEST_BYTES_MOST", 100)
    error = await failure(registry)
    assert (error.reason, "manifest is larger than 100" in error.message) == (Reason.SOURCE_TOO_LARGE, True)


async def test_nothing_there(registry: Registry) -> None:
    assert (await failure(registry)).reason is Reason.SOURCE_NOT_FOUND


def docker_config(auths: Any) -> str:
    return json.dumps({"auths": auths})


AUTH = {"auth": base64.b64encode(b"ann:pass").decode()}


@pytest.mark.parametrize("auth", ["bearer", "basic"])
@pytest.mark.parametrize(
    "auths",
    [
        {"HOST": AUTH},
        {"HOST": {"username": "ann", "password": "pass"}},
        {"https://HOST": AUTH},
        {"https://HOST/v1/": AUTH},
        {"HOST/v2/": AUTH},
        {"HOST/team": AUTH, "HOST": {"username": "other", "password": "s3cret"}},
        {"HOST/team/model": AUTH},
        {"HOST": AUTH, "HOST/te": {"username": "other", "password": "s3cret"}},
        None,
    ],
)
async def test_logins(registry: Registry, auth: str, auths: dict[str, Any] | None) -> None:
    registry.auth = auth
    registry.push(titled(registry.push_blob(WEIGHTS), "model.onnx"))
    host = f"registry.example:{registry.site.port}"
    entries = (
        {"username": "ann", "password": "pass"}
        if auths is None
        else {"_dockerconfigjson": docker_config({key.replace("HOST", host): auths[key] for key in auths})}
    )
    assert await fetched(registry, **entries) == {"model.onnx": WEIGHTS}
    assert registry.tokens_given == (1 if auth == "bearer" else 0)


@pytest.mark.parametrize("auth", ["bearer", "basic"])
@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"username": "ann", "password": "s3cret"},
        {"_dockerconfigjson": docker_config({"other.example": AUTH, "registry.example": AUTH})},
    ],
)
async def test_the_wrong_login(registry: Registry, auth: str, entries: dict[str, str]) -> None:
    registry.auth = auth
    registry.push(titled(WEIGHTS, "model.onnx"))
    error = await failure(registry, **entries)
    assert (error.reason, "credentialsSecretRef" in error.message) == (Reason.SOURCE_ACCESS_DENIED, True)
    assert len(registry.site.requests) <= 2


@pytest.mark.parametrize(
    "config",
    [
        "s3cret",
        "[]",
        "{}",
        docker_config([]),
        docker_config({"HOST": {"auth": "s3cret!"}}),
        docker_config({"HOST": {"auth": base64.b64encode(b"s3cret").decode()}}),
        docker_config({"HOST": {"auth": base64.b64encode(b"\xff:s3cret").decode()}}),
        docker_config({"HOST": {"username": "s3cret"}}),
        docker_config({"HOST": "s3cret"}),
    ],
)
async def test_a_docker_config_that_makes_no_sense(registry: Registry, config: str) -> None:
    registry.auth = "basic"
    registry.push(titled(WEIGHTS, "model.onnx"))
    config = config.replace("HOST", f"registry.example:{registry.site.port}")
    error = await failure(registry, _dockerconfigjson=config)
    assert (error.reason, ".dockerconfigjson" in error.message) == (Reason.SOURCE_ACCESS_DENIED, True)


def test_docker_hub_goes_by_several_names() -> None:
    source = parse_source_uri("oci://docker.io/team/model:v1")
    assert isinstance(source, OciSource)
    config = docker_config({"https://index.docker.io/v1/": AUTH})
    surroundings = Surroundings(shown="the model", policy=LOCAL, credentials=Credentials({".dockerconfigjson": config}))
    remote = OciRemote(source, surroundings)
    assert (remote._base, remote._login.login()) == ("https://registry-1.docker.io/v2/team/model", ("ann", "pass"))


async def test_anonymous_tokens(registry: Registry) -> None:
    registry.auth, registry.login = "bearer", ""
    registry.push(titled(registry.push_blob(WEIGHTS), "model.onnx"))
    assert await fetched(registry) == {"model.onnx": WEIGHTS}
    registry.token_answer = {"access_token": "token-2"}
    assert await fetched(registry) == {"model.onnx": WEIGHTS}


async def test_a_token_that_expires_is_renewed_once_for_all_readers(registry: Registry) -> None:
    registry.auth, registry.login = "bearer", ""
    contents = [registry.push_blob(f"blob {number}".encode()) for number in range(8)]
    registry.push(*(titled(content, f"file-{number}") for number, content in enumerate(contents)))
    remote = remote_of(registry)
    try:
        files = (await remote.list()).files
        registry.valid_tokens.clear()
        assert await asyncio.gather(*(read(remote, file) for file in files)) == contents
        assert registry.tokens_given == 2
        registry.valid_tokens.clear()
        registry.token_answer = {"token": "stale"}
        with pytest.raises(StoreError) as caught:
            await read(remote, files[0])
        assert caught.value.reason is Reason.SOURCE_ACCESS_DENIED
    finally:
        await remote.close()


@pytest.mark.parametrize(
    "answer", [{}, [], "x", {"token": "a b"}, {"token": ""}, {"token": None, "access_token": "\n"}]
)
async def test_tokens_that_are_none(registry: Registry, answer: Any) -> None:
    registry.auth, registry.login, registry.token_answer = "bearer", "", answer
    registry.push(titled(WEIGHTS, "model.onnx"))
    error = await failure(registry)
    assert (error.reason, "sent no token" in error.message) == (Reason.SOURCE_UNREACHABLE, True)


@pytest.mark.parametrize("realm", ["http://127.0.0.1:9/token", "/token", "ftp://127.0.0.1/", "https://[", ""])
async def test_a_token_is_asked_for_over_tls_only(registry: Registry, realm: str) -> None:
    registry.auth = "bearer"
    registry.realm = realm or "file:///token"
    registry.push(titled(WEIGHTS, "model.onnx"))
    error = await failure(registry, username="ann", password="pass")
    assert (error.reason, "https://" in error.message) == (Reason.SOURCE_NOT_ALLOWED, True)


async def test_blobs_on_another_host_see_no_token(registry: Registry) -> None:
    registry.auth, registry.login = "bearer", ""
    registry.push(titled(registry.push_blob(WEIGHTS), "model.onnx"))
    elsewhere: list[str | None] = []

    async def stored(request: web.Request) -> web.StreamResponse:
        elsewhere.append(request.headers.get("Authorization"))
        return await giving_parts(WEIGHTS)(request)

    async def denied(_request: web.Request) -> web.StreamResponse:
        challenge = f'Bearer realm="{registry.site.url("/token?client=a")}",service="a registry"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    registry.blob_handler = redirecting(registry.site.url("/storage?X-Signature=s3cret", host="127.0.0.1"))
    registry.storage = stored
    assert await fetched(registry) == {"model.onnx": WEIGHTS}
    assert elsewhere == [None]
    given = registry.tokens_given
    registry.storage = denied
    assert (await failure(registry)).reason is Reason.SOURCE_ACCESS_DENIED
    assert registry.tokens_given == given + 1


async def test_a_registry_that_is_busy(registry: Registry) -> None:
    async def busy(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    registry.site.handler = busy
    with pytest.raises(TransientError, match="503"):
        await listed(registry)
