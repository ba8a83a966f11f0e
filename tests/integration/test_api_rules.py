"""What the API server itself refuses, and that it says what to do."""

import json
from itertools import product
from typing import Any, Final

import pytest

from conch.api.model_deployment import InvalidSpec, parse_spec
from tests.cluster.apiserver import ApiServer
from tests.integration.conftest import model_deployment


def _apply(api: ApiServer, body: dict[str, Any]) -> tuple[int, str]:
    done = api.kubectl("apply", "--dry-run=server", "-f", "-", input=json.dumps(body), check=False)
    return done.returncode, done.stderr


def _source(uri: str, **source: Any) -> dict[str, Any]:
    return {"model": {"version": 1, "source": {"uri": uri, **source}}}


def _models(*models: dict[str, Any]) -> dict[str, Any]:
    source = {"uri": "https://models/m.onnx"}
    return {"models": [{"version": 1, "source": source, **model} for model in models]}


def _rollout(**rollout: Any) -> dict[str, Any]:
    return {"rollout": rollout}


def _direct(**rollout: Any) -> dict[str, Any]:
    return {"rollout": rollout, "gateway": {"mode": "Direct"}}


PARENT: Final = {"name": "public", "namespace": "infra"}


def _gateway_api(**gateway: Any) -> dict[str, Any]:
    return {"gateway": {"mode": "GatewayAPI", "parentRefs": [PARENT], **gateway}}


OBJECTIVE: Final = {"latencyMs": 200}
TARGET: Final = {"metric": "Concurrency", "value": 4}


def _autoscaling(**autoscaling: Any) -> dict[str, Any]:
    return {"autoscaling": {"maxReplicas": 5, **autoscaling}}


def _config(format: str = "Auto", **config: Any) -> dict[str, Any]:
    return {"model": {**_source("s3://models/m")["model"], "format": format, "config": config}}


X: Final = {"name": "x", "dataType": "FP32", "dims": [-1, 4]}


def _storage(**storage: Any) -> dict[str, Any]:
    return {"model": {**_source("s3://models/m")["model"], "storage": storage}}


def _groups(*groups: dict[str, Any]) -> dict[str, Any]:
    return {"model": {**_source("s3://models/m")["model"], "config": {"instanceGroups": list(groups)}}}


