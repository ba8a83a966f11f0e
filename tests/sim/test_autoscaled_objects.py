"""The autoscaler's count in the plan: followed, never below what the object's state needs, and never lost."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conch.api.autoscaling import DECISIONS_KEPT, ScalingReason
from conch.api.reasons import Reason
from conch.api.rollout import RolloutPhase
from conch.api.status import ConditionStatus, ConditionType
from conch.core.actions import Apply
from conch.core.autoscaling import scaling_floor
from conch.core.observed_child import ChildKind
from conch.core.rollout.phases import UNDER_WAY
from tests.sim.autoscaled_world import AutoscaledWorld, serving, spec

FIGURES: dict[str, Any] = {"demand": 100.0, "capacity_per_replica": 40.0, "late_percent": 1.0}


def condition(world: AutoscaledWorld, type_: ConditionType) -> tuple[ConditionStatus, Reason]:
    found = world.status.condition(type_)
    assert found is not None
    return found.status, found.reason


def rolls(world: AutoscaledWorld) -> bool:
    return world.status.rollout is not None and world.status.rollout.phase in UNDER_WAY


def test_the_count_is_what_was_decided() -> None:
    world = serving(1)
    for count in (4, 2, 5, 1):
        world.decide(count)
        planned = world.plan()
        assert planned.status.desired_replicas == count
        world.live()
        assert world.wanted == world.status.desired_replicas == world.status.ready_replicas == count
        assert condition(world, ConditionType.READY) == (ConditionStatus.TRUE, Reason.SERVING)
        assert world.plan().actions == ()


def test_more_servers_are_an_edit_that_waits_for_no_report() -> None:
    world = serving(1)
    world.decide(3)
    planned = world.plan()
    assert not planned.status_first
    deployments = [
        each for each in planned.actions if isinstance(each, Apply) and each.desired.id.kind is ChildKind.DEPLOYMENT
    ]
    assert [each.desired.body["spec"]["replicas"] for each in deployments] == [3]


def test_each_change_is_told_with_its_reason_the_newest_first_and_not_without_end() -> None:
    world = serving(1)
    for number in range(1, 2 * DECISIONS_KEPT + 1):
        world.decide(1 + number % 3, ScalingReason.SURGE if number % 3 else ScalingReason.LOAD, **FIGURES)
        world.live()
    told = world.status.autoscaling
    assert told is not None
    assert len(told.decisions) == DECISIONS_KEPT
    assert all(newer.before == older.after for newer, older in pairwise(told.decisions))
    assert [each.at for each in told.decisions] == sorted((each.at for each in told.decisions), reverse=True)
    assert told.decisions[0].after == world.status.desired_replicas
    assert (told.demand, told.capacity_per_replica) == (100, 40)


def test_a_restart_of_the_operator_loses_no_capacity_and_no_word() -> None:
    world = serving(4)
    told = world.status.autoscaling
    assert told is not None
    world.restart_operator()
    world.live()
    assert world.wanted == world.status.desired_replicas == 4
    assert world.status.autoscaling == told
    world.decide(4, ScalingReason.LEARNING)
    world.live()
    assert world.wanted == 4
    assert world.status.autoscaling.decisions == told.decisions


def test_a_restart_of_the_operator_leaves_what_sleeps_asleep() -> None:
    world = serving(1, minimum=0)
    world.decide(0, ScalingReason.IDLE)
    world.live()
    world.restart_operator()
    world.live()
    assert world.wanted == 0
    assert condition(world, ConditionType.READY) == (ConditionStatus.TRUE, Reason.SCALED_TO_ZERO)


def test_a_restart_in_the_middle_of_a_scale_down_goes_on_with_it() -> None:
    world = serving(4)
    world.decide(2)
    world.step()
    world.restart_operator()
    world.live()
    assert world.wanted == world.status.desired_replicas == 2


def test_a_suspended_object_has_no_servers_whatever_was_decided_and_goes_on_within_its_bounds() -> None:
    world = serving(3, minimum=2)
    world.edit(suspend=True)
    world.live()
    assert world.wanted == 0
    assert condition(world, ConditionType.READY) == (ConditionStatus.TRUE, Reason.SUSPENDED)
    assert condition(world, ConditionType.AVAILABLE) == (ConditionStatus.FALSE, Reason.SUSPENDED)
    assert world.status.autoscaling is None
    # The autoscaler forgets what is suspended.
    world.scaling = None
    world.edit(suspend=False)
    world.live()
    assert world.wanted == 2
    assert condition(world, ConditionType.READY) == (ConditionStatus.TRUE, Reason.SERVING)


@pytest.mark.parametrize(("minimum", "maximum", "count"), [(1, 5, 3), (1, 2, 2), (4, 5, 4), (0, 5, 3), (0, 1, 1)])
def test_bounds_that_are_edited_hold_before_the_autoscaler_has_looked(minimum: int, maximum: int, count: int) -> None:
    world = serving(3)
    world.restart_operator()
    world.edit(**spec(minimum=minimum, maximum=maximum))
    world.live()
    assert world.wanted == world.status.desired_replicas == count


def test_from_a_fixed_count_to_a_decided_one_and_back_without_a_gap() -> None:
    world = serving(4)
    world.spec = {key: value for key, value in world.spec.items() if key != "autoscaling"}
    world.edit(replicas=3)
    world.live()
    assert (world.wanted, world.status.autoscaling) == (3, None)
    world.scaling = None
    world.spec = {key: value for key, value in world.spec.items() if key != "replicas"}
    world.edit(**spec())
    world.live()
    assert world.wanted == 3


def test_the_last_server_goes_only_when_nothing_is_in_flight_any_more() -> None:
    world = serving(1, minimum=0)
    world.carry(1)
    world.decide(0, ScalingReason.IDLE)
    world.live()
    (share,) = world.status.traffic
    assert world.status.desired_replicas == 0
    assert len(share.draining) == 1, "it gets nothing new"
    assert (world.wanted, len(world.pods)) == (1, 1)
    world.carry(0)
    world.live()
    assert (world.wanted, len(world.pods)) == (0, 0)
    assert [pod.marked_for_removal for pod in world.removed] == [True]
    assert condition(world, ConditionType.READY) == (ConditionStatus.TRUE, Reason.SCALED_TO_ZERO)
    assert condition(world, ConditionType.AVAILABLE) == (ConditionStatus.FALSE, Reason.NO_REPLICAS)
    assert condition(world, ConditionType.STALLED)[0] is ConditionStatus.FALSE
    assert condition(world, ConditionType.RECONCILING)[0] is ConditionStatus.FALSE
    assert condition(world, ConditionType.ROUTING_SYNCED)[0] is ConditionStatus.TRUE
    assert world.plan().actions == ()
    assert world.status.display.replicas == "0/0"
    assert world.status.stable is not None, "what has proven itself is known"


def test_a_request_that_comes_while_the_last_server_drains_keeps_it() -> None:
    world = serving(1, minimum=0)
    (pod,) = world.pods
    world.carry(1)
    world.decide(0, ScalingReason.IDLE)
    world.live(4)
    assert world.status.traffic[0].draining == (pod,)
    world.decide(1, ScalingReason.HELD)
    world.live(4)
    assert not world.status.traffic[0].draining
    assert list(world.pods) == [pod]
    assert world.removed == []


@pytest.mark.parametrize("count", [1, 3])
def test_from_zero_as_many_servers_come_as_were_decided(count: int) -> None:
    world = serving(1, minimum=0)
    world.decide(0, ScalingReason.IDLE)
    world.live()
    (workload,) = {share.workload for share in world.status.traffic}
    world.decide(count, ScalingReason.HELD)
    planned = world.step()
    assert world.wanted == count, "with the first plan"
    assert not planned.status_first
    world.live()
    assert {share.workload for share in world.status.traffic} == {workload}
    assert world.status.traffic[0].weight == 100
    assert condition(world, ConditionType.READY) == (ConditionStatus.TRUE, Reason.SERVING)
    assert condition(world, ConditionType.AVAILABLE)[0] is ConditionStatus.TRUE


def test_the_first_revision_gets_a_server_whatever_the_minimum() -> None:
    world = AutoscaledWorld(spec=spec(minimum=0))
    world.live(1)
    assert world.wanted == 1
    # An autoscaler that does not know better.
    world.decide(0, ScalingReason.IDLE)
    for _ in range(4):
        world.step()
    assert world.wanted == 1
    assert world.status.stable is None
    world.live()
    assert world.status.stable is not None
    world.live()
    assert world.wanted == 0


def test_while_versions_change_there_is_always_a_server() -> None:
    world = serving(1, minimum=0)
    world.edit(**spec(2, minimum=0, rollout={"steps": [{"weight": 50, "pause": "UntilPromoted"}]}))
    world.live(2)
    assert rolls(world)
    world.decide(0, ScalingReason.IDLE)
    for _ in range(15):
        world.live(1)
        assert world.status.desired_replicas == 1
        assert rolls(world)
    ready = [pod for pod in world.pods.values() if pod.ready]
    assert len({pod.workload for pod in ready}) == 2


@pytest.mark.parametrize("strategy", ["Auto", "Surge", "Replace", "Recreate"])
def test_a_version_that_comes_while_the_object_sleeps_is_proven_and_then_sleeps_too(strategy: str) -> None:
    world = serving(1, minimum=0, rollout={"strategy": strategy, "keepWarmSeconds": 0})
    world.decide(0, ScalingReason.IDLE)
    world.live()
    assert world.wanted == 0
    world.edit(**spec(2, minimum=0, rollout={"strategy": strategy, "keepWarmSeconds": 0}))
    served: set[int] = set()
    for _ in range(60):
        world.decide_within_floor(0)
        world.live(1)
        served.add(world.status.desired_replicas)
    assert world.status.stable is not None
    assert world.status.stable.version == 2
    assert served == {0, 1}
    assert world.wanted == 0
    assert condition(world, ConditionType.READY) == (ConditionStatus.TRUE, Reason.SCALED_TO_ZERO)
    assert world.status.rollout is not None
    assert world.status.rollout.phase is RolloutPhase.DONE


def test_a_version_that_comes_while_the_object_sleeps_does_not_wait_for_the_next_look() -> None:
    world = serving(1, minimum=0)
    world.decide(0, ScalingReason.IDLE)
    world.live()
    world.edit(**spec(2, minimum=0))
    world.live(60)
    assert world.status.stable is not None
    assert world.status.stable.version == 2


def test_the_count_changes_while_versions_change() -> None:
    world = serving(2)
    world.edit(**spec(2, rollout={"steps": [{"weight": 50, "pause": "UntilPromoted"}], "keepWarmSeconds": 0}))
    world.live(30)
    assert rolls(world)
    world.decide(4, ScalingReason.SURGE)
    world.live(30)
    assert rolls(world)
    assert world.status.desired_replicas == 4
    assert world.status.ready_replicas >= 4
    world.decide(1)
    world.live(30)
    assert rolls(world)
    assert all(
        any(pod.ready and pod.workload == share.workload for pod in world.pods.values())
        for share in world.status.traffic
        if share.weight
    )


def _times(world: AutoscaledWorld, seconds: int, **figures: Any) -> int:
    """How often the status is written in so many seconds with these figures."""
    written: list[object] = []
    world.on_status = written.append
    for _ in range(seconds):
        world.decide(world.status.desired_replicas, ScalingReason.LOAD, **figures)
        world.live(1)
    return len(written)


def test_an_object_whose_load_is_steady_is_not_written() -> None:
    world = serving(2)
    _times(world, 90, **FIGURES)
    assert _times(world, 130, **{**FIGURES, "demand": 110.0, "late_percent": 0.9}) == 0


def test_one_that_sleeps_is_not_written() -> None:
    world = serving(1, minimum=0)
    world.decide(0, ScalingReason.IDLE)
    world.live(15)
    written: list[object] = []
    world.on_status = written.append
    for _ in range(130):
        world.decide(0, ScalingReason.IDLE)
        world.live(1)
    assert written == []
    assert world.plan().requeue_after is None


def test_figures_that_differ_are_told_once_a_minute() -> None:
    world = serving(2)
    _times(world, 90, **FIGURES)
    written: list[object] = []
    world.on_status = written.append
    for second in range(130):
        world.decide(2, ScalingReason.LOAD, **{**FIGURES, "demand": 100.0 + 150 * (second % 2)})
        world.live(1)
    assert 1 <= len(written) <= 3


def test_reasons_that_take_turns_while_nothing_changes_are_no_news() -> None:
    world = serving(2)
    _times(world, 90, **FIGURES)
    written: list[object] = []
    world.on_status = written.append
    for reason in (ScalingReason.STABILISING, ScalingReason.SURGE, ScalingReason.LOAD) * 15:
        world.decide(2, reason, **FIGURES)
        world.live(1)
    assert written == []
    world.decide(2, ScalingReason.NO_DATA, **FIGURES)
    world.live(1)
    assert len(written) == 1, "that nobody tells of the load is"


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5), st.sampled_from(["go on", "restart", "suspend", "version", "busy", "idle", "crash"])
        ),
        min_size=1,
        max_size=8,
    )
)
def test_whatever_is_decided_in_whatever_order(steps: list[tuple[int, str]]) -> None:
    """Nothing falls below what the object's state needs, no request loses its server, and in the end all is as told."""
    world = serving(1, minimum=0)
    version, suspended = 1, False
    for count, happens in steps:
        match happens:
            case "restart":
                world.restart_operator()
            case "suspend":
                suspended = not suspended
                world.edit(suspend=suspended)
            case "version":
                version += 1
                world.edit(**spec(version, minimum=0))
            case "busy":
                world.carry(1)
            case "idle":
                world.carry(0)
            case "crash":
                world.step(crash_after=1)
        if happens != "restart":
            world.decide(count)
        for _ in range(4):
            floor = 0 if suspended else scaling_floor(world.owner)
            removed = len(world.removed)
            was_busy = happens == "busy" and any(world.in_flight.values())
            world.live(1)
            assert floor <= world.status.desired_replicas <= 5
            if was_busy and len(world.status.traffic) == 1:
                # What is executed has as long as it needs, also where nothing is wanted any more.
                assert any(pod.ready for pod in world.pods.values()) or not world.removed[removed:]
    world.carry(0)
    world.edit(suspend=False)
    for _ in range(60):
        world.decide_within_floor(2)
        world.live(1)
    assert world.wanted == world.status.desired_replicas == 2
    assert world.status.stable is not None
    assert world.status.stable.version == version
    assert world.plan().actions == ()
