"""Many parts at once, each resumed where it broke off: what lies on the disk afterwards is what was hashed."""

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conch.api.reasons import Reason
from conch.store import transfer as transfer_module
from conch.store.errors import StoreError
from conch.store.remote import ChangedError, Chunk, Listing, RemoteFile, TransientError
from conch.store.threads import never_interrupted
from conch.store.transfer import ATTEMPTS_WITHOUT_PROGRESS, Progress, Transfer, transfer

PART = 1000
SHOWN = "https://store.example/model"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer_module, "PART_BYTES", PART)
    monkeypatch.setattr(transfer_module, "SMALL_BYTES", 100)
    monkeypatch.setattr("random.uniform", lambda _low, _high: 0.0)


def content_of(size: int, seed: int = 0) -> bytes:
    return hashlib.shake_128(seed.to_bytes(4, "big")).digest(size)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def descriptors(folder: Path) -> int:
    """Open files of this folder: what other tests have left is closed at any time."""
    return sum(_target(each).startswith(f"{folder}/") for each in Path("/proc/self/fd").iterdir())


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:  # the one that lists them
        return ""


Reader = Callable[[RemoteFile, int, int | None], Iterator[Chunk]]


@dataclass
class Shop:
    """A store in memory, whose way of reading a test may change."""

    content: dict[str, bytes]
    version: str = "v1"
    sizes: bool = True
    declared: Mapping[str, str] = field(default_factory=dict)
    chunk: int = 256
    reader: Reader | None = None
    asked: list[tuple[str, int, int | None]] = field(default_factory=list)
    open: int = 0

    def listing(self, **lies: int) -> Listing:
        files = tuple(
            RemoteFile(
                path=path,
                key=path,
                size=lies.get(path, len(content)) if self.sizes else None,
                version=self.version,
                sha256=self.declared.get(path),
            )
            for path, content in self.content.items()
        )
        return Listing(files=files, resolved=self.version, folder=True)

    async def list(self) -> Listing:
        return self.listing()

    def read(self, file: RemoteFile, start: int, end: int | None) -> Iterator[Chunk]:
        self.asked.append((file.path, start, end))
        self.open += 1
        try:
            yield from (self.reader or self.given)(file, start, end)
        finally:
            self.open -= 1

    def given(self, file: RemoteFile, start: int, end: int | None) -> Iterator[Chunk]:
        content = self.content[file.key][start:end]
        for position in range(0, len(content), self.chunk):
            yield memoryview(content)[position : position + self.chunk]

    async def close(self) -> None:
        pass


def breaking(shop: Shop, after: int, times: int) -> Reader:
    """Breaks off after so many bytes of each of the first so many requests."""
    left = [times]

    def reader(file: RemoteFile, start: int, end: int | None) -> Iterator[Chunk]:
        if left[0] <= 0:
            yield from shop.given(file, start, end)
            return
        left[0] -= 1
        yield shop.content[file.key][start:end][:after]
        raise TransientError("the transfer broke off")

    return reader


def failing(error: Exception) -> Reader:
    def reader(_file: RemoteFile, _start: int, _end: int | None) -> Iterator[Chunk]:
        raise error
        yield b""

    return reader


@dataclass
class Place:
    """A folder to which is transferred."""

    folder: Path
    progress: Progress = field(default_factory=Progress)

    def bring(self, shop: Shop, listing: Listing | None = None, **kw: Any) -> Mapping[str, str]:
        self.progress = Progress()
        work = Transfer(
            shop, self.folder, shown=SHOWN, limit_bytes=kw.pop("limit_bytes", 1 << 30), progress=self.progress, **kw
        )
        try:
            return work.run(listing or shop.listing(), never_interrupted)
        finally:
            assert descriptors(self.folder) == 0
            assert shop.open == 0

    def failure(self, shop: Shop, listing: Listing | None = None, **kw: Any) -> StoreError:
        with pytest.raises(StoreError) as caught:
            self.bring(shop, listing, **kw)
        assert SHOWN in caught.value.message
        return caught.value

    @property
    def files(self) -> dict[str, bytes]:
        root = self.folder / "files"
        return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "partial")


