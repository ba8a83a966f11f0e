"""The chart as Helm renders it."""

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from conch.api import gateway_pod, names
from conch.api.gpu import CLAIMS_MOST
from conch.gateway.envoy.external_authorization import ExternalAuthorization
from conch.gateway.settings import GatewaySettings
from conch.settings import OperatorSettings, SettingsError
from tests import generate
from tests.cluster import binaries
from tests.conftest import Golden

_POLICY: Final = "ValidatingAdmissionPolicy"
FILES: Final = Path(__file__).parents[1] / "golden" / "chart"


def _objects(*options: str) -> dict[tuple[str, str], Any]:
    documents = yaml.safe_load_all(generate.render(*options))
    return {(each["kind"], each["metadata"]["name"]): each for each in documents if each}


def _settings(*options: str) -> dict[str, Any]:
    text = _objects(*options)["ConfigMap", "conch-operator-settings"]["data"]["settings.yaml"]
    settings: dict[str, Any] = yaml.safe_load(text)
    return settings


def test_default_values(golden: Golden) -> None:
    # The CRD has a test of its own; generated secrets would be others each time.
    options = (
        *("--set", "installationKey.existingSecret=conch-installation-key"),
        *("--set", "gateway.existingTokenSecret=conch-gateway-token"),
        *("--set", "crds.install=false"),
    )
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
        "modelPods.surgePatienceSeconds": "80",
        "modelPods.stableLostPatienceSeconds": "130",
        "modelPods.coldStartPriorSeconds": "90",
        "modelCache.claimName": "models",
        "modelCache.limit": "2Ti",
        "policy.sources.schemes": "{s3,https,http}",
        "policy.sources.allowedHosts": "{a.example.com,*.b.example.com}",
        "policy.sources.httpHosts": "{a.example.com}",
        "policy.sources.privateHosts": "{b.example.com}",
        "policy.sources.cloudMetadata": "true",
        "policy.models.backends": "{onnxruntime,python}",
        "networkPolicy.enabled": "false",
        "networkPolicy.portRanges": "false",
        "networkPolicy.metricsFrom[0].ipBlock.cidr": "10.0.0.0/8",
        "networkPolicy.gatewayApiFrom[0].ipBlock.cidr": "10.1.0.0/16",
        "gateway.ports.first": "20000",
        "gateway.ports.last": "32767",
        "gateway.tls.secretName": "certificate",
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
            "surgePatienceSeconds": 80,
            "stableLostPatienceSeconds": 130,
            "coldStartPriorSeconds": 90,
        },
        "modelCache": {"claimName": "models", "limit": "2Ti"},
        "sourcePolicy": {
            "schemes": ["s3", "https", "http"],
            "allowedHosts": ["a.example.com", "*.b.example.com"],
            "httpHosts": ["a.example.com"],
            "privateHosts": ["b.example.com"],
            "cloudMetadata": True,
            "backends": ["onnxruntime", "python"],
        },
        "networkPolicy": {
            "enabled": False,
            "metricsFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
            "gatewayApiFrom": [{"ipBlock": {"cidr": "10.1.0.0/16"}}],
        },
        "gateway": {"portsFirst": 20000, "portsLast": 32767, "tls": True},
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
        ("modelCache.claimName=Models", "/modelCache/claimName"),
        ("modelCache.limit=much", "/modelCache/limit"),
        ("modelCache.size=1Gi", "additional properties 'size' not allowed"),
        ("policy.images.allowed={registry.example.com/triton *}", "/policy/images/allowed/0"),
        ("policy.gpuResources={gpu}", "/policy/gpuResources/0"),
        ("policy.schedulers={My Scheduler}", "/policy/schedulers/0"),
        ("prePull.image=a", "additional properties 'image' not allowed"),
        ("prePull.enabled=yes", "/prePull/enabled"),
        ("prePull.images={a b}", "/prePull/images/0"),
        ("prePull.tolerations[0].key=a,prePull.tolerations[0].effect=Never", "/prePull/tolerations/0/effect"),
        ("policy.images.allowed={'}", "/policy/images/allowed/0"),
        ("networkPolicy.enabled=yes", "/networkPolicy/enabled"),
        ("networkPolicy.egress=true", "additional properties 'egress' not allowed"),
        ("networkPolicy.metricsFrom[0].podSelector.matchLabels.app=a", "/networkPolicy/metricsFrom/0"),
        ("networkPolicy.gatewayApiFrom[0].ipBlock.cidr=all", "/networkPolicy/gatewayApiFrom/0/ipBlock/cidr"),
        ("networkPolicy.metricsFrom[0].ipBlock.cidr=all", "/networkPolicy/metricsFrom/0/ipBlock/cidr"),
        ("gateway.replicas=0", "/gateway/replicas"),
        ("gateway.accessLog=true", "/gateway/accessLog"),
        ("gateway.drainSeconds=0", "/gateway/drainSeconds"),
        ("gateway.ports.first=1023", "/gateway/ports/first"),
        ("gateway.ports.last=32768", "/gateway/ports/last"),
        ("gateway.tls.secretName=My_Secret", "/gateway/tls/secretName"),
        ("gateway.tls.enabled=true", "additional properties 'enabled' not allowed"),
        ("gateway.apiKeys.secretName=a/b", "/gateway/apiKeys/secretName"),
        ("gateway.apiKeys.keys={a}", "additional properties 'keys' not allowed"),
        ("gateway.externalAuthorization.address=authz", "/gateway/externalAuthorization/address"),
        ("gateway.externalAuthorization.address=http://authz:9000", "/gateway/externalAuthorization/address"),
        ("gateway.externalAuthorization.address=authz:65536", "/gateway/externalAuthorization/address"),
        ("gateway.externalAuthorization.timeoutMs=0", "/gateway/externalAuthorization/timeoutMs"),
        ("gateway.externalAuthorization.tls=yes", "/gateway/externalAuthorization/tls"),
        ("gateway.externalAuthorization.failOpen=true", "additional properties 'failOpen' not allowed"),
        ("gateway.externalAuthorization.caSecretName=ca", "address and tls: true are needed too"),
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


