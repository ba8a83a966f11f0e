"""The chart as Helm renders it."""

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from conch.settings import OperatorSettings
from tests import generate
from tests.cluster import binaries
from tests.conftest import Golden

FILES: Final = Path(__file__).parents[1] / "golden" / "chart"


def _objects(*options: str) -> dict[tuple[str, str], Any]:
    documents = yaml.safe_load_all(generate.render(*options))
    return {(each["kind"], each["metadata"]["name"]): each for each in documents if each}


def _settings(*options: str) -> dict[str, Any]:
    text = _objects(*options)["ConfigMap", "conch-operator-settings"]["data"]["settings.yaml"]
    settings: dict[str, Any] = yaml.safe_load(text)
    return settings


def test_default_values(golden: Golden) -> None:
    # The CRD has a test of its own; a generated key would be another one each time.
    options = ("--set", "installationKey.existingSecret=conch-installation-key", "--set", "crds.install=false")
    golden(FILES / "default.yaml", generate.render(*options))


@pytest.mark.parametrize("values", [(), ("--values", "tests/support/values.yaml")], ids=["default", "local"])
def test_lint(values: tuple[str, ...]) -> None:
    helm = binaries.ensure("helm") / "helm"
    command = [str(helm), "lint", "--strict", str(generate.CHART), *values]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=generate.ROOT)
    assert done.returncode == 0, done.stdout


def test_default_settings_are_those_of_the_operator() -> None:
    rendered = OperatorSettings.model_validate(_settings())
    images = rendered.images
    assert images.triton == "nvcr.io/nvidia/tritonserver:26.07-py3"
    assert images.agent == "conch:0.1.0"
    assert rendered == OperatorSettings(images=images)


def test_every_setting_can_be_set() -> None:
    values = {
        "image.repository": "registry.example.com/conch",
        "image.tag": "1.2",
        "image.pullPolicy": "Always",
        "triton.image": "registry.example.com:5000/triton:1",
        "modelPods.volumeLimit": "40Gi",
        "modelPods.volumeRequest": "2Gi",
        "modelPods.agentCpu": "1",
        "modelPods.agentMemory": "1Gi",
        "modelPods.endpointPropagationSeconds": "7",
        "modelPods.drainTimeoutSeconds": "70",
        "policy.sources.schemes": "{s3,https,http}",
        "policy.sources.allowedHosts": "{a.example.com,*.b.example.com}",
        "policy.sources.httpHosts": "{a.example.com}",
        "policy.sources.privateHosts": "{b.example.com}",
        "policy.sources.cloudMetadata": "true",
        "policy.models.backends": "{onnxruntime,python}",
        "workers": "3",
        "resyncMinutes": "4",
        "log.format": "console",
        "log.level": "debug",
    }
    options = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    rendered = OperatorSettings.model_validate(_settings(*options)).to_wire()
    # The one setting that is no value: the chart's probes and Service depend on it.
    assert rendered.pop("healthPort") == 8080
    assert rendered == {
        "images": {
            "triton": "registry.example.com:5000/triton:1",
            "agent": "registry.example.com/conch:1.2",
            "pullPolicy": "Always",
        },
        "modelPods": {
            "volumeLimit": "40Gi",
            "volumeRequest": "2Gi",
            "agentCpu": "1",
            "agentMemory": "1Gi",
            "endpointPropagationSeconds": 7,
            "drainTimeoutSeconds": 70,
        },
        "sourcePolicy": {
            "schemes": ["s3", "https", "http"],
            "allowedHosts": ["a.example.com", "*.b.example.com"],
            "httpHosts": ["a.example.com"],
            "privateHosts": ["b.example.com"],
            "cloudMetadata": True,
            "backends": ["onnxruntime", "python"],
        },
        "workers": 3,
        "resyncMinutes": 4,
        "logFormat": "console",
        "logLevel": "debug",
    }


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("unknown=1", "additional properties 'unknown' not allowed"),
        ("modelPods.unknown=1", "additional properties 'unknown' not allowed"),
        ("policy.sources.allowedhosts={a}", "additional properties 'allowedhosts' not allowed"),
        ("policy.sources.schemes={ftp}", "/policy/sources/schemes/0"),
        ("policy.sources.cloudMetadata=yes", "/policy/sources/cloudMetadata"),
        ("resources.claims={a}", "additional properties 'claims' not allowed"),
        ("workers=0", "minimum"),
        ("log.level=loud", "/log/level"),
        ("image.digest=latest", "/image/digest"),
        ("modelPods.volumeLimit=much", "/modelPods/volumeLimit"),
        ("policy.images.allowed={registry.example.com/triton *}", "/policy/images/allowed/0"),
        ("policy.gpuResources={gpu}", "/policy/gpuResources/0"),
        ("policy.images.allowed={'}", "/policy/images/allowed/0"),
    ],
)
def test_the_schema_refuses(option: str, message: str) -> None:
    with pytest.raises(generate.RenderError, match=message):
        generate.render("--set", option)