def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer_module, "WORKERS", 1)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 5000), min_size=1, max_size=5),
    part=st.integers(101, 2000),
    workers=st.integers(1, 8),
    chunk=st.integers(1, 1500),
    after=st.integers(1, 700),
    times=st.integers(0, ATTEMPTS_WITHOUT_PROGRESS - 1),
    version=st.sampled_from(["v1", ""]),
    known=st.booleans(),
)
def test_any_order_gives_the_right_bytes_and_hash(
    sizes: list[int], part: int, workers: int, chunk: int, after: int, times: int, version: str, known: bool
) -> None:
    """Whatever the parts, chunks and breaks; part after part may be finished in any order."""
    shop = Shop(
        {f"{number}/f": content_of(size, number) for number, size in enumerate(sizes)},
        version=version,
        sizes=known,
        chunk=max(chunk, max(sizes) // 50),
    )
    shop.reader = breaking(shop, after, times)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer_module, "PART_BYTES", part)
        patch.setattr(transfer_module, "WORKERS", workers)
        place = Place(Path(folder, "partial"))
        hashes = place.bring(shop)
        assert place.files == shop.content
    assert hashes == {path: sha256(content) for path, content in shop.content.items()}
    total = sum(sizes)
    assert (place.progress.bytes, place.progress.files) == (total, len(sizes))
    assert place.progress.total_bytes == (total if known else None)


def test_parts_that_come_backwards(place: Place) -> None:
    """Every part waits until the one behind it is whole."""
    shop = Shop({"f": content_of(5 * PART)})
    done = {start: threading.Event() for start in range(0, 5 * PART, PART)}

    def backwards(file: RemoteFile, start: int, end: int | None) -> Iterator[Chunk]:
        if start + PART in done:
            assert done[start + PART].wait(10)
        yield from shop.given(file, start, end)
        done[start].set()

    shop.reader = backwards
    assert place.bring(shop) == {"f": sha256(shop.content["f"])}
    assert place.files == shop.content


