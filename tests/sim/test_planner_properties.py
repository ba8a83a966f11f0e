"""What must hold in every world: whatever happens in whatever order, with a crash between any two writes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from conch.api.agent_report import AgentPhase, AgentReport
from conch.api.reasons import Reason
from conch.api.status import ConditionStatus, ConditionType
from conch.core.observed_child import ChildId, ChildKind, Controller
from conch.core.observed_pod import ObservedContainer
from tests.sim.world import World

SPECS = st.builds(
    lambda version, uri, image, gpus, replicas, suspend: {
        "model": {"version": version, "source": {"uri": uri}},
        "runtime": {"image": image} if image else {},
        "gpu": {"count": gpus},
        "suspend": suspend,
        **({"replicas": replicas} if replicas is not None else {}),
    },
    st.integers(1, 4),
    st.sampled_from(["https://models/a.onnx", "pvc://claim/a", "http://models/a.onnx", "ftp://not-supported/a"]),
    st.sampled_from([None, "triton:2"]),
    st.integers(0, 2),
    st.one_of(st.none(), st.integers(0, 3)),
    st.booleans(),
)


def _edit(world: World, spec: dict[str, Any]) -> None:
    world.spec, world.generation = spec, world.generation + 1


def _lose_a_child(world: World, which: int) -> None:
    if world.children:
        del world.children[sorted(world.children)[which % len(world.children)]]


def _edit_a_child(world: World, which: int) -> None:
    if world.children:
        id_ = sorted(world.children)[which % len(world.children)]
        world.children[id_] = replace(world.children[id_], owned_hash="edited")


def _fail_a_pod(world: World, which: int) -> None:
    world.run_pods()
    if world.pods:
        name = sorted(world.pods)[which % len(world.pods)]
        report = AgentReport(phase=AgentPhase.FAILED, reason=Reason.MODEL_LOAD_FAILED, message="no")
        world.pods[name] = replace(world.pods[name], ready=False, report=report)


def _crash_a_pod(world: World, which: int) -> None:
    world.run_pods()
    if world.pods:
        name = sorted(world.pods)[which % len(world.pods)]
        container = ObservedContainer(name="triton", restarts=3, waiting_reason="CrashLoopBackOff", last_exit="Error")
        world.pods[name] = replace(world.pods[name], ready=False, containers=(container,))


def _lose_facts(world: World, _: int) -> None:
    """The operator restarted: what only its memory held is gone."""
    world.secret_known = False
    world.met_strangers = {}
    world.pods = {name: replace(pod, report=None) for name, pod in world.pods.items()}


def _stranger(world: World, which: int) -> None:
    kinds = sorted(ChildKind)
    id_ = ChildId(kind=kinds[which % len(kinds)], name=world.name)
    if id_ not in world.children:
        world.strangers[id_] = Controller(kind="Deployment", name="other", uid="other")


def _step(world: World, _: int) -> None:
    world.step()


def _step_and_crash(world: World, writes: int) -> None:
    world.step(crash_after=writes % 6)


HAPPENINGS: list[Callable[[World, int], None]] = [
    lambda world, _: world.serve(),
    lambda world, _: world.run_pods(),
    _step_and_crash,
    _step,
    _lose_a_child,
    _edit_a_child,
    _fail_a_pod,
    _crash_a_pod,
    _lose_facts,
    _stranger,
]

HISTORIES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(HAPPENINGS), st.integers(0, 9)),
        st.tuples(st.just(_edit), SPECS),
    ),
    max_size=12,
)


def _live(world: World, history: list[tuple[Any, Any]]) -> None:
    for happening, argument in history:
        happening(world, argument)
        _check_status(world)


def _check_status(world: World) -> None:
    status = world.plan().status
    conditions = {condition.type: condition for condition in status.conditions}
    true = {type_ for type_, condition in conditions.items() if condition.status is ConditionStatus.TRUE}
    assert not {ConditionType.RECONCILING, ConditionType.STALLED} <= true
    assert not ({ConditionType.READY} <= true and {ConditionType.RECONCILING, ConditionType.STALLED} & true)
    if ConditionType.READY not in true:
        assert {ConditionType.RECONCILING, ConditionType.STALLED} & true, "not ready, but neither under way nor stuck"
        assert conditions[ConditionType.READY].message
    if ConditionType.CAPACITY_BLOCKED in true:
        assert ConditionType.RECONCILING in true


@settings(max_examples=300, deadline=None)
@given(SPECS, HISTORIES)
def test_a_plan_that_was_carried_out_plans_nothing_more(spec: dict[str, Any], history: list[tuple[Any, Any]]) -> None:
    world = World(spec=spec)
    _live(world, history)
    world.strangers = {}
    world.met_strangers = {}
    world.settle()
    assert world.plan().actions == ()


@settings(max_examples=300, deadline=None)
@given(SPECS, HISTORIES)
def test_workload_ids_are_never_reused(spec: dict[str, Any], history: list[tuple[Any, Any]]) -> None:
    world = World(spec=spec)
    lost: set[str] = set()
    for happening, argument in history:
        before = {child.name for child in world.children if child.kind is ChildKind.DEPLOYMENT}
        named = {served.workload for served in (world.status.stable, world.status.candidate) if served}
        happening(world, argument)
        gone = before - {child.name for child in world.children if child.kind is ChildKind.DEPLOYMENT}
        if happening is not _lose_a_child:
            lost |= {name for name in gone if name.rsplit("-", 1)[1] not in named}
        back = {child.name for child in world.children if child.kind is ChildKind.DEPLOYMENT} & lost
        assert not back, "a workload that was retired came back"


@settings(max_examples=200, deadline=None)
@given(SPECS, HISTORIES)
def test_strangers_are_never_written(spec: dict[str, Any], history: list[tuple[Any, Any]]) -> None:
    world = World(spec=spec)
    _live(world, history)
    world.step()
    world.step()
    assert world.written_strangers == []


@settings(max_examples=200, deadline=None)
@given(SPECS, SPECS, HISTORIES)
def test_the_serving_revision_only_yields_to_a_verified_one(
    first: dict[str, Any], second: dict[str, Any], history: list[tuple[Any, Any]]
) -> None:
    first = {**first, "suspend": False, "replicas": 1, "model": {"version": 1, "source": {"uri": "https://m/a.onnx"}}}
    world = World(spec=first)
    world.settle()
    world.serve()
    world.settle()
    stable = world.status.stable
    assert stable is not None
    world.edit(**{**second, "suspend": False, "replicas": 1})
    # Nothing in this history starts a pod of the new revision, so the old one keeps the traffic.
    for happening, argument in history:
        if happening in (_edit_a_child, _lose_facts):
            happening(world, argument)
            world.step()
    world.settle()
    assert world.status.stable == stable


@settings(max_examples=200, deadline=None)
@given(SPECS, HISTORIES)
def test_a_world_in_which_everything_works_becomes_ready(spec: dict[str, Any], history: list[tuple[Any, Any]]) -> None:
    world = World(spec=spec)
    _live(world, history)
    world.strangers = {}
    world.met_strangers = {}
    _edit(world, {"model": {"version": 9, "source": {"uri": "https://models/a.onnx"}}, "replicas": 2})
    for _ in range(4):
        world.settle()
        world.pods = {}
        world.serve()
    world.settle()
    ready = world.status.condition(ConditionType.READY)
    assert ready is not None
    assert ready.status is ConditionStatus.TRUE, ready.message
    assert world.status.stable is not None
    assert world.status.stable.version == 9
    assert world.status.candidate is None
    assert len([child for child in world.children if child.kind is ChildKind.DEPLOYMENT]) == 1
