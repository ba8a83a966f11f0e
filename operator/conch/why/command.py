"""Reads, explains and prints; what `conch why` does."""

import json
import shutil
import sys
from datetime import UTC, datetime
from typing import Final

import typer

from conch.kube.errors import KubeconfigError
from conch.kube.kubeconfig import connect_as_user
from conch.why.chain import explain
from conch.why.gather import CannotTellError, gather
from conch.why.render import render

READY: Final = 0
NOT_READY: Final = 1
CANNOT_TELL: Final = 2


async def why(name: str, *, namespace: str | None, context: str | None, as_json: bool) -> int:
    """Print the report; returns the exit code."""
    try:
        client, default_namespace = await connect_as_user(context)
        try:
            seen = await gather(client, namespace or default_namespace, name)
        finally:
            await client.close()
    except (KubeconfigError, CannotTellError) as error:
        typer.echo(str(error), err=True)
        return CANNOT_TELL
    report = explain(seen)
    if as_json:
        typer.echo(json.dumps(report.model_dump(mode="json"), indent=2))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        typer.echo(
            render(report, now=datetime.now(UTC), terminal_width=width, encoding=sys.stdout.encoding or "utf-8"),
            # Already decided; typer looks at another stream where its output is captured.
            color=width is not None,
        )
    return READY if report.ready else NOT_READY
