"""`autoscaling.behavior`: how fast the count may change, by the rules of the HorizontalPodAutoscaler."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from conch.api.autoscaling import Behavior, PolicySelect, PolicyType, ScalingPolicy, ScalingRules

LONGEST_SECONDS: Final = 3600.0
"""Of any window or period."""


@dataclass(frozen=True, slots=True)
class Timed:
    """A count at a moment, seconds."""

    at: float
    count: int


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the count at a moment, seconds."""

    at: float
    before: int
    after: int


def within(
    behavior: Behavior | None,
    wanted: int,
    current: int,
    *,
    now: float,
    wanted_before: Iterable[Timed],
    changes: Iterable[Change],
) -> int:
    """`wanted`, as far as the behavior allows it now."""
    if behavior is None or wanted == current:
        return wanted
    up = wanted > current
    asked = behavior.scale_up if up else behavior.scale_down
    if asked is None:
        return wanted
    if asked.select_policy is PolicySelect.DISABLED:
        return current
    wanted = _stabilised(asked, wanted, current, up=up, now=now, wanted_before=wanted_before)
    if not asked.policies or wanted == current:
        return wanted
    past = tuple(changes)
    limits = [_limit(policy, current, up=up, now=now, changes=past) for policy in asked.policies]
    most: Callable[[list[int]], int] = max if (asked.select_policy is PolicySelect.MAX) == up else min
    return min(wanted, max(current, most(limits))) if up else max(wanted, min(current, most(limits)))


def with_wanted(before: tuple[Timed, ...], new: Timed, behavior: Behavior) -> tuple[Timed, ...]:
    """What was wanted within the longest window. Of equal counts in a row the last moment tells everything."""
    windows = [rules.stabilization_window_seconds for rules in (behavior.scale_up, behavior.scale_down) if rules]
    longest = max(windows, default=0)
    if before and before[-1].count == new.count:
        before = before[:-1]
    return (*(each for each in before if new.at - each.at <= longest), new)


def _stabilised(
    asked: ScalingRules, wanted: int, current: int, *, up: bool, now: float, wanted_before: Iterable[Timed]
) -> int:
    """Of what was wanted within the window, what changes the least."""
    recent = [each.count for each in wanted_before if now - each.at <= asked.stabilization_window_seconds]
    if up:
        return max(current, min([wanted, *recent]))
    return min(current, max([wanted, *recent]))


def _limit(policy: ScalingPolicy, current: int, *, up: bool, now: float, changes: tuple[Change, ...]) -> int:
    """How far the policy lets the count go: its value from the count at the beginning of the period."""
    recent = [change.after - change.before for change in changes if now - change.at < policy.period_seconds]
    begin = current - sum(recent)
    if policy.type is PolicyType.PODS:
        return begin + policy.value if up else begin - policy.value
    # In whole numbers: 100 x 1.1 is more than 110 in floating point.
    return -(-begin * (100 + policy.value) // 100) if up else begin * (100 - policy.value) // 100
