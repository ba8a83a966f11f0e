"""From a source to a verified tree: what it holds, what is refused before and after, and what is kept for later."""

import asyncio
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from conch.api.model import ModelSource, SecretReference
from conch.api.reasons import Reason
from conch.api.source_policy import SourcePolicy
from conch.store.digest import tree_digest
from conch.store.errors import StoreError
from conch.store.fetch import LISTINGS_MOST, Fetched, Request, fetch
from conch.store.remote import ChangedError, Chunk, Listing, RemoteFile, Surroundings, TransientError
from conch.store.transfer import Progress
from tests.support.archives import tar_gz, tar_zst, zipped
from tests.support.http_site import Names, giving_parts, redirecting, serving

fetch_module = import_module("conch.store.fetch")  # its package has the function under this name

ALL = SourcePolicy(http_hosts=("*",), private_hosts=("*",))
URI = "https://store.example/model?X-Signature=hidden"
WEIGHTS = {"1/model.onnx": b"weights", "config.pbtxt": b"name"}


@dataclass
class Store:
    """A store in memory; what is read is what `content` holds at the time of reading."""

    content: dict[str, bytes]
    folder: bool = True
    unpack: tuple[str, ...] = ()
    resolved: str = "v1"
    listings: int = 0
    reads: int = 0
    closed: int = 0
    before_listing: Callable[[], None] = lambda: None
    before_read: Callable[[], None] = lambda: None
    surroundings: list[Surroundings] = field(default_factory=list)

    async def list(self) -> Listing:
        self.listings += 1
        self.before_listing()
        files = tuple(
            RemoteFile(path=path, key=path, size=len(content), version=self.resolved, unpack=path in self.unpack)
            for path, content in self.content.items()
        )
        return Listing(files=files, resolved=self.resolved, folder=self.folder)

    def read(self, file: RemoteFile, start: int, end: int | None) -> Iterator[Chunk]:
        self.reads += 1
        self.before_read()
        yield self.content[file.key][start:end]

    async def close(self) -> None:
        self.closed += 1


@dataclass
class Place:
    """Where it is fetched to."""

    root: Path
    count: int = 0

    @property
    def partial(self) -> Path:
        return self.root / "partial" / "key"

    def request(self, uri: str = URI, **kw: Any) -> Request:
        secret = kw.pop("secret", None)
        source = ModelSource(
            uri=uri,
            digest=kw.pop("digest", None),
            credentials_secret_ref=SecretReference(name=secret) if secret else None,
            endpoint=kw.pop("endpoint", None),
        )
        defaults: dict[str, Any] = {
            "policy": ALL,
            "claim_mount": self.root / "claim",
            "credentials_folder": self.root / "credentials",
            "limit_bytes": 1 << 30,
            "progress": Progress(),
        }
        return Request(source=source, **{**defaults, **kw})

    async def bring(self, request: Request, resolver: Names | None = None) -> tuple[Fetched | None, Path]:
        self.count += 1
        folder = self.root / f"scratch{self.count}"
        folder.mkdir()
        fetched = await fetch(request, self.partial, folder, resolver=resolver)
        tree = folder / "tree"
        if fetched is not None:
            assert {each.name for each in folder.iterdir()} == {"tree"}
            if not fetched.fingerprint:
                assert fetched.digest == tree_digest(tree)
        return fetched, tree

    async def files(self, request: Request) -> dict[str, bytes]:
        _, tree = await self.bring(request)
        return {each.relative_to(tree).as_posix(): each.read_bytes() for each in tree.rglob("*") if each.is_file()}

    async def failure(self, request: Request, resolver: Names | None = None) -> StoreError:
        with pytest.raises(StoreError) as caught:
            await self.bring(request, resolver)
        assert "hidden" not in caught.value.message
        return caught.value


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda _low, _high: 0.0)


def stored(monkeypatch: pytest.MonkeyPatch, store: Store) -> Store:
    def opened(_place: object, surroundings: Surroundings) -> Store:
        store.surroundings.append(surroundings)
        return store

    monkeypatch.setattr(fetch_module, "open_remote", opened)
    return store


