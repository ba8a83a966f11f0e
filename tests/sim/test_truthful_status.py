"""Ready means: serves, verified, and routed; and what is over is not held against the object."""

from dataclasses import replace

from conch.api.reasons import Reason
from conch.api.status import Condition, ConditionStatus, ConditionType
from conch.core.actions import Apply
from conch.core.observed_child import ChildId, ChildKind
from tests.sim.world import World

SPEC = {"model": {"version": 1, "source": {"uri": "https://models/a.onnx"}}, "replicas": 2}


def _ready(world: World) -> Condition:
    ready = world.plan().status.condition(ConditionType.READY)
    assert ready is not None
    return ready


def _serving() -> World:
    world = World(spec=SPEC)
    world.settle()
    world.serve()
    world.settle()
    assert _ready(world).status is ConditionStatus.TRUE
    return world


def test_a_new_version_is_not_ready_before_the_gateways_send_to_it() -> None:
    world = _serving()
    world.deaf = {"a"}
    world.edit(model={"version": 2, "source": {"uri": "https://models/b.onnx"}})
    world.settle()
    world.serve()
    world.settle()
    assert world.status.stable is not None
    assert world.status.stable.version == 1, "not promoted on the word of one of two gateways"
    assert (_ready(world).status, _ready(world).reason) == (ConditionStatus.FALSE, Reason.ROLLING_OUT)
    world.deaf = set()
    world.settle()
    assert _ready(world).status is ConditionStatus.TRUE
    assert world.status.stable.version == 2


def test_a_service_that_was_edited_makes_the_object_unready_until_it_is_repaired() -> None:
    world = _serving()
    service = ChildId(kind=ChildKind.SERVICE, name=world.name)
    world.children[service] = replace(world.children[service], owned_hash="edited")
    assert _ready(world).reason is Reason.PROGRESSING
    world.settle()
    assert _ready(world).status is ConditionStatus.TRUE


def test_a_refusal_of_what_is_no_longer_wanted_does_not_matter() -> None:
    world = _serving()
    (deployment,) = [child for child in world.children if child.kind is ChildKind.DEPLOYMENT]
    world.refusals = {deployment: "a webhook said no"}
    assert _ready(world).status is ConditionStatus.TRUE
    assert world.plan().requeue_after is None
    world.edit(replicas=3)
    assert _ready(world).reason is Reason.INVALID_SPEC


def test_the_budget_is_for_the_pods_that_serve() -> None:
    """Over both workloads, pods of a candidate that never starts would hold every drain up."""
    world = _serving()
    assert world.status.stable is not None
    world.edit(model={"version": 2, "source": {"uri": "https://models/b.onnx"}})
    budget = ChildId(kind=ChildKind.POD_DISRUPTION_BUDGET, name=world.name)
    del world.children[budget]
    (written,) = [
        action.desired for action in world.plan().actions if isinstance(action, Apply) and action.desired.id == budget
    ]
    selected = written.body["spec"]["selector"]["matchLabels"]
    assert selected["conch.dev/workload"] == world.status.stable.workload
