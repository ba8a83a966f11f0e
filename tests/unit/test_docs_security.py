"""docs/security.md says of ports, keys and policies only what is so, and leaves no port out."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from conch.api import gateway_pod, names
from conch.api.network_peer import NetworkPeer
from conch.api.pod import RESTRICTED_APIS
from conch.api.reasons import Reason
from conch.api.status import GatewayStatus
from tests import generate
from tests.support.network_policies import lets_in
from tests.unit.test_network_policies import CHART, CHILDREN, GATEWAY, OPERATOR, OUTSIDE, SERVER, policies_in

DOCUMENT: Final = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
PODS: Final = {"operator": OPERATOR, "gateway": GATEWAY, "model pod": SERVER}
VALUES: Final[dict[str, Any]] = yaml.safe_load((generate.CHART / "values.yaml").read_text())


def _ports(text: str) -> set[int]:
    first, _, last = text.partition(" to ")
    return set(range(int(first), int(last) + 1)) if last else {int(each) for each in text.split(", ")}


def _rows() -> list[list[str]]:
    table = DOCUMENT.partition("| pod | port |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table]
    assert len(rows) >= 15
    return rows


def test_every_port_of_every_pod_is_in_the_table() -> None:
    listed: dict[str, set[int]] = defaultdict(set)
    for pod, ports, *_ in _rows():
        listed[pod] |= _ports(ports)
    assert listed["operator"] == OPERATOR.ports
    assert listed["model pod"] == SERVER.ports
    own = {gateway_pod.ADMIN_PORT, gateway_pod.HOLD_PORT, *GATEWAY.ports}
    models = VALUES["gateway"]["ports"]
    assert listed["gateway"] == own | set(range(models["first"], models["last"] + 1))


def _ends() -> set[tuple[str, int]]:
    """Every port, and of a range its ends."""
    return {(row[0], int(port)) for row in _rows() for port in re.findall(r"\d+", row[1])}


@pytest.mark.parametrize(("pod", "port"), sorted(_ends()))
def test_who_may_connect_is_what_the_policies_let_in(pod: str, port: int) -> None:
    if port in (gateway_pod.ADMIN_PORT, gateway_pod.HOLD_PORT):
        # Who listens on loopback needs no policy: tests/unit/test_gateway_render.py.
        return
    said = " ".join(row[3] for row in _rows() if row[0] == pod and port in _ports(row[1])).partition(";")[0]
    policies = policies_in(CHART, CHILDREN)
    let_in = {
        "everyone": lets_in(policies, OUTSIDE, PODS[pod], port),
        "operator": lets_in(policies, OPERATOR, PODS[pod], port),
        "gateways": lets_in(policies, GATEWAY, PODS[pod], port),
    }
    if let_in["everyone"]:
        assert said == "everyone"
    else:
        assert {who for who, may in let_in.items() if may} == {who for who in let_in if who in said}


def test_the_restricted_apis_are_those_of_tritons_arguments() -> None:
    (row,) = [row for row in _rows() if row[4] == "the admin key"]
    assert tuple(re.findall(r"`([\w-]+)`", row[2])) == RESTRICTED_APIS


def test_names_are_those_that_are_given() -> None:
    rendered = {each["metadata"]["name"] for each in yaml.safe_load_all(generate.render()) if each}
    named = set(re.findall(r"`(conch-[\w-]+)`", DOCUMENT))
    assert len(named) >= 5
    assert named <= rendered
    assert f"`{names.network_policy('NAME')}`" in DOCUMENT
    assert "`NAME-…-admin-key`" in DOCUMENT
    assert re.fullmatch(r"NAME-\w+-admin-key", names.admin_key_secret("NAME", "uid"))
    assert "`status.gateway.unselectedSince`" in DOCUMENT
    assert "unselectedSince" in {field.alias for field in GatewayStatus.model_fields.values()}


def test_the_reasons_that_it_names_are_reasons() -> None:
    named = set(re.findall(r"`([A-Z][a-z]+[A-Z]\w+)`", DOCUMENT)) - {"EndpointSlices", "GatewayAPI"}
    assert named == {"NameConflict", "AgentUnreachable", "GatewaySilent"}
    assert named <= {reason.value for reason in Reason}


def test_its_values_are_the_charts() -> None:
    paths = re.findall(r"`((?:policy|networkPolicy)\.[\w.]+|gateway\.ports)`", DOCUMENT)
    assert len(paths) >= 4
    for path in set(paths):
        values = VALUES
        for key in path.split("."):
            assert key in values, path
            values = values[key]


def test_its_example_is_taken_by_the_operator() -> None:
    (block,) = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", DOCUMENT, flags=re.DOTALL)]
    assert block.keys() == {"networkPolicy"}
    (peer,) = [NetworkPeer.model_validate(each) for each in block["networkPolicy"]["metricsFrom"]]
    assert peer.pod_selector is not None
