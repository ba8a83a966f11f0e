"""What the planner is told of the autoscaler's last decision."""

from dataclasses import dataclass
from math import isfinite

from conch.api.autoscaling import COUNT_MOST, FIGURE_MOST, InstancesStatus, LearntCurve, ScalingReason
from conch.api.types import bounded
from conch.core.scaling.decide import LEARNING_SECONDS, Decision
from conch.core.scaling.settings import ScalingSettings
from conch.core.scaling.tuning import known_curve, needs_curve

_DIGITS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingView:
    """A count and why, with the figures for people."""

    desired: int
    reason: ScalingReason
    message: str
    demand: float | None = None
    """Requests per second, or at the same time."""
    capacity_per_replica: float | None = None
    late_percent: float | None = None
    curve: LearntCurve | None = None
    cold_start_seconds: float | None = None
    policy: str = ""
    instances: InstancesStatus | None = None
    settling: bool = False
    """Whether it has been looked at for so short a time that its figures say little."""


def view_of(decision: Decision, settings: ScalingSettings) -> ScalingView:
    """A decision as status tells it: figures of three digits."""
    state, capacity = decision.state, decision.capacity
    curve = known_curve(state) if needs_curve(settings, state) else None
    late = state.late_share
    return ScalingView(
        desired=decision.desired,
        reason=decision.reason,
        message=decision.message,
        demand=_short(decision.demand),
        capacity_per_replica=_short(capacity.carries(max(1, decision.desired)) / max(1, decision.desired))
        if capacity
        else None,
        late_percent=_short(100 * late) if late is not None else None,
        curve=LearntCurve(
            base_milliseconds=_digits(1000 * curve.base_seconds),
            per_item_milliseconds=_digits(1000 * curve.per_item_seconds),
            max_batch=min(curve.max_batch, COUNT_MOST),
            instances=min(curve.instances, COUNT_MOST),
            model=curve.model,
        )
        if curve
        else None,
        cold_start_seconds=_short(state.cold_start_seconds(0.0)) if state.starts else None,
        policy=decision.policy.words,
        settling=state.at - state.began < LEARNING_SECONDS,
        instances=InstancesStatus(
            count=state.instances.count,
            trying=state.instances.asked if state.instances.trial else None,
            message=bounded(state.instances.message),
        )
        if settings.tries_instances
        else None,
    )


def _short(value: float | None) -> float | None:
    return None if value is None or not isfinite(value) else _digits(value)


def _digits(value: float) -> float:
    """Within what status may say: a figure that somebody made up must not keep a count from being told."""
    return float(f"{min(max(value, 0.0), FIGURE_MOST):.{_DIGITS}g}")
