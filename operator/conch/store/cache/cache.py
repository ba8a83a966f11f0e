"""The cache as one process uses it. Every method blocks, perhaps for long: call it by `answered`."""

import hashlib
from pathlib import Path
from typing import Final

from conch.store.cache.entries import Cached, Entries
from conch.store.cache.file_lock import FileLock, is_held_alone
from conch.store.cache.filling import FetchState, Filling
from conch.store.cache.places import Places, fetch_name
from conch.store.cache.room import Room
from conch.store.remote import Listing
from conch.store.threads import Checkpoint
from conch.store.transfer import Progress

GRACE_SECONDS: Final = 600.0
"""For how long what was touched last counts as in use: an agent that crashed is back by then."""
RENEWAL_SECONDS: Final = 60.0
"""How often who uses an entry shows it."""


class ModelCache:
    """One process's hands on a cache: the entries that it uses are nobody's to take away until it leaves them, or ends.

    Methods raise OSError, and CacheError with words for whoever looks after the cache.
    """

    def __init__(self, folder: Path, *, limit_bytes: int, boot: str, grace_seconds: float = GRACE_SECONDS) -> None:
        """`boot` names the machine's present start: what had arrived before it may be there in part."""
        self._places = Places(folder)
        self._entries = Entries(self._places)
        self._room = Room(self._places, self._entries, limit_bytes, grace_seconds)
        self._boot = hashlib.sha256(boot.encode()).hexdigest()[:32]

    def prepare(self) -> None:
        """Make the folders that are not there."""
        self._places.prepare()

    def link(self, digest: str, tree: Path, progress: Progress, checkpoint: Checkpoint) -> Cached | None:
        """Use an entry by a `tree` of links; see Entries.link."""
        return self._entries.link(digest, tree, progress, checkpoint)

    def use(self, digest: str) -> bool:
        """Go on using an entry that was linked to before; whether it is there."""
        return self._entries.use(digest)

    def leave_all_but(self, digests: frozenset[str]) -> None:
        """Let others take away what is not among these."""
        for digest in self._entries.used - digests:
            self._entries.leave(digest)

    def renew(self) -> None:
        """Show that what is in use still is; each RENEWAL_SECONDS."""
        self._entries.renew()

    def begin(self, digest: str | None, source_key: str) -> Filling | None:
        """The right to fetch a model; None while another process has it."""
        name = fetch_name(digest, source_key)
        lock = FileLock.take(self._places.fetch_lock(name))
        if lock is None:
            return None
        try:
            filling = Filling(self._places, self._entries, name, self._boot, lock)
            filling.begin()
        except BaseException:
            lock.release()
            raise
        return filling

    def state(self, digest: str | None, source_key: str) -> FetchState | None:
        """How far the process is that fetches it; None when none does."""
        path = self._places.fetch_lock(fetch_name(digest, source_key))
        return FetchState.read(path) if is_held_alone(path) else None

    def make_room(self, filling: Filling, listing: Listing, beside_bytes: int = 0) -> int:
        """Make room for a listing; returns how many bytes its fetch may store; see Room.make."""
        return self._room.make(filling, listing, beside_bytes)
