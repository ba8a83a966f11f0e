"""Operators that start, stop, are killed, lose the API server, or are two."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.cluster.apiserver import ApiServer
from tests.integration.conftest import install_crd, model_deployment
from tests.support.operator_process import OperatorProcess
from tests.support.waiting import until

NAMESPACE = "default"


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    """An API server of this module's own, since it is broken on purpose."""
    with ApiServer(controllers=True) as server:
        install_crd(server)
        server.kubectl("create", "namespace", "conch-system")
        yield server


@pytest.fixture(autouse=True)
def _clean(api: ApiServer) -> Iterator[None]:
    yield
    api.kubectl("delete", "mdep", "--all", "-n", NAMESPACE, "--wait=false")
    api.kubectl("delete", "lease", "--all", "-n", "conch-system")
    until(lambda: not _deployments(api), "the children to be collected", seconds=180)


def _create(api: ApiServer, name: str, **spec: Any) -> None:
    api.kubectl("apply", "-f", "-", input=json.dumps(model_deployment(name, NAMESPACE, **spec)))


def _deployments(api: ApiServer) -> dict[str, int]:
    """Names of the Deployments and the replicas that they ask for."""
    items = api.get("deployment", "-n", NAMESPACE)["items"]
    return {item["metadata"]["name"]: item["spec"]["replicas"] for item in items}


def _has_deployments(api: ApiServer, *replicas: int) -> bool:
    return sorted(_deployments(api).values()) == sorted(replicas)


def test_an_object_is_made_and_taken_away(api: ApiServer, tmp_path: Path) -> None:
    with OperatorProcess(api.kubeconfig, tmp_path):
        _create(api, "digits")
        until(lambda: _has_deployments(api, 1), "the Deployment")
        api.kubectl("delete", "mdep", "digits", "-n", NAMESPACE)
        kinds = "deployment,configmap,service,controllerrevision,poddisruptionbudget,networkpolicy,secret,pod"
        until(
            lambda: not api.get(kinds, "-n", NAMESPACE, "-l", "conch.dev/model-deployment")["items"],
            "everything to be gone",
            seconds=180,
        )


def test_what_changed_while_the_operator_was_killed_is_done_when_it_is_back(api: ApiServer, tmp_path: Path) -> None:
    _create(api, "edited")
    _create(api, "deleted")
    with OperatorProcess(api.kubeconfig, tmp_path) as operator:
        until(lambda: _has_deployments(api, 1, 1), "both Deployments")
        before = set(_deployments(api))
        operator.kill()
        api.kubectl("delete", "mdep", "deleted", "-n", NAMESPACE)
        _create(api, "edited", replicas=3)
        _create(api, "new", replicas=2)
        operator.start()
        until(lambda: _has_deployments(api, 2, 3), "the edited and the new Deployment")
        kept = set(_deployments(api)) & before
        assert len(kept) == 1, "the edited object keeps its Deployment"


def test_a_kill_at_any_moment_leaves_no_duplicates(api: ApiServer, tmp_path: Path) -> None:
    with OperatorProcess(api.kubeconfig, tmp_path) as operator:
        until(operator.leads, "leadership")
        for round_ in range(4):
            for number in range(5):
                _create(api, f"model-{number}", replicas=round_ + 1)
            # Killed as soon as the first of its writes shows, in the middle of the others.
            until(lambda: round_ + 1 in _deployments(api).values(), "a first write")  # noqa: B023 - used at once
            operator.kill()
            api.kubectl("delete", "lease", "--all", "-n", "conch-system")
            operator.start()
        until(lambda: _has_deployments(api, 4, 4, 4, 4, 4), "every object to have one Deployment of the last size")
        assert len(api.get("controllerrevision", "-n", NAMESPACE)["items"]) == 5