CLAIM: Final = {"name": "gpu", "resourceClaimTemplateName": "two-h100"}
SPREAD: Final = {"topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
SCHEMES: Final = ("s3", "gs", "az", "https", "http", "hf", "oci", "pvc", "ftp", "S3", " https")
RESTS: Final = (
    *("", "a", "models", "models/", "models/a", "models/a/", "models/a/b", "models/a/b/c/", "models//a", "models/a//"),
    *("models/../a", "models/a/..", "models/a/./b", "models/.../..a", "models/a b/ü", "models/a?b", "models/a#b"),
    *("Models/a/b", "m_m/a/b", "m..m/a/b", "-m/a/b", "m-/a/b", "ü/a/b", "m%61/a/b", "m m/a/b", "m\\m/a/b"),
    *("m:80/a/b", "m:/a/b", "m:65535/a", "m:65536/a", "m:x/a", "[::1]/a", "[::1]:80/a", "[::1/a", "@m/a/b", "u:p@m/a"),
    *("models/a@b", "models/a@refs/pr/1", "models/a/b@v1.0", "models/a@", "models/a@-b", "models/a@b/../c", "m/a@b@c"),
    *("models/a:1", "models/a:", f"models/a@sha256:{'0' * 64}", f"models/a:1@sha256:{'0' * 64}", "models/a@sha256:0"),
    *("models/a/\nb", "mo\tdels/a/b", "models/a/b\n", "models/a/\x7f", f"{'m' * 222}/a/b", f"{'m' * 223}/a/b"),
)
ENDPOINTS: Final = (
    *("https://m", "http://m:9000", "https://m/a/b/", "https://[::1]:9000", "https://m:65536", "https://m:0"),
    *(
        "https://m?a",
        "https://m#a",
        "https://u@m",
        "https://u:p@m/",
        "HTTPS://mmm",
        "ftp://mmm",
        "https://",
        "//mmmmmm",
    ),
    *("https://m/a@b", "https://m/a b", "https://m\n", "https://ü.example", "https:///a"),
)
FIELDS: Final[tuple[dict[str, Any], ...]] = (
    {"endpoint": "https://m"},
    {"region": "eu-1"},
    {"pathStyle": False},
    {"pathStyle": True},
)
SOURCES: Final[tuple[dict[str, Any], ...]] = (
    *({"uri": f"{scheme}://{rest}"} for scheme, rest in product(SCHEMES, RESTS)),
    *({"uri": f"s3://models/a\n{scheme}://models/a"} for scheme in SCHEMES),
    *({"uri": uri} for uri in ("models/a.onnx", "s3:/models/a", "https:models/a", "s3://b/a", "s3://b")),
    *({"uri": "s3://models/a", "endpoint": endpoint} for endpoint in ENDPOINTS),
    *({"uri": f"{scheme}://models/a/b", **field} for scheme, field in product(SCHEMES, FIELDS)),
)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (_source("ftp://models/m.onnx"), "use s3://BUCKET/PATH, gs://BUCKET/PATH, az://"),
        (_source("https://user:secret@models/m.onnx"), "must not carry credentials"),
        (_source("s3://models/m\n"), "write it in one line"),
        (_source("s3://models"), "not s3://BUCKET/PATH"),
        (_source("gs://models"), "not gs://BUCKET/PATH"),
        (_source("az://acme/models"), "not az://ACCOUNT/CONTAINER/PATH"),
        (_source("hf://model"), "not hf://ORGANISATION/NAME[/PATH][@REVISION]"),
        (_source("oci://registry/Model"), "not oci://REGISTRY/REPOSITORY[:TAG|@sha256:DIGEST]"),
        (_source("pvc://claim"), "not pvc://CLAIM/PATH"),
        (_source("http://:80/m.onnx"), "not http://HOST[:PORT]/PATH"),
        (_source("https://m/m", endpoint="https://store"), "endpoint is only for s3, gs, az, hf; remove it"),
        (_source("s3://models/m", endpoint="https://u:p@store"), "https://HOST[:PORT][/PATH] without credentials"),
        (_source("s3://models/m", endpoint="https://store?a=b"), "https://HOST[:PORT][/PATH] without credentials"),
        (_source("s3://models/m", endpoint="store:9000"), "endpoint must be https://HOST"),
        (_source("gs://models/m", region="eu-west-1"), "region is only for s3; remove it"),
        (_source("s3://models/m", region="eu/west"), "should match"),
        (_source("hf://acme/model", pathStyle=False), "pathStyle: false is only for s3; remove it"),
        (_source("s3://models/m", credentialsSecretRef={"name": "a/b"}), "should match"),
        (_source("s3://models/m", credentialsSecretRef={}), "name: Required value"),
        (_storage(size="0Gi"), "a volume of 0 holds no model; give its size"),
        (_storage(size=0), "a volume of 0 holds no model; give its size"),
        (_storage(storageClassName="fast"), "size: Required value"),
        ({"model": {"version": 0, "source": {"uri": "https://m/m.onnx"}}}, "greater than or equal to 1"),
        ({"model": {"source": {"uri": "https://m/m.onnx"}}}, "version: Required value"),
        (_models({}), "name: Required value"),
        (
            _models({"name": "a", "config": {"instanceGroups": [{"kind": "GPU", "gpus": [0, 1]}]}}),
            "models[].config.instanceGroups[].gpus counts from 0",
        ),
        (_models({"name": "a"}, {"name": "a"}), "Duplicate value"),
        (_models({"name": "digits"}), "spec.models: two models of a pod have the same name"),
        (
            {**_models({"name": "a"}), "model": {"name": "a", **_source("s3://m/a")["model"]}},
            "models: two models of a pod",
        ),
        (_models({"name": "a", "source": {"uri": "ftp://models/m"}}), "use s3://BUCKET/PATH"),
        (_models({"name": "a", "source": {"uri": "pvc://claim/../b"}}), "with a plain path"),
        (_models({"name": "a", "storage": {"size": "1Gi"}}), "unknown field"),
        (_models(*({"name": f"m{number}"} for number in range(8))), "at most 7 items"),
        ({"gpu": {"count": 0, "products": ["H100"]}}, "remove gpu.products or ask for a GPU"),
        (_groups({"kind": "GPU", "gpus": [0, 1]}), "must be below gpu.count; raise gpu.count"),
        ({**_groups({"kind": "GPU", "gpus": [2]}), "gpu": {"count": 2}}, "must be below gpu.count; raise gpu.count"),
        ({**_groups({"kind": "GPU", "gpus": [0]}), "gpu": {"count": 0}}, "must be below gpu.count; raise gpu.count"),
        (_groups({"gpus": [0]}), "set kind: GPU, or remove gpus"),
        (_groups({"kind": "CPU", "gpus": [0]}), "set kind: GPU, or remove gpus"),
        (_groups({"kind": "GPU", "gpus": []}), "should have at least 1 items"),
        ({**_groups({"kind": "GPU", "gpus": [0, 0]}), "gpu": {"count": 2}}, "Duplicate value"),
        (_groups({"kind": "GPU", "gpus": [16]}), "less than or equal to 15"),
        ({"gpu": {"claims": [{"name": "gpu"}]}}, "resourceClaimTemplateName: Required value"),
        ({"gpu": {"claims": [CLAIM, CLAIM]}}, "Duplicate value"),
        ({"gpu": {"claims": [{**CLAIM, "name": f"gpu-{number}"} for number in range(5)]}}, "must have at most 4 items"),
        ({"gpu": {"claims": [{**CLAIM, "resourceClaimName": "mine"}]}}, "unknown field"),
        ({"scheduling": {"topologySpread": [{"topologyKey": "zone"}]}}, "whenUnsatisfiable: Required value"),
        ({"scheduling": {"topologySpread": [{**SPREAD, "maxSkew": 0}]}}, "greater than or equal to 1"),
        ({"scheduling": {"topologySpread": [SPREAD, {**SPREAD, "maxSkew": 2}]}}, "Duplicate value"),
        ({"scheduling": {"topologySpread": [{**SPREAD, "whenUnsatisfiable": "Never"}]}}, "Unsupported value"),
        ({"scheduling": {"queueName": "Team A"}}, "should match"),
        ({"scheduling": {"queueName": "q" * 64}}, "may not be more than 63"),
        ({"scheduling": {"schedulerName": "../volcano"}}, "should match"),
        ({"gateway": {"mode": "Direct", "hold": {}}}, "Direct is a plain Service: remove"),
        ({"gateway": {"mode": "Direct", "timeoutSeconds": 5}}, "Direct is a plain Service: remove"),
        ({"gateway": {"mode": "Direct", "maxInFlight": 5}}, "Direct is a plain Service: remove"),
        ({"gateway": {"mode": "Direct", "retries": {"attempts": 0}}}, "Direct is a plain Service: remove"),
        ({"gateway": {"mode": "Direct", "retries": {}, "maxInFlight": 5}}, "Direct is a plain Service: remove"),
        ({"gateway": {"mode": "GatewayAPI"}}, "gateway.parentRefs names the Gateways"),
        ({"gateway": {"parentRefs": [PARENT]}}, "gateway.parentRefs names the Gateways"),
        ({"gateway": {"mode": "Direct", "parentRefs": [PARENT]}}, "gateway.parentRefs names the Gateways"),
        ({"gateway": {"hostnames": ["a.example.com"]}}, "hostnames and grpcHostnames are of gateway.mode GatewayAPI"),
        ({"gateway": {"grpcHostnames": ["a.example.com"]}}, "grpcHostnames are of gateway.mode GatewayAPI"),
        (_gateway_api(parentRefs=[]), "should have at least 1 item"),
        (_gateway_api(parentRefs=[{"namespace": "infra"}]), "name: Required value"),
        (_gateway_api(parentRefs=[{"name": "a", "port": 0}]), "greater than or equal to 1"),
        (_gateway_api(parentRefs=[{"name": "a", "protocol": "TCP"}]), "Unsupported value"),
        (_gateway_api(hostnames=["https://a.example.com"]), "should match"),
        (_gateway_api(hold={}), "leaves requests to the platform's Gateways"),
        (_gateway_api(retries={"attempts": 0}), "leaves requests to the platform's Gateways"),
        (_gateway_api(maxInFlight=5), "leaves requests to the platform's Gateways"),
        (_gateway_api(timeoutSeconds=5), "leaves requests to the platform's Gateways"),
        ({**_gateway_api(), **_rollout(strategy="InPlace")}, "sends to all pods of a version"),
        (
            {**_gateway_api(), **_rollout(analysis=[{"latency": {"percentile": 95, "maxMilliseconds": 5}}])},
            "remove latency from rollout.analysis",
        ),
        (
            {**_gateway_api(), **_autoscaling(minReplicas=0, objective=OBJECTIVE)},
            "GatewayAPI holds no requests, so nothing could wake the model",
        ),
        ({"gateway": {"mode": "Istio"}}, "Unsupported value"),
        ({"gateway": {"hold": {"seconds": 3601}}}, "less than or equal to 3600"),
        ({"gateway": {"maxInFlight": 0}}, "greater than or equal to 1"),
        (_rollout(steps=[{"weight": 50}, {"weight": 10}]), "order them by weight"),
        (_rollout(steps=[{"weight": 100}]), "less than or equal to 99"),
        (_rollout(steps=[{"weight": 5, "pause": "UntilPromoted", "pauseSeconds": 5}]), "not both"),
        (_rollout(strategy="Recreate", steps=[{"weight": 5}]), "remove rollout.steps"),
        (_rollout(strategy="BlueGreen"), "Unsupported value"),
        (_rollout(analysis=[{}]), "exactly one of successRate"),
        (_rollout(analysis=[{"successRate": {"minimumPercent": 99}, "goldenSet": {}}]), "exactly one of successRate"),
        (_rollout(analysis=[{"latency": {"percentile": 95}}]), "either maxMilliseconds or maxRatioToStable"),
        (_rollout(analysis=[{"goldenSet": {}, "minimumSamples": 5}]), "remove minimumSamples"),
        (_rollout(analysis=[{"latency": {"percentile": 95, "maxRatioToStable": 2}}]), "give rollout.steps"),
        (_direct(steps=[{"weight": 5}]), "neither splits nor counts requests"),
        (_direct(analysis=[{"successRate": {"minimumPercent": 99}}]), "neither splits nor counts requests"),
        (_direct(strategy="Replace"), "neither splits nor counts requests"),
        (_direct(strategy="InPlace"), "neither splits nor counts requests"),
        (_direct(shadow={"percent": 10}), "only Conch's gateways copy requests"),
        ({**_gateway_api(), **_rollout(shadow={"percent": 10})}, "only Conch's gateways copy requests"),
        (_rollout(strategy="Recreate", shadow={"percent": 10}), "there is nothing to compare with"),
        (_rollout(shadow={}), "percent: Required value"),
        (_rollout(shadow={"percent": 0}), "greater than or equal to 1"),
        (_rollout(shadow={"percent": 5, "maxDisagreement": 100}), "less than or equal to 99"),
        (_rollout(shadow={"percent": 5, "latency": {"percentile": 95}}), "either maxMilliseconds or maxRatioToStable"),
        (
            _rollout(shadow={"percent": 5, "outputs": [{"output": "y", "sameLabel": True, "absolute": 1}]}),
            "remove absolute and relative, or sameLabel",
        ),
        (_rollout(shadow={"percent": 5, "outputs": [{"output": "y"}, {"output": "y"}]}), "Duplicate value"),
        ({"runtime": {"sharedMemory": "8Gi"}}, "make memory larger than sharedMemory"),
        ({"runtime": {"env": [{"name": "LD_PRELOAD", "value": "/x"}]}}, "remove them from runtime.env"),
        ({"runtime": {"resources": {"memory": "lots"}}}, "should match"),
        ({"runtime": {"resources": {"cpu": "0"}}}, "more than 0"),
        ({"runtime": {"resources": {"cpu": 0}}}, "more than 0"),
        (_source("pvc://claim/a/../b"), "with a plain path (no empty part, . or ..)"),
        (_source("pvc://claim/a//b"), "with a plain path (no empty part, . or ..)"),
        (_source("pvc://claim/a?x"), "with a plain path (no empty part, . or ..)"),
        (_source("pvc://claim/a#b"), "with a plain path (no empty part, . or ..)"),
        (_source("https://:443/x"), "not https://HOST[:PORT]/PATH"),
        (_source("https://[/x"), "not https://HOST[:PORT]/PATH"),
        ({"scheduling": {"tolerations": [{"operator": "Exists", "key": "a", "value": "b"}]}}, "Exists has no value"),
        ({"scheduling": {"tolerations": [{"value": "b"}]}}, "Equal needs a key"),
        ({"scheduling": {"tolerations": [{"key": "a", "tolerationSeconds": 3}]}}, "needs the effect NoExecute"),
        ({"model": {**_source("https://m/m")["model"], "config": {"parameters": {"k" * 129: "v"}}}}, "at most 128"),
        ({"scheduling": {"nodeSelector": {"not a key": "x"}}}, "qualified names"),
        ({"replicas": -1}, "greater than or equal to 0"),
        ({"autoscaling": {"objective": OBJECTIVE}}, "maxReplicas: Required value"),
        (_autoscaling(maxReplicas=0, objective=OBJECTIVE), "greater than or equal to 1"),
        (_autoscaling(), "give either objective (milliseconds) or target"),
        (_autoscaling(objective=OBJECTIVE, target=TARGET), "give either objective (milliseconds) or target"),
        (_autoscaling(minReplicas=6, objective=OBJECTIVE), "minReplicas is more than maxReplicas; lower the one"),
        (_autoscaling(objective=OBJECTIVE, scaleToZero={}), "scaleToZero needs minReplicas: 0"),
        (_autoscaling(minReplicas=1, objective=OBJECTIVE, scaleToZero={}), "scaleToZero needs minReplicas: 0"),
        (_autoscaling(minReplicas=0, objective=OBJECTIVE, scaleToZero={"idleSeconds": 9}), "greater than or equal to"),
        (_autoscaling(objective={"latencyMs": 0}), "greater than or equal to 1"),
        (_autoscaling(objective={"latencyMs": 200, "percentile": 99.95}), "less than or equal to 99.9"),
        (_autoscaling(target={"metric": "Cpu", "value": 4}), "Unsupported value"),
        (_autoscaling(target={"metric": "Concurrency", "value": 0.0001}), "greater than or equal to 0.001"),
        (
            _autoscaling(objective=OBJECTIVE, behavior={"scaleUp": {"policies": [{"type": "Pods", "value": 1}]}}),
            "periodSeconds: Required value",
        ),
        ({"replicas": 2, **_autoscaling(objective=OBJECTIVE)}, "autoscaling makes one; remove either of them"),
        ({"replicas": 0, **_autoscaling(objective=OBJECTIVE)}, "autoscaling makes one; remove either of them"),
        (
            {"gateway": {"mode": "Direct"}, **_autoscaling(minReplicas=0, objective=OBJECTIVE)},
            "nothing could wake the model: use autoscaling.minReplicas of at least 1, or mode Gateway",
        ),
        ({"runtime": {"instances": "Auto"}}, "measured against autoscaling.objective"),
        ({"runtime": {"instances": "Auto"}, **_autoscaling(target=TARGET)}, "measured against autoscaling.objective"),
        ({"runtime": {"instances": "auto"}}, "should match"),
        ({"runtime": {"instances": 0}}, "greater than or equal to 1"),
        (_config("TorchScript"), "give config.inputs and config.outputs, each with name"),
        (_config("TorchScript", inputs=[X]), "give config.inputs and config.outputs, each with name"),
        (_config("SavedModel"), "Unsupported value"),
        (_config(inputs=[]), "at least 1 item"),
        (_config(inputs=[X, X]), "Duplicate value"),
        (_config(outputs=[X | {"dims": [3, 0]}]), "an axis has 1 or more elements, or -1"),
        (_config(outputs=[X | {"dims": [-2]}]), "greater than or equal to -1"),
        (_config(outputs=[X | {"dataType": "TYPE_FP32"}]), "Unsupported value"),
        (_config(dynamicBatching={}, sequenceBatching={}), "a model has one scheduler: remove"),
        (
            _config(dynamicBatching={"priorityLevels": 2, "defaultPriorityLevel": 3}),
            "one of the levels 1 to priorityLev",
        ),
        (
            _config(dynamicBatching={"priorityLevels": 2, "priorityQueues": [{"level": 3}]}),
            "one of 1 to priorityLevels",
        ),
        (_config(dynamicBatching={"priorityQueues": [{"level": 1}, {"level": 1}]}), "Duplicate value"),
        (_config(optimization={}), 'unknown field "spec.model.config.optimization"'),
        ({"runtime": {"command": ["sh"]}}, 'unknown field "spec.runtime.command"'),
    ],
)
def test_a_bad_spec_is_refused_with_what_to_do(api: ApiServer, namespace: str, spec: dict[str, Any], says: str) -> None:
    code, message = _apply(api, model_deployment("digits", namespace, **spec))
    assert code != 0
    assert says in message


