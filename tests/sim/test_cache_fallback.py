"""A model cache that keeps pods from being scheduled is done without, once and for all of a workload's pods."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conch.api import pod
from conch.api.reasons import Reason
from conch.api.status import ConditionType
from conch.app.happenings import happenings
from conch.core.actions import Apply
from conch.core.cache_fallback import MISSING_PATIENCE, PATIENCE
from conch.core.desired.model_cache import cache_claim
from conch.core.observed_child import ChildId, ChildKind, Controller, ObservedDeployment
from conch.core.observed_pod import ObservedPod
from conch.core.policy import ModelCache
from tests.sim.world import POLICY, START, World

CACHED = replace(POLICY, model_cache=ModelCache(claim="model-cache", limit="1Ti"))
MODEL = {"version": 1, "source": {"uri": "https://models.example/a.onnx"}}
MISSING = '0/3 nodes are available: persistentvolumeclaim "model-cache" not found. not found.'
OTHERS = '0/3 nodes are available: persistentvolumeclaim "sentiment-model" not found. not found.'
AFFINITY = (
    "0/3 nodes are available: 3 node(s) didn't match PersistentVolume's node affinity. no new claims to deallocate."
)
OLDER_AFFINITY = "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) had volume node affinity conflict."
UNBOUND = "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."
GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def world(**spec: Any) -> World:
    made = World(spec={"model": MODEL, "replicas": 2, **spec}, policy=CACHED)
    made.settle()
    made.run_pods()
    return made


def unschedulable(world: World, message: str, *, seconds: float) -> None:
    """Let the scheduler say so of every pod that waits, for so long by now."""
    created = (world.now - timedelta(seconds=seconds)).isoformat()
    for name, each in world.pods.items():
        if not each.scheduled:
            world.pods[name] = replace(each, unschedulable_message=message, created=created)


def deployment(world: World) -> ObservedDeployment:
    (found,) = (child for child in world.children.values() if isinstance(child, ObservedDeployment))
    return found


def template(world: World) -> dict[str, Any]:
    """The pod template that is written now."""
    (written,) = (
        action.desired.body["spec"]["template"]
        for action in world.plan().actions
        if isinstance(action, Apply) and action.desired.id.kind is ChildKind.DEPLOYMENT
    )
    assert isinstance(written, dict)
    return written


@pytest.mark.parametrize(
    ("message", "patience"),
    [(MISSING, MISSING_PATIENCE), (AFFINITY, PATIENCE), (OLDER_AFFINITY, PATIENCE), (UNBOUND, PATIENCE)],
    ids=["missing", "affinity", "older affinity", "unbound"],
)
def test_pods_that_the_cache_keeps_waiting_are_made_anew_without_it(message: str, patience: timedelta) -> None:
    stuck = world()
    assert deployment(stuck).mounts_cache
    almost = patience.total_seconds() - 1
    unschedulable(stuck, message, seconds=almost)
    planned = stuck.plan()
    assert (planned.actions, planned.requeue_after) == ((), timedelta(seconds=1)), "one may be making it just now"
    ready = planned.status.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason is Reason.MODEL_CACHE_UNAVAILABLE
    assert "claim model-cache" in ready.message

    unschedulable(stuck, message, seconds=patience.total_seconds())
    without = template(stuck)
    assert cache_claim(without) is None
    containers = [*without["spec"]["initContainers"], *without["spec"]["containers"]]
    assert pod.CACHE_FOLDER not in str(containers)
    assert pod.CACHE_BYTES_ENV not in str(containers)
    before = stuck.status
    stuck.settle()
    assert not deployment(stuck).mounts_cache
    stuck.pods.clear()
    stuck.serve()
    stuck.settle()
    ready = stuck.status.condition(ConditionType.READY)
    assert ready is not None
    assert (ready.reason, stuck.status.ready_replicas) == (Reason.SERVING, 2)
    assert stuck.status.cache is not None
    assert "claim model-cache kept pods from being scheduled" in stuck.status.cache.message
    told = [each for each in happenings(before, stuck.status) if each.reason is Reason.MODEL_CACHE_UNAVAILABLE]
    assert [each.message for each in told] == [stuck.status.cache.message]
    assert happenings(stuck.status, stuck.status) == (), "once"
    record = next(child for child in stuck.children if child.kind is ChildKind.CONTROLLER_REVISION)
    assert "model-cache" in str(stuck.children[record]), "the record stays as it was"


@pytest.mark.parametrize("message", [OTHERS, GPU, ""], ids=["another claim", "no GPU", "nothing"])
def test_pods_that_wait_for_something_else_keep_the_cache(message: str) -> None:
    waiting = world()
    unschedulable(waiting, message, seconds=100_000)
    assert waiting.plan().actions == ()
    ready = waiting.plan().status.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason is not Reason.MODEL_CACHE_UNAVAILABLE


@pytest.mark.parametrize("message", [AFFINITY, OLDER_AFFINITY, UNBOUND])
def test_what_may_be_the_fault_of_another_volume_takes_no_cache_away(message: str) -> None:
    """All of the workload's pods would be made anew, and in vain."""
    waiting = world(model={**MODEL, "storage": {"size": "1Gi"}})
    assert deployment(waiting).mounts_cache
    unschedulable(waiting, message, seconds=100_000)
    assert waiting.plan().actions == ()
    ready = waiting.plan().status.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason is Reason.VOLUME_UNAVAILABLE
    unschedulable(waiting, MISSING, seconds=100_000)
    assert cache_claim(template(waiting)) is None


