"""When requests came: read from anybody's CSV or access log."""

import csv
import gzip
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import IO, Final, Protocol

import numpy as np
from numpy.typing import NDArray

REQUESTS_MOST: Final = 5_000_000
SPAN_SECONDS_MOST: Final = 31 * 86_400.0
"""Every second of the trace is played, the quiet ones too."""

_GZIP: Final = b"\x1f\x8b"
_DELIMITERS: Final = ",;\t|"
_IN_BRACKETS: Final = re.compile(r"\[([^\]]{8,40})\]")
_COMMON_LOG_FORMAT: Final = "%d/%b/%Y:%H:%M:%S %z"
_NAMES_OF_TIMES: Final = frozenset(
    ("timestamp", "@timestamp", "time", "datetime", "date", "ts", "epoch", "arrival", "arrived", "start", "start_time")
)
# Seconds since 1970 have 10 digits for another 260 years; three more say milliseconds, and so on.
_EPOCH_UNITS: Final = ((1e11, 1.0), (1e14, 1e-3), (1e17, 1e-6), (math.inf, 1e-9))
_EPOCH_SECONDS_LEAST: Final = 1e8
_EPOCH_SECONDS_MOST: Final = 1e11


class TraceError(Exception):
    """The trace cannot be read; the message says where and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """When requests came."""

    name: str
    seconds: NDArray[np.float64]
    """Of each request, ascending, from the trace's beginning."""
    span_seconds: float
    """How long the trace goes on; no request is later."""
    began: datetime | None = None
    """None where the trace does not say."""

    def repeated(self, times: int) -> "Trace":
        """The same again and again, each right after the other."""
        starts = np.arange(times) * self.span_seconds
        seconds = (starts[:, np.newaxis] + self.seconds).ravel()
        return replace(self, seconds=seconds, span_seconds=times * self.span_seconds)

    @property
    def requests(self) -> int:
        """How many there are."""
        return len(self.seconds)

    @property
    def mean_rate(self) -> float:
        """Requests per second."""
        return self.requests / self.span_seconds if self.span_seconds else 0.0


def read_trace(path: Path, column: str | None = None) -> Trace:
    """Read a CSV (also gzipped) with a column of times, or a log whose lines hold a time in brackets.

    Times are ISO 8601, with or without a zone, or numbers: seconds, or milli-, micro- or nanoseconds since 1970. The
    `column` is a header's name or a number from 1; without it there must be one obvious column of times. The order of
    the lines does not matter. Raises TraceError.
    """
    try:
        with _opened(path) as stream:
            times = _times(path, stream, column)
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(f"{path} cannot be read: {error}") from error
    if not len(times):
        raise TraceError(f"{path} holds no request: there is no line with a time in it")
    times.sort()
    span = float(times[-1] - times[0])
    if span > SPAN_SECONDS_MOST:
        raise TraceError(
            f"{path} spans {span / 86_400:.0f} days, and at most {SPAN_SECONDS_MOST / 86_400:.0f} are played; cut it, "
            "or name the column of times with --column if another one was taken"
        )
    is_date = _EPOCH_SECONDS_LEAST <= times[0] < _EPOCH_SECONDS_MOST
    began = datetime.fromtimestamp(times[0], UTC) if is_date else None
    return Trace(name=path.name, seconds=times - times[0], span_seconds=span, began=began)


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    with path.open("rb") as raw:
        unzipped = gzip.GzipFile(fileobj=raw) if raw.peek(len(_GZIP)).startswith(_GZIP) else raw
        # Only the times count; what else stands in a line may be in any encoding.
        with TextIOWrapper(unzipped, encoding="utf-8-sig", errors="replace", newline="") as stream:
            yield stream


def _times(path: Path, stream: IO[str], column: str | None) -> NDArray[np.float64]:
    head = _head(stream)
    if not head:
        return np.array([], dtype=np.float64)
    lines = chain(head, stream)
    match = _IN_BRACKETS.search(head[-1])
    if column is None and match and _moment(match[1]) is not None:
        return _collect(path, _of_log(path, lines))
    reader = csv.reader(lines, delimiter=max(_DELIMITERS, key=head[0].count))
    return _collect(path, _of_table(path, reader, column))


def _head(stream: IO[str], most: int = 2) -> list[str]:
    """The first lines, empty ones included, up to the second one that holds something."""
    head: list[str] = []
    while sum(1 for line in head if line.strip()) < most and (line := stream.readline(1_000_000)):
        head.append(line)
    return [] if all(not line.strip() for line in head) else head


