"""`spec.gateway` in mode GatewayAPI: which Gateways carry the requests, in the words of gateway.networking.k8s.io."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from conch.api.types import ApiModel, DnsLabel, DnsName

GATEWAY_API_VERSION: Final = "gateway.networking.k8s.io/v1"

Hostname = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        description="A name, or *.DOMAIN for all names below a domain.",
    ),
]


class RouteProtocol(StrEnum):
    """What a Gateway is asked to carry."""

    HTTP = "HTTP"
    """By an HTTPRoute, to Triton's HTTP port."""
    GRPC = "GRPC"
    """By a GRPCRoute, to Triton's gRPC port."""


class ParentReference(ApiModel):
    """A Gateway that is to carry the requests, or one of its listeners."""

    name: DnsName
    namespace: Annotated[DnsLabel | None, Field(description="The object's own if not given.")] = None
    section_name: Annotated[DnsName | None, Field(description="Only the listener of this name.")] = None
    port: Annotated[int | None, Field(ge=1, le=65_535, description="Only the listeners of this port.")] = None
    protocol: Annotated[
        RouteProtocol | None,
        Field(
            description="What it is to carry; both if not given. A listener takes HTTP and gRPC for different "
            "hostnames only, so give each a listener, or hostnames and grpcHostnames."
        ),
    ] = None

    def carries(self, protocol: RouteProtocol) -> bool:
        """Whether requests of this protocol are to come through it."""
        return self.protocol in (None, protocol)
