"""The model volume: what is on it is whole, or it is in the temporary folder.

    tmp/                      work in progress; emptied at every start
    fetched/<key>/tree/...    a verified artefact;  fetched/<key>/record.json  its digest
    repository/<name>/...     what Triton sees;     repository/<name>/.conch-layout  which layout it is

Everything is made below tmp/, synced, and renamed into place: a rename is all or nothing, also through a power cut.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conch.agent.decide import Disk

_LAYOUT_MARK = ".conch-layout"
_RECORD = "record.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of a fetched tree."""

    digest: str
    bytes: int


class Volume:
    """The folders of one model volume."""

    def __init__(self, folder: Path) -> None:
        self._temporary = folder / "tmp"
        self._fetched = folder / "fetched"
        self.repository = folder / "repository"

    def prepare(self) -> None:
        """Make the folders and remove what an interrupted run left. The repository comes last: it lets Triton start."""
        shutil.rmtree(self._temporary, ignore_errors=True)
        for folder in (self._temporary, self._fetched, self.repository):
            folder.mkdir(parents=True, exist_ok=True)

    def disk(self) -> Disk:
        """What is there."""
        layouts = ((mark.parent.name, mark.read_text()) for mark in self.repository.glob(f"*/{_LAYOUT_MARK}"))
        fetched = (record.parent.name for record in self._fetched.glob(f"*/{_RECORD}"))
        return Disk(fetched=frozenset(fetched), layouts=tuple(sorted(layouts)))

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A fresh folder on the volume, removed afterwards."""
        folder = Path(tempfile.mkdtemp(dir=self._temporary))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def record(self, key: str) -> Record | None:
        """The record of a fetched tree."""
        try:
            return Record(**json.loads((self._fetched / key / _RECORD).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def tree(self, key: str) -> Path:
        """Where a fetched tree's files are."""
        return self._fetched / key / "tree"

    def keep_fetched(self, key: str, folder: Path, digest: str) -> Record:
        """Move a scratch folder with a verified `tree` into place, with its record. Blocks on the disk."""
        size = sum(file.stat().st_size for file in (folder / "tree").rglob("*") if file.is_file())
        record = Record(digest=digest, bytes=size)
        (folder / _RECORD).write_text(json.dumps({"digest": digest, "bytes": size}))
        self._place(folder, self._fetched / key)
        return record

    def drop_layout(self, key: str) -> None:
        """Remove what was laid out from a tree that is about to be replaced."""
        for name, laid_out in self.disk().layouts:
            if laid_out == key:
                self._remove(self.repository / name)

    def keep_layout(self, key: str, folder: Path, name: str) -> None:
        """Move a scratch folder into the repository as the model `name`, in place of what is there. Blocks."""
        (folder / _LAYOUT_MARK).write_text(key)
        self._place(folder, self.repository / name)

    def clean_up(self, *, fetched: str, model: str) -> None:
        """Remove every fetched tree and every model but these."""
        for entry in (*self._fetched.iterdir(), *self.repository.iterdir()):
            if entry.name != (fetched if entry.parent == self._fetched else model):
                self._remove(entry)

    def _place(self, folder: Path, target: Path) -> None:
        _sync(folder)
        if target.exists():
            self._remove(target)
        folder.rename(target)
        _sync_one(target.parent)

    def _remove(self, entry: Path) -> None:
        # Renamed away first: half a model must never be seen in the repository.
        doomed = Path(tempfile.mkdtemp(dir=self._temporary))
        entry.rename(doomed / entry.name)
        shutil.rmtree(doomed, ignore_errors=True)


def _sync(folder: Path) -> None:
    for parent, _, files in os.walk(folder, topdown=False):
        for file in files:
            _sync_one(Path(parent, file))
        _sync_one(Path(parent))


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
