"""Mode GatewayAPI against the CRDs of the Gateway API: routes that they take, and clusters with and without them."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from tests.cluster.apiserver import ApiServer
from tests.integration.conftest import install_crd, model_deployment
from tests.support import gateway_api
from tests.support.operator_process import OperatorProcess
from tests.support.waiting import until

ROUTES: Final = ("httproute", "grpcroute")
GATEWAY: Final = {
    "mode": "GatewayAPI",
    "parentRefs": [
        {"name": "public", "namespace": "infra", "sectionName": "web", "protocol": "HTTP"},
        {"name": "public", "namespace": "infra", "sectionName": "rpc", "port": 8443, "protocol": "GRPC"},
    ],
    "hostnames": ["digits.example.com", "*.models.example.com"],
    "grpcHostnames": ["digits.grpc.example.com"],
}


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    """An API server of these tests alone: to begin with, it does not know the Gateway API."""
    with ApiServer(controllers=True) as server:
        install_crd(server)
        server.kubectl("create", "namespace", "conch-system")
        yield server


@pytest.fixture(scope="module")
def operator(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """An operator that leads."""
    with OperatorProcess(api.kubeconfig, tmp_path_factory.mktemp("operator")) as process:
        until(process.leads, "the operator to lead")
        yield process


def _apply(api: ApiServer, namespace: str, **spec: Any) -> None:
    api.kubectl("apply", "-f", "-", input=json.dumps(model_deployment("digits", namespace, **spec)))


def _condition(api: ApiServer, namespace: str, type_: str) -> dict[str, Any]:
    conditions = api.get("mdep", "digits", "-n", namespace).get("status", {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == type_), {})


def _route(api: ApiServer, namespace: str, kind: str) -> dict[str, Any]:
    live: dict[str, Any] = api.get(kind, "digits", "-n", namespace)
    return live


def _has_routes(api: ApiServer, namespace: str) -> bool:
    return all(api.kubectl("get", kind, "digits", "-n", namespace, check=False).returncode == 0 for kind in ROUTES)


def _as_a_controller_says(api: ApiServer, namespace: str, kind: str, **refused: str) -> None:
    """Write the status of a route for every Gateway that it names."""
    live = _route(api, namespace, kind)
    common = {"observedGeneration": live["metadata"]["generation"], "lastTransitionTime": "2026-01-01T00:00:00Z"}
    accepted = {"type": "Accepted", "status": "False" if refused else "True", "reason": "Accepted", "message": ""}
    resolved = {"type": "ResolvedRefs", "status": "True", "reason": "ResolvedRefs", "message": ""}
    parents = [
        {
            "parentRef": ref,
            "controllerName": "example.com/controller",
            "conditions": [{**accepted, **refused, **common}, {**resolved, **common}],
        }
        for ref in live["spec"]["parentRefs"]
    ]
    patch = json.dumps({"status": {"parents": parents}})
    api.kubectl("patch", kind, "digits", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)


def _until(api: ApiServer, namespace: str, type_: str, holds: Callable[[dict[str, Any]], bool], what: str) -> str:
    def met() -> dict[str, Any] | None:
        found = _condition(api, namespace, type_)
        return found if found and holds(found) else None

    message: str = until(met, what)["message"]
    return message


def test_the_gateway_api_may_come_and_go(api: ApiServer, operator: OperatorProcess, namespace: str) -> None:
    del operator
    _apply(api, namespace, gateway=GATEWAY)
    message = _until(
        api, namespace, "Stalled", lambda found: found["reason"] == "GatewayAPIMissing", "what is missing to be told"
    )
    assert "does not serve HTTPRoute and GRPCRoute" in message
    assert "install the Gateway API" in message
    # Everything else is done meanwhile, and for others nothing is in the way.
    until(lambda: api.get("deployments", "-n", namespace)["items"], "the servers to be made all the same")
    gateway_api.install(api)
    until(lambda: _has_routes(api, namespace), "the routes to be written")
    _until(api, namespace, "Stalled", lambda found: found["status"] == "False", "the object to go on")
    gateway_api.uninstall(api)
    _until(
        api,
        namespace,
        "Stalled",
        lambda found: found["reason"] == "GatewayAPIMissing",
        "the loss of the Gateway API to be told",
    )
    gateway_api.install(api)
    until(lambda: _has_routes(api, namespace), "the routes to be written anew")


@pytest.fixture
def routed(api: ApiServer, operator: OperatorProcess, namespace: str) -> str:
    """A namespace whose object has its routes."""
    del operator
    gateway_api.install(api)
    _apply(api, namespace, gateway=GATEWAY, replicas=2)
    until(lambda: _has_routes(api, namespace), "the routes to be written")
    return namespace


def test_the_routes_say_what_was_asked_for(api: ApiServer, routed: str) -> None:
    http, grpc = (_route(api, routed, kind) for kind in ROUTES)
    assert http["spec"]["hostnames"] == ["digits.example.com", "*.models.example.com"]
    assert grpc["spec"]["hostnames"] == ["digits.grpc.example.com"]
    assert [ref["sectionName"] for ref in http["spec"]["parentRefs"]] == ["web"]
    assert [(ref["sectionName"], ref["port"]) for ref in grpc["spec"]["parentRefs"]] == [("rpc", 8443)]
    workload = api.get("mdep", "digits", "-n", routed)["status"]["candidate"]["workload"]
    for route, port in ((http, 8000), (grpc, 8001)):
        (backend,) = route["spec"]["rules"][0]["backendRefs"]
        # Nothing of it is verified yet.
        assert (backend["name"], backend["port"], backend["weight"]) == (f"digits-{workload}", port, 0)
        assert route["metadata"]["ownerReferences"][0]["kind"] == "ModelDeployment"


def test_routes_at_rest_cost_no_write(api: ApiServer, operator: OperatorProcess, routed: str) -> None:
    for kind in ROUTES:
        _as_a_controller_says(api, routed, kind)
    before = {kind: _route(api, routed, kind)["metadata"]["generation"] for kind in ROUTES}
    writes: Callable[[], float] = lambda: operator.metric("conch_actions_total")  # noqa: E731 - a name for what is read four times
    seen = -1.0

    def at_rest() -> bool:
        nonlocal seen
        earlier, seen = seen, writes()
        return earlier == seen

    until(at_rest, "the operator to come to rest")
    api.kubectl("annotate", "mdep", "digits", "-n", routed, "touched=yes")
    until(at_rest, "the operator to look again")
    assert writes() == seen
    assert {kind: _route(api, routed, kind)["metadata"]["generation"] for kind in ROUTES} == before


@pytest.mark.parametrize("kind", ROUTES)
def test_a_route_is_repaired_and_comes_back(api: ApiServer, routed: str, kind: str) -> None:
    whole = _route(api, routed, kind)["spec"]
    patch = json.dumps({"spec": {"hostnames": ["elsewhere.example.com"]}})
    api.kubectl("patch", kind, "digits", "-n", routed, "--type=merge", "-p", patch)
    until(lambda: _route(api, routed, kind)["spec"] == whole, "the route to be as it was")
    uid = _route(api, routed, kind)["metadata"]["uid"]
    api.kubectl("delete", kind, "digits", "-n", routed)
    until(lambda: _route(api, routed, kind)["metadata"]["uid"] != uid, "the route to be back")
    assert _route(api, routed, kind)["spec"] == whole


def test_what_controllers_say_is_told(api: ApiServer, routed: str) -> None:
    message = _until(
        api, routed, "RoutingSynced", lambda found: "said nothing of it" in found["message"], "silence to be told"
    )
    assert "Gateway infra/public, listener web" in message
    _as_a_controller_says(api, routed, "httproute", reason="NotAllowedByListeners", message="not from this namespace")
    message = _until(
        api, routed, "RoutingSynced", lambda found: found["reason"] == "RouteRejected", "a refusal to be told"
    )
    assert "HTTPRoute digits (NotAllowedByListeners: not from this namespace)" in message
    for kind in ROUTES:
        _as_a_controller_says(api, routed, kind)
    _until(api, routed, "RoutingSynced", lambda found: found["status"] == "True", "the routes to be done")


def test_the_routes_go_with_the_mode(api: ApiServer, routed: str) -> None:
    _apply(api, routed, replicas=2)
    until(lambda: not _has_routes(api, routed), "the routes to be deleted")
    until(lambda: api.get("mdep", "digits", "-n", routed)["status"].get("gateway"), "a place at the gateways")
