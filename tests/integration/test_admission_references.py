"""The policy conch-references: a ModelDeployment names only what its author may use."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from conch.api.model import FURTHER_MODELS_MOST
from tests.support.installed_chart import (
    MODEL_DEPLOYMENT_RULE,
    OPERATOR,
    InstalledChart,
    installed_chart,
    model_deployment,
)

TENANT: Final = "tenant"
DEVELOPER: Final = "developer"


def _source(**source: Any) -> dict[str, Any]:
    return {"model": {"version": 3, "source": {"uri": "https://models.example.com/3.onnx", **source}}}


def _further(**source: Any) -> dict[str, Any]:
    """Of the last model that there may be."""
    models = [{"name": f"m{number}", **_source()["model"]} for number in range(FURTHER_MODELS_MOST - 1)]
    return {"models": [*models, {"name": "last", **_source(**source)["model"]}]}


NAMING: Final[Mapping[str, Mapping[str, Any]]] = {
    "service account": {"serviceAccountName": "robot"},
    "pull secret": {"imagePullSecrets": [{"name": "registry"}]},
    "claim": _source(uri="pvc://models/fraud"),
    "credentials": _source(credentialsSecretRef={"name": "store"}),
    "claim of a further model": _further(uri="pvc://weights/7"),
    "credentials of a further model": _further(credentialsSecretRef={"name": "other-store"}),
    "priority class": {"scheduling": {"priorityClassName": "urgent"}},
    "runtime class": {"scheduling": {"runtimeClassName": "nvidia"}},
    "device claim": {"gpu": {"claims": [{"name": "gpu", "resourceClaimTemplateName": "two-h100"}]}},
    "queue": {"scheduling": {"queueName": "team-a"}},
}
RIGHTS: Final[Mapping[str, tuple[str, str, str, str]]] = {
    "service account": ("use", "", "serviceaccounts", "robot"),
    "pull secret": ("get", "", "secrets", "registry"),
    "claim": ("use", "", "persistentvolumeclaims", "models"),
    "credentials": ("get", "", "secrets", "store"),
    "claim of a further model": ("use", "", "persistentvolumeclaims", "weights"),
    "credentials of a further model": ("get", "", "secrets", "other-store"),
    "priority class": ("use", "scheduling.k8s.io", "priorityclasses", "urgent"),
    "runtime class": ("use", "node.k8s.io", "runtimeclasses", "nvidia"),
    "device claim": ("use", "resource.k8s.io", "resourceclaimtemplates", "two-h100"),
    "queue": ("use", "kueue.x-k8s.io", "localqueues", "team-a"),
}
EVERY_REFERENCE: Final = pytest.mark.parametrize("what", NAMING)


@pytest.fixture(scope="module")
def chart() -> Iterator[InstalledChart]:
    """A cluster with the chart, a tenant who may only write ModelDeployments, and one who may create pods, too."""
    pods = {"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]}
    scale = {"apiGroups": ["conch.dev"], "resources": ["modeldeployments/scale"], "verbs": ["get", "patch"]}
    with installed_chart() as installed:
        installed.grant(TENANT, "team", scale, MODEL_DEPLOYMENT_RULE)
        installed.grant(DEVELOPER, "team", MODEL_DEPLOYMENT_RULE, pods)
        yield installed


@pytest.fixture(autouse=True)
def _clean(chart: InstalledChart) -> Iterator[None]:
    yield
    chart.must("-n", "team", "delete", "modeldeployments", "--all")


def _create(chart: InstalledChart, by: str, **spec: Any) -> Any:
    return chart.run("create", "-f", "-", by=by, objects=model_deployment(**spec))


def _may_use(what: str) -> dict[str, Any]:
    verb, group, resource, name = RIGHTS[what]
    return {"apiGroups": [group], "resources": [resource], "resourceNames": [name], "verbs": [verb]}


def _assert_refused(answer: Any, *words: str) -> None:
    assert answer.returncode != 0
    assert "'conch-references'" in answer.stderr, answer.stderr
    for word in words:
        assert word in answer.stderr


@EVERY_REFERENCE
def test_a_tenant_may_not_name_it_and_is_told_what_to_ask_for(chart: InstalledChart, what: str) -> None:
    verb, _, resource, name = RIGHTS[what]
    _assert_refused(
        _create(chart, TENANT, **NAMING[what]), f'ask for the verb "{verb}" on {resource}/{name}', "namespace team"
    )


@EVERY_REFERENCE
def test_who_may_create_pods_may_name_it(chart: InstalledChart, what: str) -> None:
    assert _create(chart, DEVELOPER, **NAMING[what]).returncode == 0


@EVERY_REFERENCE
def test_an_administrator_may_name_it(chart: InstalledChart, what: str) -> None:
    assert _create(chart, "", **NAMING[what]).returncode == 0


@EVERY_REFERENCE
def test_who_has_the_right_to_this_one_may_name_it_and_no_other(chart: InstalledChart, what: str) -> None:
    user = f"user-of-{what.replace(' ', '-')}"
    chart.grant(user, "team", MODEL_DEPLOYMENT_RULE, _may_use(what))
    for other in NAMING.keys() - {what}:
        _assert_refused(_create(chart, user, **NAMING[other]))
    assert _create(chart, user, **NAMING[what]).returncode == 0


@EVERY_REFERENCE
def test_a_right_in_another_namespace_does_not_count(chart: InstalledChart, what: str) -> None:
    chart.run("create", "namespace", "elsewhere")
    user = f"stranger-to-{what.replace(' ', '-')}"
    chart.grant(user, "team", MODEL_DEPLOYMENT_RULE)
    chart.grant(user, "elsewhere", _may_use(what), {"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]})
    _assert_refused(_create(chart, user, **NAMING[what]))


@EVERY_REFERENCE
def test_it_may_not_be_added_later_either(chart: InstalledChart, what: str) -> None:
    assert _create(chart, TENANT).returncode == 0
    patch = json.dumps({"spec": NAMING[what]})
    answer = chart.run(*("-n", "team", "patch", "mdep", "sentiment", "--type=merge", "-p", patch), by=TENANT)
    _assert_refused(answer)


@EVERY_REFERENCE
def test_a_tenant_may_not_run_another_model_with_what_an_administrator_named(chart: InstalledChart, what: str) -> None:
    _create(chart, "", **NAMING[what])
    patch = '{"spec": {"model": {"version": 4}}}'
    answer = chart.run(*("-n", "team", "patch", "mdep", "sentiment", "--type=merge", "-p", patch), by=TENANT)
    _assert_refused(answer)


def test_labels_scale_status_and_deletion_stay_free(chart: InstalledChart) -> None:
    _create(chart, "", replicas=1, **NAMING["service account"], **NAMING["claim"])
    chart.must("-n", "team", "label", "modeldeployment", "sentiment", "team=mine", by=TENANT)
    chart.must("-n", "team", "scale", "modeldeployment", "sentiment", "--replicas=2", by=TENANT)
    status = {**model_deployment(), "status": {"url": "http://sentiment.team"}}
    del status["spec"]
    chart.must(
        *("apply", "--server-side", "--subresource=status", "--field-manager=conch-operator-status", "-f", "-"),
        by=OPERATOR,
        objects=status,
    )
    assert chart.api.get("modeldeployment", "sentiment", "-n", "team")["status"]["url"] == "http://sentiment.team"
    chart.must("-n", "team", "delete", "modeldeployment", "sentiment", by=TENANT)


def test_each_of_eight_pull_secrets_is_checked(chart: InstalledChart) -> None:
    secrets = [{"name": f"registry-{index}"} for index in range(8)]
    rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    user = "user-of-eight"
    chart.grant(user, "team", MODEL_DEPLOYMENT_RULE, {**rule, "resourceNames": [each["name"] for each in secrets[:7]]})
    _assert_refused(_create(chart, user, imagePullSecrets=secrets), "spec.imagePullSecrets[7].name", "registry-7")
    # All checks of one request are within the API server's cost limit as well.
    scheduling = {
        **{"priorityClassName": "urgent", "runtimeClassName": "nvidia", "queueName": "team-a"},
        "tolerations": [{"key": "gpu"}] * 32,
    }
    templates = [f"devices-{index}" for index in range(4)]
    claims = [{"name": name, "resourceClaimTemplateName": name} for name in templates]
    source = _source(uri="pvc://models/fraud", credentialsSecretRef={"name": "store"})
    everything = {
        **{"imagePullSecrets": secrets, "scheduling": scheduling, "gpu": {"claims": claims}},
        **{**NAMING["service account"], **source},
    }
    chart.grant(
        "user-of-everything",
        "team",
        MODEL_DEPLOYMENT_RULE,
        {**rule, "resourceNames": [each["name"] for each in secrets]},
        {**_may_use("device claim"), "resourceNames": templates},
        *(_may_use(what) for what in RIGHTS if what not in ("pull secret", "device claim")),
    )
    created = _create(chart, "user-of-everything", **everything)
    assert created.returncode == 0, created.stderr


def test_each_of_four_device_claims_is_checked(chart: InstalledChart) -> None:
    templates = [f"devices-{index}" for index in range(4)]
    claims = [{"name": name, "resourceClaimTemplateName": name} for name in templates]
    user = "user-of-three-templates"
    chart.grant(user, "team", MODEL_DEPLOYMENT_RULE, {**_may_use("device claim"), "resourceNames": templates[:3]})
    _assert_refused(_create(chart, user, gpu={"claims": claims}), "spec.gpu.claims[3]", "devices-3")
    assert _create(chart, user, gpu={"claims": claims[:3]}).returncode == 0


def test_the_refusal_of_a_credentials_secret_names_field_user_and_secret(chart: InstalledChart) -> None:
    _assert_refused(
        _create(chart, TENANT, **NAMING["credentials"]),
        "spec.model.source.credentialsSecretRef.name: tenant may not use the Secret store; remove the field, or ask "
        'for the verb "get" on secrets/store (or "create" on pods) in the namespace team',
    )


@pytest.mark.parametrize("uri", ["PVC://models/fraud", " pvc://models/fraud", "pvc://models", "pvc://mo\tdels/fraud"])
def test_no_spelling_of_a_claim_gets_past_the_policy(chart: InstalledChart, uri: str) -> None:
    answer = _create(chart, TENANT, uri=uri)
    assert answer.returncode != 0
    assert "source.uri" in answer.stderr


UNUSUAL: Final = pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"scheduling": {"tolerations": [{"operator": "Exists"}]}}, "give each toleration the key of its taint"),
        (
            {"scheduling": {"tolerations": [{"key": "node-role.kubernetes.io/control-plane"}]}},
            "node-role.kubernetes.io",
        ),
        ({"gpu": {"resource": "devices.example.com/kvm"}}, "policy.gpuResources"),
        ({"scheduling": {"schedulerName": "volcano"}}, "policy.schedulers"),
    ],
    ids=["every taint", "control plane", "another device", "another scheduler"],
)


@UNUSUAL
def test_a_tenant_gets_nothing_that_pods_could_not_have_without_the_operator(
    chart: InstalledChart, spec: dict[str, Any], words: str
) -> None:
    _assert_refused(_create(chart, TENANT, **spec), words)


@UNUSUAL
def test_who_may_create_pods_gets_it(chart: InstalledChart, spec: dict[str, Any], words: str) -> None:
    del words
    assert _create(chart, DEVELOPER, **spec).returncode == 0


def test_a_tenant_may_tolerate_a_taint_by_its_key_and_ask_for_a_mig_profile(chart: InstalledChart) -> None:
    scheduling = {"tolerations": [{"key": "team", "operator": "Exists"}], "schedulerName": "default-scheduler"}
    created = _create(chart, TENANT, scheduling=scheduling, gpu={"resource": "nvidia.com/mig-1g.10gb"})
    assert created.returncode == 0, created.stderr


def test_a_volume_of_its_own_is_for_who_may_have_volumes_made(chart: InstalledChart) -> None:
    model = {"version": 3, "source": {"uri": "https://models.example.com/3.onnx"}, "storage": {"size": "1Gi"}}
    _assert_refused(_create(chart, TENANT, model=model), "spec.model.storage", "persistentvolumeclaims")
    assert _create(chart, DEVELOPER, model=model).returncode == 0
    chart.must("-n", "team", "delete", "modeldeployments", "--all")
    claims = {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["create"]}
    chart.grant("user-of-volumes", "team", MODEL_DEPLOYMENT_RULE, claims)
    assert _create(chart, "user-of-volumes", model=model).returncode == 0
