"""Replicas of one revision never serve different bytes, whatever the store does meanwhile."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from conch.api.agent_report import AgentPhase
from conch.api.assignment import Pin
from conch.api.reasons import Reason
from conch.core.actions import Apply, TellPin
from conch.core.observed_child import ChildKind
from tests.sim.world import DIGEST, World

OTHER = "sha256:" + "cd" * 32
MODEL = {"version": 1, "source": {"uri": "https://h.example/m.onnx"}}


def _world(replicas: int = 2, **source: str) -> World:
    model = {**MODEL, "source": {**MODEL["source"], **source}}  # type: ignore[dict-item]  # specs of any shape
    world = World(spec={"model": model, "replicas": replicas})
    world.settle()
    world.run_pods()
    return world


def _served(world: World) -> set[str]:
    return {str(pod.report.digest) for pod in world.pods.values() if pod.ready and pod.report}


def _fail(world: World, name: str, reason: Reason = Reason.MODEL_LOAD_FAILED) -> None:
    pod = world.pods[name]
    assert pod.report
    failed = pod.report.model_copy(update={"phase": AgentPhase.FAILED, "reason": reason, "message": "why"})
    world.pods[name] = replace(pod, report=failed)


def test_the_first_report_is_written_to_status_before_anybody_is_told() -> None:
    world = _world()
    world.fetch()
    planned = world.plan()
    assert planned.status.source is not None
    assert planned.status.source.digest == DIGEST
    assert planned.status_first
    kinds = [type(action).__name__ for action in planned.actions]
    assert kinds == ["Apply", "TellPin", "TellPin"]
    (assignment,) = (action for action in planned.actions if isinstance(action, Apply))
    assert assignment.desired.id.kind is ChildKind.CONFIG_MAP
    assert DIGEST in assignment.desired.body["data"]["assignment.json"]
    world.step()
    assert world.plan().actions == (), "told once"


def test_a_declared_digest_is_the_pin_before_anything_is_fetched() -> None:
    world = World(spec={"model": {**MODEL, "source": {**MODEL["source"], "digest": OTHER}}})  # type: ignore[dict-item]  # specs of any shape
    assert world.plan().status.source is not None
    (assignment,) = (
        action
        for action in world.plan().actions
        if isinstance(action, Apply) and action.desired.id.kind is ChildKind.CONFIG_MAP
    )
    assert f'"digest": "{OTHER}"' in assignment.desired.body["data"]["assignment.json"]


def test_two_pods_that_fetched_different_bytes_do_not_both_serve() -> None:
    world = _world()
    world.fetch()
    second = sorted(world.pods)[1]
    report = world.pods[second].report
    assert report
    world.pods[second] = replace(world.pods[second], report=report.model_copy(update={"digest": OTHER}))
    world.settle()
    world.load()
    assert _served(world) == {DIGEST}
    _fail(world, second, Reason.SOURCE_CHANGED)
    world.settle()
    assert world.plan().status.condition is not None
    ready = world.status.conditions[0]
    assert ready.reason is Reason.SOURCE_CHANGED
    assert world.status.source is not None
    assert world.status.source.digest == DIGEST, "what one pod has loaded stays pinned"


def test_what_no_pod_could_load_is_mended_under_the_same_revision() -> None:
    world = _world(replicas=1)
    world.fetch()
    world.settle()
    (name,) = world.pods
    _fail(world, name)
    world.settle()
    assert world.status.source is not None
    assert world.status.source.digest == DIGEST
    report = world.pods[name].report
    assert report
    mended = report.model_copy(update={"digest": OTHER, "reason": Reason.SOURCE_CHANGED})
    world.pods[name] = replace(world.pods[name], report=mended)
    assert (
        TellPin(pod=name, address="10.0.0.1", revision=report.revision, pin=Pin(digest=OTHER)) in world.plan().actions
    )
    world.settle()
    assert world.status.source is not None
    assert world.status.source.digest == OTHER


def test_a_pod_that_is_not_heard_may_serve_what_is_pinned() -> None:
    """After a restart of the operator nobody has been asked yet, and the one that failed answers first."""
    world = _world()
    world.fetch()
    world.settle()
    first, second = sorted(world.pods)
    report = world.pods[second].report
    assert report
    _fail(world, second)
    other = report.model_copy(update={"digest": OTHER, "phase": AgentPhase.FAILED, "reason": Reason.SOURCE_CHANGED})
    world.pods[second] = replace(world.pods[second], report=other)
    world.pods[first] = replace(world.pods[first], report=None)
    world.settle()
    assert world.status.source is not None
    assert world.status.source.digest == DIGEST


def test_what_one_pod_has_loaded_stays_though_that_pod_is_gone() -> None:
    world = _world()
    world.fetch()
    world.settle()
    first, second = sorted(world.pods)
    report = world.pods[second].report
    assert report
    _fail(world, second)
    pod = world.pods[first]
    assert pod.report
    world.pods[first] = replace(pod, ready=True, report=pod.report.model_copy(update={"phase": AgentPhase.READY}))
    world.settle()
    assert world.status.candidate is not None
    assert world.status.candidate.loaded
    del world.pods[first]
    other = report.model_copy(update={"digest": OTHER, "phase": AgentPhase.FAILED, "reason": Reason.SOURCE_CHANGED})
    world.pods[second] = replace(world.pods[second], report=other)
    world.settle()
    assert world.status.source is not None
    assert world.status.source.digest == DIGEST


def test_the_pin_of_what_serves_outlives_its_pods() -> None:
    world = _world(replicas=1)
    world.serve()
    world.settle()
    assert world.status.stable is not None
    world.pods.clear()
    world.content = OTHER
    world.fetch()
    world.settle()
    world.load()
    assert _served(world) == set()
    assert world.status.stable.digest == DIGEST


@given(
    contents=st.lists(st.sampled_from([DIGEST, OTHER]), min_size=1, max_size=6),
    losses=st.lists(st.integers(0, 2), max_size=6),
    crashes=st.lists(st.none() | st.integers(0, 3), min_size=6, max_size=6),
)
def test_whatever_the_store_changes_and_whoever_dies_all_that_serve_have_the_same(
    contents: list[str], losses: list[int], crashes: list[int | None]
) -> None:
    world = _world(replicas=3)
    for number, content in enumerate(contents):
        world.content = content
        world.fetch()
        world.step(crash_after=crashes[number % len(crashes)])
        world.load()
        assert len(_served(world)) <= 1
        for lost in losses[number : number + 1]:
            world.pods.pop(sorted(world.pods)[lost % len(world.pods)], None)
            world.run_pods()
