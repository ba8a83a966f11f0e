"""Copy a model from a PersistentVolumeClaim that is mounted read-only; what it names must lie on it."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from conch.api.reasons import Reason
from conch.api.source import ClaimSource
from conch.store.errors import StoreError, storage_error
from conch.store.threads import CHUNK_BYTES, Checkpoint

Made = TypeVar("Made")
FILES_MOST: Final = 10_000
DEPTH_MOST: Final = 32


def copy_claim(
    source: ClaimSource,
    mount: Path,
    destination: Path,
    *,
    limit_bytes: int,
    progress: Callable[[int, int | None], None],
    checkpoint: Checkpoint,
) -> None:
    """Copy the file or folder that `source` names below `mount` to `destination`, which must not exist.

    Symbolic links are followed as long as they stay on the claim, and refused otherwise: the copy must not be a way to
    read what else is mounted in the pod. Run it in a thread. Raises StoreError.
    """
    copy = _Copy(source, mount.resolve(), limit_bytes, progress, checkpoint)
    try:
        copy.entry(mount / source.path, destination, 0)
    except FileNotFoundError as error:
        raise copy.error(
            Reason.SOURCE_NOT_FOUND, "there is no such file or folder on the claim; check the path"
        ) from error
    except PermissionError as error:
        raise copy.error(
            Reason.SOURCE_ACCESS_DENIED, "the claim's files are not readable by uid 1000; change their mode"
        ) from error


@dataclass(slots=True)
class _Copy:
    source: ClaimSource
    root: Path
    limit_bytes: int
    progress: Callable[[int, int | None], None]
    checkpoint: Checkpoint
    done: int = 0
    files: int = 0
    shown: str = field(init=False)

    def __post_init__(self) -> None:
        self.shown = f"pvc://{self.source.claim}/{self.source.path}"

    def error(self, reason: Reason, message: str) -> StoreError:
        return StoreError(reason, f"{self.shown}: {message}")

    def entry(self, path: Path, target: Path, depth: int) -> None:
        """Copy one file or folder, through the descriptor that was checked: its name may change meanwhile."""
        if depth > DEPTH_MOST:
            raise self.error(
                Reason.INVALID_MODEL, f"folders are nested more than {DEPTH_MOST} deep, or a link leads back"
            )
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            real = Path(f"/proc/self/fd/{descriptor}").readlink()
            if not real.is_relative_to(self.root):
                raise self.error(
                    Reason.SOURCE_NOT_ALLOWED,
                    f"{path.name} is a symbolic link that leaves the claim; copy the file there",
                )
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISDIR(mode):
                self._make(target.mkdir)
                for name in sorted(os.listdir(descriptor)):  # noqa: PTH208 - of what was checked, not of a name
                    self.entry(path / name, target / name, depth + 1)
            elif stat.S_ISREG(mode):
                self._file(descriptor, target)
            else:
                raise self.error(
                    Reason.INVALID_MODEL, f"{path.name} is a special file; only files and folders are copied"
                )
        finally:
            os.close(descriptor)

    def _file(self, descriptor: int, target: Path) -> None:
        self.files += 1
        if self.files > FILES_MOST:
            raise self.error(Reason.SOURCE_TOO_LARGE, f"it has more than {FILES_MOST} files")
        with self._make(lambda: target.open("xb")) as out:
            while chunk := os.read(descriptor, CHUNK_BYTES):
                self.checkpoint()
                self.done += len(chunk)
                if self.done > self.limit_bytes:
                    raise self.error(
                        Reason.SOURCE_TOO_LARGE,
                        f"it has more than the {self.limit_bytes} bytes that fit on the model volume",
                    )
                try:
                    out.write(chunk)
                except OSError as error:
                    raise storage_error(error, self.shown) from error
                self.progress(self.done, None)

    def _make(self, make: Callable[[], Made]) -> Made:
        try:
            return make()
        except OSError as error:
            raise storage_error(error, self.shown) from error
