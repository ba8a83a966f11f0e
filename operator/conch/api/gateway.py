"""`spec.gateway`: how clients reach the model, and what the gateways do for them.

What is not given is left out of the stored object, so that CEL can tell what was asked for; the defaults are here.
"""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from conch.api.cel import Rule, rules
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
        Field(description="Gateway: through Conch's gateways. Direct: a plain Service on the pods, without limits."),
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


GATEWAY_RULES: Final = rules(
    Rule(
        rule="!has(self.mode) || self.mode != 'Direct' || ("
        + " && ".join(f"!has(self.{field})" for field in _GATEWAY_ONLY)
        + ")",
        message="gateway.mode Direct is a plain Service: remove gateway.timeoutSeconds, retries, maxInFlight and hold, "
        "or use mode Gateway",
    )
)
