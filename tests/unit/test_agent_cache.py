"""The agent with a model cache: one pod fetches, the next ones use that; whatever is wrong with it, they do without."""

import asyncio
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import pytest

from conch.agent import cached_fetch
from conch.agent.errors import StepError
from conch.agent.fetcher import Fetcher
from conch.agent.settings import AgentSettings
from conch.agent.volume import Volume
from conch.agent.wanted import Wanted
from conch.api import pod
from conch.api.agent_report import CacheOutcome, CacheReport
from conch.api.assignment import Assignment, Pin
from conch.api.model import ModelSource
from conch.api.reasons import Reason
from conch.api.source_policy import SourcePolicy
from conch.store import Progress, StoreError
from conch.store.cache import CacheError, ModelCache, answered
from conch.store.cache.file_lock import FileLock
from conch.store.cache.filling import Filling
from conch.store.remote import Chunk, Listing, RemoteFile
from tests.support.async_waiting import until
from tests.support.model_cache import content, digest_of, fill, written

fetch_module = import_module("conch.store.fetch")  # its package has the function under this name

URI = "https://store.example/model"
MODEL = {"1/model.onnx": b"w" * 3000, "config.pbtxt": b"name"}
OTHER = {"1/model.onnx": b"o" * 3000}


@dataclass
class Store:
    """A store in memory that counts what is asked of it."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(MODEL))
    resolved: str = "v1"
    listings: int = 0
    reads: int = 0
    before_read: Callable[[], None] = lambda: None
    failure: StoreError | None = None

    async def list(self) -> Listing:
        self.listings += 1
        if self.failure:
            raise self.failure
        files = tuple(
            RemoteFile(path=path, key=path, size=len(data), version=self.resolved) for path, data in self.files.items()
        )
        return Listing(files=files, resolved=self.resolved, folder=True)

    def read(self, file: RemoteFile, start: int, end: int | None) -> Iterator[Chunk]:
        self.before_read()
        self.reads += 1
        yield self.files[file.key][start:end]

    async def close(self) -> None:
        pass


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    monkeypatch.setattr(fetch_module, "open_remote", lambda _place, _surroundings: made)
    return made


class Agent:
    """An agent's fetcher on a volume of its own."""

    def __init__(self, root: Path, name: str, *, cache_bytes: int | None = 100_000, boot: str = "1") -> None:
        self.volume = Volume(root / name, boot=boot)
        self.volume.prepare()
        settings = AgentSettings(
            admin_key="k",
            cache_folder=root / "cache",
            cache_bytes=cache_bytes,
            claim_folder=root / "claim",
            credentials_folder=root / "credentials",
        )
        progress = self.progress = Progress()
        # In no circle of references: with the last one to an agent its locks go, as those of a process that ends.
        self.fetcher = Fetcher(settings, self.volume, lambda _wanted: progress)

    async def fetch(self, wanted: Wanted) -> CacheReport | None:
        await self.fetcher.fetch(wanted)
        return self.fetcher.cache_report(wanted)

    def files(self, wanted: Wanted) -> dict[str, bytes]:
        return content(self.volume.tree(wanted.fetch_key))

    def is_linked(self, wanted: Wanted) -> bool:
        return all(path.is_symlink() for path in self.volume.tree(wanted.fetch_key).rglob("*") if not path.is_dir())


SEVERAL = [{"name": "second", "version": 1, "source": {"uri": f"{URI}/second"}}]


