"""Unpack an archive from a stranger (tar, tar.gz, tar.zst, zip): only plain files and folders, within limits."""

import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final, cast

import zstandard

from conch.store.archive.entries import Entries
from conch.store.archive.limits import ArchiveLimits, ByteBudget, invalid
from conch.store.archive.tar import extract_tar
from conch.store.archive.zip import extract_zip
from conch.store.errors import StoreError, storage_error
from conch.store.threads import CHUNK_BYTES, Checkpoint, never_interrupted

__all__ = ["ArchiveLimits", "extract", "is_archive"]

ZSTD_WINDOW_BYTES_MOST: Final = 64 << 20
"""What unpacking may take of the agent's memory; `zstd -19` needs 8 MiB, only `--ultra` and `--long` more than this."""

_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = b"\x2a\x4d\x18"
"""After one of sixteen bytes: a frame without data, with which pzstd's files begin."""
_TAR_MAGIC: Final = b"ustar"
_TAR_MAGIC_OFFSET: Final = 257
_ZIP_SUFFIX: Final = ".zip"

# NotImplementedError is zipfile's word for a version that it cannot unpack; LookupError and RecursionError come from
# headers that make no sense.
_DAMAGED: Final = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zstandard.ZstdError, zlib.error),
    *(EOFError, LookupError, NotImplementedError, RecursionError, UnicodeError, ValueError),
)


def is_archive(file: Path, name: str) -> bool:
    """Whether a file is a gzip, zstd or tar by its first bytes, whatever its name, or a zip by its name.

    A zip's first bytes say nothing: many bare models (TorchScript, Keras) are zips.
    """
    return _is_tar(file) or name.lower().endswith(_ZIP_SUFFIX)


def extract(
    archive: Path,
    folder: Path,
    *,
    name: str,
    limits: ArchiveLimits,
    checkpoint: Checkpoint = never_interrupted,
) -> Mapping[str, str]:
    """Unpack `archive`, which came as `name`, into `folder`; returns path -> sha256 of its files.

    What is in the folder already stays: an entry of the same name is refused. On StoreError some files may be there.
    """
    folder.mkdir(exist_ok=True)
    entries, budget = Entries(folder, limits), ByteBudget(limits, archive.stat().st_size)
    try:
        if name.lower().endswith(_ZIP_SUFFIX) and not _is_tar(archive):
            extract_zip(archive, entries, budget, limits, checkpoint)
        else:
            with _unpacked(archive) as stream:
                extract_tar(stream, entries, budget, checkpoint)
    except StoreError:
        raise
    except _DAMAGED as error:
        raise invalid(
            f"the archive is damaged or not a tar, tar.gz, tar.zst or zip ({error}); pack and upload it again"
        ) from error
    except OSError as error:
        raise storage_error(error, "the unpacked archive") from error
    return entries.sha256


def _is_tar(file: Path) -> bool:
    head = _head(file)
    return head[_TAR_MAGIC_OFFSET:] == _TAR_MAGIC or head.startswith(_GZIP_MAGIC) or _is_zstd(head)


def _is_zstd(head: bytes) -> bool:
    skippable = head[1:4] == _ZSTD_SKIPPABLE and 0x50 <= head[0] <= 0x5F
    return skippable or head.startswith(_ZSTD_MAGIC)


def _unpacked(archive: Path) -> IO[bytes]:
    head = _head(archive)
    if head.startswith(_GZIP_MAGIC):
        return cast(IO[bytes], gzip.open(archive, "rb"))
    if _is_zstd(head):
        unpacker = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MOST)
        reader = unpacker.stream_reader(archive.open("rb"), read_across_frames=True, closefd=True)
        return io.BufferedReader(cast(io.RawIOBase, reader), CHUNK_BYTES)
    return archive.open("rb")


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(_TAR_MAGIC_OFFSET + len(_TAR_MAGIC))
