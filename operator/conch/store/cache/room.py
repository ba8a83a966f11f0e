"""Room for a model: what nobody uses goes, what was not used for longest first."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import disk_usage
from typing import Final

from conch.store.archive import ArchiveLimits
from conch.store.cache.entries import Entries
from conch.store.cache.errors import CacheError
from conch.store.cache.file_lock import FileLock, is_held_alone
from conch.store.cache.filling import FetchState, Filling
from conch.store.cache.places import Places, bytes_below
from conch.store.remote import Listing

PATIENCE_SECONDS: Final = 30.0
"""For others who make room."""
HINTS_KEPT_SECONDS: Final = 30 * 86_400
"""For how long it is remembered what a source came to."""
_LOOK_SECONDS: Final = 0.05
_PACKED: Final = 3
"""An archive lies beside its content; weights hardly shrink, so three times its size holds both."""
_OF_UNKNOWN_SIZE: Final = 4
"""What does not tell its size gets this part of the cache."""


class Room:
    """Keeps a cache within its limit."""

    def __init__(self, places: Places, entries: Entries, limit_bytes: int, grace_seconds: float) -> None:
        self._places = places
        self._entries = entries
        self._limit = limit_bytes
        self._grace = grace_seconds

    def make(self, filling: Filling, listing: Listing, beside_bytes: int) -> int:
        """Make room for a listing, beside what the same fetch has stored of others; returns what it may store.

        Raises CacheError, OSError.
        """
        needed = needed_bytes(listing, self._limit) + beside_bytes
        if needed > self._limit:
            raise CacheError(f"the model needs {needed} bytes, and the cache may have {self._limit} in all")
        with self._locked() as now:
            self._places.empty_trash()
            self._forget(now)
            while not self._fits(filling, needed):
                if not self._evict_one(filling, now):
                    raise CacheError(f"there is no room for {needed} bytes beside what is in use")
            filling.reserve(needed)
        return needed - beside_bytes

    @contextmanager
    def _locked(self) -> Iterator[float]:
        """Alone with all who make room; gives the file system's time, which is the same for all."""
        until = time.monotonic() + PATIENCE_SECONDS
        while (lock := FileLock.take(self._places.room_lock)) is None:
            if time.monotonic() >= until:
                raise CacheError(f"another pod has been making room for {PATIENCE_SECONDS:.0f} s")
            time.sleep(_LOOK_SECONDS)
        try:
            yield lock.touch()
        finally:
            lock.release()

    def _fits(self, filling: Filling, needed: int) -> bool:
        arrived = bytes_below(filling.work)
        others = sum(self._entries.sizes().values()) + bytes_below(self._places.trash)
        others += sum(self._taken(name) for name in self._places.fetch_names() - {filling.name})
        others += sum(bytes_below(folder) for folder in self._of_other_machines(filling))
        free = disk_usage(self._places.folder).free
        return others + needed <= self._limit and needed - arrived <= free

    def _taken(self, name: str) -> int:
        """What a fetch takes: as much as it may, as long as somebody goes on with it."""
        arrived = sum(bytes_below(folder) for folder in self._places.fetch_folders(name))
        lock = self._places.fetch_lock(name)
        return max(arrived, FetchState.read(lock).reserved) if is_held_alone(lock) else arrived

    def _evict_one(self, filling: Filling, now: float) -> bool:
        """Take the first away that nobody uses; whether there was one."""
        return self._drop_arrived(filling, now) or self._drop_entry(now)

    def _of_other_machines(self, filling: Filling) -> list[Path]:
        return [folder for folder in self._places.fetch_folders(filling.name) if folder != filling.work]

    def _drop_arrived(self, filling: Filling, now: float) -> bool:
        for folder in self._of_other_machines(filling):
            # Where locks do not reach so far, the other machine may be at it.
            if now - _last_arrival(folder) >= self._grace:
                self._places.discard(folder)
                return True
        for name in self._places.fetch_names() - {filling.name}:
            folders = list(self._places.fetch_folders(name))
            lock = self._alone(self._places.fetch_lock(name), now) if folders else None
            if lock is None:
                continue
            try:
                for folder in folders:
                    self._places.discard(folder)
            finally:
                lock.release()
            return True
        return False

    def _drop_entry(self, now: float) -> bool:
        by_use = sorted(self._entries.sizes(), key=lambda digest: _time_of(self._places.use_lock(digest)))
        for digest in by_use:
            lock = self._alone(self._places.use_lock(digest), now)
            if lock is not None:
                self._entries.remove(digest, lock)
                return True
        return False

    def _alone(self, path: Path, now: float) -> FileLock | None:
        """The lock of what nobody uses, nor has used just now."""
        if now - _time_of(path) < self._grace:
            return None
        return FileLock.take(path)

    def _forget(self, now: float) -> None:
        """Remove locks that are of nothing any more."""
        entries = {self._places.use_lock(digest) for digest in self._entries.sizes()}
        of_nothing = [path for path in self._places.locks.iterdir() if path not in entries]
        old = [
            self._places.fetch_lock(name)
            for name in self._places.fetch_names()
            if not any(self._places.fetch_folders(name))
            and now - _time_of(self._places.fetch_lock(name)) > HINTS_KEPT_SECONDS
        ]
        for path in (*of_nothing, *old):
            lock = self._alone(path, now)
            if lock is not None:
                lock.remove()


def needed_bytes(listing: Listing, limit_bytes: int) -> int:
    """What storing a listing takes at most, as far as can be told."""
    sizes = [file.size for file in listing.files]
    if None in sizes:
        return limit_bytes // _OF_UNKNOWN_SIZE
    total = sum(size or 0 for size in sizes)
    only = None if listing.folder else listing.files[0].path
    if any(file.unpack for file in listing.files) or (only is not None and not only.endswith(".onnx")):
        # Small ones may shrink by far more.
        return max(_PACKED * total, min(limit_bytes, total + ArchiveLimits().ratio_from_bytes))
    return total


def _last_arrival(folder: Path) -> float:
    """When something last arrived in the folder of a fetch; of several models, each has a journal of its own."""
    return max(map(_time_of, (folder, *folder.glob("partial/**/journal"))))


def _time_of(path: Path) -> float:
    """When it was last touched; what is not there, never."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
