"""The command `conch`: the roles that run in the cluster and the tools for people."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Serve models with NVIDIA Triton on Kubernetes.",
    rich_markup_mode=None,
)


@app.callback()
def conch() -> None:
    """Serve models with NVIDIA Triton on Kubernetes."""


@app.command()
def operator(
    settings: Annotated[Path, typer.Option(help="Settings file (YAML).")] = Path("/etc/conch/settings.yaml"),
    installation_key: Annotated[
        Path, typer.Option(help="File with the installation's key, at least 32 bytes; admin keys are derived from it.")
    ] = Path("/etc/conch/installation-key/key"),
    namespace: Annotated[
        str, typer.Option(envvar="CONCH_NAMESPACE", help="Namespace of the operator's own Lease.")
    ] = "conch-system",
) -> None:
    """Run the operator until SIGTERM. Connects as the pod's service account, or as KUBECONFIG says.

    Example: KUBECONFIG=.cluster/kubeconfig conch operator --settings settings.yaml --installation-key key
    """
    from conch.app.logs import configure_logs
    from conch.app.operator import Operator
    from conch.kube.client import KubeClient
    from conch.runtime.garbage_collection import ShortCollections
    from conch.settings import OperatorSettings, SettingsError

    try:
        read = OperatorSettings.load(settings)
        key = installation_key.read_bytes().strip()
    except (SettingsError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    if len(key) < 32:
        raise typer.BadParameter(f"{installation_key} holds {len(key)} bytes; at least 32 are needed")
    configure_logs(format=read.log_format, level=read.log_level)

    ShortCollections().install()

    async def run() -> None:
        client = await KubeClient.connect()
        try:
            identity = f"{socket.gethostname()}-{os.getpid()}"
            await Operator(client, read, namespace=namespace, identity=identity, installation_key=key).run()
        finally:
            await client.close()

    asyncio.run(run())


@app.command()
def agent() -> None:
    """Run the sidecar of a model pod until SIGTERM; the assignment mounted into it tells what to serve."""
    from conch.agent.main import run
    from conch.agent.settings import AgentSettings

    asyncio.run(run(AgentSettings.from_env()))


@app.command()
def crd() -> None:
    """Print the CustomResourceDefinition that this version of Conch serves.

    Example: conch crd | kubectl apply --server-side -f -
    """
    import yaml

    from conch.api.crd import custom_resource_definition

    typer.echo(yaml.safe_dump(custom_resource_definition(), sort_keys=False, width=120), nl=False)


@app.command()
def digest(path: Annotated[Path, typer.Argument(help="A model file, or the folder of a model.", exists=True)]) -> None:
    """Print the digest of a model's files, as `model.source.digest` wants it.

    Example: conch digest models/sentiment
    """
    from conch.store.digest import tree_digest
    from conch.store.errors import StoreError

    try:
        typer.echo(tree_digest(path))
    except StoreError as error:
        typer.secho(str(error), err=True)
        raise typer.Exit(1) from error


def main() -> None:
    """Entry point of the console script."""
    app()