def test_allowed_schedulers() -> None:
    policy = _objects("--set", "policy.schedulers={default-scheduler,volcano}")[_POLICY, "conch-references"]
    variables = {each["name"]: each["expression"] for each in policy["spec"]["variables"]}
    assert json.loads(variables["schedulers"]) == ["default-scheduler", "volcano"]


def test_each_device_claim_that_the_api_allows_is_checked() -> None:
    validations = _objects()[_POLICY, "conch-references"]["spec"]["validations"]
    checked = [each for each in validations if "resourceclaimtemplates" in each["expression"]]
    assert len(checked) == CLAIMS_MOST
    assert f"variables.claimTemplates.size() <= {CLAIMS_MOST}" in {each["expression"] for each in validations}


def test_images_are_pulled_beforehand_only_where_asked_for() -> None:
    assert ("DaemonSet", "conch-pre-pull") not in _objects()


def _pre_pull(*options: str) -> dict[str, Any]:
    objects = _objects("--set", "prePull.enabled=true", *options)
    template: dict[str, Any] = objects["DaemonSet", "conch-pre-pull"]["spec"]["template"]
    assert template["metadata"]["labels"] == objects["DaemonSet", "conch-pre-pull"]["spec"]["selector"]["matchLabels"]
    pod: dict[str, Any] = template["spec"]
    return pod


def test_every_image_of_model_pods_is_kept_by_a_container_that_sleeps() -> None:
    pod = _pre_pull("--set", "prePull.images={a/triton:1,nvcr.io/nvidia/tritonserver:26.07-py3,b/triton:2}")
    images = [container["image"] for container in pod["containers"]]
    assert images == ["nvcr.io/nvidia/tritonserver:26.07-py3", "conch:0.1.0", "a/triton:1", "b/triton:2"]
    assert len({container["name"] for container in pod["containers"]}) == len(images)
    assert [container["command"] for container in pod["containers"]] == [["sleep", "infinity"]] * len(images)
    assert "initContainers" not in pod, "what has ended keeps no image"


def test_who_pulls_beforehand_can_do_nothing_else() -> None:
    pod = _pre_pull("--set", "image.pullSecrets={registry}")
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["env"] == [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]
        assert container["resources"]["requests"] == {"cpu": "1m", "memory": "8Mi"}
        assert "volumeMounts" not in container
    assert "volumes" not in pod


