"""What gateways counted of copies of requests that both revisions answered, and what is to be said of the candidate."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from conch.api.rollout import CheckResult
from conch.api.shadow import Shadow, ShadowShare, ShadowStatus
from conch.api.types import bounded
from conch.core.analysis.histogram import exceeded_by
from conch.core.analysis.judgement import Judgement, Verdict, combine
from conch.core.analysis.latency import judge_latency
from conch.core.analysis.samples import Samples
from conch.core.analysis.share import is_too_many
from conch.core.analysis.words import percent

ANSWERS: Final = "shadowAnswers"
LATENCY: Final = "shadowLatency"
"""Names of the checks."""
ALPHA: Final = 0.01
"""The chance that a candidate which disagrees as seldom as it may is found out by an early look; beside that of the
steps, which come later."""
_COUNT_MOST: Final = 2**31 - 1
_EXAMPLE_MOST: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """Of one candidate, by all gateways together."""

    compared: int = 0
    disagreed: int = 0
    failed: int = 0
    """Answered by the stable revision alone."""
    skipped: int = 0
    dropped: int = 0
    stable_latency: tuple[int, ...] = ()
    candidate_latency: tuple[int, ...] = ()
    """Buckets like those of Samples."""
    example: str = ""

    @property
    def total(self) -> int:
        """Copies that say something of the candidate."""
        return self.compared + self.failed

    @property
    def bad(self) -> int:
        """Those that speak against it."""
        return self.disagreed + self.failed


NOTHING_COPIED: Final = Copies()


def judge_copies(shadow: Shadow, copies: Copies) -> tuple[Verdict, tuple[CheckResult, ...]]:
    """Of all together; one result for its answers, and one for the time that they take if that is limited."""
    judged = tuple(_judged(shadow, copies))
    verdict = combine(judgement for _, judgement in judged)
    return verdict, tuple(_result(name, judgement) for name, judgement in judged)


def _judged(shadow: Shadow, copies: Copies) -> Iterator[tuple[str, Judgement]]:
    yield ANSWERS, _answers(shadow, copies)
    if shadow.latency is not None:
        judgement = judge_latency(
            shadow.latency,
            Samples(latency=copies.candidate_latency),
            Samples(latency=copies.stable_latency),
            minimum_samples=shadow.effective_min_samples,
            alpha=ALPHA,
        )
        yield LATENCY, judgement


def _answers(shadow: Shadow, copies: Copies) -> Judgement:
    """FAIL before there are enough only beyond doubt; then simply by the limit, as the person who set it reads it."""
    total, bad = copies.total, copies.bad
    most, fewest = shadow.effective_max_disagreement / 100, shadow.effective_min_samples
    told = _told(copies, most) if total else "no copy of a request was answered yet"
    if is_too_many(bad, total, most=most, minimum_samples=fewest, alpha=ALPHA) or (
        total >= fewest and bad > most * total
    ):
        verdict = Verdict.FAIL
    elif total >= fewest:
        verdict = Verdict.PASS
    else:
        verdict = Verdict.INCONCLUSIVE
        told += f"; {fewest} are needed"
    value = 100 * bad / total if total else None
    return Judgement(verdict=verdict, value=value, limit=100 * most, samples=total, message=told)


def _told(copies: Copies, most: float) -> str:
    """For a person, who may have no other place to look at."""
    words = f"{copies.disagreed} of {copies.compared} answers to copied requests differ"
    if copies.failed:
        words += f", and {copies.failed} that the stable revision answered failed"
    words += f" ({percent(copies.bad / copies.total)}; at most {percent(most)} may)"
    return f"{words}; such as {copies.example}" if copies.bad and copies.example else words


def _result(name: str, judgement: Judgement) -> CheckResult:
    return CheckResult(
        name=name,
        verdict=judgement.verdict.value,
        value=_rounded(judgement.value),
        limit=_rounded(judgement.limit),
        samples=min(judgement.samples, _COUNT_MOST),
        message=bounded(judgement.message, _EXAMPLE_MOST + 512),
    )


def shadow_status(share: ShadowShare, copies: Copies) -> ShadowStatus:
    """What status tells of it."""
    stable, candidate = copies.stable_latency, copies.candidate_latency
    return ShadowStatus(
        share=share,
        compared=min(copies.compared, _COUNT_MOST),
        disagreed=min(copies.disagreed, _COUNT_MOST),
        failed=min(copies.failed, _COUNT_MOST),
        skipped=min(copies.skipped, _COUNT_MOST),
        dropped=min(copies.dropped, _COUNT_MOST),
        stable_p50_ms=_percentile(stable, 50),
        stable_p90_ms=_percentile(stable, 90),
        candidate_p50_ms=_percentile(candidate, 50),
        candidate_p90_ms=_percentile(candidate, 90),
        example=bounded(copies.example, _EXAMPLE_MOST),
    )


def _percentile(latency: tuple[int, ...], percentile: int) -> float | None:
    """In milliseconds; None where nothing was answered, or so late that no bucket tells it."""
    total = sum(latency)
    if not total:
        return None
    value = exceeded_by(latency, (100 - percentile) / 100 * total)
    return _rounded(value) if value < float("inf") else None


def _rounded(value: float | None) -> float | None:
    """Short enough to be read, and to be the same after a way through JSON."""
    return None if value is None else float(f"{value:.4g}")
