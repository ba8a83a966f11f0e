"""Runs `conch package` and `conch package check`: the exit code, and what is printed."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import typer

from conch.client.render import printable
from conch.packaging import report
from conch.packaging.checking.check import look_over
from conch.packaging.errors import PackagingError
from conch.packaging.options import Options, request_of
from conch.packaging.packaging import package
from conch.packaging.terminal import Terminal
from conch.rollouts.printing import print_out

FAILED: Final = 1
NOT_DONE: Final = 2
_INTERRUPTED: Final = 130
_TERMINATED: Final = 143


def run_package(options: Options, *, as_json: bool) -> int:
    """0, or 1 with a sentence on stderr; nothing is written then."""
    try:
        with _ended_by_sigterm(), Terminal() as terminal:
            made = package(request_of(options), terminal)
    except PackagingError as error:
        typer.echo(printable(str(error)), err=True)
        return FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    except MemoryError:
        typer.echo("there is not enough memory to package this model; use a machine with more", err=True)
        return FAILED
    if as_json:
        typer.echo(report.package_json(made))
    else:
        print_out(report.package_text(made))
    return 0


def run_check(repository: Path, *, as_json: bool) -> int:
    """0, 1 when something is wrong, 2 when that cannot be told."""
    try:
        with Terminal() as terminal:
            checked = look_over(repository, terminal)
    except PackagingError as error:
        typer.echo(printable(str(error)), err=True)
        return NOT_DONE
    except KeyboardInterrupt:
        return _INTERRUPTED
    if as_json:
        typer.echo(report.checked_json(checked))
    else:
        print_out(report.checked_text(checked))
    return FAILED if checked.findings else 0


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """As by Ctrl-C, so that what was begun is taken back."""

    def end(_number: int, _frame: FrameType | None) -> None:
        sys.exit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
