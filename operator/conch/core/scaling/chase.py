"""More servers at once, when more comes just now than what is ready can carry."""

import math
from dataclasses import dataclass
from typing import Final

from conch.core.scaling.capacity import Capacity
from conch.core.scaling.state import Arrivals

_WINDOWS_SECONDS: Final = (3.0, 5.0, 10.0, 20.0)
"""The load of now: over so many seconds at least. Where requests may wait, shorter ones weigh less."""
_DEVIATIONS: Final = 2.0
"""By so many standard deviations of chance (Poisson) a load has to exceed what is carried."""
_SPARE: Final = 1.1
_GROWTH_SECONDS: Final = 6.0
_GROWTH_DEVIATIONS: Final = 4.0
_GROWTH_STEP_DEVIATIONS: Final = 2.0
_GROWTH_MOST: Final = 2.0
"""What is still to come is never taken for more than what has come."""
_DRAIN_SECONDS_LEAST: Final = 10.0
REMEMBERED_SECONDS: Final = 4 * _GROWTH_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Surge:
    """A count that is asked for at once."""

    servers: int
    load: float
    """What comes now."""
    expected: float
    """What comes when a server asked for now is there, as far as it grows."""


def chase(
    recent: tuple[Arrivals, ...], capacity: Capacity, *, ready: int, cold_start_seconds: float, slack_share: float = 1.0
) -> Surge | None:
    """The count for a load that what is ready cannot carry; None if it can, as far as that is no chance.

    The count is of all servers, so those that are on their way are in it: nothing is asked for twice.
    """
    carried = capacity.carries(ready)
    most: Surge | None = None
    for seconds in _WINDOWS_SECONDS:
        window = _window(recent, seconds)
        if window is None:
            continue
        rate = window.count / window.seconds
        bound = capacity.bound(window.seconds, slack_share)
        sure = bound * (window.count - _DEVIATIONS * math.sqrt(window.count)) / window.seconds
        if sure > carried:
            expected = _growing(recent, rate, cold_start_seconds)
            servers = capacity.need(_SPARE * bound * expected)
            if most is None or servers > most.servers:
                most = Surge(servers=servers, load=rate, expected=expected)
    return most


def chase_concurrency(now: float, capacity: Capacity, *, ready: int) -> Surge | None:
    """The same where servers are counted by what they do at the same time: that is seen at once."""
    if now - _DEVIATIONS * math.sqrt(now) <= capacity.carries(ready):
        return None
    return Surge(servers=capacity.need(_SPARE * now), load=now, expected=now)


def for_queues(in_flight: int, capacity: Capacity, *, ready: int, limit_seconds: float) -> int | None:
    """Servers to work off what waits longer than it may; None if nothing does.

    Never more than as many again: a queue is what a lack in the past has left, and the load itself is chased already.
    """
    surface = capacity.surface
    if not ready or surface is None or not surface.is_in_reach:
        return None
    # One batch that is executed and one that waits are no queue, however tight the limit.
    batches = 2 * surface.curve.instances * surface.curve.max_batch
    in_time = ready * max(capacity.ceiling * limit_seconds, batches)
    if in_flight <= in_time:
        return None
    work_off_seconds = max(limit_seconds, _DRAIN_SECONDS_LEAST)
    more = math.ceil((in_flight - in_time) / (capacity.ceiling * work_off_seconds))
    return min(ready + min(ready, more), capacity.most_servers)


def _growing(recent: tuple[Arrivals, ...], rate: float, cold_start_seconds: float) -> float:
    """The load at the time when a server asked for now is there, as long as it surely grows."""
    newest = _window(recent, _GROWTH_SECONDS)
    middle = newest and _window(recent, _GROWTH_SECONDS, before=newest.at - newest.seconds)
    oldest = middle and _window(recent, _GROWTH_SECONDS, before=middle.at - middle.seconds)
    if newest is None or middle is None or oldest is None:
        return rate
    if (
        _significance(oldest, newest) <= _GROWTH_DEVIATIONS
        or _significance(oldest, middle) <= _GROWTH_STEP_DEVIATIONS
        or _significance(middle, newest) <= _GROWTH_STEP_DEVIATIONS
    ):
        return rate
    slope = (newest.count / newest.seconds - oldest.count / oldest.seconds) / (newest.at - oldest.at)
    return min(rate + slope * cold_start_seconds, _GROWTH_MOST * rate)


def _significance(before: Arrivals, after: Arrivals) -> float:
    """By how many standard deviations the later count is larger, both taken as Poisson."""
    both = before.count + after.count
    return (after.count - before.count * after.seconds / before.seconds) / math.sqrt(both) if both else 0.0


def _window(recent: tuple[Arrivals, ...], seconds: float, before: float = math.inf) -> Arrivals | None:
    """What came in at least so many seconds before a moment; None if that is not known."""
    count, covered, at = 0.0, 0.0, None
    for each in reversed(recent):
        if each.at > before + _TOLERANCE:
            continue
        at = each.at if at is None else at
        count, covered = count + each.count, covered + each.seconds
        if covered >= seconds - _TOLERANCE:
            return Arrivals(at=at, seconds=covered, count=count)
    return None


_TOLERANCE: Final = 1e-6
