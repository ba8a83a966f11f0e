"""The NetworkPolicies of chart and operator, held against each other's pods as they are rendered."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from pydantic import ValidationError

from conch.api import gateway_pod, pod
from conch.api.network_peer import NetworkPeer
from conch.core.actions import Apply
from conch.core.observed_child import ChildKind
from conch.core.policy import NetworkAccess
from tests import generate
from tests.sim.world import POLICY, World
from tests.support.network_policies import Address, Pod, Policy, lets_in

GOLDEN: Final = Path(__file__).parents[1] / "golden"
MODEL: Final = {"version": 3, "source": {"uri": "https://models.example.com/sentiment/3.tar.gz"}}
OUTSIDE: Final = Address(address="192.0.2.7")


def _documents(text: str) -> list[Any]:
    return [each for each in yaml.safe_load_all(text) if each]


CHART: Final = _documents((GOLDEN / "chart" / "default.yaml").read_text())
CHILDREN: Final = _documents((GOLDEN / "children" / "minimal.yaml").read_text())


def policies_in(*documents: Iterable[Any]) -> list[Policy]:
    """The NetworkPolicies among rendered objects."""
    return [each for some in documents for each in some if each["kind"] == "NetworkPolicy"]


def _pod(documents: Iterable[Any], name: str = "") -> Pod:
    (deployment,) = (
        each for each in documents if each["kind"] == "Deployment" and each["metadata"]["name"].startswith(name)
    )
    return Pod.of(deployment)


OPERATOR: Final = _pod(CHART, "conch-operator")
GATEWAY: Final = _pod(CHART, "conch-gateway")
SERVER: Final = _pod(CHILDREN)
TENANT: Final = Pod(namespace=SERVER.namespace, labels={"app": "notebook"})
ELSEWHERE: Final = replace(TENANT, namespace="elsewhere")
SOURCES: Final[dict[str, Pod | Address]] = {
    "operator": OPERATOR,
    "gateway": GATEWAY,
    "server": SERVER,
    "a pod beside it": TENANT,
    "a pod of another namespace": ELSEWHERE,
    "a pod with the gateways' labels": replace(TENANT, labels=GATEWAY.labels),
    "a pod with the operator's labels": replace(TENANT, labels=OPERATOR.labels),
    "a server of another object": replace(SERVER, labels=SERVER.labels | {"conch.dev/model-deployment": "other"}),
    "outside": OUTSIDE,
}


def _let_in(policies: list[Policy], target: Pod, port: int) -> set[str]:
    return {name for name, source in SOURCES.items() if lets_in(policies, source, target, port)}


def test_every_port_is_for_those_who_need_it_and_for_nobody_else() -> None:
    policies = policies_in(CHART, CHILDREN)
    wanted: dict[str, dict[int, set[str]]] = {
        "server": {
            pod.HTTP_PORT: {"gateway"},
            pod.GRPC_PORT: {"gateway"},
            pod.METRICS_PORT: set(),
            pod.AGENT_PORT: {"operator"},
        },
        "gateway": {gateway_pod.REPORT_PORT: {"operator"}},
        "operator": {8080: set()},
    }
    for name, target in {"server": SERVER, "gateway": GATEWAY, "operator": OPERATOR}.items():
        let_in = {port: _let_in(policies, target, port) for port in target.ports}
        assert let_in == wanted[name], f"of {name}; a port that is new has to be thought of here"
    for target in (SERVER, OPERATOR):
        assert _let_in(policies, target, 9999) == set()


@pytest.mark.parametrize("port", [1024, gateway_pod.PORTS_FIRST, gateway_pod.PORTS_LAST, 32767])
def test_models_ports_of_the_gateways_are_for_everyone_wherever_their_range_is(port: int) -> None:
    assert _let_in(policies_in(CHART), GATEWAY, port) == set(SOURCES)


def test_for_a_network_that_knows_no_ranges_of_ports_the_gateways_policy_has_none() -> None:
    policies = policies_in(_documents(generate.render("--set", "networkPolicy.portRanges=false")))
    assert not [rule for policy in policies for rule in policy["spec"]["ingress"] if "endPort" in str(rule)]
    for port in (gateway_pod.PORTS_FIRST, gateway_pod.PORTS_LAST):
        assert _let_in(policies, GATEWAY, port) == set(SOURCES)
    assert _let_in(policies, OPERATOR, 8080) == set()


def test_a_policy_is_of_all_workloads_of_its_object_and_of_no_other() -> None:
    policies = policies_in(CHILDREN)
    for labels, closed in (({"conch.dev/workload": "later"}, True), ({"conch.dev/model-deployment": "other"}, False)):
        target = replace(SERVER, labels=SERVER.labels | labels)
        assert lets_in(policies, TENANT, target, pod.HTTP_PORT) is not closed


def test_in_mode_direct_tritons_api_is_for_everyone_and_the_rest_is_not() -> None:
    policies = [_of_object(World(spec={"model": MODEL, "gateway": {"mode": "Direct"}}))]
    for port in (pod.HTTP_PORT, pod.GRPC_PORT):
        assert _let_in(policies, SERVER, port) == set(SOURCES)
    assert _let_in(policies, SERVER, pod.AGENT_PORT) == {"operator"}
    assert _let_in(policies, SERVER, pod.METRICS_PORT) == set()


GATEWAY_API: Final = {"mode": "GatewayAPI", "parentRefs": [{"name": "public"}]}
PLATFORMS: Final = Pod(namespace="infra", labels={"app": "envoy"})


def test_in_mode_gateway_api_tritons_api_is_for_the_pods_that_are_named_and_else_for_everyone() -> None:
    policies = [_of_object(World(spec={"model": MODEL, "gateway": GATEWAY_API}))]
    for port in (pod.HTTP_PORT, pod.GRPC_PORT):
        assert _let_in(policies, SERVER, port) == set(SOURCES)
    peer = NetworkPeer.model_validate({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "infra"}}})
    access = NetworkAccess(namespace=generate.NAMESPACE, gateway_api_from=(peer,))
    named = replace(POLICY, network_access=access)
    policies = [_of_object(World(spec={"model": MODEL, "gateway": GATEWAY_API}, policy=named))]
    for port in (pod.HTTP_PORT, pod.GRPC_PORT):
        assert lets_in(policies, PLATFORMS, SERVER, port)
        # An object that comes from mode Gateway has clients there for a while.
        assert _let_in(policies, SERVER, port) == {"gateway"}
    assert _let_in(policies, SERVER, pod.AGENT_PORT) == {"operator"}
    assert not lets_in(policies, PLATFORMS, SERVER, pod.METRICS_PORT)
    others = [_of_object(World(spec={"model": MODEL}, policy=named))]
    assert not lets_in(others, PLATFORMS, SERVER, pod.HTTP_PORT)


PROMETHEUS: Final = Pod(namespace="monitoring", labels={"app": "prometheus"})
METRICS_FROM: Final = (
    '[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"monitoring"}},'
    '"podSelector":{"matchLabels":{"app":"prometheus"}}},{"ipBlock":{"cidr":"198.51.100.0/24"}}]'
)


def test_metrics_are_for_whom_the_platform_team_names() -> None:
    chart = _documents(generate.render("--set-json", f"networkPolicy.metricsFrom={METRICS_FROM}"))
    peers = tuple(NetworkPeer.model_validate(each) for each in yaml.safe_load(METRICS_FROM))
    access = NetworkAccess(namespace=generate.NAMESPACE, metrics_from=peers)
    policies = [
        *policies_in(chart),
        _of_object(World(spec={"model": MODEL}, policy=replace(POLICY, network_access=access))),
    ]
    node = Address(address="198.51.100.9")
    for target, port in ((SERVER, pod.METRICS_PORT), (GATEWAY, gateway_pod.REPORT_PORT), (OPERATOR, 8080)):
        for source in (PROMETHEUS, node):
            assert lets_in(policies, source, target, port)
        for source in (replace(PROMETHEUS, labels={}), replace(PROMETHEUS, namespace="elsewhere"), OUTSIDE):
            assert not lets_in(policies, source, target, port)
    for port in (pod.HTTP_PORT, pod.AGENT_PORT):
        assert not lets_in(policies, PROMETHEUS, SERVER, port)


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        ({}, "needs a namespaceSelector or an ipBlock"),
        ({"podSelector": {"matchLabels": {"app": "prometheus"}}}, "needs a namespaceSelector or an ipBlock"),
        ({"namespaceSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}, "either an ipBlock or selectors"),
        ({"ipBlock": {"cidr": "10.0.0.0/33"}}, "10.0.0.0/33"),
        ({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["192.0.2.0/24"]}}, "is not within"),
        ({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["fd00::/64"]}}, "is not within"),
        ({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}, "is not within"),
        ({"namespaceSelector": {"matchLabels": {}}}, "at least 1"),
        ({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}, "In and NotIn need values"),
        (
            {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}},
            "In and NotIn need values",
        ),
    ],
)
def test_a_peer_that_means_nothing_is_refused(peer: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        NetworkPeer.model_validate(peer)


@pytest.mark.parametrize(
    "peer",
    [
        {"namespaceSelector": {}},
        {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {}},
        {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["a", "b"]}]}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
    ],
)
def test_a_peer_is_written_as_it_was_given(peer: dict[str, Any]) -> None:
    assert NetworkPeer.model_validate(peer).to_wire() == peer


def test_without_network_policies_there_are_none() -> None:
    assert policies_in(_documents(generate.render("--set", "networkPolicy.enabled=false"))) == []
    assert list(_written(World(spec={"model": MODEL}, policy=replace(POLICY, network_access=None)))) == []


def _written(world: World) -> Iterator[Policy]:
    for action in world.plan().actions:
        if isinstance(action, Apply) and action.desired.id.kind is ChildKind.NETWORK_POLICY:
            yield action.desired.body


def _of_object(world: World) -> Policy:
    (body,) = _written(world)
    return body
