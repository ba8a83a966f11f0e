"""What is calculated now and then, away from everything that has to be quick: late surface and level policy."""

from dataclasses import replace
from typing import Final

from conch.core.scaling.capacity import Capacity, by_surface, first_guess, linear
from conch.core.scaling.history import BIN_SECONDS
from conch.core.scaling.late_surface import LateSurface, late_surface
from conch.core.scaling.level import PRIOR, LevelPolicy, Replay
from conch.core.scaling.policy_search import choose
from conch.core.scaling.service_curve import ServiceCurve
from conch.core.scaling.settings import Metric, ScalingSettings
from conch.core.scaling.state import ScalingState
from conch.core.scaling.tuned import Tuning

_RENEW_SECONDS: Final = 300.0
_REPLAY_SECONDS_LEAST: Final = 120.0
_YOUNG_LOAD_SECONDS: Final = 3600.0
_REPLAY_ONCE_SECONDS: Final = 2 * 3600.0
"""A shorter history is replayed twice, and the second time counts."""
_YOUNG_SECONDS: Final = 1800.0
_YOUNG_RENEW_SECONDS: Final = 60.0
"""While there is little to replay, each minute tells much more than the one before."""
_BUDGET: Final = 0.5
"""Of the late share that the objective allows: the past is not the future."""
_BUDGET_LEAST: Final = 0.1
_PERIODS: Final = (3600.0,)
_LATENCIES_LEAST: Final = 15
"""Looks. The first requests of a server have waited for it, or for each other, and agents tell of batches by then."""
_WAIT_MULTIPLE: Final = 3.0
_WAIT_SHARE: Final = 0.05
"""A mean wait of m is taken as: one in twenty waits longer than 3 m, as it is with exponential waits."""
_STREAM_SHARE: Final = 0.8
"""Of the slots of a server of streams: the rest is for those that begin before a server more is there."""


def wants_tuning(now: float, settings: ScalingSettings, state: ScalingState) -> bool:
    """Whether there is something to calculate: a new curve or objective, or enough that came since the last time."""
    if not needs_curve(settings, state):
        curve = None
    else:
        curve = known_curve(state)
        if curve is None:
            return False
    tuning = state.tuning
    if tuning is None or _is_stale(tuning, settings, curve):
        return True
    renew = _YOUNG_RENEW_SECONDS if state.history.seconds < _YOUNG_SECONDS else _RENEW_SECONDS
    # Nothing is learnt from nothing.
    return now - tuning.at >= renew and state.busy_at > tuning.at and state.history.seconds >= _REPLAY_SECONDS_LEAST


def tune(now: float, settings: ScalingSettings, state: ScalingState) -> Tuning:
    """Calculate what the servers carry, and how this load is best followed.

    Takes up to a second where the curve is new, and tens of milliseconds else: to be called where nothing waits for it.
    Raises ValueError where nothing was executed yet (see `wants_tuning`).
    """
    before = state.tuning
    surface = None
    curve = None
    if needs_curve(settings, state):
        curve = known_curve(state)
        if curve is None:
            raise ValueError("nothing was executed yet")
        surface = before.surface if before is not None else None
        if surface is None or not curve.is_like(surface.curve) or not _is_of(surface, settings):
            surface = late_surface(curve, limit_seconds(settings), of_wait=settings.metric is Metric.QUEUE_TIME)
    capacity = _capacity(settings, state, surface, curve)
    load = state.history.concurrency if capacity.by_concurrency else state.history.rates
    policy, replayed = prior_policy(settings, state), len(load) * BIN_SECONDS
    if replayed >= _REPLAY_SECONDS_LEAST * _scale(curve) and capacity.rates[-1] > 0:
        replay = Replay(
            load=load,
            capacity=capacity,
            least=settings.least,
            cold_start_seconds=state.cold_start_seconds(settings.cold_start_prior_seconds),
            limit_seconds=limit_seconds(settings),
        )
        policy = choose(
            replay.again() if replayed < _REPLAY_ONCE_SECONDS else replay,
            late_share=_budget(settings, state),
            scale=_scale(curve),
            periods=tuple(period for period in _PERIODS if replayed > period * 1.5),
            young=replayed < _YOUNG_LOAD_SECONDS,
        ).policy
    return Tuning(
        at=now,
        settings=settings,
        curve=curve,
        surface=surface,
        capacity=capacity,
        policy=policy,
    )


