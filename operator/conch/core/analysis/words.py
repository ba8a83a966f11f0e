"""How numbers are said to people."""

import math


def percent(share: float) -> str:
    """Of 1, with three digits.

    >>> percent(0.05236), percent(0.001), percent(1)
    ('5.24 %', '0.1 %', '100 %')
    """
    return f"{100 * share:.3g} %"


def duration(milliseconds: float) -> str:
    """In the unit that makes it short.

    >>> duration(0.4), duration(312.4), duration(12_500), duration(math.inf)
    ('0.4 ms', '312 ms', '12.5 s', 'more than 1 h')
    """
    if math.isinf(milliseconds):
        return "more than 1 h"
    if milliseconds < 1000:
        return f"{milliseconds:.3g} ms"
    return f"{milliseconds / 1000:.4g} s"


def requests(number: int) -> str:
    """A count with its noun."""
    return f"{number} request" if number == 1 else f"{number} requests"


def what_is_missing(samples: int, minimum_samples: int) -> str:
    """Why a verdict is neither good nor bad."""
    if samples < minimum_samples:
        return f"too few samples yet, {minimum_samples} are needed"
    return "not certain yet"
