"""A decision as people are told of it."""

from dataclasses import replace

import pytest

from conch.api.autoscaling import AutoscalingStatus, ScalingReason
from conch.core.scaling.capacity import linear
from conch.core.scaling.decide import Decision
from conch.core.scaling.level import PRIOR
from conch.core.scaling.service_curve import SeenBatches
from conch.core.scaling.settings import Metric, ScalingSettings
from conch.core.scaling.signals import BatchTimes
from conch.core.scaling.state import ScalingState
from conch.core.scaling.view import ScalingView, view_of

SETTINGS = ScalingSettings(minimum=1, maximum=5, metric=Metric.LATENCY, value=50.0, behavior=None)
BATCHES = SeenBatches().with_(
    [
        BatchTimes(name="tokens", max_batch=8, instances=1, requests=90, sizes=((1, 90, 0.09),)),
        BatchTimes(name="net", max_batch=8, instances=2, requests=90, sizes=((1, 90, 1.23456),)),
    ]
)
STATE = replace(ScalingState.initial(3, 0.0), batches=BATCHES, answered=700.0, late=9.0, starts=(12.3456,), desired=3)
DECISION = Decision(
    desired=3,
    reason=ScalingReason.LOAD,
    message="why",
    state=STATE,
    demand=1234.567,
    capacity=linear(98.7654, 5),
)


def view(decision: Decision = DECISION, settings: ScalingSettings = SETTINGS) -> ScalingView:
    return view_of(decision, settings)


def test_figures_have_three_digits() -> None:
    seen = view()
    assert (seen.desired, seen.reason, seen.message) == (3, ScalingReason.LOAD, "why")
    assert (seen.demand, seen.capacity_per_replica, seen.late_percent) == (1230, 98.8, 1.29)
    assert seen.cold_start_seconds == 12.3
    assert seen.policy == PRIOR.words


def test_the_curve_is_that_of_the_member_that_limits_an_ensemble() -> None:
    curve = view().curve
    assert curve is not None
    assert (curve.model, curve.instances) == ("net", 2)
    assert curve.base_milliseconds + curve.per_item_milliseconds == pytest.approx(13.7, rel=0.01)


@pytest.mark.parametrize("metric", [Metric.CONCURRENCY, Metric.REQUESTS_PER_SECOND])
def test_a_given_target_tells_of_no_curve(metric: Metric) -> None:
    assert view(settings=replace(SETTINGS, metric=metric)).curve is None


def test_what_is_not_known_is_left_out() -> None:
    unknown = replace(DECISION, state=ScalingState.initial(3, 0.0), demand=None, capacity=None)
    seen = view(unknown)
    assert (seen.demand, seen.capacity_per_replica, seen.late_percent) == (None, None, None)
    assert (seen.curve, seen.cold_start_seconds) == (None, None)


def test_without_servers_the_capacity_told_is_that_of_the_first() -> None:
    assert view(replace(DECISION, desired=0)).capacity_per_replica == 98.8


def test_figures_that_somebody_made_up_are_told_within_what_status_may_say() -> None:
    told = BatchTimes(name="m", max_batch=2**40, instances=2**40, requests=9, sizes=((1, 9, 1e300),))
    state = replace(STATE, batches=SeenBatches().with_([told]))
    wild = replace(DECISION, state=state, demand=float("inf"), capacity=linear(1e300, 5))
    seen = view(wild)
    assert (seen.demand, seen.capacity_per_replica) == (None, 1e12)
    assert seen.curve is not None
    assert AutoscalingStatus(
        reason=seen.reason, curve=seen.curve, capacity_per_replica=seen.capacity_per_replica, observed_at="now"
    )
