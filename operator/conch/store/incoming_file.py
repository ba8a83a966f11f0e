"""One file on its way to the disk: written in any order, hashed in the one order that sha256 knows."""

import hashlib
import os
import threading
from pathlib import Path
from typing import Final

from conch.store.remote import Chunk
from conch.store.threads import Checkpoint, never_interrupted

READ_BACK_BYTES: Final = 1 << 20


class IncomingFile:
    """A file whose parts arrive in any order, each part from front to back. Every method blocks: call it in a thread.

    Whoever brings bytes hashes what is next, be it these or what lies on the disk already (most likely still in the
    page cache); nobody waits for anybody else who is doing so.
    """

    def __init__(
        self, path: Path, arrived: dict[int, int] | None = None, checkpoint: Checkpoint = never_interrupted
    ) -> None:
        """`arrived`: what lies at `path` from before, as start -> end of parts.

        `checkpoint` is called where much may have to be read back from the disk.
        """
        self._path = path
        self._arrived = dict(arrived or {})
        self._checkpoint = checkpoint
        self._descriptor = -1
        self._sha256 = hashlib.sha256()
        self._hashed = 0
        self._hashing = threading.Lock()
        self._opening = threading.Lock()

    def write(self, part: int, position: int, chunk: Chunk) -> None:
        """Write the next bytes of the part that starts at `part`. Raises OSError."""
        descriptor = self._open()
        view, written = memoryview(chunk), 0
        while written < len(view):
            written += os.pwrite(descriptor, view[written:], position + written)
        self._arrived[part] = position + written
        if self._hashing.acquire(blocking=False):
            try:
                if position == self._hashed:
                    self._sha256.update(view)
                    self._hashed += len(view)
                self._hash_what_arrived()
            finally:
                self._hashing.release()

    def write_whole(self, content: Chunk) -> str:
        """Write a file that came in one piece, and give its sha256. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    @property
    def hashed_bytes(self) -> int:
        """How much of the file the hash covers, from its front."""
        return self._hashed

    def start_again(self) -> None:
        """Forget every byte."""
        os.ftruncate(self._open(), 0)
        self._arrived, self._hashed, self._sha256 = {}, 0, hashlib.sha256()

    def finish(self) -> str:
        """The sha256 of all that arrived, in hex, and nothing else is in the file; closes it."""
        descriptor = self._open()
        with self._hashing:
            self._hash_what_arrived()
        # What was hashed is what will be there: a longer file may have lain here before.
        os.ftruncate(descriptor, self._hashed)
        self.close()
        return self._sha256.hexdigest()

    def close(self) -> None:
        """Close the file; it may be opened again by a write."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _open(self) -> int:
        with self._opening:
            if self._descriptor < 0:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o644)
            return self._descriptor

    def _hash_what_arrived(self) -> None:
        while self._hashed < (end := self._end_without_gap()):
            self._checkpoint()
            chunk = os.pread(self._descriptor, min(READ_BACK_BYTES, end - self._hashed), self._hashed)
            if not chunk:
                raise OSError(f"{self._path.name} became shorter while it was written")
            self._sha256.update(chunk)
            self._hashed += len(chunk)

    def _end_without_gap(self) -> int:
        # Parts lie end to end, and each was written from its front: the one before the gap tells.
        end = self._hashed
        for start, reached in sorted(self._arrived.copy().items()):
            if start > end:
                break
            end = max(end, reached)
        return end
