"""A model on a PersistentVolumeClaim that is mounted read-only: verified where it lies, linked to, not copied."""

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from conch.api.reasons import Reason
from conch.api.source import ClaimSource
from conch.store.digest import refused_name
from conch.store.errors import StoreError, storage_error
from conch.store.threads import CHUNK_BYTES, Checkpoint
from conch.store.transfer import Progress

FILES_MOST: Final = 20_000
DEPTH_MOST: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class InPlace:
    """What was linked to."""

    sha256: dict[str, str]
    """Of every file, in hex, by its path in the tree."""
    fingerprint: str
    """Changes when one of the files is written to or replaced; see `fingerprint`."""


def link_claim(source: ClaimSource, mount: Path, tree: Path, *, progress: Progress, checkpoint: Checkpoint) -> InPlace:
    """Make `tree` (which must not exist) of links to the file or folder that `source` names below `mount`.

    Every byte is read once, for its hash. Symbolic links are followed as long as they stay on the claim, and refused
    otherwise: the tree must not be a way to read what else is mounted in the pod. Blocks. Raises StoreError.
    """
    link = _Link(source, mount.resolve(), progress, checkpoint)
    try:
        path = mount / source.path
        if path.is_dir():
            link.entry(path, tree, "", 0)
        else:
            tree.mkdir()
            link.entry(path, tree / path.name, path.name, 0)
    except FileNotFoundError as error:
        raise link.error(
            Reason.SOURCE_NOT_FOUND, "there is no such file or folder on the claim; check the path"
        ) from error
    except PermissionError as error:
        raise link.error(
            Reason.SOURCE_ACCESS_DENIED, "the claim's files are not readable by uid 1000; change their mode"
        ) from error
    except OSError as error:
        raise storage_error(error, link.shown) from error
    return InPlace(sha256=link.sha256, fingerprint=fingerprint(tree))


def fingerprint(tree: Path) -> str:
    """What the file system says of the files behind a tree of links; raises OSError when one is gone."""
    seen = hashlib.sha256()
    for parent, folders, files in os.walk(tree):
        folders.sort()
        for name in sorted(files):
            path = Path(parent, name)
            now = path.stat()
            fields = (path.relative_to(tree).as_posix(), now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
            seen.update(repr(fields).encode())
    return seen.hexdigest()


@dataclass(slots=True)
class _Link:
    source: ClaimSource
    root: Path
    progress: Progress
    checkpoint: Checkpoint
    sha256: dict[str, str] = field(default_factory=dict)
    shown: str = field(init=False)

    def __post_init__(self) -> None:
        self.shown = f"pvc://{self.source.claim}/{self.source.path}"

    def error(self, reason: Reason, message: str) -> StoreError:
        return StoreError(reason, f"{self.shown}: {message}")

    def entry(self, path: Path, target: Path, name: str, depth: int) -> None:
        """Link one file or folder, as the descriptor that was checked shows it: its name may change meanwhile."""
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
                target.mkdir()
                for each in sorted(os.listdir(descriptor)):  # noqa: PTH208 - of what was checked, not of a name
                    self.entry(path / each, target / each, f"{name}/{each}" if name else each, depth + 1)
            elif stat.S_ISREG(mode):
                if reason := refused_name(os.fsencode(name)):
                    raise self.error(Reason.INVALID_MODEL, f"the file {name!r} {reason}; rename it")
                self.sha256[name] = self._hash(descriptor)
                target.symlink_to(real)
            else:
                raise self.error(
                    Reason.INVALID_MODEL, f"{path.name} is a special file; only files and folders are read"
                )
        finally:
            os.close(descriptor)

    def _hash(self, descriptor: int) -> str:
        if len(self.sha256) >= FILES_MOST:
            raise self.error(Reason.SOURCE_TOO_LARGE, f"it has more than {FILES_MOST} files")
        digest = hashlib.sha256()
        while chunk := os.read(descriptor, CHUNK_BYTES):
            self.checkpoint()
            digest.update(chunk)
            self.progress.bytes += len(chunk)
        self.progress.files += 1
        return digest.hexdigest()
