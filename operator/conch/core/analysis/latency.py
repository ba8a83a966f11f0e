"""How long a candidate's answers take.

"95 % take at most 300 ms" says: at most 5 % of the requests are later than 300 ms. So it is judged as a share, by
share.py, whatever the distribution of latencies is.
"""

import math

from conch.api.analysis import Latency
from conch.api.gateway_report import LATENCY_BOUNDS_MILLISECONDS
from conch.core.analysis.evidence import log_evidence_below
from conch.core.analysis.histogram import bound_at_least, bound_beyond_the_next_bucket, exceeded_by, later_than
from conch.core.analysis.judgement import Judgement, Verdict
from conch.core.analysis.samples import Samples
from conch.core.analysis.share import is_few_enough, is_too_many
from conch.core.analysis.words import duration, requests, what_is_missing


def judge_latency(
    check: Latency, candidate: Samples, stable: Samples, *, minimum_samples: int, alpha: float
) -> Judgement:
    """Against the limit, or against the stable revision within the same window."""
    if check.max_milliseconds is not None:
        return _judge_absolute(check, check.max_milliseconds, candidate, minimum_samples, alpha)
    if check.max_ratio_to_stable is not None:
        return _judge_relative(check, check.max_ratio_to_stable, candidate, stable, minimum_samples, alpha)
    raise ValueError("latency needs either max_milliseconds or max_ratio_to_stable")


def _judge_absolute(check: Latency, limit: int, candidate: Samples, minimum_samples: int, alpha: float) -> Judgement:
    """With the next bound of a bucket for the limit, if it is none itself.

    So what is found to be late is late for sure. What is late by less than a quarter may be missed.
    """
    counted = bound_at_least(limit)
    late = later_than(candidate.latency, counted)
    words = f"at most {duration(limit)} are allowed"
    if counted != limit:
        words += f" (told in steps: up to {duration(counted)})"
    return _judgement(
        check,
        candidate,
        late_to_fail=late,
        late_to_pass=late,
        limit=limit,
        words=words,
        minimum_samples=minimum_samples,
        alpha=alpha,
    )


def _judge_relative(
    check: Latency, ratio: float, candidate: Samples, stable: Samples, minimum_samples: int, alpha: float
) -> Judgement:
    """With a limit that is itself only estimated.

    A candidate fails against `ratio` times an upper confidence bound of the stable revision's percentile, which holds
    at all times with a chance of 1 - alpha / 2. While it does, the limit is never below the true one, no more
    requests count as late than by the true one, and so the evidence is never more than that against the true limit:
    a candidate that keeps to the ratio fails with a chance of at most alpha, half of it for each of the two, however
    often it is looked at. It passes by the percentile as it was seen.

    Latencies within one bucket, or on both sides of a bound, cannot be told apart. So the limit is never nearer than
    the end of the next bucket: a candidate fails only if it is slower by more than the buckets are wide.
    """
    most = _most_late(check)
    total = sum(stable.latency)
    fewest = _fewest_late(total, most, alpha / 2)
    if fewest is None:
        known = requests(total) if total else "no request"
        return Judgement(
            verdict=Verdict.INCONCLUSIVE,
            value=_percentile(candidate, most),
            samples=sum(candidate.latency),
            message=f"too little to compare with yet: {known} answered by the stable revision in the same time",
        )
    seen = exceeded_by(stable.latency, most * total)
    limit = _limit(seen, ratio)
    return _judgement(
        check,
        candidate,
        late_to_fail=later_than(candidate.latency, _limit(exceeded_by(stable.latency, fewest), ratio)),
        late_to_pass=later_than(candidate.latency, limit),
        limit=limit,
        words=f"at most {duration(limit)} are allowed ({ratio:g} times the stable revision's {duration(seen)}"
        + (")" if limit == ratio * seen else ", and no less than can be told apart)"),
        minimum_samples=minimum_samples,
        alpha=alpha / 2,
    )


def _limit(percentile: float, ratio: float) -> float:
    return max(ratio * percentile, bound_beyond_the_next_bucket(percentile))


def _fewest_late(total: int, most: float, alpha: float) -> int | None:
    """So many of `total` that, beyond doubt, fewer than the share `most` are; None if there are too few for any.

    The latency that so many exceed is an upper confidence bound of the percentile. For if it were below, at least the
    share `most` would exceed it, and the evidence against that is larger than is likely ever to be seen.
    """
    threshold = -math.log(alpha)
    if log_evidence_below(0, total, most) < threshold:
        return None
    # The largest such number: more late ones are less evidence, and a share of `most` is none at all.
    enough, too_many = 0, math.ceil(most * total)
    while too_many - enough > 1:
        middle = (enough + too_many) // 2
        if log_evidence_below(middle, total, most) >= threshold:
            enough = middle
        else:
            too_many = middle
    return enough


def _judgement(
    check: Latency,
    candidate: Samples,
    *,
    late_to_fail: float,
    late_to_pass: float,
    limit: float,
    words: str,
    minimum_samples: int,
    alpha: float,
) -> Judgement:
    most = _most_late(check)
    total = sum(candidate.latency)
    value = _percentile(candidate, most)
    told = (
        f"{check.percentile:g} % of {requests(total)} took up to {duration(value)}; {words}"
        if value is not None
        else "no request was answered by a server"
    )
    if is_too_many(late_to_fail, total, most=most, minimum_samples=minimum_samples, alpha=alpha):
        verdict = Verdict.FAIL
    elif is_few_enough(late_to_pass, total, most=most, minimum_samples=minimum_samples):
        verdict = Verdict.PASS
    else:
        verdict = Verdict.INCONCLUSIVE
        told += f"; {what_is_missing(total, minimum_samples)}"
    return Judgement(verdict=verdict, value=_finite(value), limit=_finite(limit), samples=total, message=told)


def _most_late(check: Latency) -> float:
    return (100 - check.percentile) / 100


def _percentile(samples: Samples, most: float) -> float | None:
    total = sum(samples.latency)
    return exceeded_by(samples.latency, most * total) if total else None


def _finite(milliseconds: float | None) -> float | None:
    """What lies beyond the last bound, as that bound: no JSON holds infinity."""
    return None if milliseconds is None else min(milliseconds, float(LATENCY_BOUNDS_MILLISECONDS[-1]))
