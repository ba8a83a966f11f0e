"""The command `conch`: the roles that run in the cluster and the tools for people."""

from collections.abc import Callable

import typer

from conch.commands.definitions import crd
from conch.commands.packaging import app as package
from conch.commands.roles import agent, gateway, operator
from conch.commands.rollouts import abort, history, pause, promote, resume, retry, rollback, status
from conch.commands.serving import infer, port_forward, why
from conch.commands.simulation import simulate
from conch.commands.stores import digest, push

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
rollout = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def conch() -> None:
    """Serve models with NVIDIA Triton on Kubernetes.

    On a PATH with kubectl, the commands are kubectl's too: kubectl conch why NAME
    """


_COMMANDS: tuple[Callable[..., None], ...] = (
    *(operator, agent, gateway),
    *(why, infer, port_forward),
    *(promote, abort, retry, rollback, pause, resume),
    *(simulate, digest, push, crd),
)
for _command in _COMMANDS:
    app.command()(_command)
app.add_typer(rollout, name="rollout", help="See how a new revision of a model takes over.")
app.add_typer(package, name="package", help="Package a trained model for Triton, with its own proof; or check one.")
for _command in (status, history):
    rollout.command()(_command)


def main() -> None:
    """Entry point of the console script."""
    app()
