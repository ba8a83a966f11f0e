"""An agent that is killed at any moment of its work with the cache leaves nothing that is half."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from conch.store import tree_digest
from conch.store.cache import DamagedError, ModelCache
from conch.store.cache.file_lock import FileLock
from tests.support.model_cache import KEY, content, fill, link, written

OLD: Final = {"1/model.onnx": b"o" * 3000}
NEW: Final = {"1/model.onnx": b"n" * 3000, "config.pbtxt": b"name"}
LIMIT: Final = 5000
"""There is room for one of them."""
STEPS: Final = frozenset(
    {
        *("open", "os.link", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.truncate", "os.utime"),
        *("fcntl.flock", "shutil.rmtree", "os.listdir", "os.scandir"),
    }
)
"""What Python tells of its work on files, before it is done (audit events)."""


def cache_of(root: Path) -> ModelCache:
    return ModelCache(root / "cache", limit_bytes=LIMIT, boot="1", grace_seconds=0)


def fetched(root: Path) -> None:
    """Fetch a model into a cache that is empty."""
    assert fill(cache_of(root), NEW, root / "tree")


def evicting(root: Path) -> None:
    """Fetch a model in the place of another one."""
    fetched(root)


def mended(root: Path) -> None:
    """Find that an entry is damaged, and fetch it anew."""
    cache = cache_of(root)
    with pytest.raises(DamagedError):
        link(cache, digest(root, NEW), root / "damaged")
    assert fill(cache, NEW, root / "tree", digest=digest(root, NEW))


def digest(root: Path, files: dict[str, bytes]) -> str:
    return tree_digest(root / ("new" if files is NEW else "old"))


def prepared(root: Path, work: Callable[[Path], None]) -> None:
    """The cache as the work finds it."""
    written(root / "new", NEW)
    written(root / "old", OLD)
    (root / "cache").mkdir()
    if work is evicting:
        assert fill(cache_of(root), OLD, root / "before", key=KEY[::-1])
    if work is mended:
        assert fill(cache_of(root), NEW, root / "before")
        (root / "cache/entries" / digest(root, NEW)[7:] / "tree/1/model.onnx").write_bytes(b"x" * 3000)


def killed_at(step: int, root: Path, work: Callable[[Path], None]) -> bool:
    """Do the work in a process that is killed before its nth step; whether it came so far."""
    pid = os.fork()
    if not pid:
        left = step

        def audit(event: str, _arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event in STEPS:
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(audit)
            work(root)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the work failed by itself"
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("work", [fetched, evicting, mended])
def test_killed_before_any_step(tmp_path: Path, work: Callable[[Path], None]) -> None:
    step = 0
    while True:
        step += 1
        root = tmp_path / str(step)
        root.mkdir()
        prepared(root, work)
        came_so_far = killed_at(step, root, work)
        _holds_only_what_is_whole(root, damaged=work is mended)
        for following in ("next", "third"):
            cache = cache_of(root)
            tree = root / following
            try:
                if link(cache, digest(root, NEW), tree) is None:
                    assert fill(cache, NEW, tree), f"killed before step {step}: the next one cannot"
            except DamagedError:
                assert fill(cache, NEW, root / f"{following}-anew", digest=digest(root, NEW))
                tree = root / f"{following}-anew"
            assert content(tree) == NEW
            del cache
        _holds_only_what_is_whole(root, damaged=False)
        files = [path for path in (root / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]
        taken = sum(path.stat().st_size for path in files)
        assert taken <= LIMIT, f"killed before step {step}: {taken} bytes are left"
        if not came_so_far:
            break
    assert step > 30, "the steps were not seen"


def _holds_only_what_is_whole(root: Path, *, damaged: bool) -> None:
    cache = root / "cache"
    for entry in (cache / "entries").glob("*"):
        if not damaged:
            assert tree_digest(entry / "tree") == f"sha256:{entry.name}"
        assert (entry / "record.json").exists()
    locks = [path for path in cache.rglob("*") if path.parent.name in ("locks", "work") or path.name == "room.lock"]
    assert not [path for path in locks if path.is_file() and FileLock.take(path) is None]
