"""Courses of events under an open-loop load, one after the other: no request may be lost."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from tests.load import Load, Result


def play(requests: int, load: Callable[[Path], Load], run: Callable[[Load], None]) -> list[Result]:
    """Courses until so many requests were sent; `load` makes the load of one, given a folder for it.

    Each has clients of its own: who connected in mode Direct stays with its pod until that ends.
    """
    results: list[Result] = []
    while sum(result.sent for result in results) < requests:
        with tempfile.TemporaryDirectory() as folder, load(Path(folder)) as begun:
            run(begun)
            results.append(begun.stop())
        typer.echo(results[-1].summary())
    return results


def judge(results: Sequence[Result]) -> None:
    """Print what became of them; exits with 1 if a request was lost, or the load was not what it should have been."""
    sent, failed = sum(result.sent for result in results), sum(result.failed for result in results)
    typer.echo(f"{sent} requests in {len(results)} courses, {failed} lost")
    if failed or not all(result.on_schedule for result in results):
        raise typer.Exit(1)
