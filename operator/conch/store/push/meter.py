"""How far a push or fetch is, on stderr: a bar for people at a terminal, a line now and then for logs."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LINE_SECONDS: Final = 10.0


class Step(Protocol):
    """Something that takes a while."""

    def advance(self, count: int) -> None:
        """So many bytes more (or fewer, when an attempt is repeated); may be called from any thread."""
        ...

    def show(self, done: int, total: int | None) -> None:
        """So many bytes of so many."""
        ...


class Meter:
    """Shows one step after the other."""

    def __init__(self, *, terminal: bool | None = None) -> None:
        self.terminal = sys.stderr.isatty() if terminal is None else terminal

    def say(self, message: str) -> None:
        """A line for people."""
        print(message, file=sys.stderr, flush=True)

    @contextmanager
    def step(self, words: str, total: int | None) -> Iterator[Step]:
        """Until the end of the block; `words` say what is done, as in "uploading 3 files"."""
        if not self.terminal:
            lines = _Lines(self, words, total)
            yield lines
            lines.end()
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as Speed

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(binary_units=True))
        with Progress(*columns, Speed(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
            yield _Bar(progress, progress.add_task(words, total=total))


class _Bar:
    def __init__(self, progress: "Progress", task: "TaskID") -> None:
        self._progress = progress
        self._task = task

    def advance(self, count: int) -> None:
        self._progress.advance(self._task, count)

    def show(self, done: int, total: int | None) -> None:
        self._progress.update(self._task, completed=done, total=total)


class _Lines:
    def __init__(self, meter: Meter, words: str, total: int | None) -> None:
        self._meter = meter
        self._words = words
        self._done, self._total = 0, total
        self._began = self._said = time.monotonic()
        self._state = threading.Lock()
        meter.say(f"{words}{f' ({readable(total)})' if total is not None else ''}")

    def advance(self, count: int) -> None:
        with self._state:
            self._done += count
            self._say_now_and_then()

    def show(self, done: int, total: int | None) -> None:
        with self._state:
            self._done, self._total = done, total
            self._say_now_and_then()

    def end(self) -> None:
        self._meter.say(f"{self._words}: done, {readable(self._done)} in {time.monotonic() - self._began:.1f} s")

    def _say_now_and_then(self) -> None:
        if time.monotonic() - self._said < _LINE_SECONDS:
            return
        self._said = time.monotonic()
        of = f" of {readable(self._total)} ({100 * self._done // max(self._total, 1)} %)" if self._total else ""
        self._meter.say(f"{self._words}: {readable(self._done)}{of}")


def readable(count: int) -> str:
    """Bytes in the unit that gives a short number."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
