"""Times, texts and tables of this room, for people."""

import shutil
import sys
from datetime import datetime, timedelta
from io import StringIO
from typing import Final

import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from conch.client.render import printable

_NO_LINE_BREAKS: Final = 100_000


def duration(length: timedelta) -> str:
    """Such as 90s, 5m or 3h; nothing is shorter than 0s."""
    seconds = max(0, int(length.total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def since(stamp: str, now: datetime) -> str:
    """How long that is ago."""
    return duration(now - datetime.fromisoformat(stamp))


def one_line(text: str) -> str:
    """Without line breaks or what steers the terminal: messages hold what others wrote."""
    return printable(" ".join(text.split()))


def plain(text: str, style: str = "") -> Text:
    """Such a line in one style."""
    return Text(one_line(text), style=style)


def table(*headers: str) -> Table:
    """Columns without lines, as kubectl prints them; only the last one is ever broken."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in headers:
        made.add_column(header, no_wrap=header is not headers[-1])
    return made


def as_text(drawn: RenderableType, *, terminal_width: int | None = None, encoding: str = "utf-8") -> str:
    """As text; `terminal_width` is None where it goes to a pipe or file, then without colours and line breaks."""
    into = StringIO()
    console = Console(
        file=into,
        force_terminal=terminal_width is not None,
        width=terminal_width or _NO_LINE_BREAKS,
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.print(drawn)
    text = "\n".join(line.rstrip() for line in into.getvalue().splitlines())
    # What others wrote may hold what the encoding has not.
    return text.encode(encoding, errors="replace").decode(encoding)


def print_out(drawn: RenderableType) -> None:
    """To stdout, as wide and coloured as that takes it."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    # Already decided; typer looks at another stream where its output is captured.
    typer.echo(as_text(drawn, terminal_width=width, encoding=stdout_encoding()), color=width is not None)


def stdout_encoding() -> str:
    """What stdout can hold."""
    return sys.stdout.encoding or "utf-8"
