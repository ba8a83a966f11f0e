"""What the chart's roles do not allow the operator, and what they allow users."""

from collections.abc import Iterator
from functools import partial

import pytest

from tests import generate
from tests.support.installed_chart import GATEWAY, OPERATOR, InstalledChart, installed_chart, model_deployment
from tests.support.waiting import until


@pytest.fixture(scope="module")
def chart() -> Iterator[InstalledChart]:
    """A cluster with the chart, its controllers (for aggregated roles) and somebody's Secret."""
    with installed_chart("--set", "replicas=0", controllers=True) as installed:
        installed.must("-n", "team", "create", "secret", "generic", "of-the-team", "--from-literal=key=value")
        for role in ("view", "edit", "admin"):
            installed.must("-n", "team", "create", "rolebinding", role, f"--clusterrole={role}", f"--user=a-{role}")
        installed.must("-n", "team", "create", "deployment", "mine", "--image=mine", "--replicas=0")
        installed.must("create", "-f", "-", objects=model_deployment("mine"))
        # The controller manager aggregates in its own time; the last of the rights that are asked for below:
        for user, verb in (("a-view", "get"), ("a-edit", "create"), ("a-edit", "get"), ("a-admin", "create")):
            until(partial(_may, installed, user, verb, "modeldeployments"), f"{user} to have the aggregated rights")
        yield installed


@pytest.mark.parametrize(
    "attempt",
    [
        "-n team get secret of-the-team",
        "-n team get secrets",
        "get secrets -A",
        "-n team delete secret of-the-team",
        "-n team patch secret of-the-team -p {}",
        f"-n {generate.NAMESPACE} get secret conch-installation-key",
        "-n team get serviceaccounts",
        "-n team create serviceaccount mine",
        "-n team create token default",
        "create clusterrole mine --verb=get --resource=secrets",
        "-n team create rolebinding mine --clusterrole=admin --user=me",
        "-n team run mine --image=mine",
        "-n team delete pod mine",
        "-n team scale deployment mine --replicas=2",
        "-n team delete modeldeployment mine",
        "-n team annotate modeldeployment mine a=b",
        "delete node mine",
        "-n team get endpoints",
        f"-n {generate.NAMESPACE} get secret conch-gateway-token",
        "get namespaces",
        "create namespace mine",
        "get customresourcedefinitions",
        "get validatingadmissionpolicies",
        "delete validatingadmissionpolicy conch-operator-writes",
        "-n team get leases",
        f"-n {generate.NAMESPACE} delete lease conch-operator",
        "-n team get events",
    ],
)
def test_the_operator_may_not(chart: InstalledChart, attempt: str) -> None:
    answer = chart.run(*attempt.split(), by=OPERATOR)
    assert answer.returncode != 0
    assert "forbidden" in answer.stderr.lower(), answer.stderr
    assert "ValidatingAdmissionPolicy" not in answer.stderr


@pytest.mark.parametrize(
    "attempt",
    [
        "-n team get secret of-the-team",
        f"-n {generate.NAMESPACE} get secret conch-gateway-token",
        "get pods -A",
        "-n team get pod mine",
        f"-n {generate.NAMESPACE} get pods",
        f"-n {generate.NAMESPACE} delete pod mine",
        "get nodes",
        "-n team get configmaps",
        "-n team get services",
        "-n team get endpoints",
        "-n team delete endpointslice mine",
        "-n team annotate modeldeployment mine a=b",
        "-n team delete modeldeployment mine",
        "-n team patch modeldeployment mine --subresource=status --type=merge -p {}",
        "-n team get leases",
    ],
)
def test_a_gateway_may_not(chart: InstalledChart, attempt: str) -> None:
    answer = chart.run(*attempt.split(), by=GATEWAY)
    assert answer.returncode != 0
    assert "forbidden" in answer.stderr.lower(), answer.stderr


@pytest.mark.parametrize(
    "attempt",
    [
        "get modeldeployments -A",
        "-n team get modeldeployment mine",
        "get endpointslices -A",
        f"-n {generate.NAMESPACE} get pod its-own --ignore-not-found",
    ],
)
def test_a_gateway_reads_what_it_routes_and_its_own_pod(chart: InstalledChart, attempt: str) -> None:
    chart.must(*attempt.split(), by=GATEWAY)


@pytest.mark.parametrize("attempt", ["get nodes", "get endpointslices -A", "-n team get endpoints mine"])
def test_the_operator_reads_nodes_and_endpoints(chart: InstalledChart, attempt: str) -> None:
    chart.must(*attempt.split(), "--ignore-not-found", by=OPERATOR)


def test_an_empty_apply_that_would_return_a_secret_is_refused(chart: InstalledChart) -> None:
    meta = {"name": "of-the-team", "namespace": "team"}
    answer = chart.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta}, by=OPERATOR)
    assert 'cannot patch resource "secrets"' in answer.stderr


def test_another_lease_of_its_namespace_is_out_of_reach(chart: InstalledChart) -> None:
    answer = chart.run("-n", generate.NAMESPACE, "get", "lease", "other", by=OPERATOR)
    assert 'cannot get resource "leases"' in answer.stderr


@pytest.mark.parametrize(
    ("user", "verb", "resource", "allowed"),
    [
        ("a-view", "get", "modeldeployments", True),
        ("a-view", "watch", "modeldeployments", True),
        ("a-view", "create", "modeldeployments", False),
        ("a-edit", "get", "modeldeployments", True),
        ("a-edit", "create", "modeldeployments", True),
        ("a-edit", "update", "modeldeployments/scale", True),
        ("a-edit", "patch", "modeldeployments/status", False),
        ("a-admin", "deletecollection", "modeldeployments", True),
        ("a-admin", "update", "modeldeployments/status", False),
    ],
)
def test_rights_of_a_namespace_hold_for_its_model_deployments(
    chart: InstalledChart, user: str, verb: str, resource: str, allowed: bool
) -> None:
    assert _may(chart, user, verb, resource) is allowed


def test_an_editor_serves_a_model(chart: InstalledChart) -> None:
    chart.must("create", "-f", "-", by="a-edit", objects=model_deployment())


def _may(chart: InstalledChart, user: str, verb: str, resource: str) -> bool:
    plural, _, subresource = resource.partition("/")
    asked = [f"{plural}.conch.dev", *([f"--subresource={subresource}"] if subresource else [])]
    return chart.run("auth", "can-i", verb, *asked, "-n", "team", by=user).stdout.strip() == "yes"