def wanted(*, digest: str | None = None, pin: Pin | None = None, uri: str = URI, **changes: object) -> Wanted:
    policy = SourcePolicy(http_hosts=("*",), private_hosts=("*",))
    fields: dict[str, object] = {"revision": "r1", "name": "mlp", "version": 1, "source_policy": policy} | changes
    source = ModelSource(uri=uri, digest=digest)
    return Wanted.of(Assignment.model_validate(fields | {"source": source, "pin": pin}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path


HIT, FILLED = CacheReport(outcome=CacheOutcome.HIT), CacheReport(outcome=CacheOutcome.FILLED)


@pytest.mark.parametrize("knows", ["declared", "pinned", "nothing"])
async def test_the_second_pod_fetches_no_byte(root: Path, store: Store, knows: str) -> None:
    digest = digest_of(MODEL, root)
    first = wanted(digest=digest if knows == "declared" else None)
    one, two = Agent(root, "one"), Agent(root, "two")
    assert await one.fetch(first) == FILLED
    asked = store.listings, store.reads
    second = wanted(
        digest=digest if knows == "declared" else None,
        pin=Pin(digest=digest, resolved="v1") if knows == "pinned" else None,
    )
    assert await two.fetch(second) == HIT
    # Who does not know the digest has to ask what the source is now, and no more.
    assert (store.listings - asked[0], store.reads - asked[1]) == (1 if knows == "nothing" else 0, 0)
    record = two.volume.record(second.fetch_key)
    assert record is not None
    assert (record.digest, record.cached, record.bytes) == (digest, True, 3004)
    assert record.resolved == ("" if knows == "declared" else "v1")
    for agent, its in ((one, first), (two, second)):
        assert agent.files(its) == MODEL
        assert agent.is_linked(its)


@pytest.mark.parametrize("knows", ["pinned", "nothing"])
async def test_several_models_of_a_pod_are_one_entry(root: Path, store: Store, knows: str) -> None:
    one, two = Agent(root, "one"), Agent(root, "two")
    first = wanted(models=SEVERAL)
    assert await one.fetch(first) == FILLED
    record = one.volume.record(first.fetch_key)
    assert record is not None
    asked = store.listings, store.reads
    pin = Pin(digest=record.digest, resolved=record.resolved) if knows == "pinned" else None
    second = wanted(models=SEVERAL, pin=pin)
    assert await two.fetch(second) == HIT
    assert (store.listings - asked[0], store.reads - asked[1]) == (2 if knows == "nothing" else 0, 0)
    files = {f"{name}/{path}": data for name in ("mlp", "second") for path, data in MODEL.items()}
    for agent, its in ((one, first), (two, second)):
        assert agent.files(its) == files
        assert agent.is_linked(its)


@pytest.mark.usefixtures("store")
async def test_several_models_must_fit_into_the_cache_together(root: Path) -> None:
    agent, several = Agent(root, "one", cache_bytes=5_000), wanted(models=SEVERAL)
    report = await agent.fetch(several)
    assert report is not None
    assert report.outcome is CacheOutcome.BYPASSED
    assert "the model needs 6008 bytes" in report.message
    assert not agent.is_linked(several)


async def test_a_source_that_has_moved_on_is_fetched(root: Path, store: Store) -> None:
    assert await Agent(root, "one").fetch(wanted()) == FILLED
    store.files, store.resolved = dict(OTHER), "v2"
    two = Agent(root, "two")
    assert await two.fetch(wanted()) == FILLED
    assert two.files(wanted()) == OTHER


async def test_pods_that_start_at_once_fetch_once(root: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_fetch, "_LOOK_SECONDS", 0.02)
    store.before_read = lambda: time.sleep(0.2)
    agents = [Agent(root, f"pod{number}") for number in range(4)]
    reports = await asyncio.gather(*(agent.fetch(wanted()) for agent in agents))
    assert sorted(report.outcome for report in reports if report) == ["Filled", "Hit", "Hit", "Hit"]
    assert store.reads == len(MODEL)
    assert all(agent.files(wanted()) == MODEL for agent in agents)


async def test_what_the_policy_does_not_allow_is_not_taken_from_the_cache_either(root: Path, store: Store) -> None:
    del store
    digest = digest_of(MODEL, root)
    assert await Agent(root, "one").fetch(wanted(digest=digest)) == FILLED
    refused = wanted(digest=digest, source_policy=SourcePolicy(schemes=("s3",)))
    with pytest.raises(StoreError) as caught:
        await Agent(root, "two").fetch(refused)
    assert caught.value.reason is Reason.SOURCE_NOT_ALLOWED


def _is_a_file(cache: Path) -> None:
    cache.rmdir()
    cache.touch()


def _is_gone(cache: Path) -> None:
    cache.rmdir()


@pytest.mark.parametrize(
    ("spoil", "said"), [(_is_a_file, "Not a directory"), (_is_gone, "No such file")], ids=["a file", "gone"]
)
async def test_a_cache_that_cannot_be_used_is_done_without(
    root: Path, store: Store, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(root / "cache")
    agent = Agent(root, "one")
    report = await agent.fetch(wanted())
    assert report is not None
    assert report.outcome is CacheOutcome.BYPASSED
    assert said in report.message
    assert "the pod's own volume" in report.message
    assert (agent.files(wanted()), agent.is_linked(wanted()), store.reads) == (MODEL, False, 2)


async def test_a_cache_that_is_too_small_is_done_without(root: Path, store: Store) -> None:
    agent = Agent(root, "one", cache_bytes=2000)
    report = await agent.fetch(wanted())
    assert report is not None
    assert "needs 3004 bytes, and the cache may have 2000" in report.message
    assert (agent.files(wanted()), store.reads, list((root / "cache/work").glob("*/*"))) == (MODEL, 2, [])


async def test_a_volume_that_fills_up_is_left_and_what_had_arrived_goes(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    del store
    real = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.is_relative_to(root / "cache"):
            raise OSError(28, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    agent = Agent(root, "one")
    report = await agent.fetch(wanted())
    assert report is not None
    assert "No space left on device" in report.message
    assert agent.files(wanted()) == MODEL
    assert [path.suffix for path in (root / "cache/work").iterdir()] == [".lock"]
    assert agent.progress.bytes == 3004, "what is counted is what lies on the volume"


async def test_a_damaged_entry_is_fetched_anew_and_that_is_said(root: Path, store: Store) -> None:
    digest = digest_of(MODEL, root)
    one = Agent(root, "one")
    await one.fetch(wanted(digest=digest))
    del one
    await _until_free(root / "cache/locks" / digest[7:])
    (root / "cache/entries" / digest[7:] / "tree/config.pbtxt").write_bytes(b"poison")
    two = Agent(root, "two")
    report = await two.fetch(wanted(digest=digest))
    assert report is not None
    assert report.outcome is CacheOutcome.FILLED
    assert "damaged" in report.message
    assert (two.files(wanted(digest=digest)), store.reads) == (MODEL, 4)
    assert await Agent(root, "three").fetch(wanted(digest=digest)) == HIT


async def test_a_source_that_fails_is_not_the_caches_fault(root: Path, store: Store) -> None:
    store.failure = StoreError(Reason.SOURCE_NOT_FOUND, "there is none")
    agent = Agent(root, "one")
    with pytest.raises(StoreError, match="there is none"):
        await agent.fetch(wanted())
    assert store.listings == 1, "it is not asked a second time"
    store.failure = None
    assert await agent.fetch(wanted()) == FILLED


async def test_a_fetch_that_broke_off_goes_on_in_the_next_pod(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conch.store.transfer.WORKERS", 1)
    reads: list[int] = []

    def break_off() -> None:
        reads.append(1)
        if len(reads) == len(MODEL):
            raise StoreError(Reason.SOURCE_UNREACHABLE, "it broke off")

    store.before_read = break_off
    with pytest.raises(StoreError, match="broke off"):
        await Agent(root, "one").fetch(wanted())
    done = store.reads
    store.before_read = lambda: None
    assert await Agent(root, "two").fetch(wanted()) == FILLED
    assert (done, store.reads) == (1, len(MODEL))


async def test_whether_a_source_was_mended_is_asked_of_the_source(root: Path, store: Store) -> None:
    """A model that cannot be served is fetched again, with the pin that says what was fetched."""
    agent = Agent(root, "one")
    await agent.fetch(wanted())
    pinned = wanted(pin=Pin(digest=digest_of(MODEL, root), resolved="v1"))
    store.files, store.resolved = dict(OTHER), "v2"
    with pytest.raises(StepError) as caught:
        await agent.fetch(pinned)
    assert caught.value.reason is Reason.SOURCE_CHANGED
    assert agent.files(pinned) == OTHER


async def test_files_that_were_written_to_are_not_loaded(root: Path, store: Store) -> None:
    del store
    agent = Agent(root, "one")
    await agent.fetch(wanted())
    agent.fetcher.check_still_verified(wanted())
    (root / "cache/entries" / digest_of(MODEL, root)[7:] / "tree/1/model.onnx").write_bytes(b"poison")
    with pytest.raises(StepError, match="in the model cache"):
        agent.fetcher.check_still_verified(wanted())
    assert agent.volume.record(wanted().fetch_key) is None
    report = await agent.fetch(wanted())
    assert report is not None
    assert agent.files(wanted()) == MODEL


async def test_files_that_were_taken_away_are_not_loaded(root: Path, store: Store) -> None:
    """By an agent of another pod, while this one was not there to say that it uses them."""
    del store
    agent = Agent(root, "one")
    await agent.fetch(wanted())
    again = Agent(root, "one")
    del agent
    await _until_free(root / "cache/locks" / digest_of(MODEL, root)[7:])
    other = ModelCache(root / "cache", limit_bytes=5000, boot="1", grace_seconds=0)
    assert fill(other, OTHER, root / "other", key="ab" * 16)
    with pytest.raises(StepError, match="taken away"):
        again.fetcher.check_still_verified(wanted())
    assert await again.fetch(wanted()) == FILLED


async def test_an_agent_that_starts_anew_goes_on_using_what_it_had(root: Path, store: Store) -> None:
    del store
    await Agent(root, "one").fetch(wanted())
    lock = root / "cache/locks" / digest_of(MODEL, root)[7:]
    await _until_free(lock)
    again = Agent(root, "one")
    keeping = asyncio.create_task(again.fetcher.keep_cache())
    other = ModelCache(root / "cache", limit_bytes=5000, boot="1", grace_seconds=0)
    await _until_locked(lock)
    with pytest.raises(CacheError, match="no room"):
        fill(other, OTHER, root / "other", key="ab" * 16)
    assert again.fetcher.cache_report(wanted()) == HIT
    keeping.cancel()
    await asyncio.wait({keeping})
    again.fetcher.check_still_verified(wanted())


async def _until_locked(lock: Path) -> None:
    async def is_locked() -> bool:
        return FileLock.take(lock) is None

    await until("somebody to use it", is_locked)


async def _until_free(lock: Path) -> None:
    """An agent that is gone lets go once its last thread has ended, which may be a moment after its work."""

    async def is_free() -> bool:
        return FileLock.take(lock) is not None

    await until("nobody to use it", is_free)


async def test_what_is_not_assigned_any_more_is_left_to_others(root: Path, store: Store) -> None:
    agent = Agent(root, "one")
    await agent.fetch(wanted())
    store.files, store.resolved = dict(OTHER), "v2"
    next_one = wanted(uri=f"{URI}/2")
    await agent.fetch(next_one)
    assert agent.volume.cached() == {digest_of(MODEL, root), digest_of(OTHER, root)}
    agent.fetcher.clean_up(next_one)
    assert agent.volume.cached() == {digest_of(OTHER, root)}
    other = ModelCache(root / "cache", limit_bytes=7000, boot="1", grace_seconds=0)
    assert fill(other, {"m": b"x" * 3500}, root / "other", key="ab" * 16)
    assert agent.files(next_one) == OTHER


async def test_after_the_machine_started_anew_every_byte_is_read_again(root: Path, store: Store) -> None:
    before = Agent(root, "one")
    await before.fetch(wanted())
    del before
    digest = digest_of(MODEL, root)
    tree = root / "cache/entries" / digest[7:] / "tree"
    written(tree, {"config.pbtxt": b"lost"})
    after = Agent(root, "one", boot="2")
    assert after.volume.record(wanted().fetch_key) is None
    report = await after.fetch(wanted(digest=digest))
    assert report is not None
    assert "damaged" in report.message
    assert after.files(wanted(digest=digest)) == MODEL
    assert store.reads == 4


async def test_a_claim_is_read_where_it_is_and_not_cached(root: Path) -> None:
    written(root / "claim" / "m", MODEL)
    agent = Agent(root, "one")
    assert await agent.fetch(wanted(uri="pvc://models/m")) is None
    record = agent.volume.record(wanted(uri="pvc://models/m").fetch_key)
    assert record is not None
    assert record.is_at_its_source
    assert list((root / "cache").iterdir()) == []


async def test_who_fetches_and_gets_no_byte_is_not_waited_for_for_ever(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_fetch, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(cached_fetch, "SILENCE_SECONDS", 0.2)
    other = ModelCache(root / "cache", limit_bytes=100_000, boot="1")
    other.prepare()
    held = other.begin(None, wanted().fetch_key)
    assert held is not None
    agent = Agent(root, "one")
    report = await agent.fetch(wanted())
    assert report is not None
    assert "another pod fetches this model" in report.message
    assert (agent.files(wanted()), store.reads) == (MODEL, 2)


async def test_a_file_system_that_hangs_is_left_behind(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_fetch, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(cached_fetch, "answered", functools.partial(answered, patience_seconds=0.3))
    store.before_read = lambda: time.sleep(0.1)
    monkeypatch.setattr(Filling, "show", lambda _self, _progress: time.sleep(2))
    agent = Agent(root, "one")
    report = await agent.fetch(wanted())
    assert report is not None
    assert "has not answered" in report.message
    assert agent.files(wanted()) == MODEL


async def test_without_a_cache_nothing_is_said_of_one(root: Path, store: Store) -> None:
    del store
    agent = Agent(root, "one", cache_bytes=None)
    assert await agent.fetch(wanted()) is None
    assert not agent.is_linked(wanted())


def test_the_pod_says_whether_there_is_a_cache() -> None:
    env = {pod.ADMIN_KEY_ENV: "k"}
    assert AgentSettings.from_env(env).cache_bytes is None
    told = AgentSettings.from_env(env | {pod.CACHE_BYTES_ENV: "7"})
    assert (told.cache_bytes, told.cache_folder) == (7, Path(pod.CACHE_FOLDER))
