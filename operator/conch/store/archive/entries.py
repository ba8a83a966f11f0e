"""The folder that an archive's entries become: plain files and folders, each name once, nothing outside of it."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Protocol

from conch.store.archive.limits import ArchiveLimits, invalid, too_large
from conch.store.digest import refused_name

PATH_MAX_LENGTH: Final = 1024
PATH_MAX_DEPTH: Final = 32


class Sink(Protocol):
    """Where an entry's content goes."""

    def write(self, content: bytes, /) -> object:
        """Take the next bytes."""
        ...


class _Hashed:
    """Hashes what it writes, so that nobody has to read it back."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.sha256 = hashlib.sha256()

    def write(self, content: bytes, /) -> None:
        self._out.write(content)
        self.sha256.update(content)


class Entries:
    """Takes the entries of one archive, whatever its format. Raises StoreError for what a model may not contain."""

    def __init__(self, folder: Path, limits: ArchiveLimits) -> None:
        self._folder = folder
        self._limits = limits
        self.sha256: dict[str, str] = {}
        """Of every file, in hex, by its path in the folder."""
        self._seen: set[PurePosixPath] = set()
        self._count = 0

    def add_folder(self, name: str) -> None:
        """An entry that is a folder; it may be there already."""
        path = self._checked(name)
        self._seen.add(path)
        with _file_and_folder(name):
            (self._folder / path).mkdir(parents=True, exist_ok=True)

    @contextmanager
    def add_file(self, name: str) -> Iterator["Sink"]:
        """An entry that is a file; its content is written to what this gives."""
        path = self._checked(name)
        if not path.parts:
            raise invalid("the archive contains a file without a name")
        if path in self._seen:
            raise invalid(f"the archive contains {name!r} twice")
        self._seen.add(path)
        target = self._folder / path
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _file_and_folder(name):
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(target, flags, 0o644)
        with os.fdopen(descriptor, "wb") as out:
            hashed = _Hashed(out)
            yield hashed
        self.sha256[path.as_posix()] = hashed.sha256.hexdigest()

    def _checked(self, name: str) -> PurePosixPath:
        self._count += 1
        if self._count > self._limits.files:
            raise too_large(f"the archive has more than {self._limits.files} entries")
        encoded = os.fsencode(name)
        if reason := refused_name(encoded):
            raise invalid(f"the archive's entry {name!r} {reason}; rename it")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name:
            raise invalid(f"the archive's entry {name!r} points outside of the archive; pack with relative names")
        if len(encoded) > PATH_MAX_LENGTH or len(path.parts) > PATH_MAX_DEPTH:
            raise invalid(f"the archive's entry {name[:80]!r}... has a name that is too long or too deep")
        return path


@contextmanager
def _file_and_folder(name: str) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise invalid(f"the archive contains {name!r} both as a file and as a folder") from error
