"""The command line of the local cluster."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tests.cluster import binaries, bringup, cache, cleanup, images, machine, preconditions, reset, status
from tests.cluster.client import Cluster, existing
from tests.cluster.constants import CHECKOUT_STATE, GO_PROGRAM_BY_NAME, LOCK
from tests.cluster.errors import ClusterError
from tests.cluster.progress import console, say

_EPILOG = """
Examples:

    python -m tests.cluster up

    eval "$(python -m tests.cluster exec-paths)"; kubectl get nodes

    python -m tests.cluster load-image localhost/mine:1 --tar mine.tar

    CLUSTER=existing KUBECONFIG=~/.kube/config python -m tests.cluster up
"""

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False
)


@app.callback(epilog=_EPILOG)
def main() -> None:
    """A Kubernetes cluster of real parts on this machine: three nodes, two of them with four fake GPUs each."""


def _plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def wrapped(*args: object, **kwargs: object) -> None:
        try:
            command(*args, **kwargs)
        except ClusterError as error:
            console.print(f"error: {error}", markup=False, style="red", soft_wrap=True)
            raise typer.Exit(1) from None

    return wrapped


def _only_local(command: str) -> None:
    if existing():
        raise ClusterError(
            f"`{command}` works on the local cluster, and CLUSTER=existing asks for another.", todo="Unset CLUSTER."
        )


@app.command(epilog="Example: python -m tests.cluster up")
@_plain_errors
def up() -> None:
    """Make the cluster, or find it healthy. The first time it builds its parts, which takes about ten minutes."""
    cluster = Cluster.current() if existing() else bringup.up()
    say(f"export KUBECONFIG={cluster.kubeconfig}")


@app.command(epilog="Example: python -m tests.cluster down")
@_plain_errors
def down() -> None:
    """End and remove the cluster; the built programs and images stay in the cache."""
    _only_local("down")
    preconditions.check_can_change()
    with cache.locked(LOCK, what="changes this machine's cluster"):
        cleanup.remove()
        left = cleanup.leftovers()
    if left:
        raise ClusterError(f"Still there: {', '.join(left)}.", todo="Run `down` again.")
    say("The cluster is gone.")


@app.command(name="reset", epilog="Example: python -m tests.cluster reset")
@_plain_errors
def reset_command() -> None:
    """Delete everything that users made in the cluster, and wait until it is gone; the parts run on."""
    _only_local("reset")
    with cache.locked(LOCK, what="changes this machine's cluster"):
        reset.reset(Cluster.current())
    say("The cluster is as after `up`.")


@app.command(epilog="Example: python -m tests.cluster load-image localhost/conch:dev --tar conch.tar")
@_plain_errors
def load_image(
    name: Annotated[str, typer.Argument(help="The image's full name, for example localhost/conch:dev.")],
    tar: Annotated[
        Path | None, typer.Option(help="A docker-archive or OCI archive; without it, the last one built here.")
    ] = None,
) -> None:
    """Put an image on every node."""
    _only_local("load-image")
    images.load(name, tar or images.save(name))


@app.command(epilog="Example: python -m tests.cluster build-programs")
@_plain_errors
def build_programs() -> None:
    """Compile every program that is not in the cache yet; tests with a time limit can then count on them."""
    say(f"The programs are in {binaries.ensure(*GO_PROGRAM_BY_NAME)}")


@app.command(epilog="Example: python -m tests.cluster build-images")
@_plain_errors
def build_images(
    load: Annotated[bool, typer.Option(help="Also put them on every node.")] = True,
) -> None:
    """Build the images of the product, of Triton and of Envoy from their Dockerfiles and put them on every node."""
    preconditions.install_packages()
    for name, archive in images.build_project_images().items():
        if load and not existing():
            images.load(name, archive)
        say(f"{name}: {archive}")


@app.command(name="status", epilog="Example: python -m tests.cluster status")
@_plain_errors
def status_command() -> None:
    """Show the parts: process, memory, health. Fails when one is not healthy."""
    rows = status.rows()
    table = Table("part", "pid", "MiB", "health", box=None)
    for row in rows:
        table.add_row(row.part, str(row.pid or "-"), str(row.resident_mib or "-"), row.health)
    console.print(table)
    if not rows:
        say("No cluster is up. Run `python -m tests.cluster up`.")
    if not rows or any(row.health != "ok" for row in rows):
        raise typer.Exit(1)
    record = machine.read()
    if record is not None and record.checkout_state != str(CHECKOUT_STATE):
        say(f"It belongs to another checkout: {Path(record.checkout_state).parent}")


@app.command(epilog='Example: eval "$(python -m tests.cluster exec-paths)"')
@_plain_errors
def exec_paths() -> None:
    """Print shell lines that put kubectl and helm on PATH and set KUBECONFIG."""
    folder = binaries.ensure("kubectl", "helm")
    print(f'export PATH="{folder}:$PATH"')
    if not existing():
        print(f'export KUBECONFIG="{CHECKOUT_STATE / "kubeconfig"}"')


def run() -> None:
    """For `python -m tests.cluster`."""
    os.umask(0o022)
    app()
