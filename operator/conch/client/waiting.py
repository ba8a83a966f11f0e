"""Tells a person that an answer takes its time: a request to a model without a replica is held until there is one."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import typer

SAID_AFTER_SECONDS: Final = 2.0


@contextmanager
def waiting_is_said(what: str) -> Iterator[None]:
    """Say on stderr what is waited for if the block is not through in time; inside a running event loop."""
    handle = asyncio.get_running_loop().call_later(
        SAID_AFTER_SECONDS, lambda: typer.echo(f"waiting for {what}", err=True)
    )
    try:
        yield
    finally:
        handle.cancel()
