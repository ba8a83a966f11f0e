"""The chart on a real API server: installed by Helm, upgraded, and as the plain manifest."""

import json
import subprocess
from collections.abc import Iterator
from functools import partial

import pytest

from tests import generate
from tests.cluster import binaries
from tests.cluster.apiserver import ApiServer
from tests.support.installed_chart import InstalledChart
from tests.support.waiting import until

POLICIES = ("conch-operator-pods", "conch-operator-writes", "conch-references", "conch-runtime-images")


@pytest.fixture
def chart() -> Iterator[InstalledChart]:
    """A cluster without the chart."""
    with ApiServer(controllers=True) as api:
        yield InstalledChart(api)


def _helm(chart: InstalledChart, *arguments: str) -> None:
    program = binaries.ensure("helm") / "helm"
    done = subprocess.run(
        [str(program), f"--kubeconfig={chart.api.kubeconfig}", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_helm_installs_upgrades_and_leaves_behind_only_what_must_stay(chart: InstalledChart) -> None:
    release = ("conch", str(generate.CHART), "--namespace", generate.NAMESPACE)
    _helm(chart, "install", *release, "--create-namespace")
    key = _installation_key(chart)
    assert len(key) == 64
    token = _gateway_token(chart)
    assert len(token) == 64
    assert token != key
    before = _checksum(chart)

    _helm(chart, "upgrade", *release, "--set", "workers=2")
    assert _installation_key(chart) == key
    assert _gateway_token(chart) == token
    assert _checksum(chart) != before, "changed settings must restart the operator"

    _helm(chart, "uninstall", "conch", "--namespace", generate.NAMESPACE)
    assert chart.run("get", "crd", "modeldeployments.conch.dev").returncode == 0
    assert chart.run("get", "clusterrole", "conch-operator").returncode != 0

    _helm(chart, "install", *release)
    assert _installation_key(chart) == key
    assert _gateway_token(chart) == token


@pytest.mark.parametrize("template", ["installation-key", "gateway-token"])
def test_a_key_rendered_anew_is_refused_instead_of_replacing_the_first(chart: InstalledChart, template: str) -> None:
    chart.must("create", "namespace", generate.NAMESPACE)
    secret = ("--show-only", f"templates/{template}.yaml")
    chart.api.kubectl("apply", "--server-side", "-f", "-", input=generate.render(*secret))
    again = chart.api.kubectl("apply", "--server-side", "-f", "-", input=generate.render(*secret), check=False)
    assert again.returncode != 0
    assert "immutable" in again.stderr


def test_the_manifest_applies_without_warnings_and_its_pods_are_admitted(chart: InstalledChart) -> None:
    manifest = str(generate.INSTALL)
    applied = chart.run("apply", "--server-side", "--validate=strict", "-f", manifest)
    assert applied.returncode == 0, applied.stderr
    assert not applied.stderr
    # The namespace enforces PodSecurity `restricted`.
    until(
        lambda: len(chart.api.get("pods", "-n", generate.NAMESPACE)["items"]) == 4,
        "the pods of operator and gateways to be admitted",
    )
    assert chart.run("-n", generate.NAMESPACE, "get", "secrets", "-o", "name").stdout == ""


def _is_type_checked(chart: InstalledChart, policy: str) -> bool:
    return "typeChecking" in _status(chart, policy)


def test_every_policy_type_checks_against_the_schemas(chart: InstalledChart) -> None:
    chart.must("apply", "--server-side", "-f", str(generate.INSTALL))
    for policy in POLICIES:
        until(partial(_is_type_checked, chart, policy), f"{policy} to be type-checked")
        assert _status(chart, policy)["typeChecking"] == {}


def _status(chart: InstalledChart, policy: str) -> dict[str, object]:
    status: dict[str, object] = chart.api.get("validatingadmissionpolicy", policy).get("status", {})
    return status


def _installation_key(chart: InstalledChart) -> str:
    return _secret(chart, "conch-installation-key", "key")


def _gateway_token(chart: InstalledChart) -> str:
    return _secret(chart, "conch-gateway-token", "token")


def _secret(chart: InstalledChart, name: str, entry: str) -> str:
    template = f"{{{{.data.{entry} | base64decode}}}}"
    return chart.must("-n", generate.NAMESPACE, "get", "secret", name, "-o", f"go-template={template}")


def _checksum(chart: InstalledChart) -> str:
    deployment = json.loads(chart.must("-n", generate.NAMESPACE, "get", "deployment", "conch-operator", "-o", "json"))
    return str(deployment["spec"]["template"]["metadata"]["annotations"]["checksum/settings"])
