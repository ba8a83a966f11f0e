"""The roles that run in the cluster."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from conch.api import gateway_pod


def operator(
    settings: Annotated[Path, typer.Option(help="Settings file (YAML).")] = Path("/etc/conch/settings.yaml"),
    installation_key: Annotated[
        Path, typer.Option(help="File with the installation's key, at least 32 bytes; admin keys are derived from it.")
    ] = Path("/etc/conch/installation-key/key"),
    gateway_token: Annotated[
        Path, typer.Option(help="File with the token that gateways ask for; read anew each time.")
    ] = Path(gateway_pod.TOKEN_FILE),
    namespace: Annotated[
        str, typer.Option(envvar="CONCH_NAMESPACE", help="Namespace of the operator's own Lease, and of the gateways.")
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
        gateway_token.read_text()
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
            await Operator(
                client,
                read,
                namespace=namespace,
                identity=identity,
                installation_key=key,
                gateway_token=lambda: gateway_token.read_text().strip(),
            ).run()
        finally:
            await client.close()

    asyncio.run(run())


def agent() -> None:
    """Run the sidecar of a model pod until SIGTERM; the assignment mounted into it tells what to serve."""
    from conch.agent.main import run
    from conch.agent.settings import AgentSettings

    asyncio.run(run(AgentSettings.from_env()))


def gateway() -> None:
    """Run the sidecar of a gateway's Envoy until SIGTERM: it says what Envoy routes, and holds requests.

    Connects as the pod's service account, or as KUBECONFIG says.
    """
    from conch.app.logs import configure_logs
    from conch.gateway.main import run
    from conch.gateway.settings import GatewaySettings

    settings = GatewaySettings.from_env()
    configure_logs(format=settings.log_format, level=settings.log_level)
    asyncio.run(run(settings))
