"""What `conch rollout status` does: tell how far a rollout is, once or until it is over."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Final, Protocol

import typer
from rich.console import Console
from rich.live import Live

from conch.api.model_deployment import parse
from conch.kube.client import Json, KubeClient
from conch.rollouts.printing import print_out, stdout_encoding
from conch.rollouts.progress import Progress, look
from conch.rollouts.reading import connected, read, read_again
from conch.rollouts.screen import as_line, screen

LOOK_SECONDS: Final = 1.0

_LOST: Final = "The API server does not answer; it is asked again."


class View(Protocol):
    """Shows a person or a program every look at the object."""

    def show(self, body: Json, progress: Progress) -> None:
        """Show it, if it has anything new."""

    def lost(self) -> None:
        """The API server does not answer; what was shown may be old."""


async def status(name: str, *, namespace: str | None, context: str | None, watch: bool, as_json: bool) -> int:
    """The exit code. Raises ClientError or KubeconfigError where it cannot be told."""
    async with connected(context, namespace) as (client, where):
        if not watch:
            _tell(await read(client, where, name), as_json=as_json)
            return 0
        if as_json:
            return await follow(client, where, name, JsonLines())
        console = Console(highlight=False, markup=False, emoji=False)
        if not console.is_terminal:
            return await follow(client, where, name, Lines())
        # Drawn at each look: a thread that draws would go on while this one waits.
        with Live(console=console, auto_refresh=False) as live:
            return await follow(client, where, name, Screen(live))


async def follow(client: KubeClient, namespace: str, name: str, view: View) -> int:
    """Look until it is decided: 0 if what the spec asks for has the traffic, 1 if it was rolled back."""
    body: Json | None = await read(client, namespace, name)
    while True:
        if body is None:
            view.lost()
        else:
            progress = look(parse(body))
            view.show(body, progress)
            if (code := progress.exit_code) is not None:
                return code
        await asyncio.sleep(LOOK_SECONDS)
        body = await read_again(client, namespace, name)


class Screen:
    """A terminal, drawn anew at each look."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, _body: Json, progress: Progress) -> None:
        """Times pass, so there always is something new."""
        drawn = screen(progress, now=datetime.now(UTC), encoding=self._live.console.encoding)
        self._live.update(drawn, refresh=True)

    def lost(self) -> None:
        """A line above the screen."""
        self._live.console.print(_LOST)


class Lines:
    """A line for each change, with the time at which it was seen."""

    def __init__(self) -> None:
        self._last = ""

    def show(self, _body: Json, progress: Progress) -> None:
        """What has changed since the last line."""
        if (line := as_line(progress)) != self._last:
            self._last = line
            typer.echo(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}")

    def lost(self) -> None:
        """Said beside the lines."""
        typer.echo(_LOST, err=True)


class JsonLines:
    """`status.rollout` as one line of JSON for each change."""

    def __init__(self) -> None:
        self._last: str | None = None

    def show(self, body: Json, _progress: Progress) -> None:
        """As the object has it, also what this version of Conch does not know."""
        if (line := json.dumps(_rollout(body))) != self._last:
            self._last = line
            typer.echo(line)

    def lost(self) -> None:
        """Said beside the lines."""
        typer.echo(_LOST, err=True)


def _tell(body: Json, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_rollout(body), indent=2))
        return
    print_out(screen(look(parse(body)), now=datetime.now(UTC), encoding=stdout_encoding()))


def _rollout(body: Json) -> Json | None:
    rollout: Json | None = body.get("status", {}).get("rollout")
    return rollout