def _collect(path: Path, times: Iterable[float]) -> NDArray[np.float64]:
    collected: list[float] = []
    for time in times:
        collected.append(time)
        if len(collected) > REQUESTS_MOST:
            raise TraceError(f"{path} holds more than {REQUESTS_MOST:,} requests; cut it")
    return np.array(collected, dtype=np.float64)


def _of_log(path: Path, lines: Iterable[str]) -> Iterator[float]:
    parse = _Times(path)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _IN_BRACKETS.search(line)
        if match is None:
            raise TraceError(f"{path}, line {number}: no time in brackets, as the other lines have")
        yield parse(match[1], number)


class _Rows(Iterator[list[str]], Protocol):
    """What `csv.reader` makes, whose type has no public name."""

    @property
    def line_num(self) -> int:
        """Of the last line that was read."""


def _of_table(path: Path, reader: _Rows, column: str | None) -> Iterator[float]:
    rows = _numbered(path, reader)
    top = next(rows, None)
    if top is None:
        return
    headed = not any(_moment(cell) is not None or _number(cell) is not None for cell in top[1])
    names = [cell.strip() for cell in top[1]] if headed else [str(number) for number, _ in enumerate(top[1], 1)]
    first = next(rows, None) if headed else top
    if first is None:
        return
    index = _named(path, names, column) if column is not None else _obvious(path, names, first[1][: len(names)])
    parse = _Times(path)
    for number, row in chain([first], rows):
        if index >= len(row):
            raise TraceError(f"{path}, line {number}: it has {len(row)} columns, and {names[index]} is no. {index + 1}")
        yield parse(row[index], number)


def _numbered(path: Path, reader: _Rows) -> Iterator[tuple[int, list[str]]]:
    """Rows that hold something, with the number of their line."""
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise TraceError(f"{path}, line {reader.line_num}: this is no CSV: {error}") from error


def _named(path: Path, names: Sequence[str], column: str) -> int:
    if column in names:
        return names.index(column)
    if column.isdecimal() and 1 <= int(column) <= len(names):
        return int(column) - 1
    raise TraceError(f"{path} has no column {column}; there are: {', '.join(names)}")


def _obvious(path: Path, names: Sequence[str], row: Sequence[str]) -> int:
    """The one column that reads as times: by its values, or, of numbers, by its name or size."""
    written = [index for index, cell in enumerate(row) if _moment(cell) is not None]
    numbers = {index: value for index, cell in enumerate(row) if (value := _number(cell)) is not None}
    by_name = [index for index in (written or numbers) if names[index].lower() in _NAMES_OF_TIMES]
    by_size = [index for index, value in numbers.items() if value >= _EPOCH_SECONDS_LEAST]
    for candidates in (written, by_name, by_size, list(numbers) if len(names) == 1 else []):
        if len(candidates) == 1:
            return candidates[0]
    raise TraceError(
        f"{path}: which column holds the times is not clear; name it with --column, as one of: {', '.join(names)}"
    )


class _Times:
    """Cells to seconds: all in the form of the first one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: Callable[[str], float | None] | None = None

    def __call__(self, cell: str, line: int) -> float:
        """Seconds since 1970, or since whatever the numbers count from. Raises TraceError."""
        read = self._read
        if read is None:
            read = self._read = self._form(cell)
        value = read(cell) if read else None
        if value is None:
            raise TraceError(
                f"{self._path}, line {line}: {cell.strip()[:60]!r} is no time as "
                f"{'the ones before' if read else 'ISO 8601 or a number'}; another column is chosen with --column"
            )
        return value

    @staticmethod
    def _form(cell: str) -> Callable[[str], float | None] | None:
        if (number := _number(cell)) is not None:
            unit = next(unit for most, unit in _EPOCH_UNITS if abs(number) < most)

            def seconds(text: str) -> float | None:
                value = _number(text)
                return None if value is None else value * unit

            return seconds
        moment = _moment(cell)
        if moment is None:
            return None
        zoned = moment.tzinfo is not None

        def since_1970(text: str) -> float | None:
            value = _moment(text)
            if value is None or (value.tzinfo is not None) != zoned:
                return None
            # Without a zone only differences count; UTC has no hour that comes twice.
            return (value if zoned else value.replace(tzinfo=UTC)).timestamp()

        return since_1970


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _moment(text: str) -> datetime | None:
    """A time as people or programs write it; a plain number is none, though ISO 8601 has dates of digits alone."""
    text = text.strip()
    if not 8 <= len(text) <= 40 or _number(text) is not None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    if text[2:3] != "/":
        return None
    try:
        # It has a zone; the rule does not look into the constant.
        return datetime.strptime(text, _COMMON_LOG_FORMAT)  # noqa: DTZ007 - the format has %z
    except ValueError:
        return None
