"""Tells a person what runs, how far it is and how long it still takes; never silent for more than 20 seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

console = Console(stderr=True, highlight=False)
_LINE_EVERY_SECONDS = 20.0


def say(text: str) -> None:
    """One line, also in a log."""
    console.print(text, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """For a person.

    >>> duration(7.4), duration(187)
    ('7 s', '3 min 07 s')
    """
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


@contextmanager
def step(what: str, *, expected_seconds: float = 0.0, rest_seconds: float = 0.0) -> Iterator[None]:
    """Shows `what` while the block runs, and its duration after.

    `expected_seconds` is the known time of this step and `rest_seconds` that of all steps after it: a terminal shows a
    spinner with what is left, anything else gets a line at the start and one every 20 s.
    """
    started = time.monotonic()

    def text() -> str:
        elapsed = time.monotonic() - started
        line = f"{what} ... {duration(elapsed)}"
        if elapsed < expected_seconds:
            line += f", about {duration(expected_seconds - elapsed + rest_seconds)} left in all"
        elif expected_seconds:
            line += f" (it took {duration(expected_seconds)} elsewhere)"
            line += f", then about {duration(rest_seconds)}" if rest_seconds else ""
        return line

    done = threading.Event()
    if console.is_terminal:
        with console.status(text()) as status:
            thread = threading.Thread(target=_tick, args=(done, 1.0, lambda: status.update(text())), daemon=True)
            thread.start()
            try:
                yield
            finally:
                done.set()
                thread.join()
    else:
        say(text())
        thread = threading.Thread(target=_tick, args=(done, _LINE_EVERY_SECONDS, lambda: say(text())), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
    say(f"{what}: {duration(time.monotonic() - started)}")
    sys.stderr.flush()


def _tick(done: threading.Event, every_seconds: float, action: Callable[[], None]) -> None:
    while not done.wait(every_seconds):
        action()
