"""Whether too many of a candidate's requests are bad ones: the rule that success rate and latency have in common.

Two questions with an indifference zone between them, as in Wald's test. Too many: there is evidence against "at most
`most`". Few enough: there is evidence against "at least `clearly_too_many(most)`", and no more than `most` were seen. A
candidate that is exactly at the limit, or between the two, may get either verdict.
"""

import math
from typing import Final

from conch.core.analysis.evidence import log_evidence_above, log_evidence_below

BETA: Final = 0.01
"""The chance that a candidate with clearly too many is ever found to have few enough, per window and check."""
FEWEST_TO_FAIL: Final = 20
"""Requests before a candidate may fail, where no smaller minimum is declared. Three failures of three requests are
strong evidence if they are independent; the first ones often are not: one client that tries again, one connection.
Twenty are seen within 10 s at two requests per second, long before the minimum for a good word."""


def clearly_too_many(most: float) -> float:
    """A share that no candidate may pass with: four points more (of what is left), or twice the odds if that is more.

    Nearer to the limit it would take long to say anything: with no failure at all, 110 requests tell 0 from 5 %, but
    it takes 370 to tell it from 1.5 %. It need not be nearer, for from the other side there is always the evidence that
    the limit is exceeded: with 2 % where 0.1 % are allowed, that comes long before a good word.

    >>> [round(clearly_too_many(most), 3) for most in (0.001, 0.01, 0.05, 0.5)]
    [0.041, 0.05, 0.095, 0.667]
    """
    return max(most + 0.04 * (1 - most), 2 * most / (1 + most))


def is_too_many(bad: float, total: int, *, most: float, minimum_samples: int, alpha: float) -> bool:
    """Whether more than the share `most` are bad: said of one that keeps to it with a chance of `alpha` at most."""
    if total < min(minimum_samples, FEWEST_TO_FAIL):
        return False
    return log_evidence_above(bad, total, most) >= -math.log(alpha)


def is_few_enough(bad: float, total: int, *, most: float, minimum_samples: int) -> bool:
    """Whether so few are bad that it cannot well be clearly more than the share `most`."""
    if total < minimum_samples or bad > most * total:
        return False
    too_many = clearly_too_many(most)
    # If all may be bad, there is nothing to be shown.
    return too_many >= 1 or log_evidence_below(bad, total, too_many) >= -math.log(BETA)
