"""Runs a command of this room to its end or to a signal, and says what went wrong."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, Final

import typer

from conch.client.errors import ClientError
from conch.client.render import printable
from conch.client.server import ServerError
from conch.kube.errors import KubeconfigError

NOT_DONE: Final = 2


def run(command: Coroutine[Any, Any, int]) -> int:
    """The exit code: the command's own, 2 with a sentence on stderr, or 128 + the signal that ended it.

    A signal cancels, so that what the command started (kubectl) ends with it.
    """
    return asyncio.run(_run(command))


async def _run(command: Coroutine[Any, Any, int]) -> int:
    task = asyncio.create_task(command)
    ended_by: list[int] = []

    def end(number: int) -> None:
        ended_by.append(number)
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end, number)
    try:
        return await task
    except asyncio.CancelledError:
        return 128 + ended_by[0]
    except (ClientError, ServerError, KubeconfigError) as error:
        typer.echo(printable(str(error)), err=True)
        return NOT_DONE
