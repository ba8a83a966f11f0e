"""A model on its way into the cache: one process fetches it, those that want the same see how far it is."""

import json
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from conch.store.cache.entries import Cached, Entries
from conch.store.cache.file_lock import FileLock
from conch.store.cache.places import Places
from conch.store.fetch import Fetched
from conch.store.transfer import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchState:
    """What the file of a fetch's lock says."""

    bytes: int = 0
    total_bytes: int | None = None
    reserved: int = 0
    """What it may take of the cache, counted as long as the lock is held."""
    digest: str = ""
    resolved: str = ""
    """What the source's name stood for when the model of this digest was fetched from it."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """What is there; nothing where that makes no sense. Raises OSError."""
        try:
            fields = json.loads(path.read_text())
            state = cls(**fields)
        except (FileNotFoundError, ValueError, TypeError):
            return cls()
        kinds = {"bytes": int, "total_bytes": int | None, "reserved": int, "digest": str, "resolved": str}
        return state if all(isinstance(getattr(state, name), kind) for name, kind in kinds.items()) else cls()


class Filling:
    """The right to fetch under one name, until it is closed."""

    def __init__(self, places: Places, entries: Entries, name: str, boot: str, lock: FileLock) -> None:
        self.name = name
        self.before = FetchState.read(places.fetch_lock(name))
        """What the last fetch under this name has left: by `digest` and `resolved` what it came to."""
        self._state = FetchState(digest=self.before.digest, resolved=self.before.resolved)
        self._saying = threading.Lock()
        self._places = places
        self._entries = entries
        self.work = places.fetch_folder(name, boot)
        """Another machine may have another one under this name, some of it unwritten when it crashed."""
        self._lock = lock

    @property
    def partial(self) -> Path:
        """Where what has arrived is kept; the next one on this machine goes on from it."""
        return self.work / "partial"

    @property
    def folder(self) -> Path:
        """Where the model's tree is made; fresh after `begin`."""
        return self.work / "entry"

    def begin(self) -> None:
        """Make the folders. Raises OSError."""
        self.work.mkdir(exist_ok=True)
        if self.folder.exists():
            self._places.discard(self.folder)
        self.folder.mkdir()

    def reserve(self, bytes_: int) -> None:
        """Note what this fetch may take; only with the room locked."""
        self._say(reserved=bytes_)

    def show(self, progress: Progress) -> None:
        """Tell those who wait how far it is; raises OSError."""
        self._say(bytes=progress.bytes, total_bytes=progress.total_bytes)

    def put(self, fetched: Fetched, tree: Path) -> Cached | None:
        """Make what was fetched an entry and use it by a tree of links; None where the entry was there already."""
        cached = self._entries.put(self.folder, fetched.digest, fetched.bytes, tree)
        self._say(digest=fetched.digest, resolved=fetched.resolved)
        return cached

    def close(self, *, keeps_partial: bool) -> None:
        """Let others fetch. What has arrived stays for them only if it is of use."""
        try:
            if self.folder.exists():
                self._places.discard(self.folder)
            if self.work.exists() and not (keeps_partial and self.partial.exists()):
                self._places.discard(self.work)
        finally:
            self._lock.release()

    def abandon(self) -> None:
        """Let others fetch, without touching a file system that does not answer."""
        self._lock.release()

    def _say(self, **news: Any) -> None:
        # Room is made in one thread while another tells how far it is.
        with self._saying:
            self._state = replace(self._state, **news)
            self._lock.write(json.dumps(asdict(self._state)))
