"""What of a transfer is on the disk, so that a restarted agent goes on where it was.

One JSON line per finished part and per finished file. It need not be synced: it is read after a crash of the process,
when the page cache is whole, and thrown away with the files after a crash of the machine.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from conch.store.remote import RemoteFile


@dataclass(slots=True)
class Known:
    """What is there of one file, in the version that the journal names."""

    version: str
    size: int | None
    sha256: str | None = None
    parts: dict[int, int] = field(default_factory=dict)
    """Start -> end of finished parts."""

    def is_of(self, file: RemoteFile) -> bool:
        """Whether it is the file that is listed now; without a version nothing tells."""
        return bool(file.version) and (self.version, self.size) == (file.version, file.size)


class Journal:
    """The journal of one transfer's folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._out: IO[str] | None = None

    def open(self, files: Iterable[RemoteFile]) -> Mapping[str, Known]:
        """What it says of these files as they are listed now, by path; it forgets all else. Writes go on behind that.

        What it forgets may be overwritten: were it remembered, an earlier listing that comes back would make what lies
        there pass for its own.
        """
        said = self._read()
        known = {file.path: entry for file in files if (entry := said.get(file.path)) and entry.is_of(file)}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_name(f"{self._path.name}.new")
        self._out = fresh.open("w", buffering=1 << 16)
        for path, entry in known.items():
            for start, end in entry.parts.items():
                self._write(path, entry, start, end, None)
            if entry.sha256:
                self._write(path, entry, 0, entry.size or 0, entry.sha256)
        self._out.close()
        fresh.rename(self._path)
        self._out = self._path.open("a", buffering=1)
        return known

    def _read(self) -> Mapping[str, Known]:
        known: dict[str, Known] = {}
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        for line in lines:
            try:
                path, version, size, start, end, sha256 = json.loads(line)
            except ValueError:
                break  # the line that the crash cut off
            entry = known.get(path)
            if entry is None or (entry.version, entry.size) != (version, size):
                entry = known[path] = Known(version, size)
            if sha256 is None:
                entry.parts[start] = end
            else:
                entry.sha256 = sha256
        return known

    def add_part(self, file: RemoteFile, start: int, end: int) -> None:
        """A part is on the disk."""
        self._add(file, start, end, None)

    def add_file(self, file: RemoteFile, sha256: str) -> None:
        """A file is on the disk."""
        self._add(file, 0, file.size or 0, sha256)

    def _add(self, file: RemoteFile, start: int, end: int, sha256: str | None) -> None:
        if file.version:
            self._write(file.path, Known(file.version, file.size), start, end, sha256)

    def _write(self, path: str, known: Known, start: int, end: int, sha256: str | None) -> None:
        if self._out is not None:
            self._out.write(json.dumps([path, known.version, known.size, start, end, sha256]) + "\n")

    def close(self) -> None:
        """End writing."""
        if self._out is not None:
            self._out.close()
            self._out = None
