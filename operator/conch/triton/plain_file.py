"""Reading a file that must be plain, and mostly small: on a claim, it may have become anything since it was listed."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from conch.triton.errors import InvalidModelError


def without_waiting(path: str, flags: int) -> int:
    """An opener for `open` that does not wait for a pipe's other end, which never comes."""
    return os.open(path, flags | os.O_NONBLOCK)


@contextmanager
def open_plain(path: Path, *, name: str) -> Iterator[BufferedReader]:
    """A plain file, open; raises InvalidModelError, by `name`, for anything else, and OSError."""
    with open(path, "rb", opener=without_waiting) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise InvalidModelError(f"the model's {name} is no plain file; upload it again")
        yield stream


def read_small(path: Path, *, most: int, name: str) -> bytes:
    """The content of a plain file of at most `most` bytes. Raises InvalidModelError, by `name`, and OSError."""
    with open_plain(path, name=name) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise InvalidModelError(f"the model's {name} has more than {most} bytes; make it smaller")
    return content


def read_small_text(path: Path, *, most: int, name: str) -> str:
    """The same as text."""
    try:
        return read_small(path, most=most, name=name).decode()
    except UnicodeDecodeError as error:
        raise InvalidModelError(f"the model's {name} is not UTF-8 text") from error
