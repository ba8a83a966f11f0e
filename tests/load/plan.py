"""What to send: streams of requests, each with its protocol, address and schedule."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Protocol(StrEnum):
    """How requests go."""

    HTTP = "http"
    """POST /v2/models/MODEL/infer with binary tensors, on connections that are kept."""
    GRPC = "grpc"
    """ModelInfer."""
    GRPC_STREAM = "grpc-stream"
    """ModelStreamInfer: many requests on one stream, each answered once."""
    SSE = "sse"
    """POST /v2/models/MODEL/generate_stream; answered when the events are over."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tensor(_Part):
    """An input, with a flat list of values."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: tuple[Any, ...]


class Stream(_Part):
    """Requests of one kind to one address."""

    protocol: Protocol
    address: str
    """host:port"""
    model: str
    headers: dict[str, str] = Field(default_factory=dict)
    """Of each request; over gRPC its metadata, so names are in lower case."""
    ca_file: str = ""
    """Whom to trust, as certificates in PEM; with it the address speaks TLS."""
    server_name: str | None = None
    """What the certificate must name; None: the host of the address."""
    rate_per_second: Annotated[float, Field(gt=0, le=5000)]
    poisson: bool = False
    """Whether the times between two requests vary as those of independent clients do; otherwise they are all equal."""
    inputs: tuple[Tensor, ...] = ()
    """Of all protocols but SSE."""
    generate: dict[str, Any] = Field(default_factory=dict)
    """The JSON of SSE."""
    connections: Annotated[int, Field(ge=1, le=256)] = 4
    """Of gRPC: channels, or streams that are open at a time. HTTP takes as many as it needs."""
    requests_per_stream: Annotated[int, Field(ge=1, le=100_000)] = 50
    """Of GRPC_STREAM."""


class Plan(_Part):
    """A whole run, bounded in time and number."""

    streams: Annotated[tuple[Stream, ...], Field(min_length=1, max_length=32)]
    duration_seconds: Annotated[float, Field(gt=0, le=7200)]
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 30
    """For one request; what is not answered by then has failed."""
    seed: int = 0
    requests_most: Annotated[int, Field(ge=1, le=2_000_000)] = 500_000
    """Over all streams; a plan that schedules more is refused."""
    in_flight_most: Annotated[int, Field(ge=1, le=100_000)] = 20_000
    """Beyond this a request counts as failed without being sent: a test that hangs must not eat the machine."""
    lateness_bound_ms: Annotated[float, Field(gt=0)] = 100
    """With a higher p99 of lateness the run was not open loop, and its result says so."""
    failures_kept: Annotated[int, Field(ge=0, le=10_000)] = 20
    """How many are told one by one; all are counted."""