def test_pods_of_a_claim_have_no_cache_to_wait_for() -> None:
    models = [{"name": "other", "version": 1, "source": {"uri": "pvc://models/other"}}]
    assert not deployment(world(models=models)).mounts_cache


def test_the_next_revision_tries_the_cache_again() -> None:
    stuck = world(rollout={"strategy": "Recreate", "keepWarmSeconds": 0})
    unschedulable(stuck, MISSING, seconds=100)
    stuck.settle()
    stuck.pods.clear()
    stuck.serve()
    stuck.settle()
    stuck.edit(model={**MODEL, "version": 2})
    for _ in range(40):
        stuck.step()
        stuck.serve()
    assert deployment(stuck).mounts_cache
    assert stuck.status.cache is not None
    assert stuck.status.cache.message == ""


def test_a_workload_of_before_is_left_as_it_is() -> None:
    before = World(spec={"model": MODEL})
    before.settle()
    before.serve()
    before.settle()
    before.policy = CACHED
    assert before.plan().actions == ()
    assert before.plan().status.cache is None


def test_a_strangers_deployment_takes_no_cache_away() -> None:
    own = world()
    mine = deployment(own)
    stranger = replace(
        mine,
        id=ChildId(kind=ChildKind.DEPLOYMENT, name="aaa"),
        mounts_cache=False,
        controller=Controller(kind="ReplicaSet", name="x", uid="theirs"),
    )
    own.children = {stranger.id: stranger, **own.children}
    assert not [each for each in own.plan().actions if isinstance(each, Apply)]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from([MISSING, AFFINITY, UNBOUND, OTHERS, GPU, ""]), st.integers(0, 200), st.booleans()),
        max_size=12,
    )
)
def test_it_never_comes_back(steps: list[tuple[str, int, bool]]) -> None:
    """Whatever the scheduler says, and however pods come and go: what has lost the cache never has it again."""
    any_world = world()
    had = True
    for message, seconds, scheduled in steps:
        for name, each in any_world.pods.items():
            created = (any_world.now - timedelta(seconds=seconds)).isoformat()
            any_world.pods[name] = replace(
                each, scheduled=scheduled, unschedulable_message="" if scheduled else message, created=created
            )
        any_world.step()
        has = deployment(any_world).mounts_cache
        assert had or not has
        had = has
        if not has:
            any_world.pods = {name: each for name, each in any_world.pods.items() if each.scheduled}
        any_world.run_pods()
    any_world.settle(rounds=80)
    assert any_world.plan().actions == ()


def test_a_pod_that_has_no_age_yet_is_given_time() -> None:
    stuck = world()
    name = next(iter(stuck.pods))
    stuck.pods = {name: ObservedPod(name=name, uid="u", workload=deployment(stuck).workload)}
    stuck.pods[name] = replace(stuck.pods[name], unschedulable_message=MISSING)
    planned = stuck.plan()
    assert not [each for each in planned.actions if isinstance(each, Apply)]
    assert planned.requeue_after == MISSING_PATIENCE
    assert stuck.now > START
