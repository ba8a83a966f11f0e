"""The policies on the operator's writes: only what a ModelDeployment controls, and of pods only one annotation."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from tests.support import gateway_api
from tests.support.installed_chart import OPERATOR, InstalledChart, installed_chart, model_deployment, pod

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
    "EndpointSlice": {
        "apiVersion": "discovery.k8s.io/v1",
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.2.3"]}],
        "ports": [{"name": "http", "port": 10000}],
    },
    "GRPCRoute": {"apiVersion": "gateway.networking.k8s.io/v1", "spec": {"hostnames": ["a.example.com"]}},
    "HTTPRoute": {"apiVersion": "gateway.networking.k8s.io/v1", "spec": {"hostnames": ["a.example.com"]}},
    "NetworkPolicy": {"apiVersion": "networking.k8s.io/v1", "spec": {"podSelector": {"matchLabels": {"app": "a"}}}},
    "PodDisruptionBudget": {"apiVersion": "policy/v1", "spec": {"maxUnavailable": 1}},
    "Service": {"apiVersion": "v1", "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]}},
}
SECRET: Final = {"apiVersion": "v1", "immutable": True}
EVERY_KIND: Final = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def chart() -> Iterator[InstalledChart]:
    """A cluster with the chart and two ModelDeployments."""
    with installed_chart() as installed:
        gateway_api.install(installed.api)
        installed.must("create", "-f", "-", objects=model_deployment("sentiment"))
        installed.must("create", "-f", "-", objects=model_deployment("other"))
        # kubectl gets what it patches, which the operator does not. And the policies must refuse also what roles allow.
        installed.grant(
            OPERATOR,
            "team",
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["endpoints"], "verbs": ["get", "create", "patch"]},
        )
        yield installed


@pytest.fixture(autouse=True)
def _clean(request: pytest.FixtureRequest, chart: InstalledChart) -> None:
    """What an attempt that failed has left is in the way of the next one."""
    if getattr(request.node, "execution_count", 1) > 1:
        kinds = ",".join([*KINDS, "Secret"])
        chart.must("-n", "team", "delete", kinds, "-l", "conch.dev/model-deployment=sentiment", "--wait=false")


def _object(kind: str, name: str, *owners: Mapping[str, Any]) -> dict[str, Any]:
    fields = SECRET if kind == "Secret" else KINDS[kind]
    labels = {"app.kubernetes.io/managed-by": "conch", "conch.dev/model-deployment": "sentiment"}
    metadata = {"name": name, "namespace": "team", "labels": labels, "ownerReferences": list(owners)}
    return {"kind": kind, "metadata": metadata, **fields}


def _owner(chart: InstalledChart, name: str = "sentiment", **changed: Any) -> dict[str, Any]:
    uid = chart.api.get("modeldeployment", name, "-n", "team")["metadata"]["uid"]
    reference = {"apiVersion": "conch.dev/v1alpha1", "kind": "ModelDeployment", "name": name, "uid": uid}
    return {**reference, "controller": True, "blockOwnerDeletion": True, **changed}


def _assert_refused(answer: Any, because: str, *, policy: str = "conch-operator-writes") -> None:
    assert answer.returncode != 0
    assert f"'{policy}'" in answer.stderr, answer.stderr
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


MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
CONTROLLERS: Final = ("endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io")


def _slice(name: str, **labels: str | None) -> dict[str, Any]:
    """A slice that no ModelDeployment controls, with the labels of a Service of ours except as given."""
    made = _object("EndpointSlice", name)
    changed = {**made["metadata"]["labels"], MANAGED_BY: CONTROLLERS[0], **labels}
    made["metadata"]["labels"] = {key: value for key, value in changed.items() if value is not None}
    return made


def _endpoints(name: str, *owners: Mapping[str, Any], managed_by: str = "conch") -> dict[str, Any]:
    labels = {"app.kubernetes.io/managed-by": managed_by, "conch.dev/model-deployment": "sentiment"}
    metadata = {"name": name, "namespace": "team", "labels": labels, "ownerReferences": list(owners)}
    subsets = [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 8000}]}]
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_slices_that_a_controller_left_for_our_service_are_deleted(chart: InstalledChart, controller: str) -> None:
    chart.must("create", "-f", "-", objects=_slice("left", **{MANAGED_BY: controller}))
    chart.must("-n", "team", "delete", "endpointslice", "left", by=OPERATOR)


@pytest.mark.parametrize(
    "labels",
    [
        {MANAGED_BY: "somebody.example.com"},
        {MANAGED_BY: None},
        {"app.kubernetes.io/managed-by": "Helm"},
        {"app.kubernetes.io/managed-by": None},
        {"conch.dev/model-deployment": None},
    ],
    ids=["made by another", "made by nobody", "of another's Service", "of a plain Service", "of no model"],
)
def test_other_slices_are_not_deleted(chart: InstalledChart, labels: dict[str, str | None]) -> None:
    chart.must("apply", "-f", "-", objects=_slice("of-others", **labels))
    deleted = chart.run("-n", "team", "delete", "endpointslice", "of-others", by=OPERATOR)
    chart.must("-n", "team", "delete", "endpointslice", "of-others")
    _assert_refused(deleted, "no ModelDeployment controls it")


def test_slices_that_a_controller_left_are_not_changed(chart: InstalledChart) -> None:
    chart.must("create", "-f", "-", objects=_slice("changed"))
    changed = chart.run("-n", "team", "label", "endpointslice", "changed", "a=b", by=OPERATOR)
    _assert_refused(changed, "no ModelDeployment controls it")


def test_endpoints_of_our_service_are_deleted_and_others_are_not(chart: InstalledChart) -> None:
    chart.must("create", "-f", "-", objects=_endpoints("left"))
    chart.must("create", "-f", "-", objects=_endpoints("of-others", managed_by="Helm"))
    chart.must("-n", "team", "delete", "endpoints", "left", by=OPERATOR)
    deleted = chart.run("-n", "team", "delete", "endpoints", "of-others", by=OPERATOR)
    _assert_refused(deleted, "no ModelDeployment controls it")


def test_endpoints_are_never_written_whatever_the_roles_say(chart: InstalledChart) -> None:
    mine = _endpoints("written", _owner(chart))
    created = chart.run("create", "-f", "-", by=OPERATOR, objects=mine)
    chart.must("create", "-f", "-", objects=mine)
    changed = chart.run("-n", "team", "label", "endpoints", "written", "a=b", by=OPERATOR)
    for answer in (created, changed):
        _assert_refused(answer, "may delete Endpoints of its Services, but not write any")


DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
OUR_LABELS: Final = {"app.kubernetes.io/managed-by": "conch", "conch.dev/model-deployment": "sentiment"}


def _make_pod(chart: InstalledChart, name: str, labels: Mapping[str, str] = OUR_LABELS) -> None:
    chart.must("create", "-f", "-", objects=pod(name, labels=labels))
    chart.must("-n", "team", "annotate", "pod", name, "of-another=kept")


def test_the_two_annotations_of_a_models_pod_are_set_changed_and_removed(chart: InstalledChart) -> None:
    _make_pod(chart, "costs")
    changes = ("conch.dev/change=w2", "conch.dev/change=w3", "conch.dev/change-")
    for argument in (f"{DELETION_COST}=-1", f"{DELETION_COST}=5", f"{DELETION_COST}-", *changes):
        chart.must("-n", "team", "annotate", "pod", "costs", argument, "--overwrite", by=OPERATOR)
    chart.must("-n", "team", "delete", "pod", "costs", "--now")
    # A pod without any annotation, as the API server stores it.
    chart.must("create", "-f", "-", objects=pod("costs", labels=OUR_LABELS))
    chart.must("-n", "team", "annotate", "pod", "costs", f"{DELETION_COST}=-1", by=OPERATOR)


@pytest.mark.parametrize(
    "patch",
    [
        '{"metadata":{"annotations":{"new":"a"}}}',
        '{"metadata":{"annotations":{"of-another":"changed"}}}',
        '{"metadata":{"annotations":{"of-another":null}}}',
        '{"metadata":{"annotations":null}}',
        f'{{"metadata":{{"annotations":{{"{DELETION_COST}":"1","new":"a"}}}}}}',
        '{"metadata":{"labels":{"new":"a"}}}',
        '{"metadata":{"labels":{"conch.dev/model-deployment":null}}}',
        '{"metadata":{"finalizers":["conch.dev/finalizer"]}}',
        '{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"a","uid":"b"}]}}',
        '{"spec":{"containers":[{"name":"triton","image":"another"}]}}',
        '{"spec":{"activeDeadlineSeconds":1}}',
    ],
)
def test_nothing_else_of_a_pod_is_changed(chart: InstalledChart, patch: str) -> None:
    name = "whole"
    if chart.run("-n", "team", "get", "pod", name).returncode:
        _make_pod(chart, name)
    answer = chart.run("-n", "team", "patch", "pod", name, "--type=strategic", "-p", patch, by=OPERATOR)
    _assert_refused(answer, f"only its annotations {DELETION_COST}", policy="conch-operator-pods")


@pytest.mark.parametrize("missing", OUR_LABELS)
def test_pods_that_serve_no_model_are_left_alone(chart: InstalledChart, missing: str) -> None:
    name = f"strangers-without-{missing.rpartition('/')[2]}"
    _make_pod(chart, name, {key: value for key, value in OUR_LABELS.items() if key != missing})
    answer = chart.run("-n", "team", "annotate", "pod", name, f"{DELETION_COST}=-1", by=OPERATOR)
    _assert_refused(answer, "this pod serves no ModelDeployment", policy="conch-operator-pods")


def test_what_others_do_to_pods_is_no_concern(chart: InstalledChart) -> None:
    _make_pod(chart, "of-an-admin")
    chart.must("-n", "team", "label", "pod", "of-an-admin", "a=b")
