"""`spec.rollout.analysis`: what a new revision must show before it gets more of the traffic."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from conch.api.cel import Rule, rules
from conch.api.types import ApiModel

DEFAULT_MINIMUM_SAMPLES: Final = 100

Milliseconds = Annotated[int, Field(ge=1, le=3_600_000)]


class SuccessRate(ApiModel):
    """How many of the candidate's requests are answered as they should be."""

    minimum_percent: Annotated[float, Field(ge=0, le=99.999, description="Such as 99.5.")]


class Latency(ApiModel):
    """How long the candidate's answers take, absolute or compared with the stable revision at the same time."""

    percentile: Annotated[float, Field(ge=1, le=99.9, description="Of the requests, such as 95.")]
    max_milliseconds: Milliseconds | None = None
    max_ratio_to_stable: Annotated[
        float | None,
        Field(ge=1, le=100, description="Times the same percentile of the stable revision, such as 1.5."),
    ] = None


class QueueTime(ApiModel):
    """How long the candidate's requests wait in Triton's queue before they are executed."""

    max_milliseconds: Annotated[Milliseconds, Field(description="On average.")]


class GoldenSetPolicy(StrEnum):
    """What golden.json, the model's own recorded inputs and outputs, means for a rollout."""

    REQUIRED = "Required"
    """There must be one, and the candidate must answer as recorded."""
    IF_PRESENT = "IfPresent"
    IGNORED = "Ignored"


class GoldenSet(ApiModel):
    """The model's recorded inputs and outputs, replayed on every pod of the candidate before it gets any traffic."""

    policy: GoldenSetPolicy = GoldenSetPolicy.REQUIRED


class Check(ApiModel):
    """One thing to look at; exactly one of its kinds is given."""

    success_rate: SuccessRate | None = None
    latency: Latency | None = None
    queue_time: QueueTime | None = None
    golden_set: GoldenSet | None = None
    minimum_samples: Annotated[
        int | None,
        Field(
            ge=1,
            le=1_000_000,
            description="Requests to the candidate before anything is concluded in its favour "
            f"({DEFAULT_MINIMUM_SAMPLES} if not given).",
        ),
    ] = None

    @property
    def name(self) -> str:
        """What tells it from the others."""
        if self.latency:
            limit = "absolute" if self.latency.max_milliseconds is not None else "relative"
            return f"latency p{self.latency.percentile:g} {limit}"
        kinds = {"successRate": self.success_rate, "queueTime": self.queue_time, "goldenSet": self.golden_set}
        return next((name for name, given in kinds.items() if given), "")

    @property
    def effective_minimum_samples(self) -> int:
        """The minimum, with the default."""
        return self.minimum_samples or DEFAULT_MINIMUM_SAMPLES


CHECK_RULES: Final = rules(
    Rule(
        rule="[has(self.successRate), has(self.latency), has(self.queueTime), has(self.goldenSet)]"
        ".filter(given, given).size() == 1",
        message="a check is exactly one of successRate, latency, queueTime and goldenSet; make one entry of each",
    ),
    Rule(
        rule="!has(self.latency) || has(self.latency.maxMilliseconds) != has(self.latency.maxRatioToStable)",
        message="latency needs either maxMilliseconds or maxRatioToStable; give one of them",
    ),
    Rule(
        rule="!has(self.goldenSet) || !has(self.minimumSamples)",
        message="a golden set has its own number of samples; remove minimumSamples",
    ),
)
