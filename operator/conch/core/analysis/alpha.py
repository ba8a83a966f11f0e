"""How the chance of a false rollback is divided among everything that may cause one."""

from typing import Final

ROLLOUT_ALPHA: Final = 0.01
"""The chance that a candidate which keeps to every limit is ever rolled back by its analysis, in the whole rollout."""


def alpha_of_each(*, windows: int, checks: int) -> float:
    """The chance that one check may be wrong with in one window: an even share of that of the whole rollout.

    Bonferroni's inequality: the chance that at least one of several errors happens is at most the sum of their chances,
    however they depend on each other (Dunn, Multiple Comparisons Among Means, 1961). Windows are one for each step and
    one more for the time with all of the traffic. A restart of the operator begins a window anew, which is one test
    more than is counted here. Twenty times as many tests need ln 20 = 3 more of the evidence's logarithm.

    >>> alpha_of_each(windows=4, checks=2)
    0.00125
    """
    return ROLLOUT_ALPHA / (windows * checks)