@pytest.mark.parametrize("name", ["3.my-model", "a" * 41, "3d", "my.model"])
def test_a_name_that_is_no_service_name_is_refused(api: ApiServer, namespace: str, name: str) -> None:
    code, message = _apply(api, model_deployment(name, namespace))
    assert code != 0
    assert "rename the object" in message


@pytest.mark.parametrize(
    "spec",
    [
        {},
        _source("pvc://models/fraud/7"),
        _source("http://store/m.onnx?token=1"),
        _source("https://[2606:4700::1]:8443/m.onnx"),
        _source("https://store.example.com:8443/a..b/...onnx"),
        _source("pvc://models/a..b/.hidden/"),
        _source(
            "s3://models/m",
            endpoint="http://store:9000",
            region="eu-west-1",
            pathStyle=False,
            credentialsSecretRef={"name": "store"},
        ),
        _source("gs://models/m", endpoint="https://store.example/storage", credentialsSecretRef={"name": "store"}),
        _source("az://acme/models/m/", endpoint="http://127.0.0.1:10000/acme"),
        _source("hf://acme/model/onnx@refs/pr/1", endpoint="https://hub.example"),
        _source("oci://registry.example:5000/team/model:1.0"),
        _source(f"oci://registry.example/team/model@sha256:{'0' * 64}", pathStyle=True),
        _models(*({"name": f"m{number}", "source": {"uri": "pvc://claim/m"}} for number in range(7))),
        _storage(size="100Gi", storageClassName="fast"),
        _storage(size=1),
        _config("TorchScript", inputs=[X], outputs=[X | {"name": "y", "dataType": "BYTES"}]),
        _config("Python"),
        _config(sequenceBatching={"maxSequenceIdleMicroseconds": 5_000_000}),
        _config(
            dynamicBatching={
                "timeoutMicroseconds": 0,
                "timeoutAction": "Delay",
                "allowTimeoutOverride": True,
                "preserveOrdering": False,
                "priorityLevels": 2,
                "defaultPriorityLevel": 2,
                "priorityQueues": [{"level": 1, "maxQueueSize": 5, "timeoutAction": "Reject"}],
            }
        ),
        {"runtime": {"resources": {"cpu": 2, "memory": 8589934592}}},
        {"gpu": {"count": 1, "resource": "nvidia.com/mig-1g.10gb", "products": ["NVIDIA-H100"]}},
        {"gpu": {"claims": [CLAIM], "products": ["NVIDIA-H100"]}},
        {"gpu": {"count": 4, "claims": [CLAIM, {**CLAIM, "name": "channel"}]}},
        {"gpu": {"products": ["NVIDIA-H100"]}},
        _groups({"kind": "GPU", "gpus": [0]}, {"count": 2}),
        {**_groups({"kind": "GPU", "gpus": [0, 3]}, {"kind": "GPU", "gpus": [1]}), "gpu": {"count": 4}},
        # How many a claim gives, only its template knows.
        {**_groups({"kind": "GPU", "gpus": [7]}), "gpu": {"claims": [CLAIM]}},
        {
            "scheduling": {
                "topologySpread": [SPREAD, {**SPREAD, "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 3}],
                "schedulerName": "volcano",
                "queueName": "team-a.gpus",
            }
        },
        {"gateway": {"mode": "Direct"}},
        _gateway_api(),
        _gateway_api(
            parentRefs=[
                {"name": "public", "namespace": "infra", "sectionName": "web", "protocol": "HTTP"},
                {"name": "public", "namespace": "infra", "port": 8443, "protocol": "GRPC"},
            ],
            hostnames=["digits.example.com", "*.models.example.com"],
            grpcHostnames=["grpc.example.com"],
        ),
        {
            **_gateway_api(),
            **_autoscaling(minReplicas=1, objective=OBJECTIVE),
            **_rollout(
                strategy="Replace",
                steps=[{"weight": 10}],
                analysis=[{"successRate": {"minimumPercent": 99}}, {"queueTime": {"maxMilliseconds": 20}}],
            ),
        },
        {"gateway": {"timeoutSeconds": 5, "retries": {"replay": True}, "maxInFlight": 9, "hold": {"seconds": 0}}},
        {"scheduling": {"nodeSelector": {"example.com/pool": "a"}, "tolerations": [{"operator": "Exists"}]}},
        _rollout(
            strategy="Surge",
            steps=[{"weight": 10, "pauseSeconds": 300}, {"weight": 10}, {"weight": 50, "pause": "UntilPromoted"}],
            analysis=[
                {"successRate": {"minimumPercent": 99.5}, "minimumSamples": 500},
                {"latency": {"percentile": 99.9, "maxMilliseconds": 250}},
                {"latency": {"percentile": 95, "maxRatioToStable": 1.5}},
                {"queueTime": {"maxMilliseconds": 20}},
                {"goldenSet": {}},
            ],
            progressDeadlineSeconds=900,
            keepWarmSeconds=0,
            revisionHistoryLimit=0,
            paused=True,
        ),
        _rollout(shadow={"percent": 100}),
        _rollout(
            strategy="Replace",
            shadow={
                "percent": 10,
                "minSamples": 500,
                "maxDisagreement": 0.5,
                "tolerance": {"absolute": 0.01, "relative": 0},
                "outputs": [{"output": "scores", "sameLabel": True}, {"output": "ids", "absolute": 1}],
                "latency": {"percentile": 95, "maxRatioToStable": 1.5},
            },
        ),
        _autoscaling(objective=OBJECTIVE),
        _autoscaling(minReplicas=5, objective={"latencyMs": 200, "percentile": 99.5}),
        _autoscaling(minReplicas=0, target=TARGET),
        _autoscaling(
            minReplicas=0,
            target={"metric": "QueueTimeMs", "value": 12.5},
            scaleToZero={"idleSeconds": 600},
            behavior={
                "scaleUp": {"policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
                "scaleDown": {"stabilizationWindowSeconds": 300, "selectPolicy": "Disabled"},
            },
            paused=True,
        ),
        {"gateway": {"mode": "Direct"}, **_autoscaling(objective=OBJECTIVE)},
        {"gateway": {"mode": "Direct"}, **_autoscaling(minReplicas=1, objective=OBJECTIVE)},
        {"runtime": {"instances": "Auto"}, **_autoscaling(objective=OBJECTIVE)},
        {"runtime": {"instances": 2}},
        _direct(strategy="Surge"),
        _direct(strategy="Recreate", progressDeadlineSeconds=60),
    ],
)
def test_a_good_spec_is_accepted_without_a_warning(api: ApiServer, namespace: str, spec: dict[str, Any]) -> None:
    code, message = _apply(api, model_deployment("digits", namespace, **spec))
    assert (code, message) == (0, "")


def test_the_count_of_an_object_that_is_autoscaled_cannot_be_set_by_hand(api: ApiServer, namespace: str) -> None:
    body = json.dumps(model_deployment("digits", namespace, **_autoscaling(objective=OBJECTIVE)))
    api.kubectl("apply", "-f", "-", input=body)
    for said in (
        api.kubectl("scale", "modeldeployment/digits", "-n", namespace, "--replicas=3", check=False),
        api.kubectl(
            *("patch", "modeldeployment/digits", "-n", namespace, "--type=merge", "-p", '{"spec":{"replicas":3}}'),
            check=False,
        ),
    ):
        assert said.returncode != 0
        assert "autoscaling makes one; remove either of them" in said.stderr
    live = json.loads(api.kubectl("get", "modeldeployment/digits", "-n", namespace, "-o", "json").stdout)
    assert "replicas" not in live["spec"]


def test_the_api_server_and_conch_accept_the_same_sources(api: ApiServer, namespace: str) -> None:
    specs = {f"m-{index}": {"model": {"version": 1, "source": source}} for index, source in enumerate(SOURCES)}
    items = [model_deployment(name, namespace, **spec) for name, spec in specs.items()]
    done = api.kubectl(
        *("create", "--dry-run=server", "-o", "name", "-f", "-"),
        input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}),
        check=False,
    )
    accepted = {line.rpartition("/")[2] for line in done.stdout.split()}
    readable = {name for name, spec in specs.items() if not isinstance(parse_spec(spec), InvalidSpec)}
    differing = [specs[name]["model"]["source"] for name in sorted(accepted ^ readable)]
    assert differing == []
    assert 50 < len(accepted) < len(specs) - 50


def test_a_new_object_says_that_it_was_not_observed_yet(api: ApiServer, namespace: str) -> None:
    body = json.dumps(model_deployment("digits", namespace))
    live = json.loads(
        api.kubectl("create", "-n", namespace, "--dry-run=server", "-o", "json", "-f", "-", input=body).stdout
    )
    assert [(c["type"], c["status"], c["reason"]) for c in live["status"]["conditions"]] == [
        ("Ready", "Unknown", "NotObserved")
    ]
