"""How the autoscaler's count gets into the plan, and what status says of it."""

from dataclasses import replace
from datetime import datetime, timedelta
from math import inf
from typing import Final

from conch.api.autoscaling import DECISIONS_KEPT, Autoscaling, AutoscalingStatus, ScalingDecision, ScalingReason
from conch.api.instances import AUTO_INSTANCES
from conch.api.model_deployment import InvalidSpec, ModelDeployment
from conch.api.types import bounded, timestamp
from conch.core.observed import Observed
from conch.core.rollout.phases import UNDER_WAY
from conch.core.scaling.view import ScalingView

_FIGURES_EVERY: Final = timedelta(seconds=60)
_FIGURES_IN_ANY_CASE: Final = timedelta(minutes=10)
_FIGURES_DIFFER: Final = 0.2
_FIGURES_DIFFER_MUCH: Final = 0.5
"""Within these ten minutes: a few requests a minute are twice as many the next by chance alone."""
_PART_THAT_MATTERS: Final = 0.1
"""Of what a server carries, and of what may be late: a load of nearly nothing has no figures but chance."""
_COLD_START_SECONDS_THAT_MATTER: Final = 1.0


def autoscaled(owner: ModelDeployment, observed: Observed) -> ModelDeployment:
    """The object as if its spec said how many servers there are to be now."""
    asked = autoscaling_of(owner)
    if asked is None or isinstance(owner.spec, InvalidSpec):
        return owner
    count = observed.scaling.desired if observed.scaling else count_before(owner, asked)
    # The autoscaler may not have looked since an edit.
    count = min(max(count, asked.effective_min_replicas), asked.max_replicas)
    spec = owner.spec.model_copy(update={"replicas": max(count, scaling_floor(owner))})
    if spec.runtime.instances == AUTO_INSTANCES:
        instances = _instances(owner, observed.scaling)
        spec = spec.model_copy(update={"runtime": spec.runtime.model_copy(update={"instances": instances})})
    return replace(owner, spec=spec)


def instances_before(owner: ModelDeployment) -> int | None:
    """The instances to go on with when nothing was tried yet by this process: those that were settled."""
    known = owner.status.autoscaling
    return known.instances.count if known and known.instances else None


def _instances(owner: ModelDeployment, view: ScalingView | None) -> int | None:
    if view is None or view.instances is None:
        return instances_before(owner)
    return view.instances.trying or view.instances.count


def autoscaling_of(owner: ModelDeployment) -> Autoscaling | None:
    """What is asked for, unless nothing is: a spec that cannot be read, a fixed count, a suspended object."""
    if isinstance(owner.spec, InvalidSpec) or owner.spec.suspend:
        return None
    return owner.spec.autoscaling


def count_before(owner: ModelDeployment, asked: Autoscaling) -> int:
    """The count to go on from when nothing was decided yet: the one there is, within the bounds.

    After a start of the operator that loses no capacity. A revision that never served gets a server to prove itself.
    """
    count = max(owner.status.desired_replicas, asked.effective_min_replicas, scaling_floor(owner))
    return min(count, asked.max_replicas)


def scaling_floor(owner: ModelDeployment) -> int:
    """Servers that there have to be whatever the load: one to prove a revision by, and while versions change."""
    status = owner.status
    proving = status.stable is None or (status.rollout is not None and status.rollout.phase in UNDER_WAY)
    return 1 if proving else 0


def serving_workload(owner: ModelDeployment) -> str:
    """The workload that most requests go to; empty while nothing is routed."""
    return max(owner.status.traffic, key=lambda share: share.weight).workload if owner.status.traffic else ""


def autoscaling_status(owner: ModelDeployment, view: ScalingView | None, now: datetime) -> AutoscalingStatus | None:
    """What status says: a change of the count at once, figures now and then, so that a calm object is not written."""
    before = owner.status.autoscaling
    if isinstance(owner.spec, InvalidSpec):
        # What runs stays as it is, and so does what is known of it.
        return before
    if (asked := autoscaling_of(owner)) is None:
        return None
    if view is None:
        return before
    at = timestamp(now)
    decisions = before.decisions if before else ()
    current = decisions[0].after if decisions else owner.status.desired_replicas
    changed = view.desired != current
    if changed:
        decision = ScalingDecision(
            at=at, before=current, after=view.desired, reason=view.reason, message=bounded(view.message)
        )
        decisions = (decision, *decisions)[:DECISIONS_KEPT]
    elif before is not None and not _is_news(before, view, asked, now):
        return before
    return AutoscalingStatus(
        reason=view.reason,
        message=bounded(view.message),
        demand=view.demand,
        capacity_per_replica=view.capacity_per_replica,
        late_percent=view.late_percent,
        curve=view.curve,
        cold_start_seconds=view.cold_start_seconds,
        policy=view.policy,
        instances=view.instances,
        observed_at=at,
        decisions=decisions,
    )


_CALM: Final = (ScalingReason.LOAD, ScalingReason.STABILISING, ScalingReason.MINIMUM, ScalingReason.SURGE)
"""Reasons that take turns while nothing changes."""


def _is_news(before: AutoscalingStatus, view: ScalingView, asked: Autoscaling, now: datetime) -> bool:
    if before.instances != view.instances:
        return True
    if (before.curve is None and view.curve is not None) or (before.demand is None and view.demand is not None):
        return True
    if view.settling:
        # What every start of an operator begins with is no news.
        return False
    if before.reason is not view.reason and not (before.reason in _CALM and view.reason in _CALM):
        return True
    age = now - datetime.fromisoformat(before.observed_at)
    if age < _FIGURES_EVERY:
        return False
    differ = _FIGURES_DIFFER_MUCH if age < _FIGURES_IN_ANY_CASE else _FIGURES_DIFFER
    # While nothing is known of a server, no load is much or little.
    demand_that_matters = _PART_THAT_MATTERS * view.capacity_per_replica if view.capacity_per_replica else inf
    late_percent_allowed = 100 - asked.objective.effective_percentile if asked.objective else 100.0
    figures = (
        (before.demand, view.demand, demand_that_matters),
        (before.capacity_per_replica, view.capacity_per_replica, 0.0),
        (before.late_percent, view.late_percent, _PART_THAT_MATTERS * late_percent_allowed),
        (before.cold_start_seconds, view.cold_start_seconds, _COLD_START_SECONDS_THAT_MATTER),
    )
    return before.policy != view.policy or any(_differ(old, new, by=differ, least=least) for old, new, least in figures)


def _differ(old: float | None, new: float | None, *, by: float, least: float) -> bool:
    """Whether a figure is another one for people: by a part of itself, and by no less than what matters at all."""
    if old is None or new is None:
        # What is not known any more was true when it was told: status says when that was.
        return new is not None
    return abs(old - new) > max(by * max(abs(old), abs(new)), least)