def test_a_part_goes_on_where_it_broke_off(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    one_worker(monkeypatch)
    shop = Shop({"f": content_of(2 * PART)})
    shop.reader = breaking(shop, 300, 2)
    place.bring(shop)
    assert place.files == shop.content
    assert shop.asked == [("f", 0, PART), ("f", 300, PART), ("f", 600, PART), ("f", PART, 2 * PART)]
    assert place.progress.bytes == 2 * PART


@pytest.mark.parametrize(("version", "sizes"), [("", True), ("v1", False), ("", False)])
def test_without_version_or_size_it_starts_again(place: Place, version: str, sizes: bool) -> None:
    shop = Shop({"f": content_of(2 * PART)}, version=version, sizes=sizes)
    shop.reader = breaking(shop, 1500, 1)
    seen: list[int] = []

    def reader(file: RemoteFile, start: int, end: int | None) -> Iterator[Chunk]:
        for chunk in breaking_once(file, start, end):
            yield chunk
            seen.append(place.progress.bytes)

    breaking_once = shop.reader
    shop.reader = reader
    assert place.bring(shop) == {"f": sha256(shop.content["f"])}
    assert place.files == shop.content
    assert shop.asked == [("f", 0, None)] * 2
    assert max(seen) <= 2 * PART
    assert place.progress.bytes == 2 * PART


def test_a_shorter_second_attempt_leaves_nothing_of_the_first(place: Place) -> None:
    shop = Shop({"f": b"new"}, sizes=False)
    old = content_of(5000)

    def reader(file: RemoteFile, start: int, end: int | None) -> Iterator[Chunk]:
        if len(shop.asked) == 1:
            yield old
            raise TransientError("the transfer broke off")
        yield from shop.given(file, start, end)

    shop.reader = reader
    assert place.bring(shop) == {"f": sha256(b"new")}
    assert place.files == {"f": b"new"}


@pytest.mark.parametrize("size", [50, 1500])
@pytest.mark.parametrize("chunk", [1, 256, 5000])
def test_a_store_that_sends_more_than_asked(place: Place, size: int, chunk: int) -> None:
    shop = Shop({"f": content_of(size)})

    def more(_file: RemoteFile, start: int, end: int | None) -> Iterator[Chunk]:
        content = content_of(size)[start:end] + b"more"
        for position in range(0, len(content), chunk):
            yield content[position : position + chunk]

    shop.reader = more
    error = place.failure(shop)
    assert error.reason is Reason.SOURCE_UNREACHABLE
    assert "more than was asked" in error.message
    assert all(end is None or start < end for _, start, end in shop.asked)


@pytest.mark.parametrize("size", [50, 1500])
def test_a_store_that_never_ends_does_not_fill_the_memory(place: Place, size: int) -> None:
    shop, sent = Shop({"f": content_of(size)}), 0

    def endless(_file: RemoteFile, _start: int, _end: int | None) -> Iterator[Chunk]:
        nonlocal sent
        while True:
            sent += 40
            assert sent < 20_000
            yield b"x" * 40

    shop.reader = endless
    assert "more than was asked" in place.failure(shop).message


@pytest.mark.parametrize(("size", "version"), [(50, "v1"), (1500, "v1"), (1500, "")])
def test_a_store_that_always_sends_less_than_listed(place: Place, size: int, version: str) -> None:
    shop = Shop({"f": content_of(size - 7)}, version=version)
    error = place.failure(shop, shop.listing(f=size))
    assert (error.reason, f"of {size} bytes" in error.message) == (Reason.SOURCE_UNREACHABLE, True)


def test_a_changed_file_is_told_as_such(place: Place) -> None:
    shop = Shop({"f": content_of(3 * PART)})
    shop.reader = failing(ChangedError("f was changed"))
    with pytest.raises(ChangedError):
        place.bring(shop)


def test_it_gives_up_after_three_attempts_without_a_byte(place: Place) -> None:
    shop = Shop({"f": content_of(PART)})
    shop.reader = failing(TransientError("the server answered 503"))
    error = place.failure(shop)
    assert error.reason is Reason.SOURCE_UNREACHABLE
    assert "the server answered 503" in error.message
    assert len(shop.asked) == ATTEMPTS_WITHOUT_PROGRESS


def test_what_cannot_be_resumed_gives_up_too(place: Place) -> None:
    """It reads bytes at every attempt, and never comes further."""
    shop = Shop({"f": content_of(2 * PART)}, version="")
    shop.reader = breaking(shop, 1500, 1000)
    assert "broke off" in place.failure(shop).message
    assert len(shop.asked) == ATTEMPTS_WITHOUT_PROGRESS


def test_it_does_not_give_up_as_long_as_bytes_come(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    one_worker(monkeypatch)
    shop = Shop({"f": content_of(PART)})
    shop.reader = breaking(shop, 50, 1000)
    assert place.bring(shop) == {"f": sha256(shop.content["f"])}
    assert len(shop.asked) == PART // 50


def test_it_gives_up_when_nothing_came_for_long(place: Place) -> None:
    shop, now = Shop({"f": content_of(PART)}), [0.0]

    def slow(_file: RemoteFile, _start: int, _end: int | None) -> Iterator[Chunk]:
        now[0] += 5.0
        raise TransientError("the server did not answer in time")
        yield b""

    shop.reader = slow
    assert "did not answer in time" in place.failure(shop, clock=lambda: now[0]).message
    assert len(shop.asked) == 1


def test_one_failure_ends_the_others_and_is_the_one_told(place: Place) -> None:
    """The first worker is in the middle of an endless part when another one meets the reason."""
    shop = Shop({"a": content_of(PART), "b": content_of(PART)})
    begun = threading.Event()

    def reader(file: RemoteFile, _start: int, _end: int | None) -> Iterator[Chunk]:
        if file.key == "b":
            assert begun.wait(10)
            raise StoreError(Reason.SOURCE_ACCESS_DENIED, f"{SHOWN}: access is denied")
        while True:
            begun.set()
            yield b""

    shop.reader = reader
    assert place.failure(shop).reason is Reason.SOURCE_ACCESS_DENIED


async def test_cancellation_ends_the_threads(tmp_path: Path) -> None:
    shop = Shop({name: content_of(PART) for name in "abcdefgh"})
    begun = threading.Event()

    def endless(_file: RemoteFile, _start: int, _end: int | None) -> Iterator[Chunk]:
        while True:
            begun.set()
            threading.Event().wait(0.01)
            yield b""

    shop.reader = endless
    task = asyncio.ensure_future(
        transfer(shop, shop.listing(), tmp_path, shown=SHOWN, limit_bytes=1 << 20, progress=Progress())
    )
    assert await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    async with asyncio.timeout(60):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert shop.open == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("transfer")]


@pytest.mark.parametrize(("version", "sizes"), [("v1", True), ("", True), ("v1", False)])
def test_the_limit_holds_though_the_listing_lied(place: Place, version: str, sizes: bool) -> None:
    shop = Shop({name: content_of(4 * PART) for name in "abc"}, version=version, sizes=sizes)
    error = place.failure(shop, limit_bytes=5 * PART)
    assert (error.reason, "more bytes than allowed" in error.message) == (Reason.SOURCE_TOO_LARGE, True)
    # Not the holes of parts that came before those in front of them.
    on_disk = sum(len(content) - content.count(0) for content in place.files.values())
    assert on_disk <= 5 * PART + transfer_module.WORKERS * shop.chunk


async def test_a_listing_that_is_too_large_is_refused_before_any_request(tmp_path: Path) -> None:
    shop = Shop({"f": content_of(PART)})
    with pytest.raises(StoreError) as caught:
        await transfer(shop, shop.listing(), tmp_path, shown=SHOWN, limit_bytes=PART - 1, progress=Progress())
    assert caught.value.reason is Reason.SOURCE_TOO_LARGE
    assert not shop.asked


@pytest.mark.parametrize("size", [50, 3 * PART])
def test_what_the_store_declares_must_be_so(place: Place, size: int) -> None:
    content = content_of(size)
    place.bring(Shop({"f": content}, declared={"f": sha256(content)}))
    other = Shop({"f": content}, version="v2", declared={"f": sha256(b"other")})
    error = place.failure(other)
    assert (error.reason, "its store declares" in error.message) == (Reason.INVALID_MODEL, True)
    # Nor does the journal make it so.
    assert place.failure(other).reason is Reason.INVALID_MODEL


def test_files_without_content(place: Place) -> None:
    shop = Shop({"empty": b"", "folder/empty": b"", "f": b"x"})
    assert place.bring(shop)["folder/empty"] == sha256(b"")
    assert place.files == shop.content


def test_thousands_of_small_files(place: Place) -> None:
    shop = Shop({f"{number % 17}/{number}": content_of(number % 60, number) for number in range(3000)})
    assert len(place.bring(shop)) == 3000
    assert place.files == shop.content
    assert place.progress.files == 3000


# A transfer that goes on where an earlier one ended.


def interrupted(place: Place, shop: Shop, whole_parts: int) -> None:
    """A transfer that ends after so many parts."""
    left = [whole_parts]

    def reader(file: RemoteFile, start: int, end: int | None) -> Iterator[Chunk]:
        if not left[0]:
            raise StoreError(Reason.SOURCE_UNREACHABLE, f"{SHOWN}: gone")
        left[0] -= 1
        yield from shop.given(file, start, end)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer_module, "WORKERS", 1)
        shop.reader = reader
        place.failure(shop)
    shop.reader = None
    shop.asked.clear()


