"""Reading latencies that are known by their bucket only.

Within a bucket they are taken as spread evenly. A bucket is a quarter as wide as what is in it is long (see
LATENCY_BOUNDS_MILLISECONDS), so two latencies that are in truth alike may be told a quarter apart.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence

from conch.api.gateway_report import LATENCY_BOUNDS_MILLISECONDS

_BOUNDS = (0.0, *(float(bound) for bound in LATENCY_BOUNDS_MILLISECONDS), math.inf)


def bound_at_least(milliseconds: float) -> float:
    """The smallest bound of a bucket that is no smaller; infinite beyond the last."""
    return _BOUNDS[bisect_left(_BOUNDS, milliseconds)]


def bound_beyond_the_next_bucket(milliseconds: float) -> float:
    """The upper bound of the bucket above the one that this latency is in; infinite beyond the last."""
    return _BOUNDS[min(bisect_left(_BOUNDS, milliseconds) + 1, len(_BOUNDS) - 1)]


def later_than(counts: Sequence[int], milliseconds: float) -> float:
    """How many took longer, those in the bucket that this is in by their part of it. None took longer than infinity."""
    later = 0.0
    for lower, upper, count in zip(_BOUNDS, _BOUNDS[1:], counts, strict=False):
        if lower >= milliseconds:
            later += count
        elif upper > milliseconds and not math.isinf(upper):
            later += count * (upper - milliseconds) / (upper - lower)
    return later


def exceeded_by(counts: Sequence[int], number: float) -> float:
    """The latency that so many took longer than; infinite if more than so many are beyond the last bound."""
    later = 0
    for lower, upper, count in reversed(tuple(zip(_BOUNDS, _BOUNDS[1:], counts, strict=False))):
        if later + count > number:
            return upper if math.isinf(upper) else upper - (number - later) / count * (upper - lower)
        later += count
    return 0.0
