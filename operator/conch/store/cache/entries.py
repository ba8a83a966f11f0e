"""The models that are in the cache: found, verified, used in place, put there, taken away."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conch.store.cache.errors import CacheError, DamagedError
from conch.store.cache.file_lock import FileLock
from conch.store.cache.places import Places, bytes_below
from conch.store.digest import listing_digest
from conch.store.errors import StoreError
from conch.store.in_place import fingerprint, link_in_place
from conch.store.threads import Checkpoint
from conch.store.transfer import Progress

_RECORD: Final = "record.json"
_TREE: Final = "tree"
_LINKED_MOST: Final = 1 << 20
"""Files and folders: as many as a fetched model may have are bounded when it is fetched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """A verified model in the cache, and a tree of links to it."""

    digest: str
    bytes: int
    fingerprint: str
    """See `in_place.fingerprint`."""


class Entries:
    """The entries of one cache, and those of them that this process uses."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._used: dict[str, FileLock] = {}

    def use(self, digest: str) -> bool:
        """Keep others from taking an entry away, from now on; whether it is there. Raises OSError, CacheError."""
        if digest in self._used:
            return self._bytes(digest) is not None
        if self._bytes(digest) is None:
            return False
        lock = FileLock.take(self._places.use_lock(digest), shared=True)
        if lock is None:
            return False  # it is just being taken away
        lock.touch()
        self._used[digest] = lock
        if self._bytes(digest) is None:
            self.leave(digest)
            return False
        return True

    def leave(self, digest: str) -> None:
        """Let others take an entry away."""
        lock = self._used.pop(digest, None)
        if lock is not None:
            lock.release()

    def renew(self) -> None:
        """Show that what is in use still is, also where a file system does not keep locks between machines."""
        for lock in tuple(self._used.values()):
            lock.touch()

    @property
    def used(self) -> frozenset[str]:
        """Digests of the entries that this process uses."""
        return frozenset(self._used)

    def link(self, digest: str, tree: Path, progress: Progress, checkpoint: Checkpoint) -> Cached | None:
        """Use an entry by a `tree` of links (which must not exist), after reading every byte; None if it is not there.

        Raises DamagedError when it was not what its name says, and is gone; CacheError, OSError, Interrupted.
        """
        if not self.use(digest):
            return None
        there = self._places.entry(digest) / _TREE
        try:
            linked = link_in_place(
                there,
                tree,
                root=there,
                shown=f"the cache's {digest}",
                progress=progress,
                checkpoint=checkpoint,
                entries_most=_LINKED_MOST,
            )
            found = listing_digest(linked.sha256)
        except StoreError as error:
            found = error.message
        except FileNotFoundError:
            found = "a part of it"
        except BaseException:
            self.leave(digest)
            raise
        if found != digest:
            self.leave(digest)
            self._remove_damaged(digest, found)
            raise DamagedError(f"its files of {digest} were damaged ({found})")
        return Cached(digest=digest, bytes=progress.bytes, fingerprint=linked.fingerprint)

    def _remove_damaged(self, digest: str, found: str) -> None:
        lock = FileLock.take(self._places.use_lock(digest))
        if lock is None:
            raise CacheError(f"its files of {digest} are damaged ({found}), and other pods use them")
        self.remove(digest, lock)

    def put(self, folder: Path, digest: str, bytes_: int, tree: Path) -> Cached | None:
        """Make an entry of a folder with a whole, verified `tree`, and use it by a tree of links; None: one was there.

        That one is in use from now on, and has yet to be verified. Raises CacheError, OSError.
        """
        (folder / _RECORD).write_text(json.dumps({"digest": digest, "bytes": bytes_}))
        if self.use(digest):
            return None
        entry = self._places.entry(digest)
        if entry.exists():
            self._remove_damaged(digest, "no record")
        lock = FileLock.take(self._places.use_lock(digest), shared=True)
        if lock is None:
            raise CacheError(f"its files of {digest} are just being taken away")
        self._used[digest] = lock
        try:
            lock.touch()
            try:
                folder.rename(entry)
            except OSError:
                if self._bytes(digest) is None:
                    raise
                return None  # another pod was faster
            _link_files(entry / _TREE, tree)
            return Cached(digest=digest, bytes=bytes_, fingerprint=fingerprint(tree))
        except BaseException:
            self.leave(digest)
            raise

    def remove(self, digest: str, lock: FileLock) -> None:
        """Take an entry away; `lock` is its lock, held alone, and is gone afterwards."""
        try:
            if (entry := self._places.entry(digest)).exists():
                self._places.discard(entry)
            lock.remove()
        finally:
            lock.release()

    def sizes(self) -> dict[str, int]:
        """Bytes of every entry, by digest; of one without a readable record what its files take."""
        sizes: dict[str, int] = {}
        for digest in self._places.digests():
            size = self._bytes(digest)
            sizes[digest] = bytes_below(self._places.entry(digest)) if size is None else size
        return sizes

    def _bytes(self, digest: str) -> int | None:
        """The size of an entry; None if it is not there, or has no record that can be read."""
        try:
            fields = json.loads((self._places.entry(digest) / _RECORD).read_text())
            size = fields["bytes"]
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, LookupError):
            return None
        return size if isinstance(size, int) and fields.get("digest") == digest else None


def _link_files(there: Path, tree: Path) -> None:
    for parent, _, names in os.walk(there):
        folder = tree / Path(parent).relative_to(there)
        folder.mkdir()
        for name in names:
            (folder / name).symlink_to(Path(parent, name))
