"""Children are written once, repaired when touched, and never anybody else's."""

import json
from typing import Any

import pytest

from conch.api import names
from tests.cluster.apiserver import ApiServer
from tests.integration.conftest import model_deployment
from tests.support.operator_process import OperatorProcess
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("operator")

KINDS = ("deployment", "configmap", "service", "controllerrevision", "poddisruptionbudget", "networkpolicy")
MINE = "conch.dev/model-deployment=digits"

EDITS: dict[str, dict[str, Any]] = {
    "deployment": {"spec": {"replicas": 7}},
    "configmap": {"data": {"assignment.json": "{}"}},
    "service": {"spec": {"selector": {"conch.dev/workload": "other"}}},
    "controllerrevision": {"revision": 9},
    "poddisruptionbudget": {"spec": {"maxUnavailable": 2}},
    "networkpolicy": {"spec": {"ingress": [{}]}},
}


def _children(api: ApiServer, namespace: str) -> dict[str, dict[str, Any]]:
    found = api.get(",".join(KINDS), "-n", namespace, "-l", MINE)["items"]
    return {item["kind"].lower(): item for item in found}


def _create(api: ApiServer, body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    api.kubectl("apply", "-f", "-", input=json.dumps(body))
    namespace = body["metadata"]["namespace"]
    return until(
        lambda: found if len(found := _children(api, namespace)) == len(KINDS) else None, "all children to be written"
    )


def _essence(child: dict[str, Any]) -> dict[str, Any]:
    """What describes the child: neither its identity nor its status nor what others keep in it."""
    own = {key: value for key, value in child.items() if key not in ("metadata", "status")}
    return {"labels": child["metadata"].get("labels", {}), **own}


def _settled(operator: OperatorProcess) -> float:
    """The number of writes, once it no longer grows between two looks."""
    seen = -1.0

    def same() -> bool:
        nonlocal seen
        before, seen = seen, operator.metric("conch_actions_total") + operator.metric("conch_status_writes_total")
        return before == seen

    until(same, "the operator to come to rest")
    return seen


def test_every_child_is_owned_and_labelled(api: ApiServer, namespace: str) -> None:
    children = _create(api, model_deployment("digits", namespace, replicas=2))
    (owner,) = {child["metadata"]["ownerReferences"][0]["uid"] for child in children.values()}
    assert owner == api.get("mdep", "digits", "-n", namespace)["metadata"]["uid"]
    secret = api.get("secret", names.admin_key_secret("digits", owner), "-n", namespace)
    assert secret["immutable"] is True
    assert secret["metadata"]["ownerReferences"][0]["uid"] == owner


def test_the_spec_is_not_written_and_no_finalizer_is_added(api: ApiServer, namespace: str) -> None:
    _create(api, model_deployment("digits", namespace, replicas=2))
    live = api.get("mdep", "digits", "-n", namespace, "--show-managed-fields")
    assert "finalizers" not in live["metadata"]
    assert set(live["metadata"]["annotations"]) == {"kubectl.kubernetes.io/last-applied-configuration"}
    writers = {(entry["manager"], entry.get("subresource")) for entry in live["metadata"]["managedFields"]}
    assert writers == {("kubectl-client-side-apply", None), ("conch-operator-status", "status")}


def test_an_object_at_rest_costs_no_write(api: ApiServer, operator: OperatorProcess, namespace: str) -> None:
    # In a namespace that is on its way out, children are written (and refused) until it is gone.
    others = {"default", "kube-system", "kube-public", "kube-node-lease", "conch-system", namespace}

    def gone() -> bool:
        return {each["metadata"]["name"] for each in api.get("namespaces")["items"]} <= others

    until(gone, "the other tests' namespaces to be gone", seconds=120)
    # Not before: no scheduler looks at its pods here, and a minute later that is told.
    children = _create(api, model_deployment("digits", namespace, replicas=2))
    until(lambda: api.get("mdep", "digits", "-n", namespace)["status"].get("replicas") == 2, "its pods to be seen")
    before = _settled(operator)
    reconciles = operator.metric("conch_reconciles_total")
    # Quantities are normalised by the API server and lists are keyed: none of that may look like a change.
    api.kubectl("annotate", "mdep", "digits", "-n", namespace, "example.com/touched=yes")
    until(lambda: operator.metric("conch_reconciles_total") > reconciles, "the object to be planned again")
    assert _settled(operator) == before
    now = _children(api, namespace)
    for kind in ("configmap", "service", "controllerrevision"):
        assert now[kind]["metadata"]["resourceVersion"] == children[kind]["metadata"]["resourceVersion"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_deleted_child_comes_back(api: ApiServer, namespace: str, kind: str) -> None:
    before = _create(api, model_deployment("digits", namespace, replicas=2))[kind]
    api.kubectl("delete", kind, before["metadata"]["name"], "-n", namespace, "--wait=false")

    def anew() -> dict[str, Any] | None:
        child = _children(api, namespace).get(kind)
        # Of the two Services, the other must not be taken for it.
        same = child and child["metadata"]["name"] == before["metadata"]["name"]
        return child if child and same and child["metadata"]["uid"] != before["metadata"]["uid"] else None

    after = until(anew, f"the {kind} to come back")
    if kind == "service":
        for child in (before, after):
            for assigned in ("clusterIP", "clusterIPs"):
                child["spec"].pop(assigned)
    assert _essence(after) == _essence(before)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edited_child_is_repaired(api: ApiServer, namespace: str, kind: str) -> None:
    before = _create(api, model_deployment("digits", namespace, replicas=2))[kind]
    api.kubectl(
        "patch", kind, before["metadata"]["name"], "-n", namespace, "--type=merge", "-p", json.dumps(EDITS[kind])
    )
    until(lambda: _essence(_children(api, namespace)[kind]) == _essence(before), f"the {kind} to be repaired")


def test_a_child_that_lost_its_labels_is_found_again(api: ApiServer, namespace: str) -> None:
    before = _create(api, model_deployment("digits", namespace, replicas=2))["service"]
    api.kubectl("label", "service", "digits", "-n", namespace, "app.kubernetes.io/managed-by-")
    until(lambda: _essence(_children(api, namespace)["service"]) == _essence(before), "the label to be back")
    assert _children(api, namespace)["service"]["metadata"]["uid"] == before["metadata"]["uid"]


STRANGERS: dict[str, dict[str, Any]] = {
    "service": {
        "apiVersion": "v1",
        "kind": "Service",
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    },
    "poddisruptionbudget": {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "theirs"}}},
    },
    "networkpolicy": {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "spec": {"podSelector": {"matchLabels": {"app": "theirs"}}, "policyTypes": ["Ingress"]},
    },
    "configmap": {"apiVersion": "v1", "kind": "ConfigMap", "data": {"theirs": "yes"}},
    "controllerrevision": {"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 1, "data": {"a": "b"}},
    "deployment": {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "theirs"}},
            "template": {
                "metadata": {"labels": {"app": "theirs"}},
                "spec": {"containers": [{"name": "a", "image": "a"}]},
            },
        },
    },
}


