"""The contract between operator and gateway: what a gateway routes, and what its traffic is.

`GET /report` (with the gateways' token) answers a GatewayReport; `GET /wakes` streams one Wake per line. Counters begin
with the gateway's Envoy (`epoch`) and only grow; the reader takes differences.
"""

from typing import Annotated, Final

from pydantic import Field

from conch.api.types import ApiModel, Message, ShortText

REPORT_PATH: Final = "/report"
WAKES_PATH: Final = "/wakes"
COUNTED_AT_HEADER: Final = "X-Conch-Counted-At"
"""Of a report's answer: when it was counted, in seconds of the gateway's own clock, which only grows. By it a rate is
exact however long an answer was on its way. Without traffic the body stays the same, which need not be read anew."""

Total = Annotated[int, Field(ge=0)]

LATENCY_BOUNDS_MILLISECONDS: Final = (
    *(1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 63, 80),
    *(100, 130, 160, 200, 250, 320, 400, 500, 630, 800),
    *(1_000, 1_300, 1_600, 2_000, 2_500, 3_200, 4_000, 5_000, 6_300, 8_000),
    *(10_000, 15_000, 20_000, 30_000, 45_000, 60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000),
)
"""Upper bounds of the buckets that latencies are counted in; what takes as long as a bound is in the bucket above it.

Up to ten seconds about ten per decade (ISO 3's R10), which tells latencies a quarter apart. Whole milliseconds, and no
more than two digits: Envoy measures and keeps no finer ones. Other bounds need another name than `latency` on the wire,
for a gateway and an operator of different versions talk to each other.
"""


class WorkloadTraffic(ApiModel, extra="ignore"):
    """What a gateway sent to one workload, HTTP and gRPC together."""

    in_flight: Total = 0
    arrivals: Total = 0
    """Requests that were sent to it, each once whatever the retries."""
    failures: dict[ShortText, Total] = Field(default_factory=dict)
    """By class (see FailureClass): answers that a client should not have got."""
    latency: tuple[Total, ...] = ()
    """Requests by time to the whole answer: one count per bucket of LATENCY_BOUNDS_MILLISECONDS, and one beyond.

    Zeros at the end are left out, for most workloads answer within a second; `latency_counts` has them.
    """

    @property
    def latency_counts(self) -> tuple[int, ...]:
        """`latency`, each bucket in its place."""
        return (*self.latency, *(0,) * (len(LATENCY_BOUNDS_MILLISECONDS) + 1 - len(self.latency)))


class ShadowTraffic(ApiModel, extra="ignore"):
    """What a gateway has compared for a revision that has no traffic yet.

    Counters of the sidecar, not of Envoy: they begin with its life, or with another way to compare (`epoch`).
    """

    epoch: ShortText = ""
    comparison: ShortText = ""
    """ShadowShare's name for how it was compared."""
    compared: Total = 0
    disagreed: Total = 0
    failed: Total = 0
    """Not answered, or with an error, by the candidate alone."""
    skipped: Total = 0
    """Not to be compared, or not answered by the stable revision."""
    dropped: Total = 0
    """Beyond what the sidecar does at a time."""
    stable_latency: tuple[Total, ...] = ()
    """Answers to copies by the time that they took, in buckets like WorkloadTraffic.latency."""
    candidate_latency: tuple[Total, ...] = ()
    example: Message = ""
    """The last disagreement or failure in words."""


class ObjectTraffic(ApiModel, extra="ignore"):
    """What a gateway does for one ModelDeployment."""

    generation: ShortText = ""
    """`status.gateway.generation` that Envoy has acknowledged."""
    waits_for: Message = ""
    """Why the wanted generation is not what Envoy does: its own words for a refusal, or what is awaited."""
    rejected: bool = False
    """Whether Envoy refused it; what it did before goes on."""
    endpoints: Total = 0
    """Servers in what Envoy has acknowledged."""
    arrivals: Total = 0
    """Requests that came in and were let in, whatever became of them then."""
    unauthorized: Total = 0
    """Requests that were not: without a known API key, or refused by the installation's authorisation service."""
    in_flight: Total = 0
    held: Total = 0
    refused: Total = 0
    """Requests refused by hold or limit."""
    workloads: dict[ShortText, WorkloadTraffic] = Field(default_factory=dict)
    shadows: dict[ShortText, ShadowTraffic] = Field(default_factory=dict)
    """By workload that gets copies."""


class GatewayReport(ApiModel, extra="ignore"):
    """One gateway at one moment; `objects` by `<namespace>/<name>`."""

    gateway: ShortText
    epoch: ShortText
    version: ShortText
    leaving: bool = False
    objects: dict[ShortText, ObjectTraffic] = Field(default_factory=dict)
    counted_at_seconds: float | None = Field(default=None, exclude=True)
    """See COUNTED_AT_HEADER; not in the body."""


class Wake(ApiModel, extra="ignore"):
    """A request is held for an object that has no replica. Without an object: a sign of life."""

    object: ShortText = ""
    held: Total = 0


class FailureClass:
    """Classes of failures."""

    SERVER: Final = "server"
    """Answered with 5xx, or a gRPC status of its kind."""
    TIMEOUT: Final = "timeout"
    CONNECTION: Final = "connection"
    """No connection, or lost while the request was executed."""
    UNAVAILABLE: Final = "unavailable"
    """There was no server to send it to."""
