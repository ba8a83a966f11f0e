"""The cache of fetched models: what is in it is whole, what is in use stays, and it keeps within its limit."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conch.store import Progress
from conch.store.cache import CacheError, DamagedError, FetchState, ModelCache, answered, room
from conch.store.cache.file_lock import FileLock
from conch.store.cache.room import needed_bytes
from conch.store.in_place import fingerprint
from conch.store.remote import Listing, RemoteFile
from tests.support.model_cache import KEY, content, digest_of, fill, link, listing, written

A = {"1/model.onnx": b"a" * 4000, "config.pbtxt": b"name"}
B = {"1/model.onnx": b"b" * 4000}
C = {"1/model.onnx": b"c" * 4000}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path


def cache_of(root: Path, limit_bytes: int = 1 << 20, *, boot: str = "1", grace_seconds: float = 0) -> ModelCache:
    """Another agent's hands on the same cache."""
    return ModelCache(root / "cache", limit_bytes=limit_bytes, boot=boot, grace_seconds=grace_seconds)


def entries(root: Path) -> list[str]:
    return sorted(each.name for each in (root / "cache" / "entries").iterdir())


def last_used(root: Path, digest: str, seconds_ago: float) -> None:
    then = time.time() - seconds_ago
    os.utime(root / "cache" / "locks" / digest.removeprefix("sha256:"), (then, then))


@contextmanager
def another_process(work: Callable[[], object]) -> Iterator[int]:
    """A process that has done this, keeps what it gave, and lives on; it is killed afterwards."""
    done, tell = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            keeps = work()
            os.write(tell, b"." if keeps else b"0")
            signal.pause()
        finally:
            os._exit(1)
    os.close(tell)
    try:
        assert os.read(done, 1) == b".", "the other process failed"
        yield pid
    finally:
        os.close(done)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_what_one_has_fetched_the_next_one_finds_and_uses_in_place(root: Path) -> None:
    filled = fill(cache_of(root), A, root / "one")
    assert filled is not None
    assert filled.digest == digest_of(A, root)
    hit = link(cache_of(root), filled.digest, root / "two")
    assert hit == filled
    assert content(root / "one") == content(root / "two") == A
    assert (root / "two/1/model.onnx").readlink() == root / "cache/entries" / filled.digest[7:] / "tree/1/model.onnx"
    assert fingerprint(root / "two") == hit.fingerprint
    assert link(cache_of(root), digest_of(B, root), root / "three") is None


def test_while_one_fetches_others_see_how_far_it_is(root: Path) -> None:
    first, second = cache_of(root), cache_of(root)
    first.prepare()
    assert second.state(None, KEY) is None
    filling = first.begin(None, KEY)
    assert filling is not None
    assert second.begin(None, KEY) is None
    assert first.make_room(filling, listing(A)) == 4004
    state = second.state(None, KEY)
    assert state is not None
    assert (state.bytes, state.reserved) == (0, 4004)
    filling.close(keeps_partial=False)
    assert second.state(None, KEY) is None
    following = second.begin(None, KEY)
    assert following is not None
    following.close(keeps_partial=False)


def test_what_is_reserved_stays_so_while_another_thread_shows_how_far_it_is(root: Path) -> None:
    cache = cache_of(root)
    cache.prepare()
    filling = cache.begin(None, KEY)
    assert filling is not None
    ended = threading.Event()

    def show() -> None:
        while not ended.is_set():
            filling.show(Progress(bytes=7))

    showing = threading.Thread(target=show)
    showing.start()
    try:
        for number in range(50):
            filling.reserve(number)
            state = cache.state(None, KEY)
            assert state is not None
            assert state.reserved == number
    finally:
        ended.set()
        showing.join()


def test_what_a_source_came_to_is_told_to_the_next_one_that_asks_it(root: Path) -> None:
    filled = fill(cache_of(root), A, root / "one")
    assert filled is not None
    filling = cache_of(root).begin(None, KEY)
    assert filling is not None
    assert (filling.before.digest, filling.before.resolved) == (filled.digest, "v1")


def test_what_arrived_is_gone_on_from_only_on_the_machine_that_has_it_whole(root: Path) -> None:
    for boot, is_there in (("1", True), ("1", True), ("2", False)):
        cache = cache_of(root, boot=boot)
        cache.prepare()
        filling = cache.begin(None, KEY)
        assert filling is not None
        if is_there:
            written(filling.partial, {"files/a": b"part"})
        assert (filling.partial / "files/a").exists() is is_there
        assert list(filling.folder.iterdir()) == []
        written(filling.folder, {"rest": b"x"})
        filling.close(keeps_partial=True)
    # What nobody goes on from gives way once there is need.
    written(next((root / "cache/work").glob("*/partial")), {"files/more": b"x" * 4000})
    with pytest.raises(CacheError, match="no room"):
        fill(cache_of(root, 6000, boot="2", grace_seconds=600), A, root / "one")
    assert fill(cache_of(root, 6000, boot="2"), A, root / "two") is not None
    assert [each.name for each in (root / "cache/work").iterdir()] == [f"{KEY}.lock"]


