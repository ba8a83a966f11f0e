"""`spec.rollout.shadow`: real requests are copied to a new revision before it gets any, and its answers are compared.

What is not given is left out of the stored object; the defaults are here.
"""

from typing import Annotated, Final

from pydantic import Field

from conch.api.analysis import Latency
from conch.api.canonical import canonical_hash
from conch.api.cel import Rule, rules
from conch.api.types import ApiModel, Count, Message

DEFAULT_MIN_SAMPLES: Final = 100
DEFAULT_ABSOLUTE: Final = 1e-4
DEFAULT_RELATIVE: Final = 1e-3
TOLERANCES_MOST: Final = 64

Deviation = Annotated[float, Field(ge=0, le=1e9)]
CopiedPercent = Annotated[int, Field(ge=1, le=100)]
Milliseconds = Annotated[float, Field(ge=0, le=1e9)]


class Tolerance(ApiModel):
    """How far two revisions' numbers may be apart: |new - old| <= absolute + relative * |old|."""

    absolute: Annotated[Deviation | None, Field(description=f"{DEFAULT_ABSOLUTE:g} if not given.")] = None
    relative: Annotated[Deviation | None, Field(description=f"{DEFAULT_RELATIVE:g} if not given.")] = None


class OutputTolerance(ApiModel):
    """The same for one output."""

    output: Annotated[str, Field(min_length=1, max_length=256)]
    absolute: Deviation | None = None
    relative: Deviation | None = None
    same_label: Annotated[
        bool,
        Field(description="Only the place of the largest value in the last axis must be the same, whatever it is."),
    ] = False


_ONE_KIND: Final = rules(
    Rule(
        rule="!has(self.sameLabel) || !self.sameLabel || (!has(self.absolute) && !has(self.relative))",
        message="sameLabel says nothing of how far values may be apart: remove absolute and relative, or sameLabel",
    )
)
_ONE_LIMIT: Final = rules(
    Rule(
        rule="has(self.maxMilliseconds) != has(self.maxRatioToStable)",
        message="latency needs either maxMilliseconds or maxRatioToStable; give one of them",
    )
)


class Shadow(ApiModel):
    """A share of the real requests is copied to one server of each revision, and their answers are compared."""

    percent: Annotated[CopiedPercent, Field(description="Of the unary inference requests, HTTP and gRPC alike.")]
    min_samples: Annotated[
        int | None,
        Field(
            ge=1,
            le=1_000_000,
            description=f"Answers that are compared before it gets any traffic ({DEFAULT_MIN_SAMPLES} if not given).",
        ),
    ] = None
    max_disagreement: Annotated[
        float | None,
        Field(
            ge=0,
            le=99.9,
            description="Percent of them that may differ, or that the new revision may owe (0 if not given).",
        ),
    ] = None
    tolerance: Annotated[Tolerance | None, Field(description="Of numbers with a fraction; all else is equal.")] = None
    outputs: Annotated[
        tuple[Annotated[OutputTolerance, Field(json_schema_extra=_ONE_KIND)], ...],
        Field(
            max_length=TOLERANCES_MOST,
            description="Of single outputs, in the place of `tolerance`.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["output"]},
        ),
    ] = ()
    latency: Annotated[
        Latency | None,
        Field(
            description="What its answers to the copies may take, which clients do not see.",
            json_schema_extra=_ONE_LIMIT,
        ),
    ] = None

    @property
    def effective_min_samples(self) -> int:
        """The number, with the default."""
        return self.min_samples or DEFAULT_MIN_SAMPLES

    @property
    def effective_max_disagreement(self) -> float:
        """The percentage, with the default."""
        return self.max_disagreement or 0.0

    @property
    def share(self) -> "ShadowShare":
        """What gateways are told of it."""
        told = self.tolerance or Tolerance()
        return ShadowShare(
            percent=self.percent,
            absolute=DEFAULT_ABSOLUTE if told.absolute is None else told.absolute,
            relative=DEFAULT_RELATIVE if told.relative is None else told.relative,
            outputs=self.outputs,
        )


class ShadowShare(ApiModel):
    """What gateways are to copy to a workload, and how they are to compare (`status.traffic[].shadow`)."""

    percent: CopiedPercent
    absolute: Deviation = DEFAULT_ABSOLUTE
    relative: Deviation = DEFAULT_RELATIVE
    outputs: Annotated[tuple[OutputTolerance, ...], Field(max_length=TOLERANCES_MOST)] = ()

    @property
    def comparison(self) -> str:
        """Names how it is compared: what was counted by another way to compare says nothing."""
        return canonical_hash(self.model_dump(mode="json", exclude={"percent"}))


class ShadowStatus(ApiModel):
    """What comparing has shown so far; written every few seconds."""

    share: ShadowShare
    compared: Annotated[Count, Field(description="Answers of both revisions that were compared.")] = 0
    disagreed: Annotated[Count, Field(description="Of these, the ones that differ by more than is allowed.")] = 0
    failed: Annotated[
        Count, Field(description="Copies that the new revision did not answer, or with an error; the old one did.")
    ] = 0
    skipped: Annotated[
        Count, Field(description="Copies that cannot be compared: too large, part of a sequence, or refused by both.")
    ] = 0
    dropped: Annotated[Count, Field(description="Copies beyond what a gateway compares at a time.")] = 0
    stable_p50_ms: Milliseconds | None = None
    stable_p90_ms: Milliseconds | None = None
    candidate_p50_ms: Milliseconds | None = None
    candidate_p90_ms: Milliseconds | None = None
    example: Annotated[Message, Field(description="The last disagreement: which output, and by how much.")] = ""
