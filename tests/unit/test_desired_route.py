"""What the routes of the Gateway API let through, and to whom they send it."""

import re
from typing import Any, Final

import pytest

from conch.api.model import FURTHER_MODELS_MOST
from conch.core.actions import Apply
from conch.core.observed_child import ChildKind
from conch.gateway.envoy.restricted_apis import RESTRICTED_METHODS
from tests.sim.world import World

MODEL: Final = {"version": 3, "source": {"uri": "https://models/a.onnx"}}
PARENT: Final = {"name": "public", "namespace": "infra"}
LET_THROUGH: Final = re.compile(
    r"/v2(/health/(live|ready)|/models/stats|/models/[\w.-]+(/versions/\d+)?(/(ready|stats|infer|generate(_stream)?))?)?"
)
"""Written anew here: not one of Triton's APIs that need the admin key is among these."""


def _routes(gateway: dict[str, Any] | None = None, **spec: Any) -> dict[ChildKind, dict[str, Any]]:
    asked = {"mode": "GatewayAPI", "parentRefs": [PARENT], **(gateway or {})}
    actions = World(spec={"model": MODEL, "gateway": asked, **spec}).plan().actions
    applied = [action.desired for action in actions if isinstance(action, Apply)]
    return {
        each.id.kind: each.body["spec"]
        for each in applied
        if each.id.kind in (ChildKind.HTTP_ROUTE, ChildKind.GRPC_ROUTE)
    }


def _matches(route: dict[str, Any]) -> list[dict[str, Any]]:
    return [match for rule in route["rules"] for match in rule["matches"]]


def test_only_what_clients_need_is_let_through() -> None:
    routes = _routes(models=[{"name": "tokenizer", **MODEL}])
    paths = [match["path"] for match in _matches(routes[ChildKind.HTTP_ROUTE])]
    assert {path["type"] for path in paths} == {"Exact"}
    assert [path["value"] for path in paths if not LET_THROUGH.fullmatch(path["value"])] == []
    methods = [match["method"] for match in _matches(routes[ChildKind.GRPC_ROUTE])]
    assert {method["type"] for method in methods} == {"Exact"}
    assert {method["method"] for method in methods} & set(RESTRICTED_METHODS) == set()
    assert {(method["service"], method["method"]) for method in methods} >= {
        ("inference.GRPCInferenceService", "ModelInfer"),
        ("inference.GRPCInferenceService", "ModelStreamInfer"),
        ("grpc.health.v1.Health", "Check"),
    }


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/sentiment/infer",
        "/v2/models/sentiment/versions/3/infer",
        "/v2/models/sentiment/generate_stream",
        "/v2/health/ready",
        "/v2/models/tokenizer/versions/3/infer",
    ],
)
def test_inference_and_health_are_let_through(path: str) -> None:
    routes = _routes(models=[{"name": "tokenizer", **MODEL}])
    assert {"path": {"type": "Exact", "value": path}} in _matches(routes[ChildKind.HTTP_ROUTE])


def test_clients_call_the_model_by_its_own_name() -> None:
    routes = _routes(model={"name": "fraud_v2", **MODEL})
    paths = [match["path"]["value"] for match in _matches(routes[ChildKind.HTTP_ROUTE])]
    assert "/v2/models/fraud_v2/infer" in paths
    assert not [path for path in paths if "sentiment" in path]


def test_the_most_models_fit_into_a_route() -> None:
    models = [{"name": f"m{number}", **MODEL} for number in range(FURTHER_MODELS_MOST)]
    world = World(spec={"model": MODEL, "models": models, "gateway": {"mode": "GatewayAPI", "parentRefs": [PARENT]}})
    for _ in range(6):
        world.step()
        world.serve()
    # In the middle of a rollout clients may name two versions.
    world.edit(model={**MODEL, "version": 4})
    world.step()
    (route,) = (body for id_, body in world.routes.items() if id_.kind is ChildKind.HTTP_ROUTE)
    paths = [match["path"]["value"] for match in _matches(route["spec"])]
    assert {"/v2/models/sentiment/versions/3/infer", "/v2/models/sentiment/versions/4/infer"} <= set(paths)
    assert len(paths) == len(set(paths)) <= 128
    assert all(len(rule["matches"]) <= 64 for rule in route["spec"]["rules"])
    assert len({str(rule["backendRefs"]) for rule in route["spec"]["rules"]}) == 1


@pytest.mark.parametrize(
    ("parents", "kinds"),
    [
        ([PARENT], {ChildKind.HTTP_ROUTE, ChildKind.GRPC_ROUTE}),
        ([{**PARENT, "protocol": "HTTP"}], {ChildKind.HTTP_ROUTE}),
        ([{**PARENT, "protocol": "GRPC"}], {ChildKind.GRPC_ROUTE}),
        ([{**PARENT, "protocol": "HTTP"}, {"name": "b"}], {ChildKind.HTTP_ROUTE, ChildKind.GRPC_ROUTE}),
    ],
)
def test_each_protocol_has_the_gateways_that_carry_it(parents: list[dict[str, Any]], kinds: set[ChildKind]) -> None:
    routes = _routes({"parentRefs": parents})
    assert routes.keys() == kinds
    for kind, protocol in ((ChildKind.HTTP_ROUTE, "HTTP"), (ChildKind.GRPC_ROUTE, "GRPC")):
        wanted = [each["name"] for each in parents if each.get("protocol") in (None, protocol)]
        assert [ref["name"] for ref in routes.get(kind, {}).get("parentRefs", ())] == wanted


def test_hostnames_of_grpc_are_those_of_http_unless_given() -> None:
    same = _routes({"hostnames": ["a.example.com"]})
    assert {tuple(route["hostnames"]) for route in same.values()} == {("a.example.com",)}
    own = _routes({"hostnames": ["a.example.com"], "grpcHostnames": ["b.example.com"]})
    assert own[ChildKind.GRPC_ROUTE]["hostnames"] == ["b.example.com"]
    assert own[ChildKind.HTTP_ROUTE]["hostnames"] == ["a.example.com"]
    assert not [route for route in _routes().values() if "hostnames" in route]