@pytest.mark.parametrize("journal", ["journal", "sentiment/partial/journal"])
def test_what_another_machine_is_at_is_left_alone(root: Path, journal: str) -> None:
    """Where locks do not reach it: of one model and of several, it shows by what arrives."""
    others = root / "cache/work" / f"{KEY}.2"
    written(others / "partial", {journal: b"", "files/more": b"x" * 4000})
    cache = cache_of(root, 6000, grace_seconds=600)
    hour_ago = time.time() - 3600
    os.utime(others, (hour_ago, hour_ago))
    with pytest.raises(CacheError, match="no room"):
        fill(cache, A, root / "one")
    os.utime(others / "partial" / journal, (hour_ago, hour_ago))
    assert fill(cache, A, root / "two") is not None


@pytest.mark.parametrize(
    "damage",
    [
        lambda tree: (tree / "1/model.onnx").write_bytes(b"x" * 4000),
        lambda tree: (tree / "1/model.onnx").unlink(),
        lambda tree: (tree / "more").touch(),
        lambda tree: (tree / "more").symlink_to("/etc/passwd"),
    ],
)
def test_what_is_not_what_its_name_says_goes_and_can_be_fetched_anew(
    root: Path, damage: Callable[[Path], object]
) -> None:
    cache = cache_of(root)
    filled = fill(cache, A, root / "one")
    assert filled is not None
    cache.leave_all_but(frozenset())
    damage(root / "cache/entries" / filled.digest[7:] / "tree")
    with pytest.raises(DamagedError, match=filled.digest):
        link(cache_of(root), filled.digest, root / "two")
    assert entries(root) == []
    assert fill(cache_of(root), A, root / "three") is not None


def test_damage_under_use_is_said_and_nothing_is_taken_away(root: Path) -> None:
    user = cache_of(root)
    filled = fill(user, A, root / "one")
    assert filled is not None
    (root / "cache/entries" / filled.digest[7:] / "tree/1/model.onnx").write_bytes(b"x")
    with pytest.raises(CacheError, match="other pods use them"):
        link(cache_of(root), filled.digest, root / "two")
    assert (root / "one/1/model.onnx").exists()


@pytest.mark.parametrize("record", [b"", b"{}", b'{"digest": "sha256:0", "bytes": 1}', b"[1]"])
def test_an_entry_without_a_record_is_none_and_is_replaced(root: Path, record: bytes) -> None:
    """A machine crashed before it was written."""
    cache = cache_of(root)
    filled = fill(cache, A, root / "one")
    assert filled is not None
    cache.leave_all_but(frozenset())
    (root / "cache/entries" / filled.digest[7:] / "record.json").write_bytes(record)
    assert link(cache_of(root), filled.digest, root / "two") is None
    assert fill(cache_of(root), A, root / "three") == filled.__class__(
        digest=filled.digest, bytes=filled.bytes, fingerprint=fingerprint(root / "three")
    )


def test_two_sources_with_the_same_files_have_one_entry(root: Path) -> None:
    assert fill(cache_of(root), A, root / "one") is not None
    other = cache_of(root)
    assert fill(other, A, root / "two", key=KEY[::-1]) is None
    assert len(entries(root)) == 1
    assert other.use(digest_of(A, root)), "it is in use, though it has yet to be verified"


def test_room_is_made_by_what_was_not_used_for_longest(root: Path) -> None:
    digests = []
    for number, files in enumerate((A, B)):
        cache = cache_of(root, 9000)
        filled = fill(cache, files, root / f"one{number}")
        assert filled is not None
        digests.append(filled.digest)
        cache.leave_all_but(frozenset())
    last_used(root, digests[0], 50)
    last_used(root, digests[1], 100)
    assert fill(cache_of(root, 9000), C, root / "two", key=KEY[::-1]) is not None
    assert entries(root) == sorted(each[7:] for each in (digests[0], digest_of(C, root)))
    # The lock of what is gone is gone with it.
    assert {each.name for each in (root / "cache/locks").iterdir()} == set(entries(root))


