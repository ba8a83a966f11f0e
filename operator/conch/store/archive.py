"""Unpack a tar or tar.gz from a stranger: only plain files and folders, inside a fresh folder, within limits.

Refused are names that leave the folder, any link, device or sparse file, a name twice, more data than allowed, and
headers made to fill the memory (a pax header may announce gigabytes, which tarfile reads in one piece). All of it is
checked here and the files are written here: tarfile's own extraction filters came with Python 3.11.4, and Debian 12,
which the image may be built on, has 3.11.2.
"""

import gzip
import os
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final, cast

from conch.api.reasons import Reason
from conch.store.digest import refused_name
from conch.store.errors import StoreError, storage_error
from conch.store.threads import CHUNK_BYTES, Checkpoint, never_interrupted

GZIP_MAGIC: Final = b"\x1f\x8b"
TAR_MAGIC: Final = b"ustar"
TAR_MAGIC_OFFSET: Final = 257
HEADER_BYTES_PER_MEMBER: Final = 1 << 20
PATH_MAX_LENGTH: Final = 1024
PATH_MAX_DEPTH: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """What an archive may grow to."""

    files: int = 10_000
    bytes: int = 1 << 40
    ratio: int = 200
    """Unpacked per packed byte, above `ratio_from_bytes`; weights compress two- or threefold, bombs a thousandfold."""
    ratio_from_bytes: int = 256 << 20


def is_archive(file: Path) -> bool:
    """Whether a file is a gzip or tar by its first bytes; its name may say anything."""
    with file.open("rb") as stream:
        head = stream.read(TAR_MAGIC_OFFSET + len(TAR_MAGIC))
    return head.startswith(GZIP_MAGIC) or head[TAR_MAGIC_OFFSET:] == TAR_MAGIC


def extract(
    archive: Path,
    folder: Path,
    *,
    limits: ArchiveLimits,
    checkpoint: Checkpoint = never_interrupted,
    opener: Callable[[Path], IO[bytes]] | None = None,
) -> None:
    """Unpack `archive` into `folder`, which must not exist. On StoreError the folder may hold some files: remove it."""
    folder.mkdir()
    try:
        with (opener or _open)(archive) as packed:
            reader = _ForwardReader(packed, archive.stat().st_size, limits, checkpoint)
            with tarfile.TarFile.taropen(None, "r", fileobj=reader, encoding="utf-8") as tar:  # type: ignore[arg-type]  # it needs only read and seek
                _extract_members(tar, reader, folder, limits)
    except StoreError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeError, ValueError) as error:
        raise _invalid(f"the archive is damaged or not a tar / tar.gz ({error}); pack and upload it again") from error
    except OSError as error:
        raise storage_error(error, "the unpacked archive") from error


def _open(archive: Path) -> IO[bytes]:
    with archive.open("rb") as stream:
        packed = stream.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    return cast(IO[bytes], gzip.open(archive, "rb")) if packed else archive.open("rb")


def _extract_members(tar: tarfile.TarFile, reader: "_ForwardReader", folder: Path, limits: ArchiveLimits) -> None:
    seen: set[PurePosixPath] = set()
    count = 0
    reader.begin_header()
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps them all, for random access
        count += 1
        if count > limits.files:
            raise _too_large(f"the archive has more than {limits.files} entries")
        path = _checked_path(member)
        if path.parts and path in seen and not member.isdir():
            raise _invalid(f"the archive contains {member.name!r} twice")
        seen.add(path)
        target = folder / path
        try:
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                _write(reader, member, target)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise _invalid(f"the archive contains {member.name!r} both as a file and as a folder") from error
        reader.begin_header()


def _checked_path(member: tarfile.TarInfo) -> PurePosixPath:
    if not (member.isreg() or member.isdir()) or member.sparse is not None:
        kind = "a link" if member.islnk() or member.issym() else "a device, pipe or sparse file"
        raise _invalid(f"the archive's entry {member.name!r} is {kind}; only plain files and folders are unpacked")
    name = os.fsencode(member.name)
    if reason := refused_name(name):
        raise _invalid(f"the archive's entry {member.name!r} {reason}; rename it")
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        raise _invalid(f"the archive's entry {member.name!r} points outside of the archive; pack with relative names")
    if len(name) > PATH_MAX_LENGTH or len(path.parts) > PATH_MAX_DEPTH:
        raise _invalid(f"the archive's entry {member.name[:80]!r}... has a name that is too long or too deep")
    if not path.parts and not member.isdir():
        raise _invalid("the archive contains a file without a name")
    return path


def _write(reader: "_ForwardReader", member: tarfile.TarInfo, target: Path) -> None:
    reader.seek(member.offset_data)
    left = member.size
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(target, flags, 0o644), "wb", buffering=0) as out:
        while left:
            chunk = reader.read_data(min(left, CHUNK_BYTES))
            if not chunk:
                raise EOFError(f"it ends in the middle of {member.name!r}")
            out.write(chunk)
            left -= len(chunk)


class _ForwardReader:
    """The unpacked stream as tarfile wants it, read once from front to end, with every limit enforced on the way."""

    def __init__(self, stream: IO[bytes], packed_bytes: int, limits: ArchiveLimits, checkpoint: Checkpoint) -> None:
        self._stream = stream
        self._most = min(limits.bytes, max(limits.ratio_from_bytes, packed_bytes * limits.ratio))
        self._position = 0
        self._header_budget = HEADER_BYTES_PER_MEMBER
        self._checkpoint = checkpoint

    def begin_header(self) -> None:
        """What tarfile reads from here on is a member's headers."""
        self._header_budget = HEADER_BYTES_PER_MEMBER

    def read(self, size: int = -1) -> bytes:
        """Read for tarfile, which reads only headers."""
        if not 0 <= size <= self._header_budget:
            raise _invalid("the archive has an entry with an oversized header")
        self._header_budget -= size
        return self.read_data(size)

    def read_data(self, size: int) -> bytes:
        """Read a member's content."""
        self._checkpoint()
        chunk = self._stream.read(size)
        self._position += len(chunk)
        if self._position > self._most:
            raise _too_large(f"the archive unpacks to more than {self._most} bytes")
        return chunk

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        """Skip forward; a gzip stream can go back only by starting again, which an archive must not make us do."""
        if position < self._position:
            raise _invalid("the archive's entries overlap")
        while self._position < position:
            if not self.read_data(min(position - self._position, CHUNK_BYTES)):
                raise EOFError("it ends early")

    def close(self) -> None:
        self._stream.close()


def _invalid(message: str) -> StoreError:
    return StoreError(Reason.INVALID_MODEL, message)


def _too_large(message: str) -> StoreError:
    return StoreError(Reason.SOURCE_TOO_LARGE, f"{message}, which this installation does not allow")
