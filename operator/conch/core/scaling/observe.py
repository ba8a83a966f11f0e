"""What a look adds to what is remembered."""

import math
from dataclasses import replace
from typing import Final

import numpy as np

from conch.core.scaling.chase import REMEMBERED_SECONDS
from conch.core.scaling.service_curve import SeenBatches
from conch.core.scaling.settings import ScalingSettings
from conch.core.scaling.signals import Signals
from conch.core.scaling.slots import slots_seen
from conch.core.scaling.state import TOLD_SECONDS, Arrivals, ScalingState
from conch.core.scaling.tuning import known_curve, needs_curve

_GAP_SECONDS: Final = 10.0
"""A clock that went on further than this since the last look has jumped, or nobody looked: either way nobody knows."""
_EXECUTED_FADE_SECONDS: Final = 20.0
"""Agents are asked every ten seconds."""
_LATE_SECONDS: Final = 600.0
_CAME_LEAST: Final = 50.0
_EXECUTED_SHARE: Final = 0.5
_QUICKEST_FADE_SECONDS: Final = 1800.0
_LITTLE_LOOKS: Final = 3
_LITTLE_DEVIATIONS: Final = 3.0
_CONFIRMED: Final = 1.5
"""Times what the agents told of was surely possible."""


def observed(now: float, settings: ScalingSettings, state: ScalingState, signals: Signals) -> ScalingState:
    """The state after a look. A clock that went back counts as no time."""
    if now < state.at:
        state = state.set_back(now)
    elapsed = now - state.at
    state = _of_workload(state, signals.workload)
    late_fade = math.exp(-elapsed / _LATE_SECONDS)
    state = replace(
        _with_executed(now, state, signals, elapsed),
        at=now,
        batches=state.batches.with_(signals.batches) if signals.batches else state.batches,
        answered=state.answered * late_fade + signals.answered,
        late=state.late * late_fade + signals.late,
        quickest_seconds=_quickest(state, signals, elapsed),
        latencies_seen=state.latencies_seen + (1 if signals.answered and signals.mean_latency_seconds else 0),
        slots=slots_seen(now, settings, state.slots, signals) if state.batches.is_decoupled else state.slots,
    ).with_starts(signals.starts)
    if signals.arrived is None or elapsed > _GAP_SECONDS:
        # Whether anybody asked is not known, and what is not known is not idle.
        return replace(state, began=now, busy_at=now, recent=(), history=state.history.with_(elapsed, None, 0.0))
    load, doubtful = _worth(now, settings, state, signals, elapsed)
    recent = (*state.recent, Arrivals(at=now, seconds=elapsed, count=load)) if elapsed else state.recent
    state = replace(
        state,
        recent=tuple(each for each in recent if now - each.at <= REMEMBERED_SECONDS),
        doubtful=doubtful,
    )
    if not signals.complete:
        # A part of what came: enough to see that it is too much, too little to see that it is not.
        return replace(state, began=now, busy_at=now, history=state.history.with_(elapsed, None, 0.0))
    concurrency = signals.in_flight + signals.held
    return replace(
        state,
        # Nor is it idle while it has yet to prove itself: the time that it takes to start is nobody's.
        busy_at=now if signals.arrived or concurrency or signals.floor else state.busy_at,
        history=state.history.with_(elapsed, load, concurrency),
    )


def _of_workload(state: ScalingState, workload: str) -> ScalingState:
    """Where most requests go to another revision now, it is learnt anew what its servers can do."""
    if not workload or workload == state.workload:
        return state
    if not state.workload:
        return replace(state, workload=workload)
    return replace(state, workload=workload, curve_before=known_curve(state), batches=SeenBatches())


def _with_executed(now: float, state: ScalingState, signals: Signals, elapsed: float) -> ScalingState:
    """With what came and what was executed of it. Who tells for the first time, or again, tells of long ago."""
    fade = math.exp(-elapsed / _EXECUTED_FADE_SECONDS)
    came, executed = state.came * fade + (signals.arrived or 0), state.executed * fade
    seconds = state.executed_seconds * fade + elapsed
    answered_lately = state.answered_lately * fade + signals.answered
    answered_seconds = state.answered_seconds * fade + elapsed
    told = signals.executed
    if told is None and signals.batches:
        told = max(
            # Where servers count only executions: their items.
            model.requests or sum(size * executions for size, executions, _ in model.sizes)
            for model in signals.batches
        )
    rate, share, told_at = state.executed_rate, state.executed_share, state.executed_told_at
    if told is not None and not _is_told(now, state):
        came = executed = seconds = 0.0
        rate, share, told_at = None, 1.0, now
    elif told is not None:
        executed += told
        rate = executed / seconds if seconds else rate
        share = min(1.0, executed / came) if came >= _CAME_LEAST else 1.0
        told_at = now
    return replace(
        state,
        answered_lately=answered_lately,
        answered_seconds=answered_seconds,
        came=came,
        executed=executed,
        executed_seconds=seconds,
        executed_rate=rate,
        executed_share=share,
        executed_told_at=told_at,
    )


def _is_told(now: float, state: ScalingState) -> bool:
    return state.executed_told_at is not None and now - state.executed_told_at <= TOLD_SECONDS


def _worth(
    now: float, settings: ScalingSettings, state: ScalingState, signals: Signals, elapsed: float
) -> tuple[float, bool]:
    """How much of what came costs the servers anything; and whether that is doubtful, for too much came.

    Requests that are refused at once (of the wrong shape, to a name that is not there) need no servers. What is no such
    request was executed, or it is still there: queued, executed just now, or held. Agents tell what was executed, a few
    seconds late; until then it was no more than servers can do at all, and no more than what there was at the same time
    allows (Little's law: requests there = requests per second x seconds of each).
    """
    came, there = float(signals.arrived or 0), signals.in_flight + signals.held
    executed = state.executed_per_second(now)
    if executed is not None and state.executed_share < _EXECUTED_SHARE:
        came = min(came, min(came * state.executed_share, executed * elapsed) + there)
    curve = known_curve(state) if needs_curve(settings, state) else None
    least_seconds = curve.least_seconds if curve else state.quickest_seconds
    if least_seconds is None or not needs_curve(settings, state):
        return came, False
    before = state.history.concurrency[-_LITTLE_LOOKS + 1 :]
    before = before[~np.isnan(before)]
    seen = there + float(before.sum())
    at_once = (seen + _LITTLE_DEVIATIONS * (math.sqrt(seen) + 1)) / (1 + len(before))
    confirmed = math.inf if executed is None else _CONFIRMED * executed
    possible = at_once / least_seconds
    possible = possible if executed is None else max(possible, confirmed)
    ceiling = curve.ceiling if curve else 1 / least_seconds
    most = min(signals.ready * ceiling, possible) * elapsed + there
    if came <= most:
        return came, False
    return min(most, confirmed * elapsed + there), True


def _quickest(state: ScalingState, signals: Signals, elapsed: float) -> float | None:
    """The least mean latency; forgotten by and by, for one that was refused at once is no request's time."""
    known = state.quickest_seconds
    seen = signals.mean_latency_seconds
    if known is not None:
        known *= math.exp(min(elapsed, _GAP_SECONDS) / _QUICKEST_FADE_SECONDS)
    if seen is None or seen <= 0 or not signals.answered:
        return state.quickest_seconds
    return seen if known is None else min(known, seen)
