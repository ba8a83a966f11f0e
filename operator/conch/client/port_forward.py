"""What `conch port-forward` does: a model's two ports on this machine, until its user ends it."""

import asyncio
import socket
from typing import Final

import typer

from conch.client.errors import ClientError, ForwardError, NothingReadyError
from conch.client.kubectl_forward import LOOPBACK, Forward, forwarding
from conch.client.target import Target, Wanted, find_target, has_gone
from conch.kube.client import KubeClient
from conch.kube.kubeconfig import connect_as_user

LOOK_SECONDS: Final = 2.0
"""How often the pod is looked at: kubectl itself does not notice that a pod has gone before the next connection."""
FAILURES_MOST: Final = 5


async def port_forward(
    name: str,
    *,
    namespace: str | None,
    context: str | None,
    http_port: int,
    grpc_port: int,
    via_gateway: bool,
    gateway_namespace: str,
) -> int:
    """Forward until cancelled. Raises ClientError or KubeconfigError when that is not possible (any more)."""
    check_ports(http_port, grpc_port)
    client, default_namespace = await connect_as_user(context)
    try:
        wanted = Wanted(
            namespace=namespace or default_namespace,
            name=name,
            via_gateway=via_gateway,
            gateway_namespace=gateway_namespace,
        )
        target = await find_target(client, wanted)
        await _keep_forwarding(client, wanted, target, (http_port, grpc_port), context)
    finally:
        await client.close()
    return 0


def check_ports(http_port: int, grpc_port: int) -> None:
    """Raises ClientError for a port that somebody listens on: kubectl would forward the other one alone."""
    if http_port == grpc_port != 0:
        raise ClientError(f"Both protocols cannot have the local port {http_port}.")
    for option, port in (("--http-port", http_port), ("--grpc-port", grpc_port)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError as error:
                raise ClientError(
                    f"The local port {port} cannot be had ({error.strerror}); choose another with {option}."
                ) from error


async def _keep_forwarding(
    client: KubeClient, wanted: Wanted, target: Target, ports: tuple[int, int], context: str | None
) -> None:
    forwarded, failures = False, 0
    while True:
        try:
            pairs = list(zip(ports, (target.http_port, target.grpc_port), strict=True))
            async with forwarding(target, pairs, context=context) as forward:
                forwarded, failures = True, 0
                # Clients know them by now: with another pod they stay.
                http, grpc = ports = forward.local_ports[0], forward.local_ports[1]
                for line in _told(target, http, grpc):
                    typer.echo(line)
                await _until_lost(client, target, forward)
                words = forward.last_words
            typer.echo(f"the connection to pod {target.pod} is lost{f': {words}' if words else ''}", err=True)
        except ForwardError:
            failures += 1
            if not forwarded or failures == FAILURES_MOST:
                raise
            await asyncio.sleep(LOOK_SECONDS)
        target = await _next_target(client, wanted, target)


def _told(target: Target, http: int, grpc: int) -> list[str]:
    """The addresses; over TLS also the name by which clients must know the server, which is not that of loopback."""
    s = "s" if target.tls_server_name else ""
    lines = [
        f"{scheme}{s}://{LOOPBACK}:{port} -> pod {target.pod} ({target.detail})"
        for scheme, port in (("http", http), ("grpc", grpc))
    ]
    if target.tls_server_name:
        name = target.tls_server_name
        lines.append(f"Its certificate is for {name}: curl --connect-to {name}::{LOOPBACK}:{http} https://{name}/...")
    return lines


async def _until_lost(client: KubeClient, target: Target, forward: Forward) -> None:
    ended = asyncio.create_task(forward.ended())
    try:
        while not (await asyncio.wait({ended}, timeout=LOOK_SECONDS))[0]:
            if await has_gone(client, target):
                return
    finally:
        ended.cancel()


async def _next_target(client: KubeClient, wanted: Wanted, lost: Target) -> Target:
    said = False
    while True:
        try:
            return await find_target(client, wanted, avoid={lost.uid})
        except NothingReadyError as error:
            if not said:
                typer.echo(f"{error} Waiting for one.", err=True)
                said = True
        await asyncio.sleep(LOOK_SECONDS)
