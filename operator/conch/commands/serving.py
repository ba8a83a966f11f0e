"""Look at a model that is served, and call it."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from conch.client.protocol import WireProtocol
from conch.commands.options import (
    ApiKeyFile,
    CaCertificate,
    Context,
    GatewayNamespace,
    Name,
    Namespace,
    Output,
    OutputFormat,
    ViaGateway,
)


def why(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Tell why a model does not come up.

    Prints the checks in order and which one does not pass, what was seen, and the next step. Reads with your own
    rights, and leaves out what you may not read. Exits with 0 when the ModelDeployment is ready, 1 when it is not, and
    2 when that cannot be told.

    \b
    Examples:
      conch why sentiment
      kubectl conch why sentiment -n team-a
      conch why sentiment --context production -o json
    """
    from conch.why.command import why as tell_why

    as_json = output is OutputFormat.JSON
    raise typer.Exit(asyncio.run(tell_why(name, namespace=namespace, context=context, as_json=as_json)))


def infer(
    name: Name,
    inputs: Annotated[
        Path | None,
        typer.Option("--input", help="The inputs: a .json or .npz file.", metavar="FILE", dir_okay=False, exists=True),
    ] = None,
    golden: Annotated[
        Path | None,
        typer.Option(
            help="The model's golden.json: send a sample, check the answer.",
            metavar="FILE",
            dir_okay=False,
            exists=True,
        ),
    ] = None,
    sample: Annotated[int, typer.Option(help="Which sample of the golden set, from 0.", min=0, metavar="N")] = 0,
    protocol: Annotated[WireProtocol, typer.Option(help="How to ask.")] = WireProtocol.HTTP,
    namespace: Namespace = None,
    context: Context = None,
    via_gateway: ViaGateway = False,
    gateway_namespace: GatewayNamespace = "conch-system",
    address: Annotated[
        str | None,
        typer.Option(
            help="Ask this server; NAME is then the model's, and no cluster is looked at.", metavar="HOST:PORT"
        ),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="The server of --address speaks TLS.")] = False,
    ca_certificate: CaCertificate = None,
    api_key_file: ApiKeyFile = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer.", min=0.1, metavar="SECONDS")] = 600,
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", help="text, json, or a file to write the outputs to.", metavar="text|json|FILE.npz"
        ),
    ] = "text",
) -> None:
    """Send one request to a model, and print the answer and its time.

    The request goes through kubectl port-forward to a ready pod, or with --via-gateway to one of Conch's gateways,
    where it waits while the model has no replica. The time is the request's alone. What the model takes is printed
    where neither --input nor --golden is given.

    \b
    JSON is the Open Inference Protocol's, or each input's values by its name:
      {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0.1, 0.2, 0.3, 0.4]}]}
      {"x": [[0.1, 0.2, 0.3, 0.4]]}
    npz holds an array for each input; arrays of text are BYTES.

    Exits with 0, with 1 when the answer is not the golden set's, and with 2 when there is none.

    \b
    Examples:
      conch infer sentiment --input texts.json
      conch infer sentiment -n team-a --input batch.npz --protocol grpc -o answer.npz
      conch infer sentiment --golden models/sentiment/golden.json --sample 3
      conch infer sentiment --via-gateway --input texts.json -o json
      conch infer sentiment --via-gateway --ca-certificate ca.crt --api-key-file key.txt --input texts.json
      conch infer sentiment --address sentiment.example.com:8000 --input texts.json
    """
    from conch.client.infer import Request
    from conch.client.infer import infer as ask
    from conch.client.run import run

    request = Request(
        name=name,
        namespace=namespace,
        context=context,
        protocol=protocol,
        inputs=inputs,
        golden=golden,
        sample=sample,
        address=address,
        via_gateway=via_gateway,
        gateway_namespace=gateway_namespace,
        output=output,
        timeout_seconds=timeout,
        tls=tls,
        ca_file=ca_certificate,
        api_key_file=api_key_file,
    )
    raise typer.Exit(run(ask(request)))


def port_forward(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    http_port: Annotated[int, typer.Option(help="Local port for HTTP; 0: any free one.", min=0, max=65535)] = 8000,
    grpc_port: Annotated[int, typer.Option(help="Local port for gRPC; 0: any free one.", min=0, max=65535)] = 8001,
    via_gateway: ViaGateway = False,
    gateway_namespace: GatewayNamespace = "conch-system",
) -> None:
    """Make a model's HTTP and gRPC ports this machine's, until Ctrl-C.

    Forwards to one ready pod of the model by kubectl port-forward, and to another one when that goes away. With
    --via-gateway to one of Conch's gateways, where the model's replicas are balanced and requests wait while there is
    none; that needs the right to forward ports in the gateways' namespace.

    \b
    Examples:
      conch port-forward sentiment
      conch port-forward sentiment -n team-a --http-port 9000 --grpc-port 9001
      conch port-forward sentiment --via-gateway
    """
    from conch.client.port_forward import port_forward as forward
    from conch.client.run import run

    forwarding = forward(
        name,
        namespace=namespace,
        context=context,
        http_port=http_port,
        grpc_port=grpc_port,
        via_gateway=via_gateway,
        gateway_namespace=gateway_namespace,
    )
    raise typer.Exit(run(forwarding))
