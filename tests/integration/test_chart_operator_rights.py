"""The operator's rights: enough for everything it does, and not one more than it uses."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests import generate
from tests.cluster.apiserver import ApiServer
from tests.support import gateway_api
from tests.support.installed_chart import OPERATOR, InstalledChart, installed_chart, model_deployment
from tests.support.operator_process import OperatorProcess
from tests.support.waiting import until

_FOR_RARE_MOMENTS: Final = {
    # After a status write that met a conflict.
    ("get", "modeldeployments"),
    # A pod that leaves is marked if requests go to it, for which an agent must have verified it: tests/e2e.
    ("patch", "pods"),
}


@pytest.fixture(scope="module")
def chart() -> Iterator[InstalledChart]:
    """A cluster with the chart, without its pods."""
    with installed_chart("--set", "replicas=0", controllers=True) as installed:
        gateway_api.install(installed.api)
        yield installed


def test_the_operator_uses_all_of_its_rights_and_misses_none(chart: InstalledChart, tmp_path: Path) -> None:
    with OperatorProcess(_kubeconfig_of_operator(chart, tmp_path), tmp_path) as operator:
        until(operator.leads, "the operator to lead")
        _live_through_everything(chart)
        # A request is in the log a moment after its answer.
        until(lambda: _used(chart) | _FOR_RARE_MOMENTS >= _granted(chart), "every right to be used")
    calls = [call for call in _audit(chart.api) if call["user"]["username"] == OPERATOR]
    refused = [call["requestURI"] for call in calls if call["responseStatus"]["code"] in (401, 403)]
    assert not refused
    assert _used(chart) | _FOR_RARE_MOMENTS == _granted(chart)


def _used(chart: InstalledChart) -> set[tuple[str, str]]:
    calls = (call for call in _audit(chart.api) if call["user"]["username"] == OPERATOR)
    return {right for call in calls if "objectRef" in call for right in _rights(call)}


def _live_through_everything(chart: InstalledChart) -> None:
    """Children of every kind are created, changed, repaired and deleted."""

    def names(kind: str) -> list[str]:
        return [item["metadata"]["name"] for item in chart.api.get(kind, "-n", "team")["items"]]

    def is_gone(kind: str) -> bool:
        return "sentiment-old" not in names(kind)

    def is_as(kind: str, wanted: list[str]) -> bool:
        return names(kind) == wanted

    def has_children(number: int) -> bool:
        return len(names("deployments")) == number and len(names("controllerrevisions")) == number

    chart.apply(model_deployment(replicas=2))
    until(lambda: has_children(1) and names("poddisruptionbudgets") == ["sentiment"], "the children")
    # Pods report nothing here, so only a change of the pod template brings a second workload and removes the first.
    chart.apply(model_deployment(replicas=2, runtime={"logLevel": {"verbose": 1}}))
    until(lambda: len(names("deployments")) == 1 and len(names("pods")) == 2, "the second workload alone, with pods")
    chart.apply(model_deployment(replicas=0, runtime={"logLevel": {"verbose": 1}}))
    until(lambda: not names("poddisruptionbudgets"), "the disruption budget to be deleted")
    _endpoints_are_left_behind(chart)
    until(lambda: "sentiment" not in names("endpoints"), "what nobody keeps to be deleted")
    for kind in ("services", "networkpolicies"):
        chart.must("create", "-f", "-", objects=_child_of_another_version(chart, kind))
    for kind in ("services", "networkpolicies"):
        until(partial(is_gone, kind), f"{kind} that are no longer wanted to be deleted")
    routes = ("httproutes", "grpcroutes")
    for gateway in ({"mode": "GatewayAPI", "parentRefs": [{"name": "public"}]}, {"mode": "Direct"}):
        chart.apply(model_deployment("routed", replicas=0, gateway=gateway))
        wanted = ["routed"] if "parentRefs" in gateway else []
        for kind in routes:
            until(partial(is_as, kind, wanted), f"{kind} to be as in mode {gateway['mode']}")


def _endpoints_are_left_behind(chart: InstalledChart) -> None:
    """As after a time in mode Direct: Kubernetes copies them to a slice, for the Service selects nothing."""
    labels = chart.api.get("service", "sentiment", "-n", "team")["metadata"]["labels"]
    address = {"addresses": [{"ip": "10.20.30.40"}], "ports": [{"name": "http", "port": 8000}]}
    metadata = {"name": "sentiment", "namespace": "team", "labels": labels}
    endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": [address]}
    chart.must("create", "-f", "-", objects=endpoints)


_SPECS: Final[dict[str, dict[str, Any]]] = {
    "services": {"selector": {}, "ports": [{"port": 80}]},
    "networkpolicies": {"podSelector": {"matchLabels": {"app": "none"}}},
}


def _child_of_another_version(chart: InstalledChart, kind: str) -> dict[str, Any]:
    """Like the object's, but under a name that this version of Conch does not give."""
    live = next(each for each in chart.api.get(kind, "-n", "team")["items"] if "ownerReferences" in each["metadata"])
    kept = {key: live["metadata"][key] for key in ("namespace", "labels", "ownerReferences")}
    return {
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        "metadata": {**kept, "name": "sentiment-old"},
        "spec": _SPECS[kind],
    }


def _rights(call: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a call needs; a server-side apply that makes the object needs `create` as well."""
    reference = call["objectRef"]
    resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
    yield call["verb"], resource
    if call["verb"] == "patch" and call["responseStatus"]["code"] == 201:
        yield "create", resource


def _granted(chart: InstalledChart) -> set[tuple[str, str]]:
    rules = chart.api.get("clusterrole", "conch-operator")["rules"]
    return {(verb, resource) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}


def _audit(api: ApiServer) -> Iterator[dict[str, Any]]:
    written = (api.logs / "audit.log").read_text()
    for line in written[: written.rfind("\n") + 1].splitlines():
        yield json.loads(line)


def _kubeconfig_of_operator(chart: InstalledChart, folder: Path) -> Path:
    """As the pod would connect: with a token of the chart's service account."""
    token = chart.must("-n", generate.NAMESPACE, "create", "token", "conch-operator").strip()
    config = json.loads(chart.must("config", "view", "--raw", "--flatten", "-o", "json"))
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    path = folder / "operator.kubeconfig"
    path.write_text(json.dumps(config))
    return path
