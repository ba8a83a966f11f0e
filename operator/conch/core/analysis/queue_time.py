"""How long a candidate's requests wait in Triton's queue.

Triton tells two totals, requests and seconds. So nothing is known of how the waits are distributed, or of how much
they depend on each other; and they do: who comes after one that waits, waits too. What is assumed instead is that 50
successive requests tell no less than one exponentially distributed wait with the same mean would. In an M/M/1 queue
with load r, it takes (2 + 5 r - 4 r^2 + r^3) / (r (1 - r)^2) requests for that (after Daley, The serial correlation
coefficients of waiting times in a stationary single server queue, 1968): 29 at half load, 48 at 0.65. Nearer to
saturation waits hang together for longer, and a candidate that keeps to the limit over an hour may fail for the minute
that was looked at: with a load of 0.78 and exactly the mean that is allowed, 4 % did within two minutes. A limit on
queue time should be one that is kept with room to spare.

A single long stall is in the mean as if every request had waited a little. Hence no candidate fails before the minimum
of samples.
"""

import math
from typing import Final

from conch.api.analysis import QueueTime
from conch.core.analysis.evidence import log_evidence_mean_above, log_evidence_mean_below
from conch.core.analysis.judgement import Judgement, Verdict
from conch.core.analysis.samples import Samples
from conch.core.analysis.share import BETA
from conch.core.analysis.words import duration, requests, what_is_missing

GROUP: Final = 50
"""Requests that count as one independent wait."""
_CLEARLY_TOO_LONG: Final = 2
"""Times the limit: a mean that no candidate may pass with."""


def judge_queue_time(check: QueueTime, candidate: Samples, *, minimum_samples: int, alpha: float) -> Judgement:
    """FAIL once the mean exceeds the limit beyond doubt; PASS once it is within, and cannot well be twice the limit.

    ERROR if requests were answered and Triton's counters know of none.
    """
    total, limit = candidate.queued_requests, check.max_milliseconds
    if total == 0:
        unseen = candidate.requests - candidate.failures >= minimum_samples
        return Judgement(
            verdict=Verdict.ERROR if unseen else Verdict.INCONCLUSIVE,
            limit=limit,
            samples=0,
            message=f"{requests(candidate.requests)} came to an end, and Triton's counters tell of none in the queue"
            if unseen
            else f"no request has left the queue; {what_is_missing(0, minimum_samples)}",
        )
    mean = 1000 * candidate.queue_seconds / total
    told = f"{requests(total)} waited {duration(mean)} on average; at most {duration(limit)} are allowed"
    verdict = _verdict(mean, total, limit, alpha) if total >= minimum_samples else Verdict.INCONCLUSIVE
    if verdict is Verdict.INCONCLUSIVE:
        told += f"; {what_is_missing(total, minimum_samples)}"
    return Judgement(verdict=verdict, value=mean, limit=limit, samples=total, message=told)


def _verdict(mean: float, total: int, limit: int, alpha: float) -> Verdict:
    groups = total / GROUP
    if log_evidence_mean_above(mean * groups, groups, limit) >= -math.log(alpha):
        return Verdict.FAIL
    if mean <= limit and log_evidence_mean_below(mean * groups, groups, _CLEARLY_TOO_LONG * limit) >= -math.log(BETA):
        return Verdict.PASS
    return Verdict.INCONCLUSIVE