async def test_a_folder(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive in it is one of its files."""
    content = {**WEIGHTS, "more.zip": zipped({"a": b"a"})}
    store = stored(monkeypatch, Store(content))
    request = place.request()
    fetched, tree = await place.bring(request)
    assert {each.relative_to(tree).as_posix() for each in tree.rglob("*") if each.is_file()} == set(content)
    assert fetched is not None
    assert (fetched.resolved, fetched.bytes, fetched.fingerprint) == ("v1", sum(map(len, content.values())), "")
    assert (request.progress.bytes, request.progress.files) == (fetched.bytes, 3)
    assert store.closed == 1
    assert not place.partial.exists()


async def test_a_folder_of_one_archive(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"m.zip": zipped(WEIGHTS)}
    stored(monkeypatch, Store(content))
    assert await place.files(place.request()) == content


@pytest.mark.parametrize("pack", [tar_gz, tar_zst, zipped])
async def test_an_archive(place: Place, monkeypatch: pytest.MonkeyPatch, pack: Callable[..., bytes]) -> None:
    stored(monkeypatch, Store({"m.zip" if pack is zipped else "m": pack(WEIGHTS)}, folder=False))
    assert await place.files(place.request()) == WEIGHTS
    assert not place.partial.exists()


async def test_a_bare_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(monkeypatch, Store({"model.pt": zipped(WEIGHTS)}, folder=False))
    assert set(await place.files(place.request())) == {"model.pt"}


async def test_layers_that_are_unpacked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(
        {"config.pbtxt": b"name", "l1": tar_gz({"1/a": b"a"}), "l2": tar_gz({"1/b": b"b"})}, unpack=("l1", "l2")
    )
    stored(monkeypatch, store)
    assert await place.files(place.request()) == {"config.pbtxt": b"name", "1/a": b"a", "1/b": b"b"}
    store.content["l2"] = tar_gz({"config.pbtxt": b"another"})
    store.resolved = "v2"
    assert (await place.failure(place.request())).reason is Reason.INVALID_MODEL


@pytest.mark.parametrize(
    "content", [{"m": tar_gz({"../a": b"a"})}, {"m.zip": b"no zip"}, {"m": tar_gz({"a": b""})[:-9]}]
)
async def test_archives_that_are_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch, content: dict[str, bytes]
) -> None:
    stored(monkeypatch, Store(content, folder=False))
    assert (await place.failure(place.request())).reason is Reason.INVALID_MODEL


async def test_the_limit_is_for_archive_and_content_together(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tar_gz({"a": bytes(100_000)})
    stored(monkeypatch, Store({"m": packed}, folder=False))
    assert (await place.failure(place.request(limit_bytes=100_000))).reason is Reason.SOURCE_TOO_LARGE
    await place.bring(place.request(limit_bytes=len(packed) + 120_000))


async def test_what_is_known_is_not_fetched_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored(monkeypatch, Store(dict(WEIGHTS)))
    assert await place.bring(place.request(known="v1")) == (None, place.root / "scratch1" / "tree")
    assert store.reads == 0
    assert (await place.bring(place.request(known="v0")))[0] is not None
    store.resolved = ""
    assert (await place.bring(place.request(known="")))[0] is not None


async def test_a_store_that_changes_is_listed_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conch.store.transfer.WORKERS", 1)
    store = stored(monkeypatch, Store({"a": b"1", "gone": b"2"}))

    def change() -> None:
        if store.resolved == "v1":
            store.resolved, store.content = "v2", {"a": b"now"}
            raise ChangedError("a was changed")

    store.before_read = change
    request = place.request()
    fetched, tree = await place.bring(request)
    assert fetched is not None
    assert (fetched.resolved, sorted(os.listdir(tree))) == ("v2", ["a"])  # noqa: PTH208 - names
    assert (request.progress.bytes, request.progress.files, store.listings) == (3, 1, 2)


async def test_a_store_that_never_stays_the_same(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored(monkeypatch, Store(dict(WEIGHTS)))

    def change() -> None:
        raise ChangedError("it was changed")

    store.before_read = change
    assert (await place.failure(place.request())).reason is Reason.SOURCE_CHANGED
    assert (store.listings, store.closed) == (LISTINGS_MOST, 1)


async def test_a_listing_that_fails_for_a_moment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored(monkeypatch, Store(dict(WEIGHTS)))

    def failing() -> None:
        if store.listings < 3:
            raise TransientError("the server answered 503")

    store.before_listing = failing
    assert await place.files(place.request()) == WEIGHTS
    store.listings = -100
    error = await place.failure(place.request())
    assert (error.reason, "answered 503" in error.message) == (Reason.SOURCE_UNREACHABLE, True)
    assert store.listings == -97


async def test_what_arrived_is_kept_when_it_fails(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conch.store.transfer.WORKERS", 1)
    store = stored(monkeypatch, Store({f"{number}": b"x" * number for number in range(40)}))

    def failing() -> None:
        if store.reads > 20:
            raise StoreError(Reason.SOURCE_UNREACHABLE, "gone")

    store.before_read = failing
    await place.failure(place.request())
    assert place.partial.exists()
    read, store.reads, store.before_read = store.reads, 0, lambda: None
    assert read > 20
    assert await place.files(place.request()) == store.content
    assert store.reads == len(store.content) - 20
    assert not place.partial.exists()


async def test_nothing_of_another_listing_gets_into_the_tree(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store may show more files first; the digest does not cover them, so they must not be there."""
    store = stored(monkeypatch, Store({"a.onnx": b"good", "evil.py": b"evil", "z": b"z"}))
    monkeypatch.setattr("conch.store.transfer.WORKERS", 1)

    def failing() -> None:
        if store.reads == 3:
            raise StoreError(Reason.SOURCE_UNREACHABLE, "gone")

    store.before_read = failing
    await place.failure(place.request())
    store.content = {"a.onnx": b"good"}
    assert await place.files(place.request()) == {"a.onnx": b"good"}


# What is refused before any connection.


@pytest.mark.parametrize(
    ("policy", "uri"),
    [
        (SourcePolicy(schemes=("s3",)), "https://store.example/m"),
        (SourcePolicy(allowed_hosts=("other.example",)), "https://store.example/m"),
        (SourcePolicy(), "http://store.example/m"),
        (SourcePolicy(schemes=("https",)), "pvc://claim/m"),
    ],
)
async def test_the_policy(place: Place, policy: SourcePolicy, uri: str) -> None:
    names = Names({})
    error = await place.failure(place.request(uri, policy=policy), names)
    assert error.reason is Reason.SOURCE_NOT_ALLOWED
    assert names.asked == []


async def test_a_secret_that_is_not_there(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored(monkeypatch, Store(dict(WEIGHTS)))
    error = await place.failure(place.request(secret="my-secret"))
    assert (error.reason, "my-secret" in error.message) == (Reason.SOURCE_ACCESS_DENIED, True)
    assert "not there" in error.message
    assert store.listings == 0
    (place.root / "credentials").mkdir()
    (place.root / "credentials" / "token").write_text("t")
    await place.bring(place.request(secret="my-secret"))
    assert dict(store.surroundings[-1].credentials) == {"token": "t"}


# With real connections.


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
async def test_the_proxys_words_are_better_than_its_clients(place: Place, scheme: str) -> None:
    uri = {"s3": "s3://bucket/m", "gs": "gs://bucket/m", "az": "az://account/bucket/m"}[scheme]
    names = Names({"rebound.example": [["10.0.0.1"]]})
    request = place.request(uri, endpoint="https://rebound.example", policy=SourcePolicy())
    error = await place.failure(request, names)
    assert (error.reason, "privateHosts" in error.message) == (Reason.SOURCE_NOT_ALLOWED, True)
    request = place.request(uri, endpoint="https://nowhere.example", policy=SourcePolicy())
    error = await place.failure(request, names)
    assert (error.reason, "nowhere.example:443" in error.message) == (Reason.SOURCE_UNREACHABLE, True)
    assert "no such name" in error.message


async def test_a_redirect_of_a_bucket_is_checked(place: Place) -> None:
    async with serving() as site:
        location = f"http://evil.example:{site.port}/latest/meta-data/"
        names = Names({"evil.example": [["127.0.0.1"]], "store.example": [["127.0.0.1"]]})
        policy = SourcePolicy(http_hosts=("*",), private_hosts=("store.example",))
        site.handler = redirecting(location, 307)
        request = place.request("s3://bucket/m", endpoint=f"http://store.example:{site.port}", policy=policy)
        error = await place.failure(request, names)
        assert (error.reason, "evil.example" in error.message) == (Reason.SOURCE_NOT_ALLOWED, True)
        assert len(site.requests) <= 2, "the object and the listing"


async def test_cancellation_does_not_wait_for_a_chunk_that_trickles_in(place: Place) -> None:
    """The client gives a chunk when it is large enough, which at a byte a second is in days."""
    begun = asyncio.Event()
    listing = (
        "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>m/a</Key><ETag>&quot;e&quot;</ETag>"
        "<LastModified>2024-01-01T00:00:00.000Z</LastModified><Size>4000000</Size></Contents></ListBucketResult>"
    )

    async def handler(request: web.Request) -> web.StreamResponse:
        if "list-type" in request.query:
            return web.Response(text=listing)
        headers = {"Content-Length": "4000000", "ETag": '"e"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
        headers["Content-Range"] = "bytes 0-3999999/4000000"
        response = web.StreamResponse(status=206, headers=headers)
        await response.prepare(request)
        while True:
            await response.write(b"x")
            begun.set()
            await asyncio.sleep(0.1)

    async with serving() as site:
        site.handler = handler
        request = place.request("s3://bucket/m", endpoint=f"http://127.0.0.1:{site.port}")
        task = asyncio.ensure_future(place.bring(request))
        async with asyncio.timeout(10):
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_over_https_or_http(place: Place) -> None:
    async with serving() as site:
        site.handler = giving_parts(b"weights" * 1000)
        assert await place.files(place.request(site.url("/m.onnx?s=hidden"))) == {"m.onnx": b"weights" * 1000}


# Claims.


def on_claim(place: Place, name: str, content: bytes) -> Path:
    path = place.root / "claim" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


async def test_a_claim_is_used_where_it_is(place: Place) -> None:
    file = on_claim(place, "m/1/model.onnx", b"weights")
    fetched, tree = await place.bring(place.request("pvc://claim/m"))
    assert fetched is not None
    assert (tree / "1" / "model.onnx").readlink() == file
    assert (fetched.bytes, bool(fetched.fingerprint), fetched.digest) == (7, True, tree_digest(place.root / "claim/m"))


@pytest.mark.parametrize("name", ["m.zip", "m.tar.gz"])
async def test_an_archive_on_a_claim_is_unpacked(place: Place, name: str) -> None:
    file = on_claim(place, name, zipped(WEIGHTS) if name == "m.zip" else tar_gz(WEIGHTS))
    fetched, tree = await place.bring(place.request(f"pvc://claim/{name}"))
    assert (tree / "1" / "model.onnx").read_bytes() == b"weights"
    assert not (tree / "1" / "model.onnx").is_symlink()
    assert fetched is not None
    assert fetched.fingerprint == ""
    assert zipfile.is_zipfile(file) or name == "m.tar.gz"


async def test_a_folder_on_a_claim_that_holds_an_archive_of_its_own_name(place: Place) -> None:
    on_claim(place, "m.zip/m.zip", zipped(WEIGHTS))
    _, tree = await place.bring(place.request("pvc://claim/m.zip"))
    assert (tree / "m.zip").is_symlink()
