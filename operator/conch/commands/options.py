"""Options that several commands have."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class OutputFormat(StrEnum):
    """For people, or for programs."""

    TEXT = "text"
    JSON = "json"


Endpoint = Annotated[
    str | None,
    typer.Option(help="https://HOST[:PORT] of the store where it is not the provider's own (s3, gs, az, hf)."),
]
Region = Annotated[str | None, typer.Option(help="Region of the bucket (s3).")]
VirtualHosted = Annotated[
    bool, typer.Option("--virtual-hosted", help="The bucket is in the host's name, BUCKET.HOST, not in the path (s3).")
]
CaCertificate = Annotated[
    Path | None, typer.Option(help="File with the certificate (PEM) of a private authority to trust.", dir_okay=False)
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(help="File with the API key that gateways want; else CONCH_API_KEY.", metavar="FILE", dir_okay=False),
]

Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Its namespace; default: the kubeconfig context's.")
]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig; default: the current one.")]
ViaGateway = Annotated[bool, typer.Option("--via-gateway", help="Through Conch's gateways, not to a pod of the model.")]
GatewayNamespace = Annotated[str, typer.Option(help="Namespace of Conch and its gateways.")]

Name = Annotated[str, typer.Argument(help="Name of the ModelDeployment.", metavar="NAME")]
Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="text for people, json for programs.")]
AnswerTimeout = Annotated[
    float, typer.Option("--timeout", help="Seconds to wait for the operator's answer.", min=0.1, metavar="SECONDS")
]
