"""Which pod a person's connection goes to."""

from typing import Any

import pytest

from conch.api.model_deployment import parse
from conch.client.errors import ClientError, NothingReadyError
from conch.client.target import Target, choose_gateway, choose_model_pod, model_name
from tests.unit.test_why_chain import a_live_pod, body

STABLE = {"revision": "r1", "version": 3, "workload": "w1"}
CANDIDATE = {"revision": "r2", "version": 4, "workload": "w2"}


def pod(name: str, *, workload: str = "w1", ready: bool = True, deleting: bool = False) -> dict[str, Any]:
    live = a_live_pod(
        name, workload=workload, phase="Running", conditions=[{"type": "Ready", "status": str(bool(ready))}]
    )
    if deleting:
        live["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return live


def chosen(*pods: dict[str, Any], avoid: frozenset[str] = frozenset(), **status: Any) -> Target:
    return choose_model_pod(parse(body(**({"stable": STABLE} | status))), pods, avoid=avoid)


def test_a_ready_pod_of_the_stable_revision_is_chosen_with_its_version() -> None:
    target = chosen(
        pod("a", workload="w2"), pod("b", ready=False), pod("c", deleting=True), pod("e"), pod("d"), candidate=CANDIDATE
    )
    assert (target.pod, target.detail, target.http_port, target.grpc_port) == ("d", "version 3", 8000, 8001)
    assert (target.namespace, target.model) == ("team-a", "sentiment")


def test_the_candidate_is_chosen_where_nothing_else_is_ready() -> None:
    pods = (pod("a", ready=False), pod("b", workload="w2"))
    assert chosen(*pods, candidate=CANDIDATE).detail == "version 4"
    assert chosen(*pods, stable=None, candidate=CANDIDATE).pod == "b"


def test_a_pod_that_drains_and_one_of_no_revision_are_not_chosen() -> None:
    share = {"revision": "r1", "workload": "w1", "weight": 100, "draining": ["a"]}
    assert chosen(pod("a"), pod("b"), pod("0", workload="w0"), traffic=[share]).pod == "b"


def test_a_pod_that_was_lost_is_chosen_only_if_there_is_no_other() -> None:
    assert chosen(pod("a"), pod("b"), avoid=frozenset({"a"})).pod == "b"
    assert chosen(pod("a"), avoid=frozenset({"a"})).pod == "a"


def test_where_nothing_is_ready_it_points_to_conch_why_and_to_the_gateways() -> None:
    with pytest.raises(NothingReadyError, match=r"No pod of team-a/sentiment is ready; conch why sentiment -n team-a"):
        chosen(pod("a", ready=False))
    with pytest.raises(NothingReadyError, match=r"With --via-gateway a request waits for a replica\."):
        chosen(gateway={"port": 10_001})


def test_a_gateway_has_one_port_for_both() -> None:
    owner = parse(body(gateway={"port": 10_001}))
    pods = [pod("gateway-a", ready=False), pod("gateway-b")]
    target = choose_gateway(owner, pods, namespace="conch-system")
    assert (target.namespace, target.pod, target.http_port, target.grpc_port, target.detail) == (
        "conch-system",
        "gateway-b",
        10_001,
        10_001,
        "gateway",
    )


@pytest.mark.parametrize(
    ("url", "name"),
    [("https://sentiment.team-a.svc:8000", "sentiment.team-a.svc"), ("http://sentiment.team-a.svc:8000", None)],
)
def test_where_gateways_speak_tls_their_certificate_names_the_object(url: str, name: str | None) -> None:
    owner = parse(body(gateway={"port": 10_001}, url=url, stable=STABLE))
    assert choose_gateway(owner, [pod("gateway-a")], namespace="conch-system").tls_server_name == name
    assert choose_model_pod(owner, [pod("a")]).tls_server_name is None


def test_without_a_port_or_a_ready_gateway_it_says_so() -> None:
    with pytest.raises(ClientError, match=r"has no port on the gateways: its gateway\.mode is not Gateway, or"):
        choose_gateway(parse(body()), [pod("gateway-a")], namespace="conch-system")
    with pytest.raises(NothingReadyError, match="No gateway is ready in namespace elsewhere"):
        choose_gateway(parse(body(gateway={"port": 10_001})), [], namespace="elsewhere")


def test_requests_call_the_model_by_its_own_name() -> None:
    source = {"uri": "https://models.example/a.onnx"}
    assert model_name(parse(body(spec={"model": {"name": "bert", "version": 1, "source": source}}))) == "bert"
    assert model_name(parse(body(spec={"model": "unreadable"}))) == "sentiment"
