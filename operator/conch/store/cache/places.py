"""Where things are on the cache's volume, and how something is taken away."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from conch.store.cache.errors import CacheError

_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_NAME: Final = re.compile(r"[0-9a-f]{32,64}")
_BLOCK_BYTES: Final = 512


class Places:
    """The folders of one cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries = folder / "entries"
        self.locks = folder / "locks"
        self.work = folder / "work"
        self.trash = folder / "trash"
        self.room_lock = folder / "room.lock"

    def prepare(self) -> None:
        """Make what is not there. Raises OSError."""
        for folder in (self.entries, self.locks, self.work, self.trash):
            folder.mkdir(exist_ok=True)

    def entry(self, digest: str) -> Path:
        """The folder of an entry; raises CacheError for what is no digest."""
        return self.entries / _hex(digest)

    def use_lock(self, digest: str) -> Path:
        """What is locked by who uses an entry."""
        return self.locks / _hex(digest)

    def fetch_lock(self, name: str) -> Path:
        """What is locked by who fetches under this name."""
        return self.work / f"{_checked(name)}.lock"

    def fetch_folder(self, name: str, boot: str) -> Path:
        """What arrives under this name on the machine that was started so."""
        return self.work / f"{_checked(name)}.{_checked(boot)}"

    def fetch_folders(self, name: str) -> Iterator[Path]:
        """What has arrived under this name, on whatever machine."""
        return (each for each in self.work.glob(f"{_checked(name)}.*") if each.suffix != ".lock")

    def digests(self) -> Iterator[str]:
        """What has an entry, whole or not; what others have put there is left alone."""
        return (f"sha256:{each.name}" for each in self.entries.iterdir() if _DIGEST.fullmatch(f"sha256:{each.name}"))

    def fetch_names(self) -> frozenset[str]:
        """Under what something is fetched or was."""
        names = (each.name.partition(".")[0] for each in self.work.iterdir())
        return frozenset(name for name in names if _NAME.fullmatch(name))

    def discard(self, folder: Path) -> None:
        """Take a folder away: at once for whoever looks, and then its bytes. Raises OSError."""
        doomed = Path(tempfile.mkdtemp(dir=self.trash))
        folder.rename(doomed / folder.name)
        shutil.rmtree(doomed, ignore_errors=True)

    def empty_trash(self) -> None:
        """Go on with what somebody has begun."""
        for doomed in self.trash.iterdir():
            shutil.rmtree(doomed, ignore_errors=True)


def fetch_name(digest: str | None, source_key: str) -> str:
    """Under what a model is fetched: its digest, or the key of its source as long as nobody knows that."""
    return _hex(digest) if digest else _checked(source_key)


def bytes_below(folder: Path) -> int:
    """What a folder's files take of the volume, holes left out; what goes away meanwhile does not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(parent, name).lstat().st_blocks * _BLOCK_BYTES
            except FileNotFoundError:
                continue
    return total


def _hex(digest: str) -> str:
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise CacheError(f"{digest[:80]!r} is no digest")
    return match[1]


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise CacheError(f"{name[:80]!r} is no name of the cache's")
    return name
