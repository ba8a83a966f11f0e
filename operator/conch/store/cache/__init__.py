"""A cache of fetched models on a volume that pods share: what one has fetched, the others verify and use in place.

    entries/<digest>/tree/...    a whole model, by the digest of its tree;  entries/<digest>/record.json  its size
    locks/<digest>               locked (shared) by each pod that uses the entry; its time is that of the last use
    work/<name>.<boot>/...       what has arrived of a model that is being fetched, on the machine that was started so
    work/<name>.lock             locked by whoever fetches it; says how far that is, and what it has come to
    room.lock                    locked while room is made
    trash/                       renamed away, about to be deleted; anybody may

An entry comes by the renaming of a folder that is whole, and goes by a renaming too. Only who has its lock alone may
take it away. Nothing is synced: whoever uses an entry first reads every byte of it, and what is not what its name says
goes.

Locks are flock(2)'s, which NFS 4 and CephFS keep between machines, as local file systems do within one. Where a shared
file system does not, the times do: what was touched within the last ten minutes counts as somebody's, and pods touch
what they use.
"""

from conch.store.cache.answers import answered
from conch.store.cache.cache import RENEWAL_SECONDS, ModelCache
from conch.store.cache.entries import Cached
from conch.store.cache.errors import CacheError, DamagedError
from conch.store.cache.filling import FetchState, Filling

__all__ = [
    "RENEWAL_SECONDS",
    "CacheError",
    "Cached",
    "DamagedError",
    "FetchState",
    "Filling",
    "ModelCache",
    "answered",
]
