"""No pod is removed while a gateway may still send to it, in whatever order things happen."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from conch.api import names
from conch.api.agent_report import AgentPhase, AgentReport
from conch.api.reasons import Reason
from conch.api.status import ConditionStatus, ConditionType
from conch.core.actions import Apply
from conch.core.observed_child import ChildId, ChildKind, ObservedDeployment, ObservedService, ObservedSlice
from conch.core.observed_pod import ObservedPod
from tests.sim.world import World

MODEL = {"version": 1, "source": {"uri": "https://models/a.onnx"}}
SERVICE = ChildId(kind=ChildKind.SERVICE, name="sentiment")
SLICE = ChildId(kind=ChildKind.ENDPOINT_SLICE, name="sentiment-gateways")


def _serving(**spec: object) -> World:
    world = World(spec={"model": MODEL, **spec})
    _live(world)
    return world


def _live(world: World, rounds: int = 8) -> None:
    """Let pods and operator go on until nothing happens any more."""
    for _ in range(rounds):
        world.step()
        world.serve()
    world.settle()


def _sent_to(world: World, pod: ObservedPod) -> set[str]:
    """The gateways that may send something new to this pod, by what they acknowledged."""
    sending = set()
    for name, gateway in world.gateways.items():
        if gateway.traffic is None or name in world.deaf:
            continue
        for share in world.status.traffic:
            if share.workload == pod.workload and share.weight and pod.name not in share.draining:
                sending.add(name)
    return sending


def _scale(world: World, replicas: int) -> None:
    world.edit(replicas=replicas % 5)


def _upgrade(world: World, version: int) -> None:
    world.edit(model={**MODEL, "version": version + 1})


def _break_a_pod(world: World, which: int) -> None:
    if world.pods:
        name = sorted(world.pods)[which % len(world.pods)]
        world.pods[name] = replace(world.pods[name], ready=False)


def _cordon(world: World, which: int) -> None:
    if world.pods:
        name = sorted(world.pods)[which % len(world.pods)]
        world.pods[name] = replace(world.pods[name], node_cordoned=not world.pods[name].node_cordoned)


def _load(world: World, requests: int) -> None:
    """Something stays in flight for as long as it may."""
    world.in_flight = {share.workload: requests % 2 for share in world.status.traffic}
    world.follow()


HAPPENINGS: list[Callable[[World, int], object]] = [
    _scale,
    _upgrade,
    _break_a_pod,
    _cordon,
    _load,
    lambda world, writes: world.step(crash_after=writes),
    lambda world, _: world.step(),
    lambda world, _: world.serve(),
]


# All were marked for want of requests when one of them is wanted again.
@example([(_scale, 0), (_cordon, 0), (HAPPENINGS[5], 1), (HAPPENINGS[6], 0), (_scale, 1), (HAPPENINGS[6], 0)])
# Fewer are wanted with the very step that gives a new version its share.
@example([(_upgrade, 1), (HAPPENINGS[5], 1), *[(each, 0) for each in HAPPENINGS[6:]], (_scale, 1), (HAPPENINGS[6], 0)])
@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.integers(0, 9)), max_size=25))
def test_a_pod_that_serves_is_removed_only_when_no_gateway_sends_to_it(
    history: list[tuple[Callable[[World, int], object], int]],
) -> None:
    world = _serving(replicas=3)
    for happening, argument in history:
        world.removed.clear()
        happening(world, argument)
        world.run_pods()
        for pod in world.removed:
            assert not pod.ready or not _sent_to(world, pod), "removed while requests were sent to it"


def test_a_scale_down_drains_the_youngest_pod_before_it_goes() -> None:
    world = _serving(replicas=3)
    youngest = max(world.pods.values(), key=lambda pod: pod.created)
    world.deaf = {"b"}
    world.edit(replicas=2)
    world.step()
    assert world.status.traffic[0].draining == (youngest.name,)
    world.step()
    assert world.replicas[youngest.workload] == 3, "a gateway has not acknowledged"
    assert not world.pods[youngest.name].marked_for_removal
    world.deaf = set()
    world.follow()
    world.step()
    assert world.pods[youngest.name].marked_for_removal, "so that it is this pod that goes"
    assert world.replicas[youngest.workload] == 3, "the mark has to be seen first"
    world.step()
    assert world.replicas[youngest.workload] == 2
    _live(world)
    assert youngest.name not in world.pods
    assert not world.status.traffic[0].draining


def test_a_scale_down_that_is_taken_back_drains_nothing() -> None:
    world = _serving(replicas=3)
    world.deaf = {"b"}
    world.edit(replicas=2)
    world.step()
    assert world.status.traffic[0].draining
    world.edit(replicas=3)
    world.deaf = set()
    _live(world)
    assert not world.status.traffic[0].draining
    assert len(world.pods) == 3


def test_a_gateway_that_never_answers_holds_a_scale_down_up_for_a_bounded_time() -> None:
    world = _serving(replicas=2)
    (workload,) = world.replicas
    world.deaf = {"b"}
    world.edit(replicas=1)
    world.step()
    world.step()
    assert world.replicas[workload] == 2
    world.now += world.policy.drain_timeout + world.policy.acknowledgement_timeout
    world.step()
    world.step()
    assert world.replicas[workload] == 1


def test_pods_that_serve_nothing_leave_at_once() -> None:
    world = _serving(replicas=3)
    (workload,) = world.replicas
    name = min(world.pods)
    world.pods[name] = replace(world.pods[name], ready=False)
    world.edit(replicas=2)
    world.step()
    assert world.replicas[workload] == 2
    assert world.status.traffic[0].draining == ()


def test_the_old_version_stays_until_what_it_was_sent_is_answered() -> None:
    world = _serving()
    (old,) = world.replicas
    world.edit(model={**MODEL, "version": 2})
    world.settle()
    world.in_flight = {old: 3}
    world.serve()
    world.settle()
    new, retiring = world.status.traffic
    assert (new.weight, retiring.weight, retiring.workload) == (100, 0, old)
    assert _has_deployment(world, old)
    world.in_flight = {}
    world.follow()
    world.step()
    assert [share.workload for share in world.status.traffic] == [new.workload]
    assert not _has_deployment(world, old)


def test_a_request_that_never_ends_keeps_the_old_version_for_a_bounded_time() -> None:
    world = _serving()
    (old,) = world.replicas
    world.edit(model={**MODEL, "version": 2})
    world.settle()
    world.in_flight = {old: 1}
    world.serve()
    world.settle()
    assert _has_deployment(world, old)
    world.now += world.policy.drain_timeout
    world.step()
    assert not _has_deployment(world, old)


def _has_deployment(world: World, workload: str) -> bool:
    return any(child.workload == workload for child in world.children.values() if isinstance(child, ObservedDeployment))


def test_the_only_replica_on_a_cordoned_node_gets_a_replacement_first() -> None:
    world = _serving()
    (workload,) = world.replicas
    (first,) = world.pods
    world.pods[first] = replace(world.pods[first], node_cordoned=True)
    world.step()
    assert world.replicas[workload] == 2
    world.run_pods()
    world.step()
    assert first in world.pods, "the replacement does not serve yet"
    share = world.status.traffic[0]
    assert (share.draining, share.draining_since) == (tuple(world.pods.keys() - {first}), None), "nobody leaves"
    _live(world)
    assert first not in world.pods
    assert len(world.pods) == 1
    ready = world.status.condition(ConditionType.READY)
    assert ready is not None
    assert ready.status is ConditionStatus.TRUE


def test_without_room_for_a_replacement_the_only_replica_may_be_evicted() -> None:
    world = _serving()
    (first,) = world.pods
    world.pods[first] = replace(world.pods[first], node_cordoned=True)
    world.step()
    world.run_pods()
    (second,) = world.pods.keys() - {first}
    world.pods[second] = replace(world.pods[second], unschedulable_message="0/3 nodes: Insufficient nvidia.com/gpu.")
    world.step()
    ready = world.plan().status.condition(ConditionType.READY)
    assert ready is not None
    assert ready.status is ConditionStatus.TRUE, "what is wanted serves"
    assert world.evict(first)


def test_into_direct_mode_the_pods_are_listed_before_the_gateways_go() -> None:
    world = _serving(replicas=2)
    assert not _selects(world)
    world.edit(replicas=2, gateway={"mode": "Direct"})
    listed = {pod.ip for pod in world.pods.values()}
    while SLICE in world.children:
        world.step()
        theirs = [each for each in world.children.values() if isinstance(each, ObservedSlice) and each.id != SLICE]
        public = [each for each in theirs if each.service == "sentiment"]
        assert SLICE in world.children or any(each.ready >= listed for each in public)
    assert world.status.gateway is not None, "the port is kept while a gateway was listed"
    world.step()
    assert world.status.gateway.unlisted_since, "and until every kube-proxy has seen that it is not"
    world.now += world.policy.endpoint_propagation
    world.settle()
    assert world.status.gateway is None
    assert _selects(world)
    assert not [id_ for id_ in world.children if id_.kind is ChildKind.SERVICE and id_ != SERVICE]


def test_into_gateway_mode_every_gateway_knows_before_the_service_moves_and_nothing_stale_stays() -> None:
    world = _serving(replicas=2, gateway={"mode": "Direct"})
    assert _selects(world)
    assert world.status.gateway is None
    world.edit(replicas=2, gateway={"mode": "Gateway"})
    world.deaf = {"a"}
    for _ in range(6):
        world.step()
        assert _selects(world) or SLICE in world.children, "the gateways are listed before the pods go"
    assert _listed(world) == {world.gateways["b"].address}, "the other does not know the object yet"
    world.deaf = set()
    world.settle()
    assert _listed(world) == {gateway.address for gateway in world.gateways.values()}
    assert not _selects(world)
    assert "sentiment" not in world.endpoints, "nobody keeps the Endpoints of a Service without a selector"
    stale = [
        each
        for each in world.children.values()
        if isinstance(each, ObservedSlice) and each.service == "sentiment" and each.managed_by != names.SLICE_MANAGED_BY
    ]
    assert stale == []


def test_into_gateway_mode_waits_until_a_gateway_does_what_it_shall() -> None:
    world = _serving(replicas=2, gateway={"mode": "Direct"})
    world.edit(replicas=2, gateway={"mode": "Gateway"})
    world.deaf = {"a", "b"}
    for _ in range(6):
        world.step()
    assert _selects(world)
    assert SLICE not in world.children


def _listed(world: World) -> frozenset[str]:
    ours = world.children[SLICE]
    assert isinstance(ours, ObservedSlice)
    return ours.ready


def test_a_strangers_slice_of_the_service_is_left_alone() -> None:
    world = _serving()
    stranger = replace(world.children[SLICE], id=ChildId(kind=ChildKind.ENDPOINT_SLICE, name="mesh"), controller=None)
    assert isinstance(stranger, ObservedSlice)
    world.children[stranger.id] = replace(stranger, managed_by="mesh.example.com")
    assert world.plan().actions == ()


def test_a_version_that_serves_with_some_of_its_pods_is_kept_until_the_next_is_proven() -> None:
    world = World(spec={"model": MODEL, "replicas": 3})
    world.step()
    world.serve()
    third = max(world.pods)
    world.pods[third] = replace(world.pods[third], ready=False, report=None, unschedulable_message="no GPU")
    world.settle()
    assert world.status.stable is None
    (first,) = world.replicas
    world.edit(model={**MODEL, "version": 2})
    world.settle()
    assert world.status.traffic[0].workload == first
    assert world.status.traffic[0].weight == 100
    assert _has_deployment(world, first)


def test_a_replacement_whose_model_fails_does_not_keep_its_node_from_being_drained() -> None:
    world = _serving()
    (first,) = world.pods
    world.pods[first] = replace(world.pods[first], node_cordoned=True)
    world.step()
    world.run_pods()
    (second,) = world.pods.keys() - {first}
    failed = AgentReport(phase=AgentPhase.FAILED, reason=Reason.MODEL_LOAD_FAILED, message="no")
    world.pods[second] = replace(world.pods[second], report=failed)
    world.step()
    assert world.evict(first)


def test_a_replacement_that_never_comes_keeps_its_node_for_a_bounded_time() -> None:
    world = _serving()
    (first,) = world.pods
    world.pods[first] = replace(world.pods[first], node_cordoned=True)
    world.step()
    world.run_pods()
    world.step()
    assert not world.evict(first)
    world.now += timedelta(minutes=16)
    world.step()
    assert world.evict(first)


def test_gateways_that_the_operator_cannot_reach_are_listed_when_no_other_is() -> None:
    world = World(spec={"model": MODEL}, deaf={"a", "b"})
    world.gateways = {name: replace(each, heard=False) for name, each in world.gateways.items()}
    world.settle()
    assert _listed(world) == {gateway.address for gateway in world.gateways.values()}


def _selects(world: World) -> bool:
    service = world.children[SERVICE]
    assert isinstance(service, ObservedService)
    return service.selects


def test_the_slice_lists_the_gateways_that_are_ready_and_know_the_object() -> None:
    world = _serving()
    a, b = world.gateways["a"], world.gateways["b"]

    def listed() -> frozenset[str]:
        world.settle()
        ours = world.children[SLICE]
        assert isinstance(ours, ObservedSlice)
        return ours.ready

    assert listed() == {a.address, b.address}
    world.gateways["b"] = replace(b, ready=False)
    assert listed() == {a.address}
    world.gateways["c"] = replace(b, name="c", address="10.1.0.9", traffic=None)
    world.deaf = {"c"}
    assert listed() == {a.address}, "it does not listen on the object's port yet"
    world.deaf = set()
    world.follow()
    assert listed() == {a.address, "10.1.0.9"}
    world.gateways["c"] = replace(world.gateways["c"], leaving=True)
    assert listed() == {a.address}
    world.deaf = {"a"}
    world.gateways["a"] = replace(world.gateways["a"], heard=False, traffic=None)
    assert listed() == {a.address}, "ready by the kubelet's word, and listed before"


def test_a_gateway_that_comes_or_goes_makes_nothing_less_ready() -> None:
    """With a thousand objects that would be thousands of statuses and Events."""
    world = _serving()
    b = world.gateways.pop("b")
    before = world.status
    planned = world.plan()
    assert planned.status == before
    assert [type(action) for action in planned.actions] == [Apply]
    world.settle()
    world.gateways["b"] = b
    assert world.plan().status == before


def test_without_a_free_port_the_object_says_so_and_has_no_service() -> None:
    world = World(spec={"model": MODEL}, port=None)
    world.settle()
    ready = world.status.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason is Reason.PORTS_EXHAUSTED
    assert SERVICE not in world.children


def test_without_gateways_the_object_is_not_ready() -> None:
    world = World(spec={"model": MODEL}, gateways={})
    _live(world)
    ready = world.status.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason is Reason.NO_GATEWAY


def test_a_refusal_of_envoy_is_told_in_its_own_words() -> None:
    world = _serving()
    world.edit(gateway={"timeoutSeconds": 5})
    world.deaf = {"a"}
    traffic = world.gateways["a"].traffic
    assert traffic is not None
    words = traffic.model_copy(update={"rejected": True, "waits_for": "cannot bind 0.0.0.0:10000"})
    world.gateways["a"] = replace(world.gateways["a"], traffic=words)
    world.step()
    routed = world.status.condition(ConditionType.ROUTING_SYNCED)
    assert routed is not None
    assert routed.reason is Reason.ROUTE_REJECTED
    assert "gateway a" in routed.message
    assert "cannot bind" in routed.message


def test_what_makes_nothing_less_ready_leaves_ready_true() -> None:
    world = _serving(replicas=2)
    world.deaf = {"a"}
    world.edit(replicas=2, gateway={"timeoutSeconds": 5})
    world.step()
    ready, routed = (world.status.condition(type_) for type_ in (ConditionType.READY, ConditionType.ROUTING_SYNCED))
    assert ready is not None
    assert routed is not None
    assert (ready.status, routed.status) == (ConditionStatus.TRUE, ConditionStatus.FALSE)
    world.now += timedelta(seconds=1)
    world.deaf = set()
    world.settle()
    routed = world.status.condition(ConditionType.ROUTING_SYNCED)
    assert routed is not None
    assert routed.status is ConditionStatus.TRUE
