"""How many servers there are to be now, and why: the autoscaler's one decision, every two seconds.

Five steps, each in a module of its own: what a server can do (service_curve), what c servers carry in time
(late_surface), what the load of the last while needs (level), what comes just now beyond that (chase), and what nobody
may go beyond (here). Missing data never takes anything away.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from conch.api.autoscaling import ScalingReason
from conch.core.scaling.behavior import LONGEST_SECONDS, Change, Timed, with_wanted, within
from conch.core.scaling.capacity import Capacity
from conch.core.scaling.chase import Surge, chase, chase_concurrency, for_queues
from conch.core.scaling.figures import figure, span
from conch.core.scaling.history import BIN_SECONDS
from conch.core.scaling.instances import next_instances
from conch.core.scaling.kept_needs import KeptNeeds, kept_needs
from conch.core.scaling.level import PRIOR, SUDDEN_BINS, LevelPolicy, recurring_need, sudden_needs
from conch.core.scaling.observe import observed
from conch.core.scaling.settings import ScalingSettings
from conch.core.scaling.signals import Signals
from conch.core.scaling.state import ScalingState
from conch.core.scaling.tuning import capacity_now, is_guess, limit_seconds, prior_policy

LEARNING_SECONDS: Final = 60.0
"""After the autoscaler began to look, nothing is taken away for so long."""
_STILL_NEEDED_SECONDS: Final = 14.0
_STILL_NEEDED_BINS: Final = round(_STILL_NEEDED_SECONDS / BIN_SECONDS)
"""What was needed so lately is needed still."""
_QUEUES_SECONDS: Final = 2.0
"""A queue that is seen once may be a moment's."""
_LEFT_OVER_SECONDS: Final = 60.0
"""After a lack of servers, so long a queue may be what it has left."""
_STRAINED_SECONDS: Final = 600.0
"""Servers that have queues without a lack are fewer than they seem (some may hang): what they need is kept for long."""
_WORKING_SHARE: Final = 0.5
"""Servers that answer less than this share of what they could are not short of help, but ill."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decision:
    """A count and its reason, with the figures behind it."""

    desired: int
    reason: ScalingReason
    message: str
    state: ScalingState
    demand: float | None = None
    """Requests per second, or at the same time; of the window of the policy."""
    capacity: Capacity | None = None
    policy: LevelPolicy = PRIOR


@dataclass(frozen=True, slots=True)
class _Wanted:
    count: int
    reason: ScalingReason
    message: str


def decide(now: float, settings: ScalingSettings, state: ScalingState, signals: Signals) -> Decision:
    """One look. `now` is in seconds of a monotonic clock."""
    before = state
    state = observed(now, settings, state, signals)
    capacity = capacity_now(settings, state)
    policy = state.tuning.policy if state.tuning is not None else prior_policy(settings, state)
    demand = _demand(policy, state, capacity)
    state, wanted = _wanted(now, settings, state, signals, capacity, policy, demand)
    state, wanted = _bounded(now, settings, state, signals, wanted)
    if wanted.count != before.desired:
        change = Change(at=now, before=before.desired, after=wanted.count)
        recent = tuple(each for each in state.changes if now - each.at <= LONGEST_SECONDS)
        state = replace(state, desired=wanted.count, changes=(*recent, change))
    if settings.tries_instances:
        state = _with_instances(now, settings, state, signals, capacity, demand)
    return Decision(
        desired=wanted.count,
        reason=wanted.reason,
        message=wanted.message,
        state=state,
        demand=demand,
        capacity=capacity,
        policy=policy,
    )


def _wanted(
    now: float,
    settings: ScalingSettings,
    state: ScalingState,
    signals: Signals,
    capacity: Capacity | None,
    policy: LevelPolicy,
    demand: float | None,
) -> tuple[ScalingState, _Wanted]:
    """What the load asks for, before any limit."""
    current = state.desired
    if signals.held and not signals.ready:
        count = max(current, _for_held(signals, capacity))
        if capacity is not None and (found := _chased(settings, state, signals, capacity, policy)) is not None:
            count = max(count, found.servers)
        state = _surged(state, now, count)
        return state, _Wanted(count, ScalingReason.HELD, f"{signals.held} requests are held and nothing serves")
    if signals.arrived is None:
        return state, _Wanted(current, ScalingReason.NO_DATA, "no gateway or agent tells of the load: nothing changes")
    if settings.idle_seconds is not None:
        if current == 0 and not signals.arrived and not signals.held:
            # Also when it was not looked at for long: what nobody asks for needs no server.
            return _asleep(state, policy, capacity), _Wanted(0, ScalingReason.IDLE, "nobody asks")
        if now - state.busy_at >= settings.idle_seconds:
            message = f"nobody has asked for {settings.idle_seconds:g} s"
            return _asleep(state, policy, capacity), _Wanted(0, ScalingReason.IDLE, message)
    if capacity is None:
        message = "no request was executed yet, so nothing is known of what a server can do"
        return state, _Wanted(max(current, 1), ScalingReason.LEARNING, message)
    state, sudden = _sudden(now, settings, state, signals, capacity, policy)
    load = _load(state, capacity)
    state, level = _level(settings, state, capacity, policy)
    surge = max((each.count for each in state.surges), default=0)
    if state.strained is not None and now - state.strained.at <= _STRAINED_SECONDS:
        surge = max(surge, state.strained.count)
    if sudden is not None and sudden.count >= max(level, current):
        return state, sudden
    count = max(level, surge)
    if count < current:
        if not signals.complete:
            message = "a gateway is not heard, and more may come than is seen: nothing is taken away"
            return state, _Wanted(current, ScalingReason.NO_DATA, message)
        if now - state.began < LEARNING_SECONDS:
            message = f"seen for {now - state.began:.0f} s only: nothing is taken away yet"
            return state, _Wanted(current, ScalingReason.LEARNING, message)
        if is_guess(settings, state, capacity):
            message = "what a server carries is being calculated: nothing is taken away yet"
            return state, _Wanted(current, ScalingReason.LEARNING, message)
        count = min(current, max(count, _still_needed(load, capacity, signals)))
    now_needed = capacity.need(policy.factor * (demand or 0.0))
    if count > max(now_needed, settings.least, policy.floor):
        message = f"{_words(demand, capacity)} need {now_needed} now; {_kept_by(now, count, level, state, policy)}"
        return state, _Wanted(count, ScalingReason.STABILISING, message)
    return state, _Wanted(count, ScalingReason.LOAD, f"{_words(demand, capacity)}: {policy.words}")


def _kept_by(now: float, count: int, level: int, state: ScalingState, policy: LevelPolicy) -> str:
    """Why so many are kept, of what keeps them the longest."""
    if state.needs is not None and count <= state.needs.most:
        return f"{count} were needed within {span(policy.hold_seconds)}"
    if count <= level:
        return f"{count} were needed at this time {span(policy.period_seconds)} ago"
    strained, surges = state.strained, [each for each in state.surges if each.count >= count]
    if strained is not None and count <= strained.count and now - strained.at <= _STRAINED_SECONDS:
        return f"queues showed {span(round(now - strained.at))} ago that it takes {count}"
    if surges:
        # What the load grows to is no need yet: it becomes one, or is given back.
        return f"{count} were asked for {span(round(now - surges[-1].at))} ago, for what may still come"
    return f"{count} were needed within {span(_STILL_NEEDED_SECONDS)}"


def _asleep(state: ScalingState, policy: LevelPolicy, capacity: Capacity | None) -> ScalingState:
    """What was needed before nobody asked is kept no longer: who wakes it is another load."""
    needs = None
    if capacity is not None:
        needs = KeptNeeds(policy=policy, capacity=capacity, bins=state.history.bins, needs=np.zeros(0, dtype=np.int64))
    return replace(state, needs=needs, surges=(), strained=None)


def _sudden(
    now: float,
    settings: ScalingSettings,
    state: ScalingState,
    signals: Signals,
    capacity: Capacity,
    policy: LevelPolicy,
) -> tuple[ScalingState, _Wanted | None]:
    """What is to be asked for at once; what it was right for lasts or is kept by the level."""
    if state.surges:
        state = replace(state, surges=tuple(each for each in state.surges if now - each.at <= _STILL_NEEDED_SECONDS))
    found = _chased(settings, state, signals, capacity, policy)
    wanted: _Wanted | None = None
    if found is not None:
        message = f"{_words(found.load, capacity)} come now, more than {_servers(signals.ready)} carry"
        if found.expected > found.load:
            message += f", and they grow: {figure(found.expected)} by the time that a server more would serve"
        wanted = _Wanted(found.servers, ScalingReason.SURGE, message)
        state = replace(state, short_at=now)
    state, queues = _queues(now, settings, state, signals, capacity)
    if queues is not None and (wanted is None or queues > wanted.count):
        message = f"{signals.in_flight} requests are at {_servers(signals.ready)}, more than are done in time"
        wanted = _Wanted(queues, ScalingReason.QUEUES, message)
        if state.short_at is None or now - state.short_at > _LEFT_OVER_SECONDS:
            state = replace(state, strained=Timed(now, queues))
    return (_surged(state, now, wanted.count) if wanted else state), wanted


def _chased(
    settings: ScalingSettings, state: ScalingState, signals: Signals, capacity: Capacity, policy: LevelPolicy
) -> Surge | None:
    if state.doubtful:
        # Nobody waits for it; if it costs something after all, a queue tells in the next look.
        return None
    if capacity.by_concurrency:
        return chase_concurrency(float(signals.in_flight + signals.held), capacity, ready=signals.ready)
    cold_start = state.cold_start_seconds(settings.cold_start_prior_seconds)
    return chase(
        state.recent, capacity, ready=signals.ready, cold_start_seconds=cold_start, slack_share=policy.slack_share
    )


def _queues(
    now: float, settings: ScalingSettings, state: ScalingState, signals: Signals, capacity: Capacity
) -> tuple[ScalingState, int | None]:
    more = for_queues(signals.in_flight, capacity, ready=signals.ready, limit_seconds=limit_seconds(settings))
    if more is None:
        return (state if state.queues_since is None else replace(state, queues_since=None)), None
    since = now if state.queues_since is None else state.queues_since
    state = replace(state, queues_since=since)
    executed = state.executed_per_second(now)
    answers = state.answered_per_second if executed is None else executed
    is_working = answers >= _WORKING_SHARE * signals.ready * capacity.ceiling
    return state, more if now - since >= _QUEUES_SECONDS and is_working else None


def _surged(state: ScalingState, now: float, count: int) -> ScalingState:
    """With a count that is kept like any other; of those that are older, only larger ones matter still."""
    larger = tuple(each for each in state.surges if each.count > count and now - each.at <= _STILL_NEEDED_SECONDS)
    return replace(state, surges=(*larger, Timed(now, count)))


def _for_held(signals: Signals, capacity: Capacity | None) -> int:
    """One; more where more is held than one could work off for as long as requests are held."""
    if capacity is None or capacity.ceiling <= 0:
        return 1
    each = capacity.ceiling if capacity.by_concurrency else capacity.ceiling * max(1.0, signals.hold_seconds)
    return max(1, math.ceil(signals.held / each))


def _level(
    settings: ScalingSettings, state: ScalingState, capacity: Capacity, policy: LevelPolicy
) -> tuple[ScalingState, int]:
    needs = kept_needs(state.needs, policy, capacity, _load(state, capacity), state.history.bins)
    peaks = state.history.peaks_of_concurrency if capacity.by_concurrency else state.history.peaks
    lead = state.cold_start_seconds(settings.cold_start_prior_seconds)
    recurring = recurring_need(policy, peaks, capacity, lead)
    return replace(state, needs=needs), max(needs.most, policy.floor, settings.least, recurring)


def _still_needed(load: np.ndarray, capacity: Capacity, signals: Signals) -> int:
    """What the last seconds needed, and what is executed just now."""
    last = sudden_needs(load[-SUDDEN_BINS[-1] - _STILL_NEEDED_BINS :], capacity)[-_STILL_NEEDED_BINS:]
    lately = int(last.max()) if len(last) else 0
    return max(lately, 1 if signals.in_flight else 0)


def _bounded(
    now: float, settings: ScalingSettings, state: ScalingState, signals: Signals, wanted: _Wanted
) -> tuple[ScalingState, _Wanted]:
    """Within what the rollout, `behavior`, minimum and maximum allow, in this order."""
    current = state.desired
    if settings.paused and not (wanted.reason is ScalingReason.HELD and current == 0):
        wanted = _Wanted(current, ScalingReason.PAUSED, "autoscaling.paused: the count stays as it is")
    if wanted.count < signals.floor:
        wanted = _Wanted(signals.floor, ScalingReason.ROLLOUT, f"a rollout needs {_servers(signals.floor)}")
    if settings.behavior is not None:
        state = replace(state, wanted=with_wanted(state.wanted, Timed(now, wanted.count), settings.behavior))
        if current and wanted.count:
            allowed = within(
                settings.behavior, wanted.count, current, now=now, wanted_before=state.wanted, changes=state.changes
            )
            if allowed != wanted.count:
                message = (
                    f"{_servers(wanted.count)} wanted ({wanted.message}); autoscaling.behavior allows {allowed} now"
                )
                wanted = _Wanted(allowed, ScalingReason.BEHAVIOR, message)
    least = settings.minimum if settings.idle_seconds is not None else settings.least
    if wanted.count < least:
        wanted = _Wanted(least, ScalingReason.MINIMUM, f"minReplicas is {least}: {wanted.message}")
    if wanted.count > settings.maximum:
        wanted = _Wanted(
            settings.maximum, ScalingReason.MAXIMUM, f"maxReplicas is {settings.maximum}: {wanted.message}"
        )
    return state, wanted


def _with_instances(
    now: float,
    settings: ScalingSettings,
    state: ScalingState,
    signals: Signals,
    capacity: Capacity | None,
    demand: float | None,
) -> ScalingState:
    """With a trial of another instance begun, or judged."""
    carried = capacity.carries(signals.ready) if capacity is not None else 0.0
    steady_since = state.changes[-1].at if state.changes else state.began
    instances, batches = next_instances(
        now,
        state.instances,
        state.batches,
        signals.instances,
        steady_since=steady_since,
        load_share=(demand or 0.0) / carried if carried else 0.0,
        limit_seconds=limit_seconds(settings),
        undisturbed=not signals.floor and not settings.paused,
    )
    return replace(state, instances=instances, batches=batches)


def _load(state: ScalingState, capacity: Capacity) -> np.ndarray:
    return state.history.concurrency if capacity.by_concurrency else state.history.rates


def _demand(policy: LevelPolicy, state: ScalingState, capacity: Capacity | None) -> float | None:
    """The load of the policy's window, as far as anybody told."""
    by_concurrency = capacity is not None and capacity.by_concurrency
    series = state.history.concurrency if by_concurrency else state.history.rates
    window = series[-max(1, math.ceil(policy.window_seconds / BIN_SECONDS)) :]
    told = window[~np.isnan(window)]
    return float(told.mean()) if len(told) else None


def _words(load: float | None, capacity: Capacity) -> str:
    amount = 0.0 if load is None else load
    return f"{figure(amount)} requests {'at the same time' if capacity.by_concurrency else 'per second'}"


def _servers(count: int) -> str:
    return f"{count} server" if count == 1 else f"{count} servers"
