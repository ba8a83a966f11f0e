"""Repositories of the Hugging Face Hub: the commit's files, their bytes from wherever they lie, and clear words."""

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from conch.api.reasons import Reason
from conch.api.source import HuggingFaceSource, parse_source_uri
from conch.api.source_policy import SourcePolicy
from conch.store import http_client
from conch.store.credentials import Credentials
from conch.store.errors import StoreError
from conch.store.remote import ChangedError, Listing, Surroundings, TransientError
from conch.store.sources import hugging_face
from conch.store.sources.hugging_face import HuggingFaceRemote
from tests.support.http_site import Names, Site, giving, giving_parts, read, serving

LOCAL = SourcePolicy(http_hosts=("*",), private_hosts=("*",))
COMMIT, OLDER = "c" * 40, "d" * 40
FILES = {
    "config.json": b"{}",
    "onnx/model.onnx": b"w" * 5000,
    "onnx/weights/a b#1.bin": b"x" * 3000,
    "onnx2/model.onnx": b"z",
    "README.md": b"",
}
LARGE = "onnx/model.onnx"


@dataclass
class Hub:
    """As much of a Hub as is asked: one repository with two commits, whose large file lies on another host."""

    site: Site
    files_at: Site
    token: str = ""
    refusal: web.Response | None = None
    gated: bool = False
    answer: Any = None
    tokens: set[str | None] = field(default_factory=set)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        sent = request.headers.get("Authorization")
        self.tokens.add(sent)
        if self.refusal is not None:
            return self.refusal
        if self.token and sent != f"Bearer {self.token}":
            headers = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            return web.json_response({"error": "secret"}, status=401, headers=headers)
        if request.path.startswith("/api/models/acme/model/revision/"):
            return self.metadata(request, request.path.rpartition("/revision/")[2])
        _, _, rest = request.path.partition("/acme/model/resolve/")
        commit, _, path = rest.partition("/")
        if self.gated:
            return web.Response(status=403, headers={"X-Error-Code": "GatedRepo"})
        if commit not in (COMMIT, OLDER) or path not in FILES:
            return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        if path == LARGE:
            return web.Response(status=302, headers={"Location": self.files_at.url("/large?X-Signature=secret")})
        return await giving_parts(FILES[path], etag='"blob"')(request)

    def metadata(self, request: web.Request, revision: str) -> web.StreamResponse:
        if self.answer is not None:
            return web.json_response(self.answer)
        commit = {"main": COMMIT, "refs/pr/1": COMMIT}.get(revision, revision)
        if commit not in (COMMIT, OLDER):
            return web.Response(status=404, headers={"X-Error-Code": "RevisionNotFound"})
        assert request.query["blobs"] == "true"
        siblings = [metadata_of(path) for path in FILES]
        return web.json_response({"id": "acme/model", "sha": commit, "siblings": siblings})


