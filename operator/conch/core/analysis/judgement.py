"""What a check says of a candidate, and what several of them say together."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """From worst to best, as `combine` takes them."""

    FAIL = "Fail"
    """The candidate is worse than it may be."""
    ERROR = "Error"
    """What is needed to judge cannot be seen."""
    INCONCLUSIVE = "Inconclusive"
    """Too little was seen to say either."""
    PASS = "Pass"  # noqa: S105  (not a password)
    """The candidate is as good as it must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What one check says."""

    verdict: Verdict
    value: float | None = None
    """What was seen, in the unit of the check: a percentage of requests that failed, or milliseconds."""
    limit: float | None = None
    """What it may be at most, in the same unit."""
    samples: int
    """How many requests it is made of."""
    message: str
    """A sentence for a person, with the numbers."""


def combine(judgements: Iterable[Judgement]) -> Verdict:
    """The worst of them; PASS if there are none."""
    found = {judgement.verdict for judgement in judgements}
    return next((verdict for verdict in Verdict if verdict in found), Verdict.PASS)