def test_what_another_process_uses_is_never_taken_away(root: Path) -> None:
    digest, user = digest_of(A, root), cache_of(root, 6000)
    with another_process(lambda: fill(user, A, root / "one")):
        last_used(root, digest, 100_000)
        with pytest.raises(CacheError, match="no room for 4000 bytes"):
            fill(cache_of(root, 6000), B, root / "two", key=KEY[::-1])
        assert content(root / "one") == A
    # Its lock went with it.
    assert fill(cache_of(root, 6000), B, root / "three", key=KEY[::-1]) is not None
    assert entries(root) == [digest_of(B, root)[7:]]


def test_what_another_process_is_fetching_is_counted_as_much_as_it_may_take(root: Path) -> None:
    def begin() -> object:
        cache = cache_of(root, 6000)
        cache.prepare()
        filling = cache.begin(None, KEY)
        assert filling is not None
        cache.make_room(filling, listing(A))
        return filling

    with another_process(begin), pytest.raises(CacheError, match="in use"):
        fill(cache_of(root, 6000), B, root / "two", key=KEY[::-1])
    assert fill(cache_of(root, 6000), B, root / "two", key=KEY[::-1]) is not None


def test_what_was_touched_just_now_is_somebodys(root: Path) -> None:
    """Of an agent that crashed and comes back, or where the file system keeps locks only within one machine."""
    cache = cache_of(root, 6000)
    filled = fill(cache, A, root / "one")
    assert filled is not None
    cache.leave_all_but(frozenset())
    for seconds_ago, is_kept in ((500, True), (700, False)):
        last_used(root, filled.digest, seconds_ago)
        other = cache_of(root, 6000, grace_seconds=600)
        other.prepare()
        filling = other.begin(None, KEY[::-1])
        assert filling is not None
        try:
            if is_kept:
                with pytest.raises(CacheError, match="no room"):
                    other.make_room(filling, listing(B))
            else:
                other.make_room(filling, listing(B))
        finally:
            filling.close(keeps_partial=False)
        assert bool(entries(root)) is is_kept


def test_an_agent_renews_what_it_uses_and_lets_go_of_the_rest(root: Path) -> None:
    cache = cache_of(root)
    a, b = (fill(cache, files, root / name) for name, files in (("a", A), ("b", B)))
    assert a is not None
    assert b is not None
    cache.leave_all_but(frozenset({a.digest}))
    for each in (a, b):
        last_used(root, each.digest, 1000)
    cache.renew()
    ages = {each.name: time.time() - each.stat().st_mtime for each in (root / "cache/locks").iterdir()}
    assert ages[a.digest[7:]] < 500 < ages[b.digest[7:]]


def test_what_arrived_in_vain_gives_way_before_any_model_does(root: Path) -> None:
    left = cache_of(root, 20_000)
    assert fill(left, A, root / "one") is not None
    left.leave_all_but(frozenset())
    filling = left.begin(None, KEY[::-1])
    assert filling is not None
    written(filling.partial, {"files/a": b"x" * 12_000})
    filling.close(keeps_partial=True)
    assert fill(cache_of(root, 20_000), B, root / "two", key="ab" * 16) is not None
    assert len(entries(root)) == 2
    assert not list((root / "cache/work").glob(f"{KEY[::-1]}.?????*/*"))


def test_a_model_larger_than_the_cache_takes_nothing_away(root: Path) -> None:
    assert fill(cache_of(root), A, root / "one") is not None
    with pytest.raises(CacheError, match="needs 4000 bytes, and the cache may have 3000"):
        fill(cache_of(root, 3000), B, root / "two", key=KEY[::-1])
    assert len(entries(root)) == 1


def test_strange_names_are_refused_and_strangers_are_left_alone(root: Path) -> None:
    cache = cache_of(root, 5000)
    cache.prepare()
    for digest in ("sha256:../../etc", "../x", "sha256:" + "A" * 64):
        with pytest.raises(CacheError, match="no digest"):
            link(cache, digest, root / "tree")
        with pytest.raises(CacheError, match="no digest"):
            cache.begin(digest, KEY)
    with pytest.raises(CacheError, match="no name"):
        cache.begin(None, "../../etc/passwd/0123456789abcdef0")
    (root / "cache/entries/lost+found").mkdir()
    (root / "cache" / "work" / "README").touch()
    (root / "cache/lost+found").mkdir()
    assert fill(cache, A, root / "one") is not None
    assert (root / "cache/entries/lost+found").is_dir()


def test_what_was_begun_to_be_deleted_is_deleted(root: Path) -> None:
    cache = cache_of(root)
    cache.prepare()
    written(root / "cache/trash/killed", {"a": b"x"})
    assert fill(cache, A, root / "one") is not None
    assert list((root / "cache/trash").iterdir()) == []


