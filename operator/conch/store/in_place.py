"""Files that are read where they lie: verified by every byte, and linked to, not copied."""

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from conch.api.reasons import Reason
from conch.store.digest import refused_name
from conch.store.errors import StoreError
from conch.store.threads import CHUNK_BYTES, Checkpoint
from conch.store.transfer import Progress

ENTRIES_MOST: Final = 20_000
DEPTH_MOST: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class InPlace:
    """What was linked to."""

    sha256: dict[str, str]
    """Of every file, in hex, by its path in the tree."""
    fingerprint: str
    """Changes when one of the files is written to or replaced; see `fingerprint`."""


def link_in_place(
    path: Path,
    tree: Path,
    *,
    root: Path,
    shown: str,
    progress: Progress,
    checkpoint: Checkpoint,
    entries_most: int | None = None,
) -> InPlace:
    """Make `tree` (which must not exist) of links to the file or folder at `path`, which `shown` names for people.

    Every byte is read once, for its hash. Symbolic links are followed as long as they stay below `root`, and refused
    otherwise: the tree must not be a way to read what else is mounted in the pod. There may be
    `entries_most` files and folders; default: ENTRIES_MOST. Blocks. Raises StoreError, OSError.
    """
    link = _Link(shown, root.resolve(), progress, checkpoint, entries_most or ENTRIES_MOST)
    if path.is_dir():
        link.entry(path, tree, "", 0)
    else:
        tree.mkdir()
        link.entry(path, tree / path.name, path.name, 0)
    return InPlace(sha256=link.sha256, fingerprint=_fingerprint(link.seen))


def fingerprint(tree: Path) -> str:
    """What the file system says of the files behind a tree's links; raises OSError when one is gone.

    Not of files of the tree's own, which nobody else writes to: a hard link that is made of one changes its ctime.
    """
    paths = (Path(parent, name) for parent, _, names in os.walk(tree) for name in names)
    linked = (path for path in paths if path.is_symlink())
    return _fingerprint({path.relative_to(tree).as_posix(): path.stat() for path in linked})


def _fingerprint(seen: Mapping[str, os.stat_result]) -> str:
    # Without inodes: user-space file systems give a file another one when they have forgotten it.
    fields = [(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in sorted(seen.items())]
    return hashlib.sha256(repr(fields).encode()).hexdigest()


@dataclass(slots=True)
class _Link:
    shown: str
    root: Path
    progress: Progress
    checkpoint: Checkpoint
    entries_most: int
    sha256: dict[str, str] = field(default_factory=dict)
    seen: dict[str, os.stat_result] = field(default_factory=dict)
    """What the file system said of each file before it was read: a write while it is read shows afterwards."""
    entries: int = 0

    def error(self, reason: Reason, message: str) -> StoreError:
        return StoreError(reason, f"{self.shown}: {message}")

    def entry(self, path: Path, target: Path, name: str, depth: int) -> None:
        """Link one file or folder, as the descriptor that was checked shows it: its name may change meanwhile."""
        self.checkpoint()
        self.entries += 1
        if self.entries > self.entries_most:
            raise self.error(Reason.SOURCE_TOO_LARGE, f"it has more than {self.entries_most} files and folders")
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
                    f"{path.name!r} is a symbolic link that leaves the claim; copy the file there",
                )
            seen = os.fstat(descriptor)
            mode = seen.st_mode
            if stat.S_ISDIR(mode):
                target.mkdir()
                for each in sorted(os.listdir(descriptor)):  # noqa: PTH208 - of what was checked, not of a name
                    self.entry(path / each, target / each, f"{name}/{each}" if name else each, depth + 1)
            elif stat.S_ISREG(mode):
                if reason := refused_name(os.fsencode(name)):
                    raise self.error(Reason.INVALID_MODEL, f"the file {name!r} {reason}; rename it")
                self.seen[name] = seen
                self.sha256[name] = self._hash(descriptor)
                target.symlink_to(real)
            else:
                raise self.error(
                    Reason.INVALID_MODEL, f"{path.name!r} is a special file; only files and folders are read"
                )
        finally:
            os.close(descriptor)

    def _hash(self, descriptor: int) -> str:
        digest = hashlib.sha256()
        while chunk := os.read(descriptor, CHUNK_BYTES):
            self.checkpoint()
            digest.update(chunk)
            self.progress.bytes += len(chunk)
        self.progress.files += 1
        return digest.hexdigest()
