"""What `conch infer` does: one request, its answer and its time."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from conch.client.credentials import NOTHING, Credentials, Tls, read_api_key
from conch.client.errors import ClientError
from conch.client.golden import compare, read_sample
from conch.client.input_files import read_inputs, write_npz
from conch.client.kubectl_forward import LOOPBACK, forwarding
from conch.client.metadata import ModelMetadata, check_inputs
from conch.client.protocol import WireProtocol
from conch.client.render import Told, as_json, as_text
from conch.client.server import Server
from conch.client.target import GATEWAY_NAMESPACE, Target, Wanted, find_target
from conch.client.waiting import waiting_is_said
from conch.kube.kubeconfig import connect_as_user
from conch.triton.golden_set import Sample

ANSWERED: Final = 0
DIFFERS: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a person asked for."""

    name: str
    namespace: str | None = None
    context: str | None = None
    protocol: WireProtocol = WireProtocol.HTTP
    inputs: Path | None = None
    golden: Path | None = None
    sample: int = 0
    address: str | None = None
    """host:port of a server; then `name` is the model's, and no cluster is asked."""
    via_gateway: bool = False
    gateway_namespace: str = GATEWAY_NAMESPACE
    output: str = "text"
    timeout_seconds: float = 600
    tls: bool = False
    """Whether the server at `address` speaks TLS; of a gateway that is known."""
    ca_file: Path | None = None
    """Certificates of the authorities to trust; without any those of this machine."""
    api_key_file: Path | None = None
    """What gateways may want, else that of the environment; a pod of the model is not told it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    address: str
    model: str
    answered_by: str
    credentials: Credentials


async def infer(request: Request) -> int:
    """Ask and print; returns the exit code. Raises ClientError, KubeconfigError or ServerError."""
    check(request)
    async with _place(request) as place:
        server = _connect(request.protocol, place, request.timeout_seconds)
        try:
            with waiting_is_said(f"{place.model} ({place.answered_by})"):
                metadata = await server.metadata(place.model)
            sample = _sample(request, metadata)
            check_inputs(sample.inputs, metadata)
            with waiting_is_said(f"the answer of {place.model} ({place.answered_by})"):
                began = time.perf_counter()
                answer = await server.infer(place.model, sample.inputs)
                milliseconds = (time.perf_counter() - began) * 1000
        finally:
            await server.close()
    told = Told(
        model=place.model,
        protocol=request.protocol,
        answered_by=place.answered_by,
        milliseconds=milliseconds,
        answer=answer,
        sample=sample.number if request.golden else None,
        verdicts=compare(sample.expected, answer.outputs) if sample.expected else None,
    )
    _show(told, request.output)
    return DIFFERS if told.as_expected is False else ANSWERED


def check(request: Request) -> None:
    """Raises ClientError for a combination that means nothing."""
    elsewhere = request.namespace or request.context or request.via_gateway
    if request.address and elsewhere:
        raise ClientError("--address asks a server directly: leave out --namespace, --context and --via-gateway.")
    if not request.address and request.tls:
        raise ClientError("--tls is for --address: whether a gateway speaks TLS, the cluster tells.")
    if not request.address and not request.via_gateway and (request.ca_file or request.api_key_file):
        raise ClientError(
            "A pod of the model knows neither TLS nor keys: give --ca-certificate and --api-key-file with "
            "--via-gateway or --address."
        )
    if request.inputs and request.golden:
        raise ClientError("Give --input or --golden, not both.")
    if request.sample and not request.golden:
        raise ClientError("--sample chooses from the set that --golden names.")
    if request.output not in ("text", "json") and not request.output.endswith(".npz"):
        raise ClientError(f"--output is text, json or a FILE.npz to write, not {request.output!r}.")


@asynccontextmanager
async def _place(request: Request) -> AsyncIterator[_Place]:
    """An address that leads to the model while the block runs."""
    if request.address:
        tls = Tls(ca_file=request.ca_file) if request.tls or request.ca_file else None
        # Anybody may be there: a key that lies in the environment for gateways is not told in clear text.
        is_meant = tls is not None or request.api_key_file is not None
        credentials = Credentials(tls=tls, api_key=read_api_key(request.api_key_file) if is_meant else None)
        yield _Place(address=request.address, model=request.name, answered_by=request.address, credentials=credentials)
        return
    client, default_namespace = await connect_as_user(request.context)
    try:
        wanted = Wanted(
            namespace=request.namespace or default_namespace,
            name=request.name,
            via_gateway=request.via_gateway,
            gateway_namespace=request.gateway_namespace,
        )
        target = await find_target(client, wanted)
    finally:
        await client.close()
    port = target.http_port if request.protocol is WireProtocol.HTTP else target.grpc_port
    async with forwarding(target, [(0, port)], context=request.context) as forward:
        address = f"{LOOPBACK}:{forward.local_ports[0]}"
        yield _Place(
            address=address,
            model=target.model,
            answered_by=f"pod {target.pod}, {target.detail}",
            credentials=_credentials(request, target),
        )


def _credentials(request: Request, target: Target) -> Credentials:
    if not request.via_gateway:
        return NOTHING
    name = target.tls_server_name
    if request.ca_file and not name:
        raise ClientError("The gateways speak without TLS here: leave out --ca-certificate.")
    tls = Tls(ca_file=request.ca_file, server_name=name) if name else None
    return Credentials(tls=tls, api_key=read_api_key(request.api_key_file))


def _connect(protocol: WireProtocol, place: _Place, timeout_seconds: float) -> Server:
    match protocol:
        case WireProtocol.HTTP:
            from conch.client.http_server import HttpServer

            return HttpServer(place.address, timeout_seconds=timeout_seconds, credentials=place.credentials)
        case WireProtocol.GRPC:
            from conch.client.grpc_server import GrpcServer

            return GrpcServer(place.address, timeout_seconds=timeout_seconds, credentials=place.credentials)


def _sample(request: Request, metadata: ModelMetadata) -> Sample:
    if request.golden:
        return read_sample(request.golden, request.sample, metadata)
    if request.inputs:
        return Sample(number=0, inputs=read_inputs(request.inputs, metadata), expected=())
    raise ClientError(f"{metadata.signature} Give it by --input FILE.json, --input FILE.npz or --golden FILE.")


def _show(told: Told, output: str) -> None:
    if output == "json":
        typer.echo(as_json(told))
        return
    if output != "text":
        write_npz(Path(output), told.answer.outputs)
    typer.echo(as_text(told))
