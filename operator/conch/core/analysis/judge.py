"""The verdict of one declared check, whatever its kind."""

from typing import Final

from conch.api.analysis import Check, SuccessRate
from conch.core.analysis.judgement import Judgement
from conch.core.analysis.latency import judge_latency
from conch.core.analysis.queue_time import judge_queue_time
from conch.core.analysis.samples import Samples
from conch.core.analysis.success_rate import judge_success_rate

DEFAULT_CHECK: Final = Check(success_rate=SuccessRate(minimum_percent=95))
"""What is looked at where no analysis is declared: enough to withdraw what is broken, and little enough that a model
whose clients send it what it must refuse with an error is left alone. It may only fail a rollout, never hold it up:
whoever uses it takes INCONCLUSIVE for PASS, for a model without traffic must be able to change its version too."""


def judge(check: Check, candidate: Samples, stable: Samples, *, alpha: float) -> Judgement:
    """What is to be said of the candidate by now; asked again with more samples of the same window, as often as wanted.

    One that keeps to the limit ever gets FAIL with a chance of `alpha` at most; see alpha.py.

    Raises ValueError for a golden set: that is not judged by traffic.
    """
    minimum_samples = check.effective_minimum_samples
    if check.success_rate is not None:
        return judge_success_rate(check.success_rate, candidate, minimum_samples=minimum_samples, alpha=alpha)
    if check.latency is not None:
        return judge_latency(check.latency, candidate, stable, minimum_samples=minimum_samples, alpha=alpha)
    if check.queue_time is not None:
        return judge_queue_time(check.queue_time, candidate, minimum_samples=minimum_samples, alpha=alpha)
    raise ValueError("this check is not judged by traffic")