def metadata_of(path: str) -> dict[str, Any]:
    content = FILES[path]
    blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()
    made: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": blob}
    if path == LARGE:
        made["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return made


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with serving() as site, serving() as files_at:
        made = Hub(site, files_at)
        site.handler = made.handle
        files_at.handler = giving_parts(FILES[LARGE])
        yield made


def remote_of(
    hub: Hub, uri: str = "hf://acme/model", pinned: str = "", policy: SourcePolicy = LOCAL, **credentials: str
) -> HuggingFaceRemote:
    source = parse_source_uri(uri, endpoint=hub.site.url("", host="hub.example"))
    assert isinstance(source, HuggingFaceSource)
    surroundings = Surroundings(
        shown=uri,
        policy=policy,
        credentials=Credentials(credentials),
        pinned=pinned,
        resolver=Names({"hub.example": [["127.0.0.1"]]}),
    )
    return HuggingFaceRemote(source, surroundings)


async def listed(hub: Hub, uri: str = "hf://acme/model", **kw: Any) -> Listing:
    remote = remote_of(hub, uri, **kw)
    try:
        return await remote.list()
    finally:
        await remote.close()


async def fetched(hub: Hub, uri: str = "hf://acme/model", **kw: Any) -> dict[str, bytes]:
    remote = remote_of(hub, uri, **kw)
    try:
        return {file.path: await read(remote, file) for file in (await remote.list()).files}
    finally:
        await remote.close()


async def failure(hub: Hub, uri: str = "hf://acme/model", **kw: Any) -> StoreError:
    with pytest.raises(StoreError) as caught:
        await fetched(hub, uri, **kw)
    assert "secret" not in caught.value.message
    return caught.value


async def test_all_files_of_a_commit(hub: Hub) -> None:
    listing = await listed(hub)
    assert (listing.resolved, listing.folder) == (COMMIT, True)
    by_path = {file.path: file for file in listing.files}
    assert {path: file.size for path, file in by_path.items()} == {path: len(FILES[path]) for path in FILES}
    large = by_path[LARGE]
    assert large.sha256 == large.version == hashlib.sha256(FILES[LARGE]).hexdigest()
    small = by_path["config.json"]
    assert (small.sha256, small.version) == (None, metadata_of("config.json")["blobId"])
    assert await fetched(hub) == FILES


@pytest.mark.parametrize(
    ("path", "names", "folder"),
    [
        ("onnx", {"model.onnx", "weights/a b#1.bin"}, True),
        ("onnx/weights", {"a b#1.bin"}, True),
        ("onnx/model.onnx", {"model.onnx"}, False),
    ],
)
async def test_a_folder_or_file_of_it(hub: Hub, path: str, names: set[str], folder: bool) -> None:
    uri = f"hf://acme/model/{path}"
    assert (await listed(hub, uri)).folder is folder
    assert set(await fetched(hub, uri)) == names


async def test_a_part_of_a_large_file_comes_from_where_it_lies(hub: Hub) -> None:
    remote = remote_of(hub, HF_TOKEN="hf_x")
    try:
        file = next(file for file in (await remote.list()).files if file.path == LARGE)
        assert await read(remote, file, 1000, 3000) == FILES[LARGE][1000:3000]
        hub.files_at.handler = giving(b"other")
        with pytest.raises(ChangedError):
            await read(remote, file, 0, 1000)
    finally:
        await remote.close()
    assert hub.tokens == {"Bearer hf_x"}
    assert [request.headers.get("Authorization") for request in hub.files_at.requests] == [None, None]
    assert hub.files_at.requests[0].headers["Range"] == "bytes=1000-2999"


async def test_revisions_and_pins(hub: Hub) -> None:
    assert (await listed(hub, "hf://acme/model@refs/pr/1")).resolved == COMMIT
    assert (await listed(hub, "hf://acme/model", pinned=OLDER)).resolved == OLDER
    assert (await listed(hub, "hf://acme/model", pinned='"an etag"')).resolved == COMMIT
    hub.site.requests.clear()
    await fetched(hub, pinned=OLDER)
    assert all(OLDER in request.path for request in hub.site.requests)


async def test_no_token_and_no_proxy_but_the_given_ones(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert await fetched(hub) == FILES
    assert hub.tokens == {None}


async def test_many_at_once_each_with_its_own_token(hub: Hub) -> None:
    await asyncio.gather(*(listed(hub, HF_TOKEN=f"hf_{number}") for number in range(8)))
    assert hub.tokens == {f"Bearer hf_{number}" for number in range(8)}


async def test_a_private_repository(hub: Hub) -> None:
    hub.token = "hf_x"
    error = await failure(hub)
    assert (error.reason, "private" in error.message, "HF_TOKEN" in error.message) == (
        Reason.SOURCE_NOT_FOUND,
        True,
        True,
    )
    assert await fetched(hub, HF_TOKEN="hf_x") == FILES


@pytest.mark.parametrize(
    ("status", "headers", "reason", "words"),
    [
        (404, {"X-Error-Code": "RepoNotFound"}, Reason.SOURCE_NOT_FOUND, "no such repository"),
        (403, {"X-Error-Code": "GatedRepo"}, Reason.SOURCE_ACCESS_DENIED, "gated"),
        (
            401,
            {"X-Error-Message": "Invalid credentials in Authorization header"},
            Reason.SOURCE_ACCESS_DENIED,
            "credentialsSecretRef",
        ),
        (403, {"X-Error-Message": "Access to this resource is disabled."}, Reason.SOURCE_ACCESS_DENIED, "denied"),
        (404, {}, Reason.SOURCE_NOT_FOUND, "404"),
        (418, {}, Reason.SOURCE_UNREACHABLE, "418"),
        (200, {}, Reason.SOURCE_UNREACHABLE, "does not answer like a Hugging Face Hub"),
    ],
)
async def test_refusals(hub: Hub, status: int, headers: dict[str, str], reason: Reason, words: str) -> None:
    hub.refusal = web.Response(status=status, headers=headers, text="<html>secret</html>")
    error = await failure(hub)
    assert (error.reason, words in error.message) == (reason, True)
    assert error.message.startswith("hf://acme/model: ")


async def test_what_is_not_there(hub: Hub) -> None:
    error = await failure(hub, "hf://acme/model@other")
    assert (error.reason, "no revision other" in error.message) == (Reason.SOURCE_NOT_FOUND, True)
    error = await failure(hub, "hf://acme/model/onn")
    assert (error.reason, "no file or folder onn " in error.message) == (Reason.SOURCE_NOT_FOUND, True)
    error = await failure(hub, "hf://acme/mo--del")
    assert error.reason is Reason.INVALID_SPEC


async def test_files_of_a_gated_repository_whose_list_is_public(hub: Hub) -> None:
    hub.gated = True
    error = await failure(hub)
    assert (error.reason, "accept its terms" in error.message) == (Reason.SOURCE_ACCESS_DENIED, True)


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"id": "acme/model"},
        {"id": "acme/model", "sha": "main", "siblings": []},
        {"id": "acme/model", "sha": COMMIT, "siblings": [{"size": 3}]},
        {"id": "acme/model", "sha": COMMIT, "siblings": [{"rfilename": "a", "size": "3"}]},
        {"id": "acme/model", "sha": COMMIT, "siblings": [{"rfilename": "a", "size": -3}]},
        {"id": "acme/model", "sha": COMMIT, "siblings": [{"rfilename": "a", "blobId": 3}]},
        {"id": "acme/model", "sha": COMMIT, "siblings": 3},
    ],
)
async def test_answers_that_make_no_sense(hub: Hub, answer: Any) -> None:
    hub.answer = answer
    error = await failure(hub)
    assert (error.reason, "does not answer like" in error.message) == (Reason.SOURCE_UNREACHABLE, True)


