"""What docs/gateway.md says of mode GatewayAPI is so: its example, its fields, its reasons."""

import re
from pathlib import Path
from typing import Any, Final

import yaml

from conch.api.gateway import Gateway
from conch.api.model_deployment import InvalidSpec, parse_spec
from conch.api.reasons import Reason
from conch.core.desired.route import http_route
from tests.sim.world import World

SECTION: Final = (
    (Path(__file__).parents[2] / "docs" / "gateway.md")
    .read_text()
    .partition("## Through the platform's own Gateways\n")[2]
    .partition("\n## ")[0]
)
MODEL: Final = {"version": 1, "source": {"uri": "https://models.example.com/m.onnx"}}


def _example() -> dict[str, Any]:
    found = re.search(r"```yaml\n(.*?)```", SECTION, re.DOTALL)
    assert found
    spec: dict[str, Any] = yaml.safe_load(found[1])
    return {"model": MODEL, **spec}


def test_the_example_is_a_spec_with_a_route_for_each_protocol() -> None:
    spec = parse_spec(_example())
    assert not isinstance(spec, InvalidSpec), spec
    kinds = {
        str(action.desired.id.kind) for action in World(spec=_example()).plan().actions if hasattr(action, "desired")
    }
    assert {"HTTPRoute", "GRPCRoute"} <= kinds
    body = http_route(World(spec=_example()).owner, spec, {"w1": 100}, [1]).body
    assert body["spec"]["hostnames"] == ["sentiment.example.com"]


def test_the_fields_in_its_table_are_all_that_the_mode_has() -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", SECTION, re.MULTILINE))
    fields = {field.alias for field in Gateway.model_fields.values()}
    assert listed == fields - {"mode", "timeoutSeconds", "retries", "maxInFlight", "hold"}


def test_the_reasons_that_it_names_are_reasons() -> None:
    named = {"GatewayAPIMissing", "RouteRejected"}
    assert all(f"`{reason}`" in SECTION for reason in named)
    assert named <= {reason.value for reason in Reason}
