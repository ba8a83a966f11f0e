"""What `conch promote|abort|retry|rollback|pause|resume` do: ask, and print the answer."""

from typing import Final

import typer

from conch.client.render import printable
from conch.rollouts.asking import NotHeededError, Request, ask
from conch.rollouts.reading import connected

HEEDED: Final = 0
NOT_HEEDED: Final = 1


async def command(name: str, request: Request, *, namespace: str | None, context: str | None) -> int:
    """The exit code. Raises ClientError or KubeconfigError where the API server could not be asked."""
    async with connected(context, namespace) as (client, where):
        try:
            answer = await ask(client, where, name, request)
        except NotHeededError as error:
            typer.echo(printable(f"{request.verb} {name}: not done. {error}"), err=True)
            return NOT_HEEDED
        typer.echo(printable(f"{request.verb} {name}: {answer}"))
        return HEEDED
