"""Finds the policy that fits a load: the cheapest one under which no more requests would have been late than may be.

All combinations of a policy's figures would be thousands; they hardly depend on each other, so one after the other is
varied while the rest stays (coordinate descent), from a careful beginning and from a thrifty one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from conch.core.scaling.capacity import Counts, Floats
from conch.core.scaling.history import BIN_SECONDS
from conch.core.scaling.level import (
    PRIOR,
    LevelPolicy,
    Replay,
    Replayed,
    kept,
    moving_mean,
    raw_needs,
    sudden_needs,
    window_mean,
)

_WINDOWS_SECONDS: Final = (15.0, 60.0, 300.0)
_FACTORS: Final = (0.85, 0.92, 1.0, 1.2, 1.5, 2.0, 3.0)
_HOLDS_SECONDS: Final = (300.0, 600.0, 1800.0)
_FLOORS: Final = 10
_FLOOR_SECONDS: Final = 6.0
_SWEEPS: Final = 3
_YOUNG_HOLD_SECONDS: Final = 1800.0


def choose(
    replay: Replay, *, late_share: float, scale: float = 1.0, periods: tuple[float, ...] = (), young: bool = False
) -> Replayed:
    """The cheapest policy found whose late share is within `late_share`; else the one with the fewest late.

    `scale` stretches the windows, for requests that take long themselves; `periods` in seconds are those after which
    the load may repeat. Of a `young` load too little is known to give anything up soon.
    """
    slack_share = PRIOR.slack_share if young else 1.0
    search = _Search(
        replay=replay,
        late_share=late_share,
        scale=scale,
        periods=periods,
        young=young,
        sudden=sudden_needs(replay.load, replay.capacity, slack_share),
    )
    careful = LevelPolicy(
        window_seconds=15.0 * scale, factor=1.5, hold_seconds=search.holds_seconds[-1], slack_share=slack_share
    )
    thrifty = LevelPolicy(
        window_seconds=60.0 * scale, factor=1.0, hold_seconds=search.holds_seconds[0], slack_share=slack_share
    )
    # Once a floor is there that suffices, a period gains nothing: it is begun with.
    recurring = (replace(thrifty, period_seconds=period) for period in periods)
    return min((search.descend(begin) for begin in (careful, thrifty, *recurring)), key=search.rank)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    replay: Replay
    late_share: float
    scale: float
    periods: tuple[float, ...]
    young: bool
    sudden: Counts
    """What sudden loads needed, whatever the policy."""
    means: dict[float, Floats] = field(default_factory=dict)
    """The load by window."""
    raw: dict[tuple[float, float], Counts] = field(default_factory=dict)
    """By window and factor, which most policies that are tried have in common."""
    held: dict[tuple[float, float, float], Counts] = field(default_factory=dict)
    results: dict[LevelPolicy, Replayed] = field(default_factory=dict)

    @property
    def holds_seconds(self) -> tuple[float, ...]:
        """For how long what was needed may be kept."""
        return (_YOUNG_HOLD_SECONDS,) if self.young else _HOLDS_SECONDS

    def descend(self, begin: LevelPolicy) -> Replayed:
        """Vary one figure after the other, as long as that gains anything."""
        best = self._run(begin)
        floors = self._floors()
        for _ in range(_SWEEPS):
            before = best
            for vary in (
                lambda policy: (replace(policy, floor=floor) for floor in floors),
                self._next_floors,
                lambda policy: (replace(policy, hold_seconds=hold) for hold in self.holds_seconds),
                self._levels,
                lambda policy: (replace(policy, period_seconds=period) for period in (0.0, *self.periods)),
            ):
                best = self._best(best, vary)
            if best is before:
                break
        return best

    def rank(self, result: Replayed) -> tuple[bool, float, float]:
        """Smaller is better: within the late share, then cheap; else few late."""
        fits = result.late_share <= self.late_share
        return (not fits, result.cost if fits else result.late_share, result.cost)

    def _best(self, best: Replayed, vary: Callable[[LevelPolicy], Iterator[LevelPolicy]]) -> Replayed:
        # The one there is stays when another is no better.
        return min((best, *map(self._run, vary(best.policy))), key=self.rank)

    def _next_floors(self, policy: LevelPolicy) -> Iterator[LevelPolicy]:
        for step in (-2, -1, 1, 2):
            if policy.floor + step >= 0:
                yield replace(policy, floor=policy.floor + step)

    def _levels(self, policy: LevelPolicy) -> Iterator[LevelPolicy]:
        for window in _WINDOWS_SECONDS:
            for factor in _FACTORS:
                yield replace(policy, window_seconds=window * self.scale, factor=factor)

    def _floors(self) -> tuple[int, ...]:
        """Counts between none and what the most loaded seconds needed."""
        load = np.nan_to_num(self.replay.load.astype(np.float64))
        if not len(load):
            return (0,)
        peak = moving_mean(load, max(1, round(_FLOOR_SECONDS * self.scale / BIN_SECONDS))).max()
        most = self.replay.capacity.need(float(peak))
        return tuple(sorted({round(most * part / _FLOORS) for part in range(_FLOORS + 1)}))

    def _run(self, policy: LevelPolicy) -> Replayed:
        if (known := self.results.get(policy)) is not None:
            return known
        level = (policy.window_seconds, policy.factor)
        if (needs := self.held.get((*level, policy.hold_seconds))) is None:
            if (raw := self.raw.get(level)) is None:
                needed = raw_needs(policy, self._mean(policy.window_seconds), self.replay.capacity)
                raw = self.raw[level] = np.maximum(needed, self.sudden)
            needs = self.held[(*level, policy.hold_seconds)] = kept(raw, policy)
        result = self.results[policy] = self.replay.outcome(policy, needs)
        return result

    def _mean(self, window_seconds: float) -> Floats:
        if (known := self.means.get(window_seconds)) is None:
            known = self.means[window_seconds] = window_mean(window_seconds, self.replay.load)
        return known
