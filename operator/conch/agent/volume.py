"""The model volume: what is on it is whole, or it is in the temporary folder.

    tmp/                      work in progress; emptied at every start
    partial/<key>/...         what has arrived of an artefact; a restart goes on from it
    fetched/<key>/tree/...    a verified artefact;  fetched/<key>/record.json  what is known of it
    repository/<name>/...     what Triton sees;     repository/<name>/.conch-layout  which layout it is
    <note>.json               what a restarted agent has to know, and cannot see

Everything is made below tmp/ and renamed into place, which is all or nothing for whoever looks. Nothing is synced: a
machine that crashed may have lost any of it, so what was written before its last start is verified anew.
"""

import json
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from conch.agent.state import Disk

_LAYOUT_MARK: Final = ".conch-layout"
_RECORD: Final = "record.json"
_BOOT: Final = "boot"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of a fetched tree."""

    digest: str
    bytes: int
    resolved: str = ""
    fingerprint: str = ""
    """Of files that are not on the volume but linked to."""
    cached: bool = False
    """Whether these lie in the model cache; otherwise at their source, on its claim."""

    @property
    def is_at_its_source(self) -> bool:
        """Whether the files are the source's own: then what becomes of them there can be told by looking."""
        return bool(self.fingerprint) and not self.cached


class Volume:
    """The folders of one model volume."""

    def __init__(self, folder: Path, boot: str | None = None) -> None:
        """`boot` names the machine's present start; default: as the kernel does."""
        self._folder = folder
        self._temporary = folder / "tmp"
        self._partial = folder / "partial"
        self._fetched = folder / "fetched"
        self.repository = folder / "repository"
        self.boot = boot if boot is not None else _present_start()

    def prepare(self) -> None:
        """Make the folders and remove what cannot be trusted. The repository comes last: it lets Triton start."""
        shutil.rmtree(self._temporary, ignore_errors=True)
        for folder in (self._temporary, self._partial, self._fetched, self.repository):
            folder.mkdir(parents=True, exist_ok=True)
        mark = self._partial / _BOOT
        if not mark.exists() or mark.read_text() != self.boot:
            for entry in (*self._partial.iterdir(), *self.repository.iterdir()):
                self._remove(entry)
            mark.write_text(self.boot)

    def disk(self) -> Disk:
        """What is there and can be trusted."""
        layouts = ((mark.parent.name, mark.read_text()) for mark in self.repository.glob(f"*/{_LAYOUT_MARK}"))
        fetched = {}
        for path in self._fetched.glob(f"*/{_RECORD}"):
            record = self.record(path.parent.name)
            if record is not None:
                fetched[path.parent.name] = record.digest
        return Disk(fetched=MappingProxyType(fetched), layouts=tuple(sorted(layouts)))

    def partial(self, key: str) -> Path:
        """Where a fetch keeps what has arrived."""
        return self._partial / key

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A fresh folder on the volume, removed afterwards."""
        folder = Path(tempfile.mkdtemp(dir=self._temporary))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def record(self, key: str) -> Record | None:
        """The record of a fetched tree that was verified since the machine started."""
        boot, record = self._read(key)
        return record if boot == self.boot else None

    def untrusted(self, key: str) -> Record | None:
        """The record of a tree that was verified before the machine last started."""
        boot, record = self._read(key)
        return record if record is not None and boot != self.boot and not record.fingerprint else None

    def trust(self, key: str, record: Record) -> None:
        """The tree was verified anew."""
        self._write(self._fetched / key, record)

    def forget(self, key: str) -> None:
        """Remove a fetched tree that is not what its record says."""
        if (self._fetched / key).exists():
            self._remove(self._fetched / key)

    def _read(self, key: str) -> tuple[str, Record | None]:
        try:
            fields = json.loads((self._fetched / key / _RECORD).read_text())
            return fields.pop(_BOOT), Record(**fields)
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return "", None

    def _write(self, folder: Path, record: Record) -> None:
        fresh = folder / f"{_RECORD}.new"
        fresh.write_text(json.dumps({**asdict(record), _BOOT: self.boot}))
        fresh.rename(folder / _RECORD)

    def tree(self, key: str) -> Path:
        """Where a fetched tree's files are."""
        return self._fetched / key / "tree"

    def keep_fetched(self, key: str, folder: Path, record: Record) -> None:
        """Move a scratch folder with a verified `tree` into place, with its record."""
        self._write(folder, record)
        self._place(folder, self._fetched / key)

    def drop_layout(self, key: str) -> None:
        """Remove what was laid out from a tree that is about to be replaced."""
        for name, laid_out in self.disk().layouts:
            if laid_out == key:
                self._remove(self.repository / name)

    def keep_layout(self, key: str, folder: Path, names: Sequence[str]) -> None:
        """Move a scratch folder's models into the repository, in place of what is there.

        The last of them is the one that is served. It goes first and comes last: where it bears the key, whatever it is
        composed of does.
        """
        served = self.repository / names[-1]
        if len(names) > 1 and served.exists():
            self._remove(served)
        for name in names:
            mark = folder / name / _LAYOUT_MARK
            mark.unlink(missing_ok=True)  # one that came with the model is a link to the fetched file
            mark.write_text(key)
            self._place(folder / name, self.repository / name)

    def note(self, name: str, content: str) -> None:
        """Write down what a restarted agent has to know, in place of what was noted before."""
        fresh = self._folder / f"{name}.json.new"
        fresh.write_text(content)
        fresh.rename(self._folder / f"{name}.json")

    def noted(self, name: str) -> str:
        """What was noted last; empty where nothing was, or it cannot be read."""
        try:
            return (self._folder / f"{name}.json").read_text()
        except (OSError, UnicodeDecodeError):
            return ""

    def remove_layout(self, name: str) -> None:
        """Take a model out of the repository."""
        if (self.repository / name).exists():
            self._remove(self.repository / name)

    def cached(self) -> frozenset[str]:
        """Digests of the trees that are links into the model cache, trusted or not."""
        records = (self._read(path.parent.name)[1] for path in self._fetched.glob(f"*/{_RECORD}"))
        return frozenset(record.digest for record in records if record is not None and record.cached)

    def clean_up(
        self, *, fetched: str, layout: str, kept: Collection[str] = (), kept_layout: str | None = None
    ) -> None:
        """Remove every fetched tree and every model but those of these keys.

        What has arrived in part goes as well, but of the trees of `kept`, which may be on their way.
        """
        models = {name for name, key in self.disk().layouts if key in (layout, kept_layout)}
        staying = {self._fetched: {fetched, *kept}, self.repository: models, self._partial: {*kept, _BOOT}}
        for entry in (*self._fetched.iterdir(), *self.repository.iterdir(), *self._partial.iterdir()):
            if entry.name not in staying[entry.parent]:
                self._remove(entry)

    def _place(self, folder: Path, target: Path) -> None:
        if target.exists():
            self._remove(target)
        folder.rename(target)

    def _remove(self, entry: Path) -> None:
        # Renamed away first: half a model must never be seen in the repository.
        doomed = Path(tempfile.mkdtemp(dir=self._temporary))
        entry.rename(doomed / entry.name)
        shutil.rmtree(doomed, ignore_errors=True)


def _present_start() -> str:
    """The machine's present start as the kernel names it; in a sandbox without that, nothing of before is trusted."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return secrets.token_hex(8)
