"""The policy conch-operator-writes: the operator touches only what a ModelDeployment controls."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from tests.support.installed_chart import OPERATOR, InstalledChart, installed_chart, model_deployment

KINDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "ConfigMap": {"apiVersion": "v1", "data": {"key": "value"}},
    "ControllerRevision": {"apiVersion": "apps/v1", "revision": 1, "data": {}},
    "Deployment": {
        "apiVersion": "apps/v1",
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "a"}},
            "template": {
                "metadata": {"labels": {"app": "a"}},
                "spec": {"containers": [{"name": "a", "image": "a"}]},
            },
        },
    },
    "PodDisruptionBudget": {"apiVersion": "policy/v1", "spec": {"maxUnavailable": 1}},
    "Service": {"apiVersion": "v1", "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]}},
}
SECRET: Final = {"apiVersion": "v1", "immutable": True}
EVERY_KIND: Final = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def chart() -> Iterator[InstalledChart]:
    """A cluster with the chart and two ModelDeployments."""
    with installed_chart() as installed:
        installed.must("create", "-f", "-", objects=model_deployment("sentiment"))
        installed.must("create", "-f", "-", objects=model_deployment("other"))
        yield installed


def _object(kind: str, name: str, *owners: Mapping[str, Any]) -> dict[str, Any]:
    fields = SECRET if kind == "Secret" else KINDS[kind]
    labels = {"app.kubernetes.io/managed-by": "conch", "conch.dev/model-deployment": "sentiment"}
    metadata = {"name": name, "namespace": "team", "labels": labels, "ownerReferences": list(owners)}
    return {"kind": kind, "metadata": metadata, **fields}


def _owner(chart: InstalledChart, name: str = "sentiment", **changed: Any) -> dict[str, Any]:
    uid = chart.api.get("modeldeployment", name, "-n", "team")["metadata"]["uid"]
    reference = {"apiVersion": "conch.dev/v1alpha1", "kind": "ModelDeployment", "name": name, "uid": uid}
    return {**reference, "controller": True, "blockOwnerDeletion": True, **changed}


def _assert_refused(answer: Any, because: str) -> None:
    assert answer.returncode != 0
    assert "'conch-operator-writes'" in answer.stderr, answer.stderr
    assert because in answer.stderr


@EVERY_KIND
def test_its_own_children_are_created_changed_and_deleted(chart: InstalledChart, kind: str) -> None:
    mine = _object(kind, "mine", _owner(chart))
    created = chart.apply(mine, by=OPERATOR)
    assert created.returncode == 0, created.stderr
    mine["metadata"]["labels"]["changed"] = "yes"
    changed = chart.apply(mine, by=OPERATOR)
    assert changed.returncode == 0, changed.stderr
    chart.must("-n", "team", "delete", kind, "mine", "--wait=false", by=OPERATOR)


@pytest.mark.parametrize("kind", [*KINDS, "Secret"])
@pytest.mark.parametrize(
    "changed",
    [
        {"controller": False},
        {"kind": "Deployment", "apiVersion": "apps/v1"},
        {"apiVersion": "conch.dev.example.com/v1"},
    ],
    ids=["not controlling", "another kind", "another group"],
)
def test_nothing_is_created_without_a_model_deployment_that_controls_it(
    chart: InstalledChart, kind: str, changed: dict[str, Any]
) -> None:
    answer = chart.run("create", "-f", "-", by=OPERATOR, objects=_object(kind, "new", _owner(chart, **changed)))
    _assert_refused(answer, "may write only objects whose controller is a ModelDeployment")


@pytest.mark.parametrize("kind", [*KINDS, "Secret"])
def test_nothing_is_created_without_an_owner(chart: InstalledChart, kind: str) -> None:
    answer = chart.run("create", "-f", "-", by=OPERATOR, objects=_object(kind, "new"))
    _assert_refused(answer, "may write only objects whose controller is a ModelDeployment")


def test_the_admin_key_secret_is_created(chart: InstalledChart) -> None:
    # `kubectl create` reads nothing first, as the operator does not.
    chart.must("create", "-f", "-", by=OPERATOR, objects=_object("Secret", "mine", _owner(chart)))


@EVERY_KIND
def test_a_strangers_object_is_neither_taken_over_nor_deleted(chart: InstalledChart, kind: str) -> None:
    chart.must("create", "-f", "-", objects=_object(kind, "strangers"))
    taken = chart.apply(_object(kind, "strangers", _owner(chart)), by=OPERATOR)
    _assert_refused(taken, "no ModelDeployment controls it")
    deleted = chart.run("-n", "team", "delete", kind, "strangers", by=OPERATOR)
    _assert_refused(deleted, "no ModelDeployment controls it")
    assert not chart.api.get(kind, "strangers", "-n", "team")["metadata"].get("ownerReferences")


@EVERY_KIND
def test_a_child_is_neither_disowned_nor_handed_to_another(chart: InstalledChart, kind: str) -> None:
    chart.must("create", "-f", "-", objects=_object(kind, "handed", _owner(chart, "sentiment")))
    replaced = chart.run(
        *("-n", "team", "patch", kind, "handed", "--type=merge", "-p", '{"metadata":{"ownerReferences":null}}'),
        by=OPERATOR,
    )
    _assert_refused(replaced, "may write only objects whose controller is a ModelDeployment")
    patch = '[{"op":"replace","path":"/metadata/ownerReferences/0/uid","value":"%s"}]'
    handed = chart.run(
        *("-n", "team", "patch", kind, "handed", "--type=json", "-p", patch % _owner(chart, "other")["uid"]),
        by=OPERATOR,
    )
    _assert_refused(handed, "another ModelDeployment controls this object")


def test_nobody_else_is_concerned(chart: InstalledChart) -> None:
    chart.must("create", "-f", "-", objects=_object("ConfigMap", "of-an-admin"))
    chart.must("-n", "team", "delete", "configmap", "of-an-admin")
