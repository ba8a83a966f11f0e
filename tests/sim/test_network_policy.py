"""A pod's NetworkPolicy lets in whoever requests may come from, also on the way from one gateway.mode to the other."""

from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest

from conch.api import names, pod
from conch.api.gateway import GatewayMode
from conch.core.actions import Action, Apply
from conch.core.observed_child import ChildId, ChildKind, ObservedService, ObservedSlice
from tests.sim.world import POLICY, World
from tests.support.network_policies import Address, Pod, lets_in

MODEL: Final = {"version": 1, "source": {"uri": "https://models/a.onnx"}}
SERVICE: Final = ChildId(kind=ChildKind.SERVICE, name="sentiment")
NETWORK_POLICY: Final = ChildId(kind=ChildKind.NETWORK_POLICY, name="sentiment-model-pods")
CLIENT: Final = Address(address="192.0.2.7")
GATEWAY: Final = Pod(namespace="conch-system", labels=names.GATEWAY_LABELS)


def _serving(mode: GatewayMode, **spec: object) -> World:
    world = World(spec={"model": MODEL, "gateway": {"mode": mode}, **spec})
    for _ in range(8):
        world.step()
        world.serve()
    world.settle()
    return world


def _lets_in(world: World, source: Pod | Address) -> bool:
    assert NETWORK_POLICY in world.children
    servers = [Pod(namespace="default", labels=names.workload_labels("sentiment", each)) for each in world.replicas]
    (answer,) = {lets_in([world.policies[NETWORK_POLICY]], source, server, pod.GRPC_PORT) for server in servers}
    return answer


def _leads_to_pods(world: World) -> bool:
    """Whether a client that calls the Service may meet a pod: by its selector, or by what Kubernetes made of it."""
    service = world.children[SERVICE]
    assert isinstance(service, ObservedService)
    left = [
        each
        for each in world.children.values()
        if isinstance(each, ObservedSlice) and each.service == "sentiment" and not each.is_ours
    ]
    return service.selects or any(each.ready for each in left)


@pytest.mark.parametrize(
    ("before", "after"), [(GatewayMode.GATEWAY, GatewayMode.DIRECT), (GatewayMode.DIRECT, GatewayMode.GATEWAY)]
)
def test_on_the_way_nobody_is_shut_out_whom_requests_may_come_from(before: GatewayMode, after: GatewayMode) -> None:
    world = _serving(before, replicas=2)
    world.edit(replicas=2, gateway={"mode": after})
    for crash_after in [1] * 30 + [2] * 5:
        # The operator begins anew after every write or two.
        world.step(crash_after=crash_after)
        world.now += timedelta(seconds=1)
        assert _lets_in(world, CLIENT) or not _leads_to_pods(world)
        assert _lets_in(world, GATEWAY)
    assert world.plan().actions == ()
    assert _leads_to_pods(world) is (after is GatewayMode.DIRECT)
    assert _lets_in(world, CLIENT), "and who is connected to a pod stays so"


def test_into_mode_direct_clients_are_let_in_before_the_service_selects_pods() -> None:
    world = _serving(GatewayMode.GATEWAY)
    assert not _lets_in(world, CLIENT)
    world.edit(gateway={"mode": "Direct"})
    applied = [action.desired.id for action in world.plan().actions if isinstance(action, Apply)]
    assert applied.index(NETWORK_POLICY) < applied.index(SERVICE)


def test_in_the_middle_of_a_rollout_clients_are_let_in_when_mode_direct_is_asked_for() -> None:
    world = _serving(GatewayMode.GATEWAY)
    steps = [{"weight": 50, "pause": "UntilPromoted"}]
    world.edit(model={**MODEL, "version": 2}, rollout={"keepWarmSeconds": 0, "steps": steps, "analysis": []})
    for _ in range(6):
        world.step()
        world.serve()
    world.edit(gateway={"mode": "Direct"}, rollout={"keepWarmSeconds": 0})
    world.step()
    assert not _leads_to_pods(world)
    assert _lets_in(world, CLIENT)


def test_who_is_connected_to_a_pod_from_mode_direct_stays_so_until_it_ends_and_then_nobody_is_let_in() -> None:
    world = _serving(GatewayMode.DIRECT, replicas=2)
    world.edit(replicas=2, gateway={"mode": "Gateway"})
    world.settle()
    assert not _leads_to_pods(world)
    old = set(world.pods)
    assert _lets_in(world, CLIENT), "both pods are there from before"
    for name in sorted(old):
        assert _lets_in(world, CLIENT)
        del world.pods[name]
        world.settle()
        world.serve()
        world.settle()
    assert len(world.pods) == 2
    assert not _lets_in(world, CLIENT)
    assert _lets_in(world, GATEWAY)
    assert world.status.gateway is not None
    assert world.status.gateway.unselected_since is None


def test_a_pod_that_is_over_lets_nobody_in() -> None:
    world = _serving(GatewayMode.DIRECT)
    world.edit(gateway={"mode": "Gateway"})
    world.settle()
    (name,) = world.pods
    world.pods[name] = replace(world.pods[name], phase="Failed", ready=False)
    world.settle()
    assert not _lets_in(world, CLIENT)


def test_it_is_there_before_the_first_pod_and_while_there_is_none() -> None:
    world = World(spec={"model": MODEL})
    kinds = [action.desired.id.kind for action in world.plan().actions if isinstance(action, Apply)]
    assert kinds.index(ChildKind.NETWORK_POLICY) < kinds.index(ChildKind.DEPLOYMENT)
    world = _serving(GatewayMode.GATEWAY)
    world.edit(suspend=True)
    world.settle()
    assert NETWORK_POLICY in world.children


def test_it_stays_while_the_spec_cannot_be_read() -> None:
    world = _serving(GatewayMode.GATEWAY)
    world.edit(model={"version": "none"})
    world.settle()
    assert not _lets_in(world, CLIENT)


def test_switched_off_it_is_taken_away_and_switched_on_it_comes() -> None:
    world = _serving(GatewayMode.GATEWAY)
    world.policy = replace(POLICY, network_access=None)
    world.settle()
    assert NETWORK_POLICY not in world.children
    world.policy = POLICY
    assert _kinds(world.plan().actions) == [ChildKind.NETWORK_POLICY]


def _kinds(actions: tuple[Action, ...]) -> list[ChildKind]:
    return [action.desired.id.kind for action in actions if isinstance(action, Apply)]