async def test_a_mirror_that_tells_no_sizes(hub: Hub) -> None:
    hub.answer = {"id": "acme/model", "sha": COMMIT, "siblings": [{"rfilename": "config.json"}]}
    (file,) = (await listed(hub)).files
    assert (file.size, file.version, file.sha256) == (None, COMMIT, None)
    assert await fetched(hub) == {"config.json": FILES["config.json"]}


async def test_a_list_without_end(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugging_face, "METADATA_BYTES_MOST", 500)
    assert (await failure(hub)).reason is Reason.SOURCE_TOO_LARGE


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_another_attempt_may_cure(hub: Hub, status: int) -> None:
    hub.refusal = web.Response(status=status)
    with pytest.raises(TransientError, match=f"the server answered {status}"):
        await listed(hub)


async def test_a_hub_that_is_not_there() -> None:
    source = parse_source_uri("hf://acme/model", endpoint="http://nowhere.example")
    assert isinstance(source, HuggingFaceSource)
    remote = HuggingFaceRemote(source, Surroundings(shown="hf://acme/model", policy=LOCAL, resolver=Names({})))
    try:
        with pytest.raises(TransientError, match=r"the name nowhere\.example does not resolve"):
            await remote.list()
    finally:
        await remote.close()


async def test_the_policy_holds_for_the_hub_and_for_where_its_files_lie(hub: Hub) -> None:
    public_only = SourcePolicy(http_hosts=("*",))
    assert (await failure(hub, policy=public_only)).reason is Reason.SOURCE_NOT_ALLOWED
    elsewhere = SourcePolicy(http_hosts=("*",), allowed_hosts=("127.0.0.1",), private_hosts=("*",))
    assert (await failure(hub, policy=elsewhere)).reason is Reason.SOURCE_NOT_ALLOWED
    encrypted = SourcePolicy(private_hosts=("*",))
    assert (await failure(hub, policy=encrypted)).reason is Reason.SOURCE_NOT_ALLOWED
    hub_only = SourcePolicy(http_hosts=("*",), private_hosts=("hub.example",))
    assert (await listed(hub, policy=hub_only)).resolved == COMMIT
    assert (await failure(hub, policy=hub_only)).reason is Reason.SOURCE_NOT_ALLOWED


async def test_an_installation_for_the_hub_alone(hub: Hub) -> None:
    policy = SourcePolicy(schemes=("hf",), http_hosts=("*",), private_hosts=("*",))
    assert await fetched(hub, policy=policy) == FILES


async def test_giving_up_while_the_hub_is_silent(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "SILENCE_SECONDS", 600)
    asked, over = asyncio.Event(), asyncio.Event()

    async def silent(_request: web.Request) -> web.Response:
        asked.set()
        await over.wait()
        return web.Response()

    hub.site.handler = silent
    listing = asyncio.create_task(listed(hub))
    await asked.wait()
    listing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(listing, 60)
    over.set()


def test_the_library_is_loaded_only_when_it_is_needed() -> None:
    code = "import sys, conch.store.sources.hugging_face; sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