def test_images_are_pulled_to_the_nodes_of_model_pods() -> None:
    pod = _pre_pull()
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    selector = r"prePull.nodeSelector.nvidia\.com/gpu\.present=null,prePull.nodeSelector.pool=serving"
    chosen = _pre_pull("--set", selector, "--set-json", 'prePull.tolerations=[{"operator":"Exists"}]')
    assert chosen["nodeSelector"] == {"pool": "serving"}
    assert chosen["tolerations"] == [{"operator": "Exists"}]


def test_a_digest_wins_over_the_tag() -> None:
    digest = f"sha256:{'0' * 64}"
    deployment = _objects("--set", f"image.digest={digest}")["Deployment", "conch-operator"]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == f"conch@{digest}"


def test_one_replica_can_be_drained() -> None:
    assert ("PodDisruptionBudget", "conch-operator") not in _objects("--set", "replicas=1")


def test_secrets_of_ones_own_are_mounted_and_none_is_made() -> None:
    objects = _objects("--set", "installationKey.existingSecret=mine", "--set", "gateway.existingTokenSecret=my-token")
    assert not [name for kind, name in objects if kind == "Secret"]
    (settings, _) = objects["Deployment", "conch-operator"]["spec"]["template"]["spec"]["volumes"]
    assert [source["secret"]["name"] for source in settings["projected"]["sources"][1:]] == ["mine", "my-token"]
    assert _volumes(_gateway(objects))["token"]["secret"]["secretName"] == "my-token"


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


def test_a_gateway_only_reads() -> None:
    roles = [each for (_, name), each in _objects().items() if name.startswith("conch-gateway") and "rules" in each]
    verbs = {verb for role in roles for rule in role["rules"] for verb in rule["verbs"]}
    assert verbs == {"get", "list", "watch"}


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


def _gateway(objects: dict[tuple[str, str], Any]) -> dict[str, Any]:
    """The gateway pods as they are to be."""
    template: dict[str, Any] = objects["Deployment", "conch-gateway"]["spec"]["template"]
    return template


def _volumes(template: dict[str, Any]) -> dict[str, Any]:
    return {volume["name"]: volume for volume in template["spec"]["volumes"]}


def _mounts(container: dict[str, Any]) -> dict[str, Any]:
    return {mount["mountPath"]: mount for mount in container["volumeMounts"]}


