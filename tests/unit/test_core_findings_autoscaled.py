"""What is said of an autoscaled object that the cluster has no room for: how much is missing, and what to change."""

from dataclasses import replace
from typing import Any

import pytest

from conch.api.autoscaling import ScalingReason
from conch.api.reasons import Reason
from conch.api.status import ConditionStatus, ConditionType
from conch.core.finding import Finding, Severity
from tests.sim.autoscaled_world import AutoscaledWorld, serving
from tests.unit.test_core_findings import a_pod, expect, find, refused_pods
from tests.unit.test_core_findings_order import NO_GPU

BLOCKED = tuple(a_pod(f"blocked-{number}", unschedulable_message=NO_GPU) for number in range(4))


def _find(*pods: Any, desired: int, minimum: int = 1, maximum: int = 9, **observed: Any) -> Finding | None:
    spec = {
        "model": {"version": 1, "source": {"uri": "https://models.example/a.onnx"}},
        "autoscaling": {"minReplicas": minimum, "maxReplicas": maximum, "objective": {"latencyMs": 200}},
    }
    return find(*pods, spec=spec, replicas=desired, **observed)


@pytest.mark.parametrize(
    ("desired", "minimum", "field"),
    [
        (4, 1, "lower autoscaling.maxReplicas or gpu.count"),
        (4, 4, "lower autoscaling.minReplicas or gpu.count"),
        (4, 0, "lower autoscaling.maxReplicas or gpu.count"),
        (1, 0, "add a node, or lower gpu.count"),
        (1, 1, "add a node, or lower gpu.count"),
    ],
)
def test_what_is_to_be_lowered_is_what_asks_for_so_many(desired: int, minimum: int, field: str) -> None:
    finding = _find(*BLOCKED[:desired], desired=desired, minimum=minimum)
    expect(finding, Severity.BLOCKED, Reason.WAITING_FOR_GPU, f"{desired} of {desired} replicas wait for 1 free", field)


def test_of_a_fixed_count_it_is_the_count() -> None:
    expect(find(*BLOCKED[:2], replicas=2), Severity.BLOCKED, Reason.WAITING_FOR_GPU, "lower replicas or gpu.count")


@pytest.mark.parametrize(
    ("desired", "minimum", "words"),
    [
        (3, 1, ("3 of 3 replicas are missing", "Raise it or lower autoscaling.maxReplicas.")),
        (3, 3, ("3 of 3 replicas are missing", "Raise it or lower autoscaling.minReplicas.")),
        (1, 0, ("1 of 1 replicas are missing", "exceeded quota: team. Raise it.")),
    ],
)
def test_a_quota_says_how_many_are_missing_and_what_to_lower(
    desired: int, minimum: int, words: tuple[str, ...]
) -> None:
    finding = _find(desired=desired, minimum=minimum, children=refused_pods("exceeded quota: team"))
    expect(finding, Severity.BLOCKED, Reason.QUOTA_BLOCKED, *words)


def _block(world: AutoscaledWorld) -> None:
    """No pod that has no node finds one."""
    world.run_pods()
    for name, pod in world.pods.items():
        if not pod.ready:
            world.pods[name] = replace(pod, unschedulable_message=NO_GPU)


def _crowded(desired: int) -> AutoscaledWorld:
    """Three servers serve, and the cluster has room for no more."""
    world = serving(3)
    world.decide(desired, ScalingReason.SURGE)
    for _ in range(4):
        world.step()
        _block(world)
    world.step()
    return world


def _conditions(world: AutoscaledWorld) -> dict[ConditionType, tuple[ConditionStatus, str]]:
    return {each.type: (each.status, each.message) for each in world.status.conditions}


def test_one_that_serves_with_fewer_than_its_load_needs_says_how_many_are_missing() -> None:
    world = _crowded(5)
    said = _conditions(world)
    assert said[ConditionType.AVAILABLE] == (ConditionStatus.TRUE, "3 replicas serve version 1.")
    status, message = said[ConditionType.CAPACITY_BLOCKED]
    assert status is ConditionStatus.TRUE
    assert message.startswith("2 of 5 replicas wait for 1 free nvidia.com/gpu: 0/3 nodes are available")
    assert message.endswith("lower autoscaling.maxReplicas or gpu.count.")
    assert said[ConditionType.READY][0] is ConditionStatus.FALSE
    assert said[ConditionType.STALLED][0] is ConditionStatus.FALSE, "it goes on by itself when there is room"
    assert (world.status.desired_replicas, world.status.display.replicas) == (5, "3/5")


def test_what_finds_no_room_is_not_asked_for_again_and_again() -> None:
    world = _crowded(5)
    written: list[object] = []
    world.on_status = written.append
    pods = set(world.pods)
    for _ in range(60):
        assert world.step().actions == ()
        _block(world)
    assert written == []
    assert set(world.pods) == pods


def test_what_waits_goes_first_when_fewer_are_wanted_and_then_all_is_well() -> None:
    world = _crowded(5)
    serve = {name for name, pod in world.pods.items() if pod.ready}
    world.decide(4)
    world.step()
    world.run_pods()
    world.step()
    assert _conditions(world)[ConditionType.CAPACITY_BLOCKED][1].startswith("1 of 4 replicas wait")
    world.decide(3)
    for _ in range(3):
        world.step()
        world.run_pods()
    assert set(world.pods) == serve, "nobody who serves had to go"
    said = _conditions(world)
    assert said[ConditionType.CAPACITY_BLOCKED][0] is ConditionStatus.FALSE
    assert said[ConditionType.READY] == (ConditionStatus.TRUE, "3 of 3 replicas serve version 1.")


def test_while_those_that_wait_are_about_to_go_only_what_is_missing_counts() -> None:
    ready = a_pod("serves", ready=True)
    finding = _find(ready, *BLOCKED[:3], desired=2, minimum=1)
    expect(finding, Severity.BLOCKED, Reason.WAITING_FOR_GPU, "2 of 2 replicas wait")