def test_a_restart_fetches_only_what_is_missing(place: Place) -> None:
    shop = Shop({"a": content_of(50), "b": content_of(3 * PART, 1), "c": content_of(50, 2)})
    for _ in range(2):
        interrupted(place, shop, 2)
    # First a and one part of b, then the rest of b; a third start finds c missing.
    assert place.bring(shop) == {path: sha256(content) for path, content in shop.content.items()}
    assert shop.asked == [("c", 0, 50)]
    assert place.files == shop.content
    assert (place.progress.bytes, place.progress.total_bytes, place.progress.files) == (3100, 3100, 3)
    shop.asked.clear()
    place.bring(shop)
    assert not shop.asked
    assert (place.progress.bytes, place.progress.files) == (3100, 3)


def test_all_parts_but_no_hash(place: Place) -> None:
    """It ended between the last part and the line that says so."""
    shop = Shop({"b": content_of(3 * PART, 1)})
    interrupted(place, shop, 2)
    journal = place.folder / "journal"
    journal.write_text(journal.read_text() + '["b", "v1", 3000, 2000, 3000, null]\n')
    (place.folder / "files" / "b").write_bytes(shop.content["b"])
    assert place.bring(shop) == {"b": sha256(shop.content["b"])}
    assert shop.asked == [("b", 0, PART)]
    assert place.progress.bytes == 3 * PART