def _sidecar_and_envoy(template: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    (sidecar,), (envoy,) = template["spec"]["initContainers"], template["spec"]["containers"]
    assert sidecar["name"] == gateway_pod.SIDECAR_CONTAINER
    assert envoy["name"] == gateway_pod.ENVOY_CONTAINER
    return sidecar, envoy


def test_gateway_pods_are_those_that_the_operator_looks_for() -> None:
    objects = _objects()
    deployment = objects["Deployment", "conch-gateway"]["spec"]
    assert deployment["selector"]["matchLabels"] == names.GATEWAY_LABELS
    assert _gateway(objects)["metadata"]["labels"].items() >= names.GATEWAY_LABELS.items()
    assert objects["PodDisruptionBudget", "conch-gateway"]["spec"]["selector"]["matchLabels"] == names.GATEWAY_LABELS


def test_operator_pods_are_those_that_model_pods_let_in() -> None:
    template = _objects()["Deployment", "conch-operator"]["spec"]["template"]
    assert template["metadata"]["labels"].items() >= names.OPERATOR_LABELS.items()


def test_gateways_are_two_spread_over_nodes_and_leave_one_at_a_time() -> None:
    objects = _objects()
    deployment = objects["Deployment", "conch-gateway"]["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert objects["PodDisruptionBudget", "conch-gateway"]["spec"]["maxUnavailable"] == 1
    (spread,) = _gateway(objects)["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["labelSelector"]["matchLabels"] == names.GATEWAY_LABELS


def test_the_number_of_gateways_can_be_set() -> None:
    objects = _objects("--set", "gateway.replicas=5")
    assert objects["Deployment", "conch-gateway"]["spec"]["replicas"] == 5


def test_envoy_ends_only_when_the_sidecar_lets_it() -> None:
    sidecar, envoy = _sidecar_and_envoy(_gateway(_objects()))
    # By number: a name would be looked for among Envoy's own ports.
    assert envoy["lifecycle"] == {"preStop": {"httpGet": {"path": "/leave", "port": gateway_pod.REPORT_PORT}}}
    assert sidecar["ports"] == [{"name": "report", "containerPort": gateway_pod.REPORT_PORT, "protocol": "TCP"}]
    # Only so is it started before Envoy and ended after it.
    assert sidecar["restartPolicy"] == "Always"
    assert "lifecycle" not in sidecar


@pytest.mark.parametrize(("drain_seconds", "grace_seconds"), [(120, 190), (1, 71), (3600, 3670)])
def test_a_gateway_is_given_the_time_that_leaving_takes(drain_seconds: int, grace_seconds: int) -> None:
    template = _gateway(_objects("--set", f"gateway.drainSeconds={drain_seconds}"))
    sidecar, _ = _sidecar_and_envoy(template)
    assert _env(sidecar)["CONCH_GATEWAY_DRAIN_SECONDS"] == str(drain_seconds)
    assert template["spec"]["terminationGracePeriodSeconds"] == grace_seconds


def test_operator_and_sidecar_have_the_same_token_and_envoy_has_none() -> None:
    objects = _objects()
    assert objects["Secret", "conch-gateway-token"]["data"].keys() == {"token"}
    sidecar, envoy = _sidecar_and_envoy(_gateway(objects))
    token = _volumes(_gateway(objects))["token"]["secret"]
    assert token["secretName"] == "conch-gateway-token"
    assert token["defaultMode"] == 0o440
    (item,) = token["items"]
    (folder,) = (path for path, mount in _mounts(sidecar).items() if mount["name"] == "token")
    assert f"{folder}/{item['path']}" == gateway_pod.TOKEN_FILE
    operator = objects["Deployment", "conch-operator"]["spec"]["template"]
    (settings_folder, *_) = _mounts(operator["spec"]["containers"][0])
    projected = _volumes(operator)["settings"]["projected"]["sources"][2]["secret"]
    assert projected["name"] == "conch-gateway-token"
    assert f"{settings_folder}/{projected['items'][0]['path']}" == gateway_pod.TOKEN_FILE
    # Neither this one nor one for the API server: Envoy reads what strangers send.
    assert [mount["name"] for mount in envoy["volumeMounts"]] == ["config"]
    assert _gateway(objects)["spec"]["automountServiceAccountToken"] is False


def test_envoy_reads_what_the_sidecar_writes() -> None:
    sidecar, envoy = _sidecar_and_envoy(_gateway(_objects()))
    folder = gateway_pod.CONFIG_FOLDER
    assert _mounts(sidecar)[folder] == {"name": "config", "mountPath": folder}
    assert _mounts(envoy)[folder] == {"name": "config", "mountPath": folder, "readOnly": True}
    assert envoy["args"][:2] == ["-c", f"{folder}/{gateway_pod.BOOTSTRAP_FILE}"]


def test_what_the_sidecar_is_told() -> None:
    def told(*options: str) -> dict[str, str]:
        return _env(_sidecar_and_envoy(_gateway(_objects(*options)))[0])

    assert told() == {
        "CONCH_POD_NAME": "metadata.name",
        "CONCH_POD_IP": "status.podIP",
        "CONCH_NAMESPACE": "metadata.namespace",
        "CONCH_GATEWAY_ACCESS_LOG": "false",
        "CONCH_GATEWAY_DRAIN_SECONDS": "120",
        "CONCH_GATEWAY_MAX_REQUEST_HEADERS_KIB": "60",
        "CONCH_GATEWAY_ENVOY_HEAP_BYTES": "envoy: limits.memory",
        "CONCH_LOG_FORMAT": "json",
        "CONCH_LOG_LEVEL": "info",
    }
    assert told("--set", "gateway.accessLog=json")["CONCH_GATEWAY_ACCESS_LOG"] == "true"
    assert told("--set", "gateway.maxRequestHeadersKib=96")["CONCH_GATEWAY_MAX_REQUEST_HEADERS_KIB"] == "96"


def test_the_certificate_is_mounted_for_both_only_where_a_secret_is_named_and_must_be_whole() -> None:
    template = _gateway(_objects("--set", "gateway.tls.secretName=certificate"))
    sidecar, envoy = _sidecar_and_envoy(template)
    folder = gateway_pod.TLS_FOLDER
    assert _mounts(sidecar)[folder] == _mounts(envoy)[folder] == {"name": "tls", "mountPath": folder, "readOnly": True}
    assert _env(sidecar)["CONCH_GATEWAY_TLS_FOLDER"] == folder
    secret = _volumes(template)["tls"]["secret"]
    assert (secret["secretName"], secret["defaultMode"], "optional" in secret) == ("certificate", 0o440, False)
    assert [item["key"] for item in secret["items"]] == ["tls.crt", "tls.key"]
    assert "tls" not in _volumes(_gateway(_objects()))


def test_api_keys_are_mounted_for_the_sidecar_only() -> None:
    template = _gateway(_objects("--set", "gateway.apiKeys.secretName=clients"))
    sidecar, envoy = _sidecar_and_envoy(template)
    folder = gateway_pod.API_KEYS_FOLDER
    assert _mounts(sidecar)[folder] == {"name": "api-keys", "mountPath": folder, "readOnly": True}
    assert folder not in _mounts(envoy)
    assert _env(sidecar)["CONCH_GATEWAY_API_KEYS_FOLDER"] == folder
    # A Secret that is deleted takes the keys away: the kubelet would leave one that is not optional as it was.
    mounted = {"secretName": "clients", "defaultMode": 0o440, "optional": True}
    assert _volumes(template)["api-keys"]["secret"] == mounted


def test_the_sidecar_is_told_of_an_authorisation_service_and_envoy_has_its_authority() -> None:
    def told(*values: str) -> tuple[ExternalAuthorization | None, dict[str, Any]]:
        options = [part for each in values for part in ("--set", f"gateway.externalAuthorization.{each}")]
        sidecar, envoy = _sidecar_and_envoy(
            _gateway(_objects(*options, "--set", "gateway.envoy.resources.limits=null"))
        )
        return GatewaySettings.from_env(_env(sidecar)).authorization, _mounts(envoy)

    folder = gateway_pod.AUTHORIZATION_FOLDER
    service, mounts = told("address=authz.security.svc:9000", "timeoutMs=250", "tls=true", "caSecretName=authority")
    assert service == ExternalAuthorization(
        host="authz.security.svc", port=9000, timeout_milliseconds=250, tls=True, ca_file=Path(folder, "ca.crt")
    )
    assert mounts[folder] == {"name": "authorization-ca", "mountPath": folder, "readOnly": True}
    service, mounts = told("address=authz.security.svc:9000")
    assert service == ExternalAuthorization(host="authz.security.svc", port=9000, timeout_milliseconds=1000)
    assert folder not in mounts
    assert told()[0] is None


def _env(container: dict[str, Any]) -> dict[str, str]:
    """Names and values; of what is read from the pod, the path of the field or the resource of a container."""

    def value(env: dict[str, Any]) -> str:
        if "value" in env:
            return str(env["value"])
        if "resourceFieldRef" in env["valueFrom"]:
            reference = env["valueFrom"]["resourceFieldRef"]
            return f"{reference['containerName']}: {reference['resource']}"
        return str(env["valueFrom"]["fieldRef"]["fieldPath"])

    return {each["name"]: value(each) for each in container["env"]}


PORTS_THAT_CANNOT_BE: Final = [
    (20_000, 19_999, r"\(20000\) is above last \(19999\)", "portsFirst 20000 is above portsLast 19999"),
    (8_000, 9_000, "hold.* 8080", "hold 8080"),
    (9_900, 9_901, "hold.* 9901", "hold 9901"),
    (9_902, 12_000, "hold.* 9902", "hold 9902"),
]


@pytest.mark.parametrize(("first", "last", "by_the_chart", "by_the_operator"), PORTS_THAT_CANNOT_BE)
def test_ports_that_cannot_be_are_refused_by_the_chart_and_by_the_operator(
    first: int, last: int, by_the_chart: str, by_the_operator: str, tmp_path: Path
) -> None:
    with pytest.raises(generate.RenderError, match=by_the_chart):
        generate.render("--set", f"gateway.ports.first={first}", "--set", f"gateway.ports.last={last}")
    settings = tmp_path / "settings.yaml"
    images = {"triton": "triton", "agent": "conch"}
    settings.write_text(yaml.safe_dump({"images": images, "gateway": {"portsFirst": first, "portsLast": last}}))
    with pytest.raises(SettingsError, match=by_the_operator):
        OperatorSettings.load(settings)
