"""How many of a candidate's requests fail."""

from conch.api.analysis import SuccessRate
from conch.core.analysis.judgement import Judgement, Verdict
from conch.core.analysis.samples import Samples
from conch.core.analysis.share import is_few_enough, is_too_many
from conch.core.analysis.words import percent, requests, what_is_missing


def judge_success_rate(check: SuccessRate, candidate: Samples, *, minimum_samples: int, alpha: float) -> Judgement:
    """FAIL once failures exceed what is allowed beyond doubt, PASS once they clearly do not.

    FAIL may come before the minimum of samples, for that is about a good word: see share.FEWEST_TO_FAIL.
    """
    most = (100 - check.minimum_percent) / 100
    # They are counted one after the other: a failure may be told before its request is.
    total = max(candidate.requests, candidate.failures)
    told = (
        f"{percent(candidate.failures / total)} of {requests(total)} failed; at most {percent(most)} may"
        if total
        else "no request has come to an end"
    )
    if is_too_many(candidate.failures, total, most=most, minimum_samples=minimum_samples, alpha=alpha):
        verdict = Verdict.FAIL
    elif is_few_enough(candidate.failures, total, most=most, minimum_samples=minimum_samples):
        verdict = Verdict.PASS
    else:
        verdict = Verdict.INCONCLUSIVE
        told += f"; {what_is_missing(total, minimum_samples)}"
    return Judgement(
        verdict=verdict,
        value=100 * candidate.failures / total if total else None,
        limit=100 * most,
        samples=total,
        message=told,
    )
