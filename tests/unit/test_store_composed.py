"""Several sources in one tree: one digest, and a source that is whole waits for those that are not."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from conch.api.model import ModelSource
from conch.api.reasons import Reason
from conch.store.composed import fetch_all, tells_versions
from conch.store.digest import tree_digest
from conch.store.errors import StoreError
from conch.store.fetch import Fetched, Request
from conch.store.in_place import fingerprint
from conch.store.remote import Surroundings
from conch.store.transfer import Progress
from tests.unit.test_store_fetch import ALL, Store, fetch_module


class Stores:
    """A store for each model, and where they are fetched to."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, **content: Mapping[str, bytes]) -> None:
        self.root = root
        self.of = {name: Store(dict(files), resolved=f"{name}-1") for name, files in content.items()}
        self.digests: dict[str, str | None] = dict.fromkeys(content)
        self.claims: dict[str, str] = {}
        self.limit_bytes = 1 << 30
        self.progress = Progress()
        self.surroundings: dict[str, Surroundings] = {}
        self.count = 0

        def opened(_place: object, surroundings: Surroundings) -> Store:
            name = surroundings.shown.removeprefix("https://store.example/")
            self.surroundings[name] = surroundings
            return self.of[name]

        monkeypatch.setattr(fetch_module, "open_remote", opened)
        monkeypatch.setattr("random.uniform", lambda _low, _high: 0.0)

    @property
    def tree(self) -> Path:
        return self.root / f"scratch{self.count}" / "tree"

    async def fetch(self, *, known: str = "", pinned: str = "") -> Fetched | None:
        self.count += 1
        self.tree.parent.mkdir()
        requests = {
            name: Request(
                source=ModelSource(
                    uri=self.claims.get(name, f"https://store.example/{name}"), digest=self.digests[name]
                ),
                policy=ALL,
                claim_mount=self.root,
                credentials_folder=self.root,
                limit_bytes=self.limit_bytes,
                progress=self.progress,
            )
            for name in self.of
        }
        whole = replace(requests[min(requests)], parts=requests, known=known, pinned=pinned)
        return await fetch_all(whole, self.root / "partial", self.tree.parent)

    async def failure(self) -> StoreError:
        with pytest.raises(StoreError) as caught:
            await self.fetch()
        return caught.value


def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stores:
    return Stores(tmp_path, monkeypatch, a={"config.pbtxt": b"a", "1/model.onnx": b"A"}, b={"1/model.onnx": b"BB"})


async def test_each_source_has_its_folder_and_all_have_one_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = two(tmp_path, monkeypatch)
    fetched = await stores.fetch()
    assert fetched is not None
    files = {each.relative_to(stores.tree).as_posix() for each in stores.tree.rglob("*") if each.is_file()}
    assert files == {"a/config.pbtxt", "a/1/model.onnx", "b/1/model.onnx"}
    assert fetched.digest == tree_digest(stores.tree)
    assert fetched.bytes == 4
    assert (stores.progress.bytes, stores.progress.total_bytes, stores.progress.files) == (4, 4, 3)


async def test_what_has_not_changed_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = two(tmp_path, monkeypatch)
    first = await stores.fetch()
    assert first is not None
    reads = stores.of["a"].reads
    assert await stores.fetch(known=first.resolved) is None
    assert stores.of["a"].reads == reads
    stores.of["b"] = replace(stores.of["b"], content={"1/model.onnx": b"other"}, resolved="b-2")
    second = await stores.fetch(known=first.resolved)
    assert second is not None
    assert second.digest == tree_digest(stores.tree) != first.digest
    assert (stores.tree / "a" / "config.pbtxt").read_bytes() == b"a"


async def test_each_store_is_asked_for_what_was_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = two(tmp_path, monkeypatch)
    first = await stores.fetch()
    assert first is not None
    await stores.fetch(pinned=first.resolved)
    assert {name: each.pinned for name, each in stores.surroundings.items()} == {"a": "a-1", "b": "b-1"}


