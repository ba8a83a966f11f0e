"""What the API server itself refuses, and that it says what to do."""

import json
from typing import Any

import pytest

from tests.cluster.apiserver import ApiServer
from tests.integration.conftest import model_deployment


def _apply(api: ApiServer, body: dict[str, Any]) -> tuple[int, str]:
    done = api.kubectl("apply", "--dry-run=server", "-f", "-", input=json.dumps(body), check=False)
    return done.returncode, done.stderr


def _source(uri: str) -> dict[str, Any]:
    return {"model": {"version": 1, "source": {"uri": uri}}}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (_source("ftp://models/m.onnx"), "must be https://HOST/PATH"),
        (_source("https://user:secret@models/m.onnx"), "without credentials"),
        (_source("pvc://claim"), "pvc://CLAIM/PATH"),
        ({"model": {"version": 0, "source": {"uri": "https://m/m.onnx"}}}, "greater than or equal to 1"),
        ({"model": {"source": {"uri": "https://m/m.onnx"}}}, "version: Required value"),
        ({"gpu": {"count": 0, "products": ["H100"]}}, "remove gpu.products or ask for a GPU"),
        ({"runtime": {"sharedMemory": "8Gi"}}, "make memory larger than sharedMemory"),
        ({"runtime": {"env": [{"name": "LD_PRELOAD", "value": "/x"}]}}, "remove them from runtime.env"),
        ({"runtime": {"resources": {"memory": "lots"}}}, "should match"),
        ({"runtime": {"resources": {"cpu": "0"}}}, "more than 0"),
        ({"runtime": {"resources": {"cpu": 0}}}, "more than 0"),
        (_source("pvc://claim/a/../b"), "a claim's path is plain"),
        (_source("pvc://claim/a//b"), "a claim's path is plain"),
        (_source("pvc://claim/a?x"), "a claim's path is plain"),
        (_source("pvc://claim/a#b"), "a claim's path is plain"),
        (_source("https://:443/x"), "must be https://HOST/PATH"),
        (_source("https://[/x"), "must be https://HOST/PATH"),
        ({"scheduling": {"tolerations": [{"operator": "Exists", "key": "a", "value": "b"}]}}, "Exists has no value"),
        ({"scheduling": {"tolerations": [{"value": "b"}]}}, "Equal needs a key"),
        ({"scheduling": {"tolerations": [{"key": "a", "tolerationSeconds": 3}]}}, "needs the effect NoExecute"),
        ({"model": {**_source("https://m/m")["model"], "config": {"parameters": {"k" * 129: "v"}}}}, "at most 128"),
        ({"scheduling": {"nodeSelector": {"not a key": "x"}}}, "qualified names"),
        ({"replicas": -1}, "greater than or equal to 0"),
        ({"autoscaling": {"minReplicas": 1}}, 'unknown field "spec.autoscaling"'),
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
        {"runtime": {"resources": {"cpu": 2, "memory": 8589934592}}},
        {"gpu": {"count": 1, "resource": "nvidia.com/mig-1g.10gb", "products": ["NVIDIA-H100"]}},
        {"scheduling": {"nodeSelector": {"example.com/pool": "a"}, "tolerations": [{"operator": "Exists"}]}},
    ],
)
def test_a_good_spec_is_accepted_without_a_warning(api: ApiServer, namespace: str, spec: dict[str, Any]) -> None:
    code, message = _apply(api, model_deployment("digits", namespace, **spec))
    assert (code, message) == (0, "")


def test_a_new_object_says_that_it_was_not_observed_yet(api: ApiServer, namespace: str) -> None:
    body = json.dumps(model_deployment("digits", namespace))
    live = json.loads(
        api.kubectl("create", "-n", namespace, "--dry-run=server", "-o", "json", "-f", "-", input=body).stdout
    )
    assert [(c["type"], c["status"], c["reason"]) for c in live["status"]["conditions"]] == [
        ("Ready", "Unknown", "NotObserved")
    ]
