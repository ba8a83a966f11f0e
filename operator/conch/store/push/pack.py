"""Tar archives that are the same, byte for byte, whenever and by whomever the same files are packed."""

import gzip
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, cast

import zstandard

from conch.api.reasons import Reason
from conch.store.archive import ArchiveLimits
from conch.store.errors import StoreError
from conch.store.push.meter import Step
from conch.store.push.tree import Tree, TreeFile

SUFFIXES: Final = (".tar.gz", ".tgz", ".tar.zst", ".tar")


def pack(tree: Tree, archive: Path, name: str, step: Step) -> None:
    """Write the archive, compressed as the `name` says that it will have. Raises StoreError."""
    most = ArchiveLimits().files
    if len(tree.files) > most:
        raise StoreError(
            Reason.INVALID_MODEL,
            f"the model has {len(tree.files)} files; from an archive at most {most} are fetched. Use "
            "another kind of store",
        )
    with archive.open("wb") as stream:
        if name.endswith((".gz", ".tgz")):
            # Without a name and a time in its header.
            with gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=6, mtime=0) as packed:
                write_tar(tree, cast(IO[bytes], packed), step)
        elif name.endswith(".zst"):
            with zstandard.ZstdCompressor(level=3).stream_writer(stream, closefd=False) as writer:
                write_tar(tree, cast(IO[bytes], writer), step)
        else:
            write_tar(tree, stream, step)


def write_tar(tree: Tree, stream: IO[bytes], step: Step) -> None:
    """The files as a tar, in order, without times, owners and folders. Raises StoreError when one has changed."""
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for file in tree.files:
            entry = tarfile.TarInfo(file.path)
            entry.size = file.size
            entry.mode = 0o644
            tar.addfile(entry, cast(IO[bytes], _Reader(file, step)))


class _Reader:
    """A file's checked chunks, as tarfile reads: so many bytes at a time."""

    def __init__(self, file: TreeFile, step: Step) -> None:
        self._chunks: Iterator[bytes] = file.chunks()
        self._step = step
        self._left = bytearray()

    def read(self, count: int) -> bytearray:
        while len(self._left) < count and (chunk := next(self._chunks, b"")):
            self._step.advance(len(chunk))
            self._left += chunk
        part = self._left[:count]
        del self._left[:count]
        return part
