"""Objects of somebody else's that bear the names of children."""

from dataclasses import replace

from conch.api import names
from conch.api.reasons import Reason
from conch.api.status import ConditionType
from conch.core.actions import Apply
from conch.core.observed_child import ChildId, ChildKind, Controller, ObservedRecord
from tests.sim.world import UID, World

SPEC = {"model": {"version": 1, "source": {"uri": "https://models/a.onnx"}}}
OTHER = Controller(kind="Deployment", name="theirs", uid="other")


def _reason(world: World) -> Reason:
    ready = world.plan().status.condition(ConditionType.READY)
    assert ready is not None
    return ready.reason


def test_a_stranger_stops_to_matter_when_the_child_is_no_longer_needed() -> None:
    world = World(spec={**SPEC, "replicas": 2})
    world.strangers = {ChildId(kind=ChildKind.POD_DISRUPTION_BUDGET, name=world.name): OTHER}
    world.step()
    world.step()
    world.serve()
    assert _reason(world) is Reason.NAME_CONFLICT
    world.edit(replicas=0)
    world.settle()
    world.run_pods()
    world.settle()
    assert _reason(world) is Reason.NO_REPLICAS
    assert world.plan().requeue_after is None


def test_pods_are_never_made_from_a_strangers_record() -> None:
    world = World(spec=SPEC)
    workload = names.workload_object(world.name, names.workload_id(UID, 1))
    world.settle()
    id_ = ChildId(kind=ChildKind.CONTROLLER_REVISION, name=workload)
    mine = world.children[id_]
    assert isinstance(mine, ObservedRecord)
    planted = replace(mine.record, pod_template_json='{"spec": {"hostNetwork": true}}')
    world.children[id_] = replace(mine, controller=OTHER, record=planted)
    del world.children[ChildId(kind=ChildKind.DEPLOYMENT, name=workload)]
    written = [action.desired for action in world.plan().actions if isinstance(action, Apply)]
    (deployment,) = [desired for desired in written if desired.id.kind is ChildKind.DEPLOYMENT]
    assert "hostNetwork" not in deployment.body["spec"]["template"]["spec"]
    assert _reason(world) is Reason.NAME_CONFLICT
