"""Unpack a zip: its list of contents is at the end, so it is read from a file.

Refused are links and devices, passwords, and packing methods whose memory an archive chooses (LZMA takes up to 4 GiB).
"""

import stat
import zipfile
from pathlib import Path
from typing import BinaryIO, Final

from conch.store.archive.entries import Entries
from conch.store.archive.limits import ArchiveLimits, ByteBudget, invalid
from conch.store.threads import CHUNK_BYTES, Checkpoint

CONTENTS_BYTES_PER_FILE: Final = 256
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED: Final = 0x1
_KINDS: Final = (0, stat.S_IFREG, stat.S_IFDIR)
"""0: packed where files have no kind."""


def extract_zip(
    archive: Path, entries: Entries, budget: ByteBudget, limits: ArchiveLimits, checkpoint: Checkpoint
) -> None:
    """Hand every member to `entries`. Raises StoreError for what is refused, BadZipFile or EOFError for damage."""
    with archive.open("rb") as stream:
        bounded = _BoundedReads(stream, limits.files * CONTENTS_BYTES_PER_FILE)
        with zipfile.ZipFile(bounded) as packed:
            for member in packed.infolist():
                _check(member)
                name = member.orig_filename
                if name.endswith("/"):
                    entries.add_folder(name)
                    continue
                with packed.open(member) as content, entries.add_file(name) as out:
                    while chunk := content.read(CHUNK_BYTES):
                        checkpoint()
                        budget.spend(len(chunk))
                        out.write(chunk)


def _check(member: zipfile.ZipInfo) -> None:
    name = member.orig_filename
    if member.flag_bits & _ENCRYPTED:
        raise invalid(f"the archive's entry {name!r} needs a password; pack without one")
    if member.compress_type not in _METHODS:
        raise invalid(f"the archive's entry {name!r} is packed in an unusual way; pack with deflate, as zip does")
    if stat.S_IFMT(member.external_attr >> 16) not in _KINDS:
        raise invalid(f"the archive's entry {name!r} is a link or device; only plain files and folders are unpacked")


class _BoundedReads:
    """A file of which nobody can read more than so much in one piece: zipfile reads the whole list of contents."""

    def __init__(self, stream: BinaryIO, most: int) -> None:
        self._stream = stream
        self._most = max(most, CHUNK_BYTES)

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(self._most + 1 if size < 0 else min(size, self._most + 1))
        if len(content) > self._most:
            raise invalid("the archive's list of contents is oversized; pack fewer files, with shorter names")
        return content

    def seek(self, position: int, whence: int = 0) -> int:
        return self._stream.seek(position, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True