def test_a_lock_on_a_file_that_is_gone_is_none(root: Path) -> None:
    path = root / "lock"
    held = FileLock.take(path)
    assert held is not None
    assert FileLock.take(path, shared=True) is None
    held.remove()
    following = FileLock.take(path)
    assert following is not None
    assert path.exists()
    shared = FileLock.take(root / "other", shared=True)
    assert shared is not None
    assert FileLock.take(root / "other", shared=True) is not None


def test_a_volume_that_is_smaller_than_the_limit_is_room_enough_only_for_what_is_free(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cache_of(root)
    assert fill(before, A, root / "one") is not None
    before.leave_all_but(frozenset())
    # Of 6,000 bytes, as a volume of that size would tell.
    usage = type("Usage", (), {"free": property(lambda _self: 6000 - 4000 * len(entries(root)))})
    monkeypatch.setattr(room, "disk_usage", lambda _folder: usage())
    assert fill(cache_of(root), B, root / "two", key=KEY[::-1]) is not None
    assert entries(root) == [digest_of(B, root)[7:]]


@pytest.mark.parametrize("said", ["", "{", "[]", '{"bytes": "1"}', '{"more": 1}', '{"reserved": null}'])
def test_what_a_fetch_says_of_itself_may_be_nonsense(root: Path, said: str) -> None:
    """A machine crashed, or a newer Conch wrote it."""
    cache = cache_of(root)
    cache.prepare()
    (root / "cache/work" / f"{KEY}.lock").write_text(said)
    filling = cache.begin(None, KEY)
    assert filling is not None
    assert filling.before == FetchState()
    filling.close(keeps_partial=False)


def of(sizes: list[int | None], *, folder: bool = True, name: str = "f", unpack: bool = False) -> Listing:
    files = tuple(RemoteFile(path=f"{name}", key=f"{i}", size=size, unpack=unpack) for i, size in enumerate(sizes))
    return Listing(files=files, resolved="", folder=folder)


def test_how_much_room_a_model_needs() -> None:
    gib = 1 << 30
    assert needed_bytes(of([10, 20]), 100) == 30
    assert needed_bytes(of([gib], folder=False, name="m.onnx"), 100 * gib) == gib
    assert needed_bytes(of([gib], folder=False, name="m.tar.gz"), 100 * gib) == 3 * gib
    assert needed_bytes(of([gib, gib], unpack=True), 100 * gib) == 6 * gib
    assert needed_bytes(of([10, None]), 100) == 25
    # A small archive may hold much more than its size, as far as the cache allows.
    assert needed_bytes(of([10], folder=False, name="m.zip"), gib) == 10 + (256 << 20)
    assert needed_bytes(of([10], folder=False, name="m.zip"), 100) == 100


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.booleans()), max_size=12),
    st.integers(3000, 14_000),
)
def test_whatever_agents_do_the_cache_keeps_within_its_limit_and_what_is_in_use(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, bool]], limit: int
) -> None:
    """Agents (0-3) fetch models (0-4) one after the other, and leave what they had before or go on using it."""
    root = tmp_path_factory.mktemp("cache")
    (root / "cache").mkdir()
    agents = [cache_of(root, limit) for _ in range(4)]
    used: list[dict[str, Path]] = [{} for _ in agents]
    for number, (agent, model, leaves) in enumerate(steps):
        files = {"m": bytes([model]) * (1000 + 1000 * model)}
        digest, tree = digest_of(files, root), root / f"tree{number}"
        if leaves:
            agents[agent].leave_all_but(frozenset())
            used[agent].clear()
        try:
            if link(agents[agent], digest, tree) or fill(agents[agent], files, tree, digest=digest):
                used[agent][digest] = tree
        except CacheError:
            others = {each for held in used for each in held} - {digest}
            sizes = {each: sum(map(len, content(t).values())) for held in used for each, t in held.items()}
            assert sum(sizes[each] for each in others) + len(files["m"]) > limit, "there was room"
        for held in used:
            for tree in held.values():
                assert content(tree), "what is in use is there"
        total = sum(path.stat().st_size for path in (root / "cache/entries").glob("*/tree/*"))
        assert total <= limit


async def test_a_file_system_that_does_not_answer_is_given_up() -> None:
    with pytest.raises(CacheError, match="has not answered"):
        await answered(lambda _checkpoint: time.sleep(1), patience_seconds=0.05)


async def test_work_that_gets_on_is_waited_for() -> None:
    moved = iter(range(1000))

    def work(_checkpoint: object) -> int:
        time.sleep(0.3)
        return 7

    assert await answered(work, moved=lambda: next(moved), patience_seconds=0.05) == 7


async def test_an_operating_systems_error_is_in_words() -> None:
    def work(_checkpoint: object) -> None:
        raise OSError(116, os.strerror(116))

    with pytest.raises(CacheError, match="Stale file handle"):
        await answered(work)