async def test_a_source_that_is_whole_waits_for_one_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = two(tmp_path, monkeypatch)

    def gone() -> None:
        raise StoreError(Reason.SOURCE_NOT_FOUND, "it is gone")

    stores.of["b"].before_listing = gone
    error = await stores.failure()
    assert (error.reason, error.message) == (Reason.SOURCE_NOT_FOUND, "the model 'b': it is gone")
    reads = stores.of["a"].reads
    stores.of["b"].before_listing = lambda: None
    fetched = await stores.fetch()
    assert fetched is not None
    assert fetched.digest == tree_digest(stores.tree)
    assert stores.of["a"].reads == reads, "it has not been fetched twice"


async def test_a_declared_digest_is_held_against_its_own_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = two(tmp_path, monkeypatch)
    stores.digests["b"] = "sha256:" + "0" * 64
    error = await stores.failure()
    assert error.reason is Reason.DIGEST_MISMATCH
    assert error.message.startswith("the model 'b': https://store.example/b has the digest sha256:")
    reads = stores.of["b"].reads
    assert (await stores.failure()).reason is Reason.DIGEST_MISMATCH
    assert stores.of["b"].reads == reads, "the same files are not fetched again to be refused again"
    stores.digests["b"] = None
    assert await stores.fetch() is not None


async def test_all_sources_together_must_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = two(tmp_path, monkeypatch)
    stores.limit_bytes = 3
    error = await stores.failure()
    assert (error.reason, error.message.startswith("the model 'b'")) == (Reason.SOURCE_TOO_LARGE, True)
    stores.limit_bytes = 4
    assert await stores.fetch() is not None


async def test_files_on_a_claim_stay_there_and_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = two(tmp_path, monkeypatch)
    claim, folder = tmp_path / "claim", tmp_path / "scratch"
    (claim / "model" / "1").mkdir(parents=True)
    (claim / "model" / "1" / "model.onnx").write_bytes(b"weights")
    folder.mkdir()
    requests = {
        name: Request(
            source=ModelSource(uri=uri),
            policy=ALL,
            claim_mount=claim,
            credentials_folder=tmp_path,
            limit_bytes=1 << 20,
            progress=Progress(),
        )
        for name, uri in (("a", "https://store.example/a"), ("c", "pvc://claim/model"))
    }
    fetched = await fetch_all(replace(requests["a"], parts=requests), tmp_path / "partial", folder)
    assert fetched is not None
    assert stores.of["a"].reads
    linked = folder / "tree" / "c" / "1" / "model.onnx"
    assert linked.is_symlink()
    shutil.copytree(folder / "tree", tmp_path / "copy")
    assert (fetched.digest, fetched.fingerprint) == (tree_digest(tmp_path / "copy"), fingerprint(folder / "tree"))
    # As a layout does it, which is no write to what lies on the claim.
    (tmp_path / "laid-out").hardlink_to(folder / "tree" / "a" / "1" / "model.onnx")
    assert fingerprint(folder / "tree") == fetched.fingerprint
    (claim / "model" / "1" / "model.onnx").write_bytes(b"other weights")
    assert fingerprint(folder / "tree") != fetched.fingerprint


async def test_a_part_that_was_lost_on_its_way_into_the_tree_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = two(tmp_path, monkeypatch)
    rename = Path.rename

    def killed(path: Path, target: Path) -> Path:
        if path == tmp_path / "partial" / "b" / "fetched" / "tree":
            raise RuntimeError
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(RuntimeError):
            await stores.fetch()
    shutil.rmtree(stores.tree.parent)
    fetched = await stores.fetch()
    assert fetched is not None
    assert fetched.digest == tree_digest(stores.tree)


async def test_what_lies_on_a_claim_takes_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = two(tmp_path, monkeypatch)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.onnx").write_bytes(b"weights of more than all that may be stored")
    stores.claims = {"a": "pvc://claim/1"}
    stores.limit_bytes = 2
    assert await stores.fetch() is not None


def test_what_is_asked_again_must_tell_its_version_in_each_part() -> None:
    assert tells_versions('{"a": "1", "b": "2"}', ["a", "b"])
    assert not tells_versions('{"a": "1"}', ["a", "b"])
    assert not tells_versions("", ["a", "b"])
