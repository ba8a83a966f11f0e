"""Mode GatewayAPI: routes with weights, which count once the platform's Gateways say so of the newest ones."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest

from conch.api import names
from conch.api.inference_counts import InferenceCounts
from conch.api.network_peer import NetworkPeer
from conch.api.reasons import Reason
from conch.api.rollout import RolloutPhase
from conch.api.status import ConditionStatus, ConditionType
from conch.core.actions import Apply, Delete
from conch.core.analysis.samples import Samples
from conch.core.observed import ObservedWindow
from conch.core.observed_child import ROUTE_KINDS, ChildId, ChildKind, ObservedRoute, ObservedService, ParentVerdict
from conch.core.policy import InstallationPolicy, NetworkAccess
from tests.sim.world import POLICY, World

MODEL: Final = {"version": 1, "source": {"uri": "https://models/a.onnx"}}
NEXT: Final = {"version": 2, "source": {"uri": "https://models/b.onnx"}}
GATEWAY: Final = {"mode": "GatewayAPI", "parentRefs": [{"name": "public", "namespace": "infra"}]}
HTTP_ROUTE: Final = ChildId(kind=ChildKind.HTTP_ROUTE, name="sentiment")
GRPC_ROUTE: Final = ChildId(kind=ChildKind.GRPC_ROUTE, name="sentiment")
STEPS: Final = {"strategy": "Surge", "steps": [{"weight": 50}], "keepWarmSeconds": 0, "analysis": []}


def _weights(world: World, route: ChildId = HTTP_ROUTE) -> dict[str, int]:
    live = world.children[route]
    assert isinstance(live, ObservedRoute)
    return dict(live.weights)


def _service(workload: str) -> str:
    return names.workload_service("sentiment", workload)


def _condition(world: World, type_: ConditionType) -> tuple[ConditionStatus, Reason, str]:
    found = world.status.condition(type_)
    assert found
    return found.status, found.reason, found.message


def _serving(*, policy: InstallationPolicy = POLICY, **spec: Any) -> World:
    world = World(spec={"model": MODEL, "gateway": GATEWAY, "replicas": 2, **spec}, policy=policy)
    for _ in range(8):
        world.step()
        world.serve()
    world.settle()
    assert _condition(world, ConditionType.READY)[0] is ConditionStatus.TRUE
    return world


def _says(accepts: bool, reason: str, message: str) -> Callable[[ParentVerdict], ParentVerdict]:
    return lambda verdict: replace(verdict, accepts=accepts, reason=reason, message=message)


def test_a_workload_gets_no_weight_before_a_pod_of_it_is_verified() -> None:
    world = World(spec={"model": MODEL, "gateway": GATEWAY})
    world.settle()
    (candidate,) = (world.status.candidate,)
    assert candidate
    for route in (HTTP_ROUTE, GRPC_ROUTE):
        assert _weights(world, route) == {_service(candidate.workload): 0}
    world.serve()
    world.settle()
    assert _weights(world) == _weights(world, GRPC_ROUTE) == {_service(candidate.workload): 100}
    assert world.status.gateway is None
    assert _condition(world, ConditionType.ROUTING_SYNCED)[:2] == (ConditionStatus.TRUE, Reason.ROUTED)


def test_a_rollout_moves_the_weights_step_by_step_and_each_waits_for_the_gateways() -> None:
    world = _serving(rollout=STEPS)
    stable = world.status.stable
    assert stable
    world.edit(model=NEXT)
    world.route_verdict = lambda _: None
    for _ in range(8):
        world.step()
        world.serve()
    candidate, rollout = world.status.candidate, world.status.rollout
    assert candidate
    assert rollout
    # Nobody has said anything of the weights of the first step, so they are not counted as done.
    assert _weights(world) == {_service(stable.workload): 50, _service(candidate.workload): 50}
    assert (rollout.weight, rollout.observed_since) == (50, None)
    seen: list[dict[str, int]] = []
    world.route_verdict = lambda verdict: verdict
    for _ in range(20):
        world.step()
        world.serve()
        if not seen or seen[-1] != _weights(world):
            seen.append(_weights(world))
    world.settle()
    assert seen == [
        {_service(stable.workload): 50, _service(candidate.workload): 50},
        {_service(stable.workload): 0, _service(candidate.workload): 100},
        {_service(candidate.workload): 100},
    ]
    assert world.status.stable == candidate
    services = {child.name for child in world.children if child.kind is ChildKind.SERVICE}
    assert services == {"sentiment", _service(candidate.workload)}


def test_the_old_servers_stay_until_no_gateway_names_them() -> None:
    world = _serving(rollout=STEPS)
    stable = world.status.stable
    assert stable
    world.edit(model=NEXT)
    service = ChildId(kind=ChildKind.SERVICE, name=_service(stable.workload))
    for _ in range(40):
        named = _service(stable.workload) in _weights(world) | _weights(world, GRPC_ROUTE)
        pods = [pod for pod in world.pods.values() if pod.workload == stable.workload]
        assert not named or (service in world.children and len(pods) == 2)
        world.step(crash_after=1)
        world.serve()
    world.settle()
    assert service not in world.children


def test_an_aborted_revision_gives_the_weights_back() -> None:
    world = _serving(rollout={**STEPS, "steps": [{"weight": 50, "pause": "UntilPromoted"}]})
    stable = world.status.stable
    assert stable
    world.edit(model=NEXT)
    for _ in range(10):
        world.step()
        world.serve()
    assert world.status.rollout
    assert world.status.rollout.phase is RolloutPhase.SHIFTING
    assert sorted(_weights(world).values()) == [50, 50]
    world.edit(model=MODEL)
    for _ in range(10):
        world.step()
        world.serve()
    world.settle()
    assert _weights(world) == {_service(stable.workload): 100}
    assert world.status.stable == stable


@pytest.mark.parametrize(
    ("reason", "message", "stalls", "says"),
    [
        ("NotAllowedByListeners", "namespace is not allowed", True, "NotAllowedByListeners: namespace is not allowed"),
        ("NoMatchingParent", "", True, "(NoMatchingParent)"),
        ("RouteConflict", "an HTTPRoute has the name", True, "give gateway.grpcHostnames"),
        ("RefNotPermitted", "no grant", True, "RefNotPermitted: no grant"),
        ("Pending", "", False, "has yet to take over"),
        ("BackendNotFound", "no such Service", False, "has yet to take over"),
    ],
)
def test_what_a_gateway_says_is_told(reason: str, message: str, stalls: bool, says: str) -> None:
    world = World(spec={"model": MODEL, "gateway": GATEWAY}, route_verdict=_says(False, reason, message))
    for _ in range(6):
        world.step()
        world.serve()
    status, why, told = _condition(world, ConditionType.READY)
    assert (status, why) == (ConditionStatus.FALSE, Reason.ROUTE_REJECTED if stalls else Reason.ROUTING)
    assert says in told
    assert "Gateway infra/public" in told
    assert _condition(world, ConditionType.STALLED)[0] is (ConditionStatus.TRUE if stalls else ConditionStatus.FALSE)
    assert _condition(world, ConditionType.ROUTING_SYNCED)[1] is why
    world.route_verdict = lambda verdict: verdict
    world.settle()
    assert _condition(world, ConditionType.READY)[0] is ConditionStatus.TRUE


def test_a_word_about_an_earlier_route_counts_for_nothing() -> None:
    world = World(
        spec={"model": MODEL, "gateway": GATEWAY},
        route_verdict=lambda verdict: replace(verdict, generation=verdict.generation - 1),
    )
    for _ in range(6):
        world.step()
        world.serve()
    status, reason, message = _condition(world, ConditionType.READY)
    assert (status, reason) == (ConditionStatus.FALSE, Reason.ROUTING)
    assert "its controller has said nothing of it as it is now" in message


@pytest.mark.parametrize("absent", [frozenset(ROUTE_KINDS), frozenset({ChildKind.GRPC_ROUTE})])
def test_without_the_gateway_api_the_object_says_what_to_install_and_recovers(absent: frozenset[ChildKind]) -> None:
    world = World(spec={"model": MODEL, "gateway": GATEWAY}, absent_kinds=absent)
    for _ in range(6):
        world.step()
        world.serve()
    status, reason, message = _condition(world, ConditionType.STALLED)
    assert (status, reason) == (ConditionStatus.TRUE, Reason.GATEWAY_API_MISSING)
    assert "GRPCRoute of gateway.networking.k8s.io/v1" in message
    assert "install the Gateway API" in message
    assert not [child for child in world.children if child.kind in absent]
    world.absent_kinds = frozenset()
    world.settle()
    assert _condition(world, ConditionType.READY)[0] is ConditionStatus.TRUE


def test_a_kind_of_route_that_nobody_asks_for_need_not_be_there() -> None:
    parents = [{"name": "public", "protocol": "HTTP"}]
    world = World(
        spec={"model": MODEL, "gateway": {**GATEWAY, "parentRefs": parents}},
        absent_kinds=frozenset({ChildKind.GRPC_ROUTE}),
    )
    for _ in range(6):
        world.step()
        world.serve()
    world.settle()
    assert _condition(world, ConditionType.READY)[0] is ConditionStatus.TRUE
    assert GRPC_ROUTE not in world.children


def test_before_anybody_could_look_nothing_is_written_and_nothing_removed() -> None:
    world = _serving()
    world.absent_kinds = None
    del world.children[HTTP_ROUTE]
    planned = world.plan()
    assert [action for action in planned.actions if isinstance(action, Delete)] == []
    assert not [each for each in planned.actions if isinstance(each, Apply) and each.desired.id.kind in ROUTE_KINDS]


@pytest.mark.parametrize("other", ["Direct", "Gateway"])
@pytest.mark.parametrize("towards", [True, False])
def test_from_one_mode_to_another_and_back_nothing_is_left_behind(other: str, towards: bool) -> None:
    there, away = (GATEWAY, {"mode": other}) if towards else ({"mode": other}, GATEWAY)
    world = World(spec={"model": MODEL, "gateway": away, "replicas": 2})
    for _ in range(8):
        world.step()
        world.serve()
    world.settle()
    for gateway in (there, away, there):
        world.edit(gateway=gateway)
        for _ in range(30):
            _names_only_what_is_there(world)
            world.step(crash_after=1)
            world.now += timedelta(seconds=10)
        world.settle()
        assert _condition(world, ConditionType.READY)[0] is ConditionStatus.TRUE
        routes = {child for child in world.children if child.kind in ROUTE_KINDS}
        assert routes == ({HTTP_ROUTE, GRPC_ROUTE} if gateway is GATEWAY else set())
        assert (world.status.gateway is None) is (gateway["mode"] != "Gateway")


def _names_only_what_is_there(world: World) -> None:
    for route in (child for child in world.children.values() if isinstance(child, ObservedRoute)):
        there = {child.id.name for child in world.children.values() if isinstance(child, ObservedService)}
        assert set(route.weights) <= there


def test_a_spec_that_cannot_be_read_leaves_the_routes_as_they_are() -> None:
    world = _serving()
    routes = {id_: child for id_, child in world.children.items() if id_.kind in ROUTE_KINDS}
    services = {id_ for id_ in world.children if id_.kind is ChildKind.SERVICE}
    world.edit(model={"version": "newest"})
    world.settle()
    assert {id_: child for id_, child in world.children.items() if id_.kind in ROUTE_KINDS} == routes
    assert services <= world.children.keys()


def test_a_spec_that_cannot_be_read_opens_the_pods_to_nobody_else() -> None:
    peer = NetworkPeer.model_validate({"namespaceSelector": {"matchLabels": {"team": "platform"}}})
    access = NetworkAccess(namespace="conch-system", gateway_api_from=(peer,))
    world = _serving(policy=replace(POLICY, network_access=access))
    before = dict(world.policies)
    world.edit(model={"version": "newest"})
    world.settle()
    assert world.policies == before


def test_a_route_that_somebody_edits_is_written_again() -> None:
    world = _serving()
    live = world.children[HTTP_ROUTE]
    assert isinstance(live, ObservedRoute)
    world.children[HTTP_ROUTE] = replace(live, owned_hash="edited", weights={"elsewhere": 100})
    assert _condition(world, ConditionType.READY)[0] is ConditionStatus.TRUE
    world.settle()
    assert set(_weights(world).values()) == {100}
    assert "elsewhere" not in _weights(world)


COUNTS: Final = InferenceCounts(epoch="e", requests=1, failures=0, queue_seconds=0)
GOOD: Final = Samples(requests=2000, failures=1)
BAD: Final = Samples(requests=2000, failures=100)


def _live(world: World, samples: Samples, *, rounds: int) -> None:
    """Let time go by in which clients call; the operator begins anew after every single write."""
    for _ in range(rounds):
        world.serve()
        for name, pod in world.pods.items():
            if pod.ready and pod.report:
                world.pods[name] = replace(pod, report=pod.report.model_copy(update={"inference": COUNTS}))
        status = world.status
        if world.window and status.candidate and status.stable:
            both = {status.candidate.workload: samples, status.stable.workload: GOOD}
            world.window = ObservedWindow(name=world.window.name, samples=both)
        world.step(crash_after=1)
        world.now += timedelta(seconds=1)
        _names_only_what_is_there(world)


def _has_servers(world: World) -> bool:
    """Whether whatever a route gives weight to has a server that is ready."""
    ready = {_service(pod.workload) for pod in world.pods.values() if pod.ready}
    return all(service in ready for service, weight in _weights(world).items() if weight)


@pytest.mark.parametrize("strategy", ["Auto", "Surge", "Replace", "Recreate"])
@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("samples", [GOOD, BAD], ids=["good", "bad"])
def test_every_strategy_ends_well_whenever_the_operator_dies(strategy: str, replicas: int, samples: Samples) -> None:
    steps = [] if strategy == "Recreate" else [{"weight": 10}, {"weight": 50}]
    checks = [{"successRate": {"minimumPercent": 99}}]
    world = _serving(replicas=replicas, rollout={"strategy": strategy, "steps": steps, "analysis": checks})
    first = world.status.stable
    assert first
    world.edit(model=NEXT)
    lost = []
    for _ in range(100):
        _live(world, samples, rounds=1)
        lost.append(not _has_servers(world))
    world.settle()
    last = world.status.stable
    assert last
    assert (last == first) is (samples is BAD)
    assert _weights(world) == _weights(world, GRPC_ROUTE) == {_service(last.workload): 100}
    assert len(world.pods) == replicas
    # In the place of the only replica, or of all, nobody answers until it is there.
    assert strategy == "Recreate" or (strategy, replicas) == ("Replace", 1) or not any(lost)
