"""How strongly counts speak against an assumption: evidence that may be looked at after every request.

The principle is Wald's likelihood ratio (Sequential Tests of Statistical Hypotheses, 1945), mixed over several
alternatives as by Robbins (Statistical Methods Related to the Law of the Iterated Logarithm, 1970). As long as the
assumption is true, the evidence is a bet at fair or unfavourable odds: it begins with 1, and whatever was seen so far,
the next request leaves it the same or smaller on average (a supermartingale). Ville's inequality (1939) then says:

    The chance that it *ever* reaches 1 / alpha while the assumption is true is at most alpha.

Ever: so it may be looked at each second, and the first look that finds it there may be acted upon. A test for a fixed
number of requests does not have that property; looked at again and again, it finds something in the end in whatever is
good. (For all of this: Howard, Ramdas, McAuliffe and Sekhon, Time-uniform, nonparametric, nonasymptotic confidence
sequences, 2021; Ramdas, Grünwald, Vovk and Shafer, Game-theoretic statistics and safe anytime-valid inference, 2023.)

Alpha is a chance per window and check; how it follows from one per rollout is in alpha.py. The requests need not be
alike, but each may fail with no more than the assumed chance *given those before it*. Where requests fail together,
such as when a node stops for a second, that is not so, and evidence grows faster than it should.

Everything is in natural logarithms: 10,000 requests make numbers that no float holds.
"""

import math
from collections.abc import Sequence
from typing import Final

_FACTORS: Final = tuple((factor, math.log(factor)) for factor in (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0))
"""The alternatives: by what factor the odds, or a mean, are higher than assumed; each with its logarithm. Which of them
is true need not be known: the mean over them is at least an eighth of the best one's, which costs ln 8 = 2.1 in the
logarithm."""


def log_evidence_above(count: float, total: float, share: float) -> float:
    """Against the assumption that each of the `total` requests is one of the `count` with at most this chance.

    The mean of the likelihood ratios of q against `share`, for q with `factor` times the odds of `share`:

        (q / share) ** count * ((1 - q) / (1 - share)) ** (total - count)
            = factor ** count / (1 + share * (factor - 1)) ** total

    The right side needs no case for a share of 0 or 1. It also holds if a request counts in part, by anything between
    0 and 1 whose mean is at most `share`: factor ** x is convex in x, so on average it is no more than for one that
    counts in whole or not at all.

    >>> round(math.exp(log_evidence_above(5, 100, 0.01)), 1)
    16.5
    >>> log_evidence_above(0, 0, 0.01)
    0.0
    """
    return _log_mean_exp([count * log - total * math.log1p(share * (factor - 1)) for factor, log in _FACTORS])


def log_evidence_below(count: float, total: float, share: float) -> float:
    """Against the assumption that each of the `total` requests is one of the `count` with at least this chance.

    It is the same seen from the other side: those that are not, against at most `1 - share`.
    """
    return log_evidence_above(total - count, total, 1 - share)


def log_evidence_mean_above(sum_: float, total: float, mean: float) -> float:
    """Against the assumption that `total` exponentially distributed times, `sum_` together, have at most this mean.

    The mean of the likelihood ratios of means that are `factor` times the assumed one:

        factor ** -total * exp(sum_ / mean * (1 - 1 / factor))
    """
    return _log_mean_exp([sum_ / mean * (1 - 1 / factor) - total * log for factor, log in _FACTORS])


def log_evidence_mean_below(sum_: float, total: float, mean: float) -> float:
    """Against the assumption that their mean is at least this one: the alternatives are the inverse factors."""
    return _log_mean_exp([total * log - sum_ / mean * (factor - 1) for factor, log in _FACTORS])


def _log_mean_exp(logarithms: Sequence[float]) -> float:
    """The logarithm of the mean of what these are the logarithms of."""
    largest = max(logarithms)
    return largest + math.log(sum([math.exp(each - largest) for each in logarithms]) / len(logarithms))
