"""The protocol's two transports."""

from enum import StrEnum


class WireProtocol(StrEnum):
    """How a request goes."""

    HTTP = "http"
    GRPC = "grpc"
