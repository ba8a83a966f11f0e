"""How many servers the load of the last while needs: a policy of a few figures, that are chosen by replay.

A load is followed by its mean over a window, with a factor as spare; what it once needed is kept for a while, and a
floor is never left. Which of these fit depends on the load (steady, daily, in bursts) and on how long a server takes to
start. So none is a constant: candidates are replayed over what came in the last hours, and the cheapest one under which
no more requests would have been late than may be is taken.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from conch.core.scaling.capacity import Capacity, Counts, Floats
from conch.core.scaling.figures import span
from conch.core.scaling.history import BIN_SECONDS, PEAK_SECONDS, Series

_LASTING_BINS: Final = 15
_STEADY_BINS: Final = 150
_NOTHING: Final = 1e-9
_REACTION_SECONDS: Final = 4.0
"""From a request until it is counted, decided upon and written."""
_FIRST_BINS: Final = 3
"""The mean of fewer is chance."""
SUDDEN_BINS: Final = (3, 7, 15, 30)
"""Windows of sudden loads: what lasts for longer, the level follows."""
_CHASE_FACTOR: Final = 1.1
_CHASE_DEVIATIONS: Final = 3.0
"""How many standard deviations of chance a load has to be over what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelPolicy:
    """How a load is followed."""

    window_seconds: float
    factor: float
    hold_seconds: float
    floor: int = 0
    slack_share: float = 1.0
    """Of the time that requests may wait: how much a burst may use up."""
    period_seconds: float = 0.0
    """As many servers as the same phase of the period before needed; 0: nothing repeats."""

    @property
    def words(self) -> str:
        """For a person."""
        parts = [
            f"{self.factor:g} x the load of the last {span(self.window_seconds)}",
            f"what that needs is kept for {span(self.hold_seconds)}",
        ]
        if self.floor > 1:
            parts.append(f"never below {self.floor} while requests come")
        if self.period_seconds:
            parts.append(f"and what the same time {span(self.period_seconds)} before needed")
        return ", ".join(parts)


PRIOR: Final = LevelPolicy(window_seconds=60, factor=1.5, hold_seconds=300, slack_share=0.3)
"""Until there is something to replay."""


def raw_needs(policy: LevelPolicy, mean: Floats, capacity: Capacity) -> Counts:
    """By bin, how many servers the mean load of the policy's window needed, before anything is kept."""
    return capacity.needs(policy.factor * mean)


def window_mean(window_seconds: float, load: Series) -> Floats:
    """By bin, the mean load of a policy's window."""
    return moving_mean(load.astype(np.float64), max(1, round(window_seconds / BIN_SECONDS)))


def sudden_needs(load: Series, capacity: Capacity, slack_share: float = 1.0) -> Counts:
    """By bin, how many servers the last seconds needed for all of their requests to be in time, chance left out."""
    known = load.astype(np.float64)
    most = np.zeros(len(known))
    for bins in SUDDEN_BINS:
        seconds = bins * BIN_SECONDS
        mean = moving_mean(known, bins)
        sure = mean - _CHASE_DEVIATIONS * np.sqrt(mean * seconds) / seconds
        most = np.maximum(most, sure * capacity.bound(seconds, slack_share))
    return capacity.needs(_CHASE_FACTOR * most)


def kept(needs: Counts, policy: LevelPolicy) -> Counts:
    """What was needed is kept for a while."""
    return moving_extreme(needs, max(1, round(policy.hold_seconds / BIN_SECONDS)), np.maximum)


