"""Shows on stderr how far packaging is; nothing where that is no terminal."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Terminal:
    """A conch.packaging.progress.Progress; use as a context manager."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, words: str) -> None:
        """A stage begins; the one before is over."""
        if self._task is not None:
            self._progress.update(self._task, total=1, completed=1)
            self._progress.stop_task(self._task)
        # Of unknown length until it counts.
        self._task = self._progress.add_task(words, total=None)

    def advance(self, done: int, total: int) -> None:
        """So much of the present stage is done."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, total=total)
