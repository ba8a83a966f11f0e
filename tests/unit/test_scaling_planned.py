"""How the autoscaler's count gets into the plan, and what status says of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from conch.api.autoscaling import DECISIONS_KEPT, AutoscalingStatus, InstancesStatus, ScalingReason
from conch.api.model_deployment import InvalidSpec, ModelDeployment
from conch.api.spec import ModelDeploymentSpec
from conch.api.types import timestamp
from conch.core.autoscaling import autoscaled, autoscaling_of, autoscaling_status, count_before, scaling_floor
from conch.core.observed import Observed
from conch.core.observed_child import ObservedAssignment
from conch.core.scaling.view import ScalingView
from tests.sim.world import World

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MODEL: dict[str, Any] = {"version": 1, "source": {"uri": "https://models.example/a.onnx"}}
VIEW = ScalingView(
    desired=3, reason=ScalingReason.LOAD, message="30 requests per second", demand=30.0, capacity_per_replica=12.0
)


def world(**asked: Any) -> World:
    return World(spec={"model": MODEL, "autoscaling": {"maxReplicas": 8, "objective": {"latencyMs": 200}, **asked}})


def served(**asked: Any) -> World:
    """With a stable revision."""
    made = world(**asked)
    for _ in range(3):
        made.settle()
        made.serve()
    made.settle()
    assert made.status.stable is not None
    return made


def owner(made: World, **status: Any) -> ModelDeployment:
    return replace(made.owner, status=made.status.model_copy(update=status))


def replicas(of: ModelDeployment) -> int | None:
    assert isinstance(of.spec, ModelDeploymentSpec)
    return of.spec.replicas


@pytest.mark.parametrize(("decided", "planned"), [(5, 5), (1, 1), (0, 0)])
def test_the_decided_count_is_planned_as_if_it_were_asked_for(decided: int, planned: int) -> None:
    view = replace(VIEW, desired=decided)
    assert replicas(autoscaled(owner(served(minReplicas=0)), Observed(scaling=view))) == planned


def test_a_fixed_count_stays_what_it_is() -> None:
    fixed = World(spec={"model": MODEL, "replicas": 4}).owner
    assert autoscaled(fixed, Observed(scaling=VIEW)) is fixed
    assert autoscaling_of(fixed) is None


def test_suspended_or_unreadable_objects_are_not_scaled() -> None:
    made = served().owner
    assert isinstance(made.spec, ModelDeploymentSpec)
    suspended = replace(made, spec=made.spec.model_copy(update={"suspend": True}))
    unreadable = replace(made, spec=InvalidSpec(message="no"))
    for each in (suspended, unreadable):
        assert autoscaling_of(each) is None
        assert autoscaled(each, Observed(scaling=VIEW)) is each
    assert autoscaling_status(suspended, VIEW, NOON) is None
    assert autoscaling_status(unreadable, VIEW, NOON) == unreadable.status.autoscaling


UNREADABLE: dict[str, Any] = {"model": {**MODEL, "version": "none"}}


def instances_assigned(made: World) -> object:
    """What the agents of the one workload are told, and nothing else may change of what is written."""
    (live,) = (child for child in made.children.values() if isinstance(child, ObservedAssignment))
    return live.instances


def test_a_spec_that_cannot_be_read_leaves_the_instances_as_they_are() -> None:
    made = served()
    made.edit(runtime={"instances": 3})
    made.settle()
    assert instances_assigned(made) == 3
    made.edit(**UNREADABLE)
    assert isinstance(made.owner.spec, InvalidSpec)
    made.settle()
    assert instances_assigned(made) == 3


def test_a_spec_that_cannot_be_read_loses_nothing_of_what_was_learnt() -> None:
    made = served()
    made.edit(runtime={"instances": "Auto"})
    made.settle()
    learnt = AutoscalingStatus(
        reason=ScalingReason.LOAD, instances=InstancesStatus(count=2), observed_at=timestamp(NOON)
    )
    made.status = made.status.model_copy(update={"autoscaling": learnt})
    made.settle()
    assert instances_assigned(made) == 2
    made.edit(**UNREADABLE)
    made.settle()
    assert instances_assigned(made) == 2
    made.edit(model=MODEL)
    made.settle()
    assert made.status.autoscaling == learnt
    assert instances_assigned(made) == 2


@pytest.mark.parametrize(
    ("asked", "there", "count"),
    [
        ({}, 5, 5),
        ({}, 0, 1),
        ({"minReplicas": 2}, 1, 2),
        ({}, 20, 8),
        ({"minReplicas": 0}, 0, 0),
        ({"minReplicas": 0}, 4, 4),
    ],
)
def test_before_anything_was_decided_the_count_there_is_goes_on_within_the_bounds(
    asked: dict[str, Any], there: int, count: int
) -> None:
    known = owner(served(**asked), desired_replicas=there)
    asks = autoscaling_of(known)
    assert asks is not None
    assert count_before(known, asks) == count
    assert replicas(autoscaled(known, Observed())) == count


def test_a_revision_that_never_served_gets_a_server_to_prove_itself() -> None:
    new = world(minReplicas=0).owner
    assert scaling_floor(new) == 1
    assert replicas(autoscaled(new, Observed(scaling=replace(VIEW, desired=0)))) == 1
    assert scaling_floor(owner(served(minReplicas=0))) == 0


def test_while_versions_change_there_is_a_server() -> None:
    made = served(minReplicas=0)
    made.edit(model={**MODEL, "version": 2})
    for _ in range(2):
        made.settle()
    assert made.status.rollout is not None
    assert scaling_floor(made.owner) == 1


def said(view: ScalingView | None, before: AutoscalingStatus | None, *, seconds: float = 0.0) -> AutoscalingStatus:
    known = owner(served(), autoscaling=before, desired_replicas=2)
    status = autoscaling_status(known, view, NOON + timedelta(seconds=seconds))
    assert status is not None
    return status


def test_a_change_is_said_at_once_with_its_reason() -> None:
    status = said(VIEW, None)
    (decision,) = status.decisions
    assert (decision.before, decision.after, decision.reason) == (2, 3, ScalingReason.LOAD)
    again = said(replace(VIEW, desired=1, message="less"), status, seconds=1)
    assert [(each.before, each.after) for each in again.decisions] == [(3, 1), (2, 3)]
    assert again.message == "less"


def test_only_the_last_changes_are_kept() -> None:
    status = None
    for count in range(3, 13):
        status = said(replace(VIEW, desired=count), status)
    assert status is not None
    assert [each.after for each in status.decisions] == [12, 11, 10, 9, 8][:DECISIONS_KEPT]


CALM_TABLE = [
    # what is other, seconds since, whether it is written
    ({}, 3600, False),
    ({"demand": 31.0}, 3600, False),
    ({"demand": 60.0}, 59, False),
    ({"demand": 60.0}, 60, False),
    ({"demand": 61.0}, 60, True),
    ({"demand": 60.0}, 600, True),
    ({"demand": 36.0}, 3600, False),
    ({"late_percent": 1.0}, 60, True),
    ({"capacity_per_replica": 5.0}, 59, False),
    ({"capacity_per_replica": 5.0}, 60, True),
    ({"capacity_per_replica": None}, 3600, False),
    ({"cold_start_seconds": 30.0}, 60, True),
    ({"policy": "another"}, 60, True),
    ({"reason": ScalingReason.STABILISING}, 3600, False),
    ({"reason": ScalingReason.SURGE}, 3600, False),
    ({"reason": ScalingReason.NO_DATA}, 1, True),
    ({"reason": ScalingReason.MAXIMUM}, 1, True),
    ({"demand": None}, 1, False),
    ({"reason": ScalingReason.NO_DATA, "settling": True}, 3600, False),
    ({"demand": 60.0, "settling": True}, 3600, False),
    ({"message": "31 requests per second"}, 3600, False),
]


@pytest.mark.parametrize(("other", "seconds", "written"), CALM_TABLE)
def test_a_calm_object_is_not_written(other: dict[str, Any], seconds: float, *, written: bool) -> None:
    before = said(VIEW, None)
    after = said(replace(VIEW, **other), before, seconds=seconds)
    assert (after != before) is written


LIGHT_TABLE = [
    # of so little, what is other ten minutes later, whether it is written
    ({"demand": 0.0}, {"demand": 1.2}, False),
    ({"demand": 0.0}, {"demand": 1.3}, True),
    ({"demand": 0.1}, {"demand": 0.0}, False),
    ({"capacity_per_replica": None, "demand": 0.0}, {"demand": 0.2}, False),
    ({"late_percent": 0.0}, {"late_percent": 0.5}, False),
    ({"late_percent": 0.0}, {"late_percent": 0.6}, True),
    ({"late_percent": 0.0}, {"late_percent": None}, False),
    ({"cold_start_seconds": 2.0}, {"cold_start_seconds": 3.0}, False),
    ({"cold_start_seconds": 2.0}, {"cold_start_seconds": 3.1}, True),
]


@pytest.mark.parametrize(("little", "other", "written"), LIGHT_TABLE)
def test_a_figure_that_is_nearly_nothing_changes_by_what_matters_not_by_a_part_of_itself(
    little: dict[str, Any], other: dict[str, Any], *, written: bool
) -> None:
    calm = replace(VIEW, **little)
    before = said(calm, None)
    assert (said(replace(calm, **other), before, seconds=3600) != before) is written


def test_a_request_now_and_then_is_not_written_down_each_minute() -> None:
    chance = np.random.default_rng(1)
    status = said(VIEW, None)
    known, written = owner(served(), desired_replicas=2), 0
    for second in range(60, 7200, 2):
        # 0.05 requests per second, over 16 s; of the last ten minutes sometimes enough to say how many were late.
        few = replace(VIEW, demand=chance.poisson(0.8) / 16, late_percent=0.0 if chance.random() < 0.5 else None)
        after = autoscaling_status(
            replace(known, status=known.status.model_copy(update={"autoscaling": status})),
            few,
            NOON + timedelta(seconds=second),
        )
        assert after is not None
        written += after != status
        status = after
    assert written <= 2, "that it is little, and that none are late"
    assert status.demand is not None
    assert status.demand < 0.5


def test_while_nothing_is_decided_status_stays() -> None:
    before = said(VIEW, None)
    assert said(None, before, seconds=3600) == before