def capacity_now(settings: ScalingSettings, state: ScalingState) -> Capacity | None:
    """What counts of servers carry, by what is known now; None while nothing is.

    An edit of the settings changes nothing that was learnt: only another limit needs another surface.
    """
    if not needs_curve(settings, state):
        return _capacity(settings, state, None, None)
    curve, tuning = known_curve(state), state.tuning
    if curve is None:
        return None
    if tuning is None or tuning.surface is None or tuning.curve is None or not _is_of(tuning.surface, settings):
        return first_guess(curve, settings.maximum)
    if tuning.settings == settings:
        capacity = tuning.capacity
    else:
        capacity = _capacity(settings, state, tuning.surface, tuning.curve)
    if curve.is_like(tuning.curve):
        return capacity
    # Until it is calculated anew, servers are used as much as before: only by a guess they would come and go.
    return capacity.times(curve.ceiling / tuning.curve.ceiling)


def is_guess(settings: ScalingSettings, state: ScalingState, capacity: Capacity) -> bool:
    """Whether what servers carry is to be calculated anew: a guess is enough to add some by, not to take any away."""
    return state.tuning is not None and capacity.surface is None and needs_curve(settings, state)


def prior_policy(settings: ScalingSettings, state: ScalingState) -> LevelPolicy:
    """How a load is followed until there is something to replay."""
    scale = _scale(known_curve(state) if needs_curve(settings, state) else None)
    return PRIOR if scale == 1 else replace(PRIOR, window_seconds=PRIOR.window_seconds * scale)


def known_curve(state: ScalingState) -> ServiceCurve | None:
    """The learnt curve; where no agent tells anything, what the gateways' latencies say of single requests."""
    if (learnt := state.batches.curve()) is not None:
        return learnt
    if state.instances.trial is not None:
        return state.instances.trial.curve_before
    if state.curve_before is not None:
        return state.curve_before
    if state.quickest_seconds is None or state.latencies_seen < _LATENCIES_LEAST:
        return None
    return ServiceCurve(base_seconds=0.0, per_item_seconds=state.quickest_seconds, max_batch=1)


def needs_curve(settings: ScalingSettings, state: ScalingState) -> bool:
    """Whether what a server carries is to be learnt from batches: not with a fixed target, nor of streams."""
    if settings.metric in (Metric.CONCURRENCY, Metric.REQUESTS_PER_SECOND):
        return False
    return not state.batches.is_decoupled


def limit_seconds(settings: ScalingSettings) -> float:
    """How long a request may take, or wait (target QueueTimeMs)."""
    seconds = settings.value / 1000
    return seconds * _WAIT_MULTIPLE if settings.metric is Metric.QUEUE_TIME else seconds


def _late_share(settings: ScalingSettings) -> float:
    return _WAIT_SHARE if settings.metric is Metric.QUEUE_TIME else settings.late_share


def _budget(settings: ScalingSettings, state: ScalingState) -> float:
    """How many may be late in the replay: half of what is allowed, and less if really more were late than that."""
    budget = _BUDGET * _late_share(settings)
    really = state.late_share
    if really is None or really <= budget:
        return budget
    return budget * max(_BUDGET_LEAST, budget / really)


def _capacity(
    settings: ScalingSettings, state: ScalingState, surface: LateSurface | None, curve: ServiceCurve | None
) -> Capacity:
    if surface is not None and curve is not None:
        capacity = by_surface(surface, _BUDGET * _late_share(settings), settings.maximum)
        # It may have been simulated for one that is only like this: the share of the ceiling in time is the same.
        return capacity if curve is surface.curve else capacity.times(curve.ceiling / surface.curve.ceiling)
    match settings.metric:
        case Metric.CONCURRENCY:
            return linear(settings.value, settings.maximum, by_concurrency=True)
        case Metric.REQUESTS_PER_SECOND:
            return linear(settings.value, settings.maximum)
        case Metric.LATENCY | Metric.QUEUE_TIME:
            slots = max(state.slots.proven, float(state.batches.slots)) * _STREAM_SHARE
            return linear(slots, settings.maximum, by_concurrency=True)


def _is_of(surface: LateSurface, settings: ScalingSettings) -> bool:
    """Whether it was calculated for this limit."""
    is_of_wait = settings.metric is Metric.QUEUE_TIME
    return surface.limit_seconds == limit_seconds(settings) and surface.of_wait == is_of_wait


def _is_stale(tuning: Tuning, settings: ScalingSettings, curve: ServiceCurve | None) -> bool:
    if tuning.settings != settings:
        return True
    if curve is None or tuning.surface is None:
        return curve is not tuning.curve
    return not curve.is_like(tuning.surface.curve)


def _scale(curve: ServiceCurve | None) -> float:
    """Windows are for requests of up to two seconds; where one takes longer, a window needs more of them."""
    return max(1.0, curve.least_seconds / 2) if curve else 1.0
