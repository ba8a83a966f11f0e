"""A revision changes with everything that needs other pods or other weights, and with nothing else."""

from collections.abc import Mapping
from typing import Any

import pytest

from conch.api.model_deployment import parse_spec
from conch.api.spec import ModelDeploymentSpec
from conch.core.revision import revision_of, revision_part, with_revision_part

MODEL: dict[str, Any] = {"version": 3, "source": {"uri": "https://models.example/a.onnx"}}
CLAIM = {"name": "gpu", "resourceClaimTemplateName": "one-gpu"}
DIGEST = "sha256:" + "ab" * 32

WITH_NEW_PODS: dict[str, Mapping[str, Any]] = {
    "model.name": {"model": {**MODEL, "name": "other"}},
    "model.version": {"model": {**MODEL, "version": 4}},
    "model.source.uri": {"model": {**MODEL, "source": {"uri": "https://models.example/b.onnx"}}},
    "model.source.digest": {"model": {**MODEL, "source": {**MODEL["source"], "digest": DIGEST}}},
    "model.format": {"model": {**MODEL, "format": "ONNX"}},
    "model.config": {"model": {**MODEL, "config": {"maxBatchSize": 8}}},
    "model.config.instanceGroups": {"model": {**MODEL, "config": {"instanceGroups": [{"count": 2}]}}},
    "models": {"models": [{**MODEL, "name": "other"}]},
    "model.config.instanceGroups.gpus": {
        "model": {**MODEL, "config": {"instanceGroups": [{"count": 2, "kind": "GPU", "gpus": [0]}]}}
    },
    "runtime.image": {"runtime": {"image": "triton:2"}},
    "runtime.resources.cpu": {"runtime": {"resources": {"cpu": "2"}}},
    "runtime.resources.memory": {"runtime": {"resources": {"memory": "8Gi"}}},
    "runtime.sharedMemory": {"runtime": {"sharedMemory": "2Gi"}},
    "runtime.env": {"runtime": {"env": [{"name": "A", "value": "b"}]}},
    "runtime.logLevel": {"runtime": {"logLevel": {"verbose": 1}}},
    "gpu.count": {"gpu": {"count": 2}},
    "gpu.resource": {"gpu": {"resource": "nvidia.com/mig-1g.10gb"}},
    "gpu.products": {"gpu": {"products": ["NVIDIA-L4"]}},
    "gpu.claims": {"gpu": {"claims": [CLAIM]}},
    "gpu.claims beside a counted one": {"gpu": {"count": 1, "claims": [CLAIM]}},
    "scheduling.nodeSelector": {"scheduling": {"nodeSelector": {"pool": "gpu"}}},
    "scheduling.tolerations": {"scheduling": {"tolerations": [{"key": "a"}]}},
    "scheduling.priorityClassName": {"scheduling": {"priorityClassName": "high"}},
    "scheduling.runtimeClassName": {"scheduling": {"runtimeClassName": "nvidia"}},
    "scheduling.topologySpread": {
        "scheduling": {"topologySpread": [{"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]}
    },
    "scheduling.schedulerName": {"scheduling": {"schedulerName": "volcano"}},
    "scheduling.queueName": {"scheduling": {"queueName": "team"}},
    "serviceAccountName": {"serviceAccountName": "reader"},
    "imagePullSecrets": {"imagePullSecrets": [{"name": "registry"}]},
}

LIVE = {"replicas", "autoscaling", "suspend", "gateway", "rollout"}

DEFAULTS: dict[str, Mapping[str, Any]] = {
    "model.format": {"model": {**MODEL, "format": "Auto"}},
    "runtime": {"runtime": {}},
    "runtime.resources": {"runtime": {"resources": {"cpu": "1", "memory": "4Gi"}}},
    "runtime.resources.cpu as a number": {"runtime": {"resources": {"cpu": 1}}},
    "runtime.sharedMemory": {"runtime": {"sharedMemory": "1Gi", "env": [], "logLevel": {"verbose": 0, "info": True}}},
    "models": {"models": []},
    "gpu": {"gpu": {"count": 1, "resource": "nvidia.com/gpu", "products": [], "claims": []}},
    "scheduling": {"scheduling": {"nodeSelector": {}, "tolerations": [], "topologySpread": []}},
    "absent optionals": {"serviceAccountName": None, "imagePullSecrets": [], "replicas": None, "suspend": False},
}


def _revision(wire: Mapping[str, Any]) -> str:
    spec = parse_spec({"model": MODEL, **wire})
    assert isinstance(spec, ModelDeploymentSpec), spec
    return revision_of(spec)


@pytest.mark.parametrize(
    "wire",
    [
        {"replicas": 5},
        {"replicas": 0},
        {"autoscaling": {"maxReplicas": 5, "objective": {"latencyMs": 200}}},
        {"runtime": {"instances": 2}},
        {"suspend": True},
        {"gateway": {"mode": "Direct"}},
        {"rollout": {"strategy": "Replace", "steps": [{"weight": 10}], "analysis": [], "paused": True}},
    ],
)
def test_how_many_pods_run_and_how_one_revision_follows_another_is_not_part_of_it(wire: Mapping[str, Any]) -> None:
    assert _revision(wire) == _revision({})


@pytest.mark.parametrize("field", WITH_NEW_PODS)
def test_a_field_that_pods_are_made_from_makes_a_new_revision(field: str) -> None:
    assert _revision(WITH_NEW_PODS[field]) != _revision({})


def test_all_these_revisions_differ_from_each_other() -> None:
    assert len({_revision(wire) for wire in WITH_NEW_PODS.values()}) == len(WITH_NEW_PODS)


def test_no_field_of_the_spec_is_forgotten_here() -> None:
    """A new field belongs into one of the two."""
    tried = {part for wire in WITH_NEW_PODS.values() for part in wire} | LIVE
    assert tried == {field.alias or name for name, field in ModelDeploymentSpec.model_fields.items()}


@pytest.mark.parametrize("field", DEFAULTS)
def test_a_default_that_is_written_out_makes_no_new_revision(field: str) -> None:
    assert _revision(DEFAULTS[field]) == _revision({})


def test_a_default_beside_a_real_change_makes_no_further_revision() -> None:
    tolerations = [{"key": "a"}]
    written_out = {"scheduling": {"tolerations": [{"key": "a", "operator": "Equal"}], "nodeSelector": {}}}
    assert _revision(written_out) == _revision({"scheduling": {"tolerations": tolerations}})


@pytest.mark.parametrize("field", WITH_NEW_PODS)
def test_a_revision_can_be_had_again_under_the_live_part_of_another_spec(field: str) -> None:
    then = parse_spec({"model": MODEL, **WITH_NEW_PODS[field], "replicas": 2, "rollout": {"paused": True}})
    live = {"replicas": 7, "gateway": {"mode": "Direct"}, "runtime": {"instances": 3}}
    now = parse_spec({"model": {**MODEL, "version": 9}, **live})
    assert isinstance(then, ModelDeploymentSpec)
    assert isinstance(now, ModelDeploymentSpec)
    part = revision_part(then)
    assert not LIVE & part.keys()
    back = with_revision_part(now, part)
    assert revision_of(back) == revision_of(then)
    assert (back.replicas, back.gateway, back.rollout) == (7, now.gateway, now.rollout)
    assert back.runtime.instances == 3


def test_a_revision_is_short_enough_for_a_label() -> None:
    assert len(_revision({})) == 10


@pytest.mark.parametrize(
    "wire",
    [
        {"scheduling": {"nodeSelector": {"sizeLimit": "big"}}},
        {"model": {**MODEL, "config": {"parameters": {"sizeLimit": "big", "limits": "none"}}}},
    ],
)
def test_a_users_key_may_have_any_name(wire: Mapping[str, Any]) -> None:
    assert _revision(wire) != _revision({})
