"""A lock that the kernel lets go of when its holder dies, on a file that says how things are with what it is about."""

import fcntl
import os
from pathlib import Path
from typing import Final, Self

_CONTENT_BYTES: Final = 4096


class FileLock:
    """flock(2) on a file, held until it is released; two in one process exclude each other, too."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path, *, shared: bool = False) -> Self | None:
        """Lock the file, which is made if it is not there; None while somebody else has it. Raises OSError."""
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                if _is_at(descriptor, path):
                    return cls(path, descriptor)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except BaseException:
                os.close(descriptor)
                raise
            # Who had it has removed the file meanwhile: what others will lock is another one.
            os.close(descriptor)

    def touch(self) -> float:
        """Give the file the file system's present time; returns that, in seconds."""
        os.utime(self._descriptor)
        return os.fstat(self._descriptor).st_mtime

    def write(self, text: str) -> None:
        """Replace the file's content, which others read while it is locked, on other machines too."""
        # Always as long: whoever reads meanwhile finds no end of an earlier one, and only this page has to be written.
        os.pwrite(self._descriptor, text.encode().ljust(_CONTENT_BYTES), 0)
        os.fdatasync(self._descriptor)

    def release(self) -> None:
        """Let go; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        """A thread that was left behind may come by a lock that nobody waits for any more."""
        self.release()

    def remove(self) -> None:
        """Remove the file and let go; only for who has it alone."""
        self.path.unlink(missing_ok=True)
        self.release()


def is_held_alone(path: Path) -> bool:
    """Whether somebody holds the lock on this file, and not shared. Raises OSError."""
    if not path.exists():
        return False
    lock = FileLock.take(path, shared=True)
    if lock is None:
        return True
    lock.release()
    return False


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))
