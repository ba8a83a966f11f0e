"""Unpack a tar, read once from front to end.

Links, devices and sparse files are refused, and headers made to fill the memory (a pax header may announce gigabytes,
which tarfile reads in one piece). All of it is checked here and the files are written here: tarfile's own extraction
filters came with Python 3.11.4, and Debian 12, which the image may be built on, has 3.11.2.
"""

import tarfile
from typing import IO, Final

from conch.store.archive.entries import Entries
from conch.store.archive.limits import ByteBudget, invalid
from conch.store.threads import CHUNK_BYTES, Checkpoint

HEADER_BYTES_PER_MEMBER: Final = 1 << 20
END_MARK: Final = bytes(tarfile.BLOCKSIZE)
"""POSIX wants two such blocks; one is enough to know that the writer came to its end."""


def extract_tar(stream: IO[bytes], entries: Entries, budget: ByteBudget, checkpoint: Checkpoint) -> None:
    """Hand every member of the unpacked stream to `entries`.

    Raises StoreError for what is refused, tarfile.TarError or EOFError for what is damaged.
    """
    reader = _ForwardReader(stream, budget, checkpoint)
    with tarfile.TarFile.taropen(None, "r", fileobj=reader, encoding="utf-8") as tar:  # type: ignore[arg-type]  # it needs only read and seek
        reader.begin_header()
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps them all, for random access
            if member.size < 0:
                raise invalid(f"the archive's entry {member.name!r} has a negative size")
            if not (member.isreg() or member.isdir()) or member.sparse is not None:
                kind = "a link" if member.islnk() or member.issym() else "a device, pipe or sparse file"
                raise invalid(
                    f"the archive's entry {member.name!r} is {kind}; only plain files and folders are unpacked"
                )
            if member.isdir():
                entries.add_folder(member.name)
            else:
                _add_file(reader, member, entries)
            reader.begin_header()
    if reader.last_header != END_MARK:
        # tarfile takes what ends early, or has a damaged header, for whole.
        raise EOFError("it has no end mark")
    # To the end, where packed streams have their checksums.
    while reader.read_data(CHUNK_BYTES):
        pass


def _add_file(reader: "_ForwardReader", member: tarfile.TarInfo, entries: Entries) -> None:
    reader.seek(member.offset_data)
    left = member.size
    with entries.add_file(member.name) as out:
        while left:
            chunk = reader.read_data(min(left, CHUNK_BYTES))
            if not chunk:
                raise EOFError(f"it ends in the middle of {member.name!r}")
            out.write(chunk)
            left -= len(chunk)


class _ForwardReader:
    """The unpacked stream as tarfile wants it, with every limit enforced on the way."""

    def __init__(self, stream: IO[bytes], budget: ByteBudget, checkpoint: Checkpoint) -> None:
        self._stream = stream
        self._budget = budget
        self._position = 0
        self._header_budget = HEADER_BYTES_PER_MEMBER
        self._checkpoint = checkpoint
        self.last_header = b""

    def begin_header(self) -> None:
        """What tarfile reads from here on is a member's headers."""
        self._header_budget = HEADER_BYTES_PER_MEMBER

    def read(self, size: int = -1) -> bytes:
        """Read for tarfile, which reads only headers."""
        if not 0 <= size <= self._header_budget:
            raise invalid("the archive has an entry with an oversized header")
        self._header_budget -= size
        self.last_header = self.read_data(size)
        return self.last_header

    def read_data(self, size: int) -> bytes:
        """Read a member's content."""
        self._checkpoint()
        chunk = self._stream.read(size)
        self._position += len(chunk)
        self._budget.spend(len(chunk))
        return chunk

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        """Skip forward; a packed stream can go back only by starting again, which an archive must not make us do."""
        if position < self._position:
            raise invalid("the archive's entries overlap")
        while self._position < position:
            if not self.read_data(min(position - self._position, CHUNK_BYTES)):
                raise EOFError("it ends early")

    def close(self) -> None:
        self._stream.close()