def test_a_killed_leader_is_followed_and_only_one_leads(api: ApiServer, tmp_path: Path) -> None:
    with (
        OperatorProcess(api.kubeconfig, tmp_path, name="one") as one,
        OperatorProcess(api.kubeconfig, tmp_path, name="two") as two,
    ):
        until(lambda: one.leads() or two.leads(), "a leader")
        leader, standby = (one, two) if one.leads() else (two, one)
        assert not standby.leads()
        _create(api, "digits")
        until(lambda: _has_deployments(api, 1), "the Deployment")
        assert standby.metric("conch_actions_total") == 0
        leader.kill()
        _create(api, "digits", replicas=2)
        until(lambda: _has_deployments(api, 2), "the standby to take over", seconds=90)
        until(standby.leads, "the standby to lead")


def test_a_leader_that_is_told_to_stop_hands_over(api: ApiServer, tmp_path: Path) -> None:
    with (
        OperatorProcess(api.kubeconfig, tmp_path, name="one") as one,
        OperatorProcess(api.kubeconfig, tmp_path, name="two") as two,
    ):
        until(lambda: one.leads() or two.leads(), "a leader")
        leader, standby = (one, two) if one.leads() else (two, one)

        def holder() -> str:
            return str(api.get("lease", "conch-operator", "-n", "conch-system")["spec"].get("holderIdentity", ""))

        stopped = holder()
        assert stopped
        assert leader.terminate() == 0
        assert holder() != stopped, "the Lease is given back, not left to run out"
        until(standby.leads, "the standby to lead")


def test_an_outage_of_the_api_server_is_waited_out(api: ApiServer, tmp_path: Path) -> None:
    with OperatorProcess(api.kubeconfig, tmp_path) as operator:
        _create(api, "digits")
        until(lambda: _has_deployments(api, 1), "the Deployment")
        api.stop_server()
        until(lambda: not operator.leads(), "the operator to stop leading on its own")
        api.start_server()
        _create(api, "digits", replicas=2)
        until(lambda: _has_deployments(api, 2), "the edit to be acted on", seconds=90)


def test_a_namespace_goes_with_the_operator_gone(api: ApiServer, tmp_path: Path) -> None:
    namespace = f"leaving-{uuid4().hex[:8]}"
    api.kubectl("create", "namespace", namespace)
    with OperatorProcess(api.kubeconfig, tmp_path):
        api.kubectl("apply", "-f", "-", input=json.dumps(model_deployment("digits", namespace)))
        until(lambda: api.get("deployment", "-n", namespace)["items"], "the Deployment")
    api.kubectl("delete", "namespace", namespace, "--timeout=240s")


def test_a_spec_that_cannot_be_read_harms_nobody_else(api: ApiServer, tmp_path: Path) -> None:
    """An object that predates a rule of the CRD: written here past the CRD by lifting the rule for a moment."""
    crd = "modeldeployments.conch.dev"
    rules = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/model/x-kubernetes-validations"
    saved = api.get("crd", crd)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"][
        "model"
    ]
    api.kubectl("patch", "crd", crd, "--type=json", "-p", json.dumps([{"op": "remove", "path": rules}]))
    poison = {"model": {"version": 1, "source": {"uri": "ftp://nobody/m.onnx"}}}

    def created() -> bool:
        body = json.dumps(model_deployment("poison", NAMESPACE, **poison))
        return api.kubectl("apply", "-f", "-", input=body, check=False).returncode == 0

    try:
        until(created, "the API server to take the object")
    finally:
        restore = [{"op": "add", "path": rules, "value": saved["x-kubernetes-validations"]}]
        api.kubectl("patch", "crd", crd, "--type=json", "-p", json.dumps(restore))
    with OperatorProcess(api.kubeconfig, tmp_path):
        _create(api, "healthy")
        until(lambda: _has_deployments(api, 1), "the healthy one's Deployment")

        def told() -> str | None:
            conditions = api.get("mdep", "poison", "-n", NAMESPACE).get("status", {}).get("conditions", ())
            return next((c["message"] for c in conditions if c["reason"] == "InvalidSpec"), None)

        assert "https://HOST/PATH" in until(told, "the poison object to say what is wrong")