def test_every_value_has_a_place_in_the_schema() -> None:
    schema = json.loads((generate.CHART / "values.schema.json").read_text())
    values = yaml.safe_load((generate.CHART / "values.yaml").read_text())

    def compare(values: dict[str, Any], schema: dict[str, Any], extra: set[str]) -> None:
        assert values.keys() | extra == schema["properties"].keys()
        assert schema["additionalProperties"] is False
        for key, value in values.items():
            if "properties" in schema["properties"][key]:
                compare(value, schema["properties"][key], set())

    compare(values, schema, {"global"})


@pytest.mark.parametrize(
    ("triton", "allowed", "expected"),
    [
        ("nvcr.io/nvidia/tritonserver:26.07-py3", "", ["nvcr.io/nvidia/tritonserver:26.07-py3"]),
        ("registry.example.com:5000/triton", "", ["registry.example.com:5000/triton"]),
        (f"a/triton:1@sha256:{'0' * 64}", "", [f"a/triton:1@sha256:{'0' * 64}"]),
        ("a/triton:1", "b/triton,c/", ["b/triton", "c/"]),
    ],
)
def test_allowed_images(triton: str, allowed: str, expected: list[str]) -> None:
    objects = _objects(
        "--set", f"triton.image={triton}", *(["--set", f"policy.images.allowed={{{allowed}}}"] if allowed else [])
    )
    policy = objects["ValidatingAdmissionPolicy", "conch-runtime-images"]
    variables = {each["name"]: each["expression"] for each in policy["spec"]["variables"]}
    assert json.loads(variables["allowed"]) == expected


def test_a_digest_wins_over_the_tag() -> None:
    digest = f"sha256:{'0' * 64}"
    deployment = _objects("--set", f"image.digest={digest}")["Deployment", "conch-operator"]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == f"conch@{digest}"


def test_one_replica_can_be_drained() -> None:
    assert ("PodDisruptionBudget", "conch-operator") not in _objects("--set", "replicas=1")


def test_a_key_of_ones_own_is_mounted_and_none_is_made() -> None:
    objects = _objects("--set", "installationKey.existingSecret=mine")
    assert not [name for kind, name in objects if kind == "Secret"]
    (settings, _) = objects["Deployment", "conch-operator"]["spec"]["template"]["spec"]["volumes"]
    assert settings["projected"]["sources"][1]["secret"]["name"] == "mine"


def test_the_crd_is_the_generated_one_and_is_kept() -> None:
    generated = yaml.safe_load(generate.CHART_CRD.read_text())
    rendered = _objects()["CustomResourceDefinition", generated["metadata"]["name"]]
    assert rendered["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert rendered == generated


def test_no_role_has_a_wildcard_and_secrets_are_only_created() -> None:
    roles = [each for (kind, _), each in _objects().items() if kind in ("Role", "ClusterRole")]
    rules = [rule for role in roles for rule in role["rules"]]
    assert not [rule for rule in rules if "*" in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])]
    assert [rule["verbs"] for rule in rules if "secrets" in rule["resources"]] == [["create"]]


def test_finalizers_are_updated_only_where_asked_for() -> None:
    def resources(*options: str) -> set[str]:
        rules = _objects(*options)["ClusterRole", "conch-operator"]["rules"]
        return {resource for rule in rules for resource in rule["resources"]}

    assert "modeldeployments/finalizers" not in resources()
    assert "modeldeployments/finalizers" in resources("--set", "rbac.updateFinalizers=true")


def test_every_policy_denies_and_fails_closed() -> None:
    objects = _objects()
    policies = {name: each["spec"] for (kind, name), each in objects.items() if kind == "ValidatingAdmissionPolicy"}
    bindings = {
        each["spec"]["policyName"]: each["spec"]
        for (kind, _), each in objects.items()
        if kind == "ValidatingAdmissionPolicyBinding"
    }
    assert policies.keys() == bindings.keys()
    assert {policy["failurePolicy"] for policy in policies.values()} == {"Fail"}
    assert all(binding == {"policyName": name, "validationActions": ["Deny"]} for name, binding in bindings.items())
    for policy in policies.values():
        assert all("message" in each or "messageExpression" in each for each in policy["validations"])


def test_the_manifest_holds_no_key() -> None:
    kinds = [each["kind"] for each in yaml.safe_load_all(generate.INSTALL.read_text())]
    assert "Namespace" in kinds
    assert "Secret" not in kinds
