"""What `conch rollout history` does: print the revisions that are known."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import typer
from rich.table import Table

from conch.api.model_deployment import parse
from conch.client.render import printable
from conch.kube import resources
from conch.kube.client import Json, KubeClient
from conch.kube.errors import ApiError, ApiUnavailableError
from conch.rollouts.printing import plain, print_out, since, table
from conch.rollouts.reading import connected, read
from conch.rollouts.revisions import RevisionRow, selector
from conch.rollouts.revisions import history as revisions_of
from conch.why.refusals import in_plain_words


async def history(name: str, *, namespace: str | None, context: str | None, as_json: bool) -> int:
    """The exit code. Raises ClientError or KubeconfigError where the object cannot be read."""
    async with connected(context, namespace) as (client, where):
        owner = parse(await read(client, where, name))
        rows = revisions_of(owner, await _records(client, where, name))
    if as_json:
        typer.echo(json.dumps([row.model_dump(mode="json") for row in rows], indent=2))
    elif rows:
        print_out(_table(rows, now=datetime.now(UTC)))
    else:
        typer.echo(f"ModelDeployment {where}/{name} has no revision yet.")
    return 0


async def _records(client: KubeClient, namespace: str, name: str) -> Sequence[Json]:
    """The ControllerRevisions; who may not list them hears so, and gets what the status knows."""
    kind = resources.CONTROLLER_REVISIONS
    try:
        pages = client.pages(kind, namespace=namespace, label_selector=selector(name))
        return [record async for page in pages for record in page["items"]]
    except (ApiError, ApiUnavailableError) as error:
        typer.echo(printable(in_plain_words(error, verb="list", resource=kind, namespace=namespace)), err=True)
        return ()


def _table(rows: Sequence[RevisionRow], now: datetime) -> Table:
    drawn = table("REVISION", "VERSION", "WORKLOAD", "CREATED", "STANDING")
    for row in rows:
        drawn.add_row(
            plain(row.revision),
            str(row.version or "-"),
            plain(row.workload or "-"),
            f"{since(row.created, now)} ago" if row.created else "-",
            plain(_standing(row, now)),
        )
    return drawn


def _standing(row: RevisionRow, now: datetime) -> str:
    if row.rejected_at is None:
        return row.standing
    return f"{row.standing} {since(row.rejected_at, now)} ago, {row.cause}: {row.message}"