def recurring_need(policy: LevelPolicy, peaks: Series, capacity: Capacity, lead_seconds: float) -> int:
    """What the same phase of the period before needed, from now until a server asked for now would serve."""
    if not policy.period_seconds:
        return 0
    back = round(policy.period_seconds / PEAK_SECONDS)
    ahead = 1 + int(np.ceil(lead_seconds / PEAK_SECONDS))
    if len(peaks) < back:
        return 0
    begin = len(peaks) - back
    phase = peaks[begin : min(begin + ahead, len(peaks))]
    return int(capacity.needs(_filled(phase)).max()) if len(phase) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a policy would have done."""

    policy: LevelPolicy
    late_share: float
    cost: float
    """Servers on average, and each start as one more for a cold start: for what it costs everybody else."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What came, and what the servers could do: everything that all candidates have in common, calculated once."""

    load: Series
    capacity: Capacity
    least: int
    """Servers that there always are."""
    cold_start_seconds: float
    limit_seconds: float
    """Later than this is late."""
    counted_from: int = 0
    """The first bin that is counted."""

    def again(self) -> "Replay":
        """With all that came coming once more, and only that counted.

        What came once may come again. Over a short history the first of a kind of surge would teach nothing: nobody is
        prepared for it, whatever the policy, so the policy that forgets it first would be the cheapest.
        """
        return replace(self, load=np.concatenate((self.load, self.load)), counted_from=len(self.load))

    def run(self, policy: LevelPolicy) -> Replayed:
        """Run one policy over what came."""
        return self.outcome(
            policy,
            kept(
                np.maximum(
                    raw_needs(policy, window_mean(policy.window_seconds, self.load), self.capacity),
                    sudden_needs(self.load, self.capacity, policy.slack_share),
                ),
                policy,
            ),
        )

    def outcome(self, policy: LevelPolicy, needs: Counts) -> Replayed:
        """A server is there when it was wanted for a whole cold start.

        What comes over what the servers can do waits: backlog(t) = max(0, backlog(t-1) + came(t) - could(t)), which is
        the sum so far less its smallest value so far (Lindley's recursion; Asmussen, Applied Probability and Queues,
        III.6). Requests behind a backlog that takes longer than the limit are late, others as the late surface says.
        """
        capacity, load = self.capacity, self._came
        wanted = np.maximum(needs, max(self.least, policy.floor))
        if policy.period_seconds:
            wanted = np.maximum(wanted, self._repeated(policy, load))
        wanted = np.minimum(wanted, capacity.most_servers)
        late_by = round((self.cold_start_seconds + _REACTION_SECONDS) / BIN_SECONDS)
        ready = moving_extreme(wanted, max(1, late_by), np.minimum)
        could = np.maximum(ready * capacity.ceiling, _NOTHING)
        if capacity.surface is None:
            late = (load > capacity.rates[ready]).astype(np.float64)
        else:
            surplus = np.cumsum((load - could) * BIN_SECONDS)
            wait = (surplus - np.minimum(np.minimum.accumulate(surplus), 0.0)) / could
            slack = max(0.0, self.limit_seconds - capacity.surface.curve.least_seconds)
            late = np.where(wait > slack, 1.0, capacity.surface.late_share(ready, self._lasting / could))
        # The first time only shows what a policy would have been prepared for.
        late, load, wanted = late[self.counted_from :], load[self.counted_from :], wanted[self.counted_from :]
        came = float(load.sum())
        return Replayed(
            policy=policy,
            late_share=float((late * load).sum() / came) if came else 0.0,
            cost=self._cost(wanted),
        )

    @cached_property
    def _came(self) -> Floats:
        return _filled(self.load)

    @cached_property
    def _lasting(self) -> Floats:
        return _lasting(self._came)

    def _cost(self, wanted: Counts) -> float:
        if not len(wanted):
            return 0.0
        starts = float(np.maximum(np.diff(wanted), 0).sum())
        return float(wanted.mean()) + starts * self.cold_start_seconds / (len(wanted) * BIN_SECONDS)

    def _repeated(self, policy: LevelPolicy, load: Floats) -> Counts:
        """By bin, what the same phase of the period before needed, from then until a cold start later."""
        back = round(policy.period_seconds / BIN_SECONDS)
        ahead = max(1, round((self.cold_start_seconds + PEAK_SECONDS) / BIN_SECONDS))
        needs = self.capacity.needs(moving_mean(load, round(PEAK_SECONDS / 2 / BIN_SECONDS)))
        soon = moving_extreme(needs[::-1], ahead, np.maximum)[::-1]
        repeated = np.zeros_like(needs)
        repeated[back:] = soon[: max(0, len(soon) - back)]
        return repeated


def _lasting(load: Floats) -> Floats:
    """What came per second, without what chance makes of it: that is in the late surface already.

    The mean of half a minute where it differs from that of five by more than Poisson arrivals do, else the latter.
    """
    short, long = moving_mean(load, _LASTING_BINS), moving_mean(load, _STEADY_BINS)
    seconds = _LASTING_BINS * BIN_SECONDS
    chance = _CHASE_DEVIATIONS * np.sqrt(long * seconds) / seconds
    return np.where(np.abs(short - long) > chance, short, long)


def moving_mean(series: Floats, window: int) -> Floats:
    """The mean of each value and those before it, `window` in all; of as many as there are and known."""
    if not len(series):
        return series
    unknown = np.isnan(series)
    has_gaps = bool(unknown.any())
    counts: Floats = (
        _moving_sum((~unknown).astype(np.float64), window)
        if has_gaps
        else np.minimum(np.arange(1.0, len(series) + 1), window)
    )
    sums = _moving_sum(np.where(unknown, 0.0, series) if has_gaps else series, window)
    # The first values alone are chance.
    mean: Floats = sums / np.maximum(counts, min(window, _FIRST_BINS))
    return np.maximum(mean, 0.0)


def _moving_sum(series: Floats, window: int) -> Floats:
    sums: Floats = np.cumsum(series)
    sums[window:] -= sums[:-window].copy()
    return sums


def moving_extreme(series: NDArray[np.int64], window: int, combine: np.ufunc) -> NDArray[np.int64]:
    """The largest or smallest of each value and those before it, `window` in all, by doubling."""
    result, covered = series, 1
    while covered < window:
        step = min(covered, window - covered)
        shifted = result.copy()
        shifted[step:] = combine(result[step:], result[:-step]) if step < len(result) else result[step:]
        result, covered = shifted, covered + step
    return result


def _filled(load: Series) -> Floats:
    """Where nobody told, nothing came: this is about the past, and only what is known of it teaches."""
    known = load.astype(np.float64)
    known[np.isnan(known)] = 0.0
    return known