OWN_NAMES = {"service": "digits", "poddisruptionbudget": "digits", "networkpolicy": names.network_policy("digits")}
"""Of the kinds of which an object has one, whatever its workloads."""


@pytest.mark.parametrize("labelled", [False, True], ids=["plain", "with-our-labels"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_strangers_object_is_left_alone_and_named(api: ApiServer, namespace: str, kind: str, labelled: bool) -> None:
    body = model_deployment("digits", namespace, replicas=2)
    name = OWN_NAMES.get(kind) or _workload_name(api, body)
    labels = {"app.kubernetes.io/managed-by": "conch", "conch.dev/model-deployment": "digits"} if labelled else {}
    stranger = {**STRANGERS[kind], "metadata": {"name": name, "namespace": namespace, "labels": labels}}
    api.kubectl("apply", "-f", "-", input=json.dumps(stranger))
    before = api.get(kind, name, "-n", namespace)
    api.kubectl("apply", "-f", "-", input=json.dumps(body))
    ready = until(lambda: _ready(api, namespace, reason="NameConflict"), "the conflict to be named")
    assert name in ready["message"]
    assert "delete or rename it" in ready["message"]
    after = api.get(kind, name, "-n", namespace)
    assert _essence(after) == _essence(before)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]

    api.kubectl("delete", kind, name, "-n", namespace)
    until(lambda: _ready(api, namespace, reason="Starting"), "the object to heal by itself")
    assert len(_children(api, namespace)) == len(KINDS)


def _workload_name(api: ApiServer, body: dict[str, Any]) -> str:
    """Create the object with a source that is refused, so without a workload; return its next workload's name."""
    refused = json.loads(json.dumps(body))
    refused["spec"]["model"]["source"]["uri"] = "http://not-allowed/m.onnx"
    namespace = body["metadata"]["namespace"]
    api.kubectl("apply", "-f", "-", input=json.dumps(refused))
    until(lambda: _ready(api, namespace, reason="SourceNotAllowed"), "the source to be refused")
    live = api.get("mdep", "digits", "-n", namespace)
    number = live["status"]["workloadsCreated"] + 1
    return names.workload_object("digits", names.workload_id(live["metadata"]["uid"], number))


def _ready(api: ApiServer, namespace: str, *, reason: str) -> dict[str, Any] | None:
    conditions = api.get("mdep", "digits", "-n", namespace).get("status", {}).get("conditions", ())
    return next((c for c in conditions if c["type"] == "Ready" and c["reason"] == reason), None)
