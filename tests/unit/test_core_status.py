"""Conditions: dated by their status alone, bounded, and telling of what serves apart from what is wanted."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from conch.api.agent_report import AgentPhase, AgentReport
from conch.api.reasons import Reason
from conch.api.status import Condition, ConditionStatus, ConditionType
from conch.core.observed_pod import ObservedPod
from tests.sim.world import POLICY, World

MODEL: dict[str, Any] = {"version": 1, "source": {"uri": "https://models.example/a.onnx"}}
NEXT: dict[str, Any] = {**MODEL, "version": 2}


def _serving(**spec: Any) -> World:
    world = World(spec={"model": MODEL, **spec})
    world.settle()
    world.serve()
    world.settle()
    return world


def _condition(world: World, type_: ConditionType) -> Condition:
    condition = world.plan().status.condition(type_)
    assert condition is not None
    return condition


def _change_pods(world: World, **fields: Any) -> None:
    world.pods = {name: replace(pod, **fields) for name, pod in world.pods.items()}


def _failed(message: str = "bad layer", revision: str = "") -> AgentReport:
    return AgentReport(phase=AgentPhase.FAILED, revision=revision, reason=Reason.MODEL_LOAD_FAILED, message=message)


def test_a_condition_keeps_its_date_as_long_as_its_status() -> None:
    world = World(spec={"model": MODEL})
    world.settle()
    since = _condition(world, ConditionType.READY).last_transition_time
    world.run_pods()
    world.now += timedelta(hours=1)
    _change_pods(world, report=AgentReport(phase=AgentPhase.FETCHING))
    fetching = _condition(world, ConditionType.READY)
    assert (fetching.reason, fetching.last_transition_time) == (Reason.FETCHING, since)


def test_a_condition_gets_a_new_date_with_a_new_status() -> None:
    world = _serving()
    world.now = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
    _change_pods(world, ready=False)
    assert _condition(world, ConditionType.READY).last_transition_time == "2026-05-06T07:08:09Z"


def test_a_date_is_written_in_utc() -> None:
    world = World(spec={"model": MODEL}, now=datetime(2026, 5, 6, 1, tzinfo=timezone(timedelta(hours=2))))
    assert _condition(world, ConditionType.READY).last_transition_time == "2026-05-05T23:00:00Z"


def test_nothing_new_gives_the_same_status_at_any_time() -> None:
    world = _serving()
    world.now += timedelta(days=1)
    assert world.plan().status == world.status


def test_a_long_message_is_cut_with_a_mark() -> None:
    world = World(spec={"model": MODEL})
    world.settle()
    world.run_pods()
    _change_pods(world, report=_failed("x" * 2048))
    message = _condition(world, ConditionType.READY).message
    assert len(message) == 2048
    assert message.endswith("…")


def test_what_serves_stays_available_while_a_new_revision_fails() -> None:
    world = _serving()
    old = set(world.pods)
    world.edit(model=NEXT)
    world.settle()
    world.run_pods()
    for name in set(world.pods) - old:
        world.pods[name] = replace(world.pods[name], report=_failed())
    available, ready = (_condition(world, type_) for type_ in (ConditionType.AVAILABLE, ConditionType.READY))
    assert (available.status, available.reason) == (ConditionStatus.TRUE, Reason.SERVING)
    assert "1 replicas serve version 1" in available.message
    assert (ready.status, ready.reason) == (ConditionStatus.FALSE, Reason.MODEL_LOAD_FAILED)
    assert _condition(world, ConditionType.STALLED).status is ConditionStatus.TRUE


def test_a_spec_that_became_unreadable_leaves_the_object_available() -> None:
    world = _serving()
    world.edit(model={**MODEL, "source": {"uri": "ftp://nowhere/a"}})
    assert _condition(world, ConditionType.AVAILABLE).status is ConditionStatus.TRUE
    assert _condition(world, ConditionType.READY).reason is Reason.INVALID_SPEC
    assert world.plan().actions == ()


def test_the_conditions_say_which_generation_they_are_about() -> None:
    world = _serving()
    world.edit(replicas=2)
    status = world.plan().status
    assert {condition.observed_generation for condition in status.conditions} == {2}
    assert status.observed_generation == 2


@pytest.mark.parametrize(
    ("message", "severity"),
    [("Insufficient nvidia.com/gpu", ConditionType.CAPACITY_BLOCKED), ("", ConditionType.RECONCILING)],
)
def test_waiting_for_room_is_told_apart_from_being_under_way(message: str, severity: ConditionType) -> None:
    world = World(spec={"model": MODEL})
    world.settle()
    world.run_pods()
    _change_pods(world, unschedulable_message=message)
    assert _condition(world, ConditionType.RECONCILING).status is ConditionStatus.TRUE
    assert _condition(world, severity).reason is _condition(world, ConditionType.READY).reason
    blocked = _condition(world, ConditionType.CAPACITY_BLOCKED).status is ConditionStatus.TRUE
    assert blocked == bool(message)


def test_a_suspended_object_is_ready_and_not_available() -> None:
    world = _serving(suspend=True)
    ready, available = (_condition(world, type_) for type_ in (ConditionType.READY, ConditionType.AVAILABLE))
    assert (ready.status, ready.reason) == (ConditionStatus.TRUE, Reason.SUSPENDED)
    assert (available.status, available.reason) == (ConditionStatus.FALSE, Reason.SUSPENDED)
    assert "spec.suspend" in ready.message


def test_no_replicas_is_ready_for_its_own_reason() -> None:
    ready = _condition(_serving(replicas=0), ConditionType.READY)
    assert (ready.status, ready.reason) == (ConditionStatus.TRUE, Reason.NO_REPLICAS)


@pytest.mark.parametrize(
    ("ready", "phase", "stage"),
    [
        (False, None, "pending"),
        (False, AgentPhase.STARTING, "pending"),
        (False, AgentPhase.FETCHING, "fetching"),
        (False, AgentPhase.LOADING, "loading"),
        (False, AgentPhase.READY, "loading"),
        (True, AgentPhase.READY, "ready"),
        (True, None, "ready"),
        (True, AgentPhase.FAILED, "failed"),
    ],
)
def test_a_pod_is_counted_in_exactly_one_stage(ready: bool, phase: AgentPhase | None, stage: str) -> None:
    world = World(spec={"model": MODEL})
    world.settle()
    world.run_pods()
    _change_pods(world, ready=ready, report=AgentReport(phase=phase, revision="r") if phase else None)
    assert {name: count for name, count in world.plan().status.pods.model_dump().items() if count} == {stage: 1}


def test_scale_is_told_of_all_pods_and_of_what_selects_them_whatever_a_rollout_does() -> None:
    """An autoscaler averages over what is selected: half of the pods with all of the load would be too much for it."""
    world = _serving(replicas=2)
    assert (world.status.replicas, world.status.ready_replicas) == (2, 2)
    world.edit(model=NEXT)
    selectors, counts = set(), set()
    for _ in range(20):
        world.serve()
        world.step()
        selectors.add(world.status.selector)
        counts.add((world.status.replicas, world.status.ready_replicas))
    assert selectors == {"conch.dev/model-deployment=sentiment"}
    assert (4, 4) in counts, "those of both revisions"
    assert (world.status.stable and world.status.stable.version, world.status.replicas) == (2, 2)


def test_the_columns_show_a_candidate_only_beside_what_serves() -> None:
    first = World(spec={"model": MODEL})
    assert first.plan().status.display.candidate == ""
    world = _serving()
    world.edit(model=NEXT)
    assert world.plan().status.display.candidate == "2@0%"


CLAIM = {"name": "gpu", "resourceClaimTemplateName": "two-h100"}


@pytest.mark.parametrize(
    ("gpu", "shown"),
    [
        ({}, "1 nvidia.com/gpu"),
        ({"count": 2}, "2 nvidia.com/gpu"),
        ({"count": 0}, ""),
        ({"claims": [CLAIM]}, "claim two-h100"),
        ({"count": 0, "claims": [CLAIM, {**CLAIM, "name": "b"}]}, "claim two-h100, claim two-h100"),
        ({"count": 4, "claims": [CLAIM]}, "4 nvidia.com/gpu, claim two-h100"),
    ],
)
def test_the_columns_show_what_one_replica_runs_on(gpu: dict[str, Any], shown: str) -> None:
    assert World(spec={"model": MODEL, "gpu": gpu}).plan().status.display.gpu == shown


def test_the_addresses_are_those_of_the_service() -> None:
    status = World(spec={"model": MODEL}).plan().status
    assert (status.url, status.grpc_url) == (
        "http://sentiment.default.svc:8000",
        "sentiment.default.svc:8001",
    )


@pytest.mark.parametrize(
    ("mode", "url", "grpc_url"),
    [
        ("Gateway", "https://sentiment.default.svc:8000", "grpcs://sentiment.default.svc:8001"),
        ("Direct", "http://sentiment.default.svc:8000", "sentiment.default.svc:8001"),
    ],
)
def test_the_addresses_say_tls_where_gateways_speak_it(mode: str, url: str, grpc_url: str) -> None:
    world = World(spec={"model": MODEL, "gateway": {"mode": mode}}, policy=replace(POLICY, gateway_tls=True))
    status = world.plan().status
    assert (status.url, status.grpc_url) == (url, grpc_url)


def test_a_stray_pod_of_no_workload_counts_nowhere() -> None:
    world = _serving()
    world.pods["stray"] = ObservedPod(name="stray", uid="s", workload="", ready=True)
    assert world.plan().status == world.status
