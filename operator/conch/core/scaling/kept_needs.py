"""How many servers the load of the time that a policy keeps needed, from one look to the next.

A look adds one bin to hundreds: what the others needed is remembered as long as policy and capacity stay the same.
"""

import math
from dataclasses import dataclass

import numpy as np

from conch.core.scaling.capacity import Capacity, Counts
from conch.core.scaling.history import BIN_SECONDS, Series
from conch.core.scaling.level import SUDDEN_BINS, LevelPolicy, raw_needs, sudden_needs, window_mean


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeptNeeds:
    """What each of the last bins needed, by this policy and capacity."""

    policy: LevelPolicy
    capacity: Capacity
    bins: int
    """How many bins there ever were then."""
    needs: Counts

    @property
    def most(self) -> int:
        """What is needed, for it is kept."""
        return int(self.needs.max()) if len(self.needs) else 0


def kept_needs(before: KeptNeeds | None, policy: LevelPolicy, capacity: Capacity, load: Series, bins: int) -> KeptNeeds:
    """With the bins that are new; all of them where policy or capacity are others. `bins` counts all there were."""
    held = max(1, math.ceil(policy.hold_seconds / BIN_SECONDS))
    known, new = np.zeros(0, dtype=np.int64), held
    if before is not None and before.policy == policy and _is_same(before.capacity, capacity):
        known, new = before.needs, min(held, bins - before.bins)
    if new:
        window = max(math.ceil(policy.window_seconds / BIN_SECONDS), SUDDEN_BINS[-1])
        recent = load[-(window + new) :]
        needs = np.maximum(
            raw_needs(policy, window_mean(policy.window_seconds, recent), capacity),
            sudden_needs(recent, capacity, policy.slack_share),
        )
        known = np.concatenate((known, needs[-new:]))[-held:]
    return KeptNeeds(policy=policy, capacity=capacity, bins=bins, needs=known)


def _is_same(one: Capacity, other: Capacity) -> bool:
    return one is other or (one.surface is other.surface and np.array_equal(one.rates, other.rates))
