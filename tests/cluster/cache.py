"""The cache outside every checkout: binaries and image archives, named after the hash of what they were made from."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.progress import say


def root() -> Path:
    """`$CONCH_CACHE`, else the user's cache folder."""
    chosen = os.environ.get("CONCH_CACHE")
    if chosen:
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "conch"


def digest(*parts: str | bytes) -> str:
    """A short hash of an ordered list of texts; the length of each goes in, so that no two lists agree by accident."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big"))
        total.update(data)
    return total.hexdigest()[:16]


@contextmanager
def locked(path: Path, *, what: str) -> Iterator[None]:
    """Holds a file lock while the block runs; says so when another process has it. A dead holder's lock is free."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that {what}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
