"""`spec.gateway`: how clients reach the model, and what the gateways do for them.

What is not given is left out of the stored object, so that CEL can tell what was asked for; the defaults are here.
"""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from conch.api.cel import Rule, rules
from conch.api.gateway_api import Hostname, ParentReference, RouteProtocol
from conch.api.types import ApiModel

DEFAULT_TIMEOUT_SECONDS: Final = 60
DEFAULT_ATTEMPTS: Final = 2
DEFAULT_HOLD_SECONDS: Final = 60
DEFAULT_HELD_REQUESTS: Final = 1000

HOLD_SECONDS_MOST: Final = 3600


class GatewayMode(StrEnum):
    """Who carries the requests."""

    GATEWAY = "Gateway"
    """Conch's gateways: balanced per request, retried, held while nothing runs."""
    DIRECT = "Direct"
    """A plain Service on the pods: one hop less, and nothing of that."""
    GATEWAY_API = "GatewayAPI"
    """The platform's own Gateways, by an HTTPRoute and a GRPCRoute with weights."""


class Retries(ApiModel):
    """What happens to a request that a server did not answer."""

    attempts: Annotated[int, Field(ge=0, le=10, description="Further attempts, each with another server.")] = (
        DEFAULT_ATTEMPTS
    )
    replay: Annotated[
        bool,
        Field(
            description="Also repeat requests that a server had begun to execute when it vanished. Only for models "
            "whose requests may run twice."
        ),
    ] = False


class Hold(ApiModel):
    """Requests that come while no replica is ready wait for one."""

    seconds: Annotated[
        int, Field(ge=0, le=HOLD_SECONDS_MOST, description="How long a request may wait; 0 refuses it at once.")
    ] = DEFAULT_HOLD_SECONDS
    max_requests: Annotated[
        int, Field(ge=1, le=100_000, description="How many may wait; those beyond are refused at once (429).")
    ] = DEFAULT_HELD_REQUESTS


_GATEWAY_ONLY: Final = ("timeoutSeconds", "retries", "maxInFlight", "hold")


class Gateway(ApiModel):
    """The model's address."""

    mode: Annotated[
        GatewayMode,
        Field(
            description="Gateway: through Conch's gateways. Direct: a plain Service on the pods, without limits. "
            "GatewayAPI: through the platform's Gateways (gateway.networking.k8s.io), which parentRefs names."
        ),
    ] = GatewayMode.GATEWAY
    timeout_seconds: Annotated[
        int | None,
        Field(
            ge=1,
            le=86_400,
            description=f"How long an answer may take ({DEFAULT_TIMEOUT_SECONDS} if not given). Streams have no limit.",
        ),
    ] = None
    retries: Retries | None = None
    max_in_flight: Annotated[
        int | None,
        Field(
            ge=1,
            le=1_000_000,
            description="Requests that may be executed or wait in a version's servers at the same time, HTTP and gRPC "
            "each; those beyond are refused (429 or RESOURCE_EXHAUSTED). No limit if not given.",
        ),
    ] = None
    hold: Hold | None = None
    parent_refs: Annotated[
        tuple[ParentReference, ...] | None,
        Field(min_length=1, max_length=8, description="The Gateways that carry the requests in mode GatewayAPI."),
    ] = None
    hostnames: Annotated[
        tuple[Hostname, ...] | None,
        Field(
            min_length=1,
            max_length=16,
            description="Names by which clients of mode GatewayAPI call; all that the Gateways' listeners have if not "
            "given.",
        ),
    ] = None
    grpc_hostnames: Annotated[
        tuple[Hostname, ...] | None,
        Field(min_length=1, max_length=16, description="The same for gRPC; those of hostnames if not given."),
    ] = None

    def parents_of(self, protocol: RouteProtocol) -> tuple[ParentReference, ...]:
        """The Gateways that are to carry this protocol; only mode GatewayAPI has any."""
        return tuple(each for each in self.parent_refs or () if each.carries(protocol))

    def hostnames_of(self, protocol: RouteProtocol) -> tuple[str, ...]:
        """The names by which clients of this protocol call; none: all that the Gateways' listeners have."""
        grpc = self.grpc_hostnames if protocol is RouteProtocol.GRPC else None
        return grpc or self.hostnames or ()

    @property
    def effective_retries(self) -> Retries:
        """The retries, with the defaults."""
        return self.retries or Retries()

    @property
    def effective_hold(self) -> Hold:
        """The hold, with the defaults."""
        return self.hold or Hold()

    @property
    def effective_timeout_seconds(self) -> int:
        """The time-out, with the default."""
        return self.timeout_seconds or DEFAULT_TIMEOUT_SECONDS


_IS_DIRECT: Final = "(has(self.mode) && self.mode == 'Direct')"
_IS_GATEWAY_API: Final = "(has(self.mode) && self.mode == 'GatewayAPI')"
_NOTHING_OF_GATEWAYS: Final = " && ".join(f"!has(self.{field})" for field in _GATEWAY_ONLY)

GATEWAY_RULES: Final = rules(
    Rule(
        rule=f"!{_IS_DIRECT} || ({_NOTHING_OF_GATEWAYS})",
        message="gateway.mode Direct is a plain Service: remove gateway.timeoutSeconds, retries, maxInFlight and hold, "
        "or use mode Gateway",
    ),
    Rule(
        rule=f"!{_IS_GATEWAY_API} || ({_NOTHING_OF_GATEWAYS})",
        message="gateway.mode GatewayAPI leaves requests to the platform's Gateways, which limit, retry and time them "
        "out as they are set up: remove gateway.timeoutSeconds, retries, maxInFlight and hold, or use mode Gateway",
    ),
    Rule(
        rule=f"{_IS_GATEWAY_API} == has(self.parentRefs)",
        message="gateway.parentRefs names the Gateways that carry the requests in gateway.mode GatewayAPI, and in no "
        "other: give both or neither",
    ),
    Rule(
        rule=f"{_IS_GATEWAY_API} || (!has(self.hostnames) && !has(self.grpcHostnames))",
        message="gateway.hostnames and grpcHostnames are of gateway.mode GatewayAPI: remove them, or use that mode",
    ),
)