def test_parts_of_another_size_are_fetched_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop({"b": content_of(4 * PART, 1)})
    interrupted(place, shop, 1)
    monkeypatch.setattr(transfer_module, "PART_BYTES", 2 * PART)
    assert place.bring(shop) == {"b": sha256(shop.content["b"])}
    assert place.files == shop.content
    assert place.progress.bytes == 4 * PART


@pytest.mark.parametrize("torn", ['["c", "v1", 30', "[", "\0\0\0"])
def test_a_torn_last_line(place: Place, torn: str) -> None:
    shop = Shop({"a": content_of(50), "b": content_of(3 * PART, 1)})
    interrupted(place, shop, 2)
    with (place.folder / "journal").open("a") as journal:
        journal.write(torn)
    interrupted(place, shop, 1)
    place.bring(shop)
    assert [asked[:2] for asked in shop.asked] == [("b", 2 * PART)]
    assert place.files == shop.content


@pytest.mark.parametrize(
    ("version", "size"), [("v2", 3 * PART), ("v2", PART // 2), ("v1", 2 * PART), ("", 3 * PART), ("v2", 10), ("", 10)]
)
def test_another_version_or_size_is_fetched_whole(place: Place, version: str, size: int) -> None:
    """What lay there before was longer, and nothing of it may remain behind what was hashed."""
    interrupted(place, Shop({"b": content_of(3 * PART, 1), "z": b"z"}), 3)
    shop = Shop({"b": content_of(size, 2), "z": b"z"}, version=version)
    assert place.bring(shop)["b"] == sha256(shop.content["b"])
    assert place.files == shop.content
    assert place.progress.bytes == size + 1


def test_a_missing_file_is_fetched_again(place: Place) -> None:
    shop = Shop({"a": content_of(50), "b": content_of(3 * PART, 1)})
    place.bring(shop)
    for path in shop.content:
        (place.folder / "files" / path).unlink()
        shop.asked.clear()
        place.bring(shop)
        assert {asked[0] for asked in shop.asked} == {path}
        assert place.files == shop.content


def test_without_a_version_nothing_is_taken_from_before(place: Place) -> None:
    shop = Shop({"a": content_of(50), "b": content_of(3 * PART, 1)}, version="")
    place.bring(shop)
    shop.content = {"a": content_of(50, 3), "b": content_of(3 * PART, 4)}
    assert place.bring(shop) == {path: sha256(content) for path, content in shop.content.items()}
    assert place.files == shop.content


def test_what_is_not_listed_any_more_is_gone(place: Place) -> None:
    """Otherwise it would be part of the tree, and no digest would cover it."""
    interrupted(place, Shop({"a": content_of(50), "config.pbtxt": b"evil", "z": b"z"}), 2)
    shop = Shop({"a": content_of(50), "z": b"z"})
    place.bring(shop)
    assert place.files == shop.content


@pytest.mark.parametrize(("before", "now"), [("a", "a/b/c"), ("a/b/c", "a"), ("a/b/c", "a/b")])
def test_files_become_folders_and_back(place: Place, before: str, now: str) -> None:
    interrupted(place, Shop({before: content_of(50), "z": b"z"}), 1)
    shop = Shop({now: content_of(150)})
    place.bring(shop)
    assert place.files == shop.content


@pytest.mark.parametrize("other_version", ["v2", ""])
def test_a_version_that_comes_back_is_not_what_lies_there(place: Place, other_version: str) -> None:
    """A store may show one version, overwrite it with half of another, and show the first one again."""
    good = Shop({"a": content_of(2 * PART), "z": b"z"})
    interrupted(place, good, 2)
    evil = Shop({"a": content_of(2 * PART, 666), "z": b"z"}, version=other_version)

    def half(file: RemoteFile, start: int, end: int | None) -> Iterator[Chunk]:
        yield evil.content[file.key][start:end][:700]
        raise ChangedError("a was changed")

    evil.reader = half
    with pytest.raises(ChangedError):
        place.bring(evil)
    assert place.bring(good)["a"] == sha256(good.content["a"])
    assert place.files == good.content
