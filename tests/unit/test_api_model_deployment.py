"""Reading objects: as the API server gives them, whoever wrote them and with whatever version."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.api.crd import custom_resource_definition
from conch.api.model_deployment import InvalidSpec, ModelDeployment, parse, parse_spec, parse_status
from conch.api.reasons import Reason
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import ConditionStatus, ConditionType, ModelDeploymentStatus
from conch.core.revision import revision_of

SCHEMA = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
MODEL: dict[str, Any] = {"version": 3, "source": {"uri": "https://models.example/a.onnx"}}
METADATA = {
    "namespace": "default",
    "name": "sentiment",
    "uid": "u",
    "resourceVersion": "7",
    "generation": 4,
    "creationTimestamp": "2026-01-01T00:00:00Z",
}
STABLE = {"revision": "abc", "version": 3, "workload": "w"}


def _defaulted(value: Any, schema: dict[str, Any]) -> Any:
    """The value with the schema's defaults, as the API server fills them in."""
    if isinstance(value, list) and "items" in schema:
        return [_defaulted(item, schema["items"]) for item in value]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    filled = dict(value)
    for name, child in schema["properties"].items():
        if name not in filled and "default" in child:
            filled[name] = child["default"]
        if name in filled:
            filled[name] = _defaulted(filled[name], child)
    return filled


SPECS = st.fixed_dictionaries(
    {"model": st.just(MODEL)},
    optional={
        "runtime": st.fixed_dictionaries(
            {},
            optional={
                "resources": st.fixed_dictionaries({}, optional={"cpu": st.sampled_from(["1", 2, "500m"])}),
                "logLevel": st.fixed_dictionaries({}, optional={"verbose": st.integers(0, 3), "info": st.booleans()}),
                "sharedMemory": st.sampled_from(["1Gi", "64Mi"]),
                "env": st.just([{"name": "A"}]),
            },
        ),
        "gpu": st.fixed_dictionaries(
            {},
            optional={
                "count": st.integers(0, 2),
                "products": st.just([]),
                "claims": st.sampled_from([[], [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]]),
            },
        ),
        "scheduling": st.fixed_dictionaries(
            {},
            optional={
                "tolerations": st.just([{"key": "a"}]),
                "nodeSelector": st.just({}),
                "topologySpread": st.just([{"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]),
            },
        ),
        "suspend": st.booleans(),
        "replicas": st.integers(0, 3),
        "autoscaling": st.fixed_dictionaries(
            {"maxReplicas": st.integers(1, 9)},
            optional={
                "minReplicas": st.integers(0, 1),
                "objective": st.fixed_dictionaries({"latencyMs": st.just(200)}),
                "target": st.just({"metric": "Concurrency", "value": 2.5}),
                "scaleToZero": st.just({}),
                "behavior": st.just({"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}),
                "paused": st.booleans(),
            },
        ),
    },
)


def _spec(wire: dict[str, Any]) -> ModelDeploymentSpec:
    spec = parse_spec(wire)
    assert isinstance(spec, ModelDeploymentSpec), spec
    return spec


@given(SPECS)
def test_the_defaults_of_the_crd_are_those_of_the_types(wire: dict[str, Any]) -> None:
    assert _spec(_defaulted(wire, SCHEMA["spec"])) == _spec(wire)


@given(SPECS)
def test_what_the_api_server_fills_in_gives_the_same_revision(wire: dict[str, Any]) -> None:
    assert revision_of(_spec(_defaulted(wire, SCHEMA["spec"]))) == revision_of(_spec(wire))


def test_the_api_server_fills_in_something_at_all() -> None:
    assert _defaulted({"model": MODEL}, SCHEMA["spec"])["runtime"]["resources"]["memory"] == "4Gi"


def test_an_object_is_read_with_what_names_it() -> None:
    assert parse({"metadata": METADATA, "spec": {"model": MODEL}}) == ModelDeployment(
        namespace="default",
        name="sentiment",
        uid="u",
        generation=4,
        resource_version="7",
        created="2026-01-01T00:00:00Z",
        deleting=False,
        spec=_spec({"model": MODEL}),
        status=ModelDeploymentStatus(),
    )


def test_an_object_that_is_going_says_so() -> None:
    assert parse({"metadata": METADATA | {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}}).deleting


@pytest.mark.parametrize(
    ("wire", "path"),
    [
        ({}, "spec.model"),
        ({"model": {**MODEL, "version": 0}}, "spec.model.version"),
        ({"model": {**MODEL, "source": {"uri": "ftp://models/a"}}}, "spec.model.source"),
        ({"model": MODEL, "gpu": {"count": "many"}}, "spec.gpu.count"),
        ({"model": {**MODEL, "config": {"instanceGroups": [{"gpus": [0]}]}}}, "spec.model.config.instanceGroups.0"),
        ({"model": MODEL, "gpu": {"claims": [{"name": "gpu"}]}}, "spec.gpu.claims.0.resourceClaimTemplateName"),
        ({"model": MODEL, "scheduling": {"queueName": "q" * 64}}, "spec.scheduling.queueName"),
        ({"model": MODEL, "runtime": {"env": [{"name": "LD_PRELOAD"}]}}, "spec.runtime.env.0.name"),
        ({"model": MODEL, "fromTheFuture": 1}, "spec.fromTheFuture"),
        ({"model": MODEL, "replicas": -1}, "spec.replicas"),
    ],
)
def test_a_spec_that_cannot_be_read_gives_the_path_of_the_field(wire: dict[str, Any], path: str) -> None:
    spec = parse_spec(wire)
    assert isinstance(spec, InvalidSpec)
    assert f"{path}: " in spec.message


def test_several_faults_are_all_named_but_not_without_end() -> None:
    spec = parse_spec({"model": MODEL, **{f"unknown{number}": 1 for number in range(9)}})
    assert isinstance(spec, InvalidSpec)
    assert spec.message.count("; ") == 3


def test_a_spec_that_cannot_be_read_leaves_the_rest_of_the_object_readable() -> None:
    owner = parse({"metadata": METADATA, "spec": None, "status": {"stable": STABLE}})
    assert isinstance(owner.spec, InvalidSpec)
    assert owner.status.stable is not None


def test_an_unreadable_part_of_a_status_is_dropped_and_the_rest_kept() -> None:
    status = parse_status({"replicas": "many", "stable": STABLE, "readyReplicas": 2, "workloadsCreated": 5})
    assert (status.replicas, status.ready_replicas, status.workloads_created) == (0, 2, 5)
    assert status.stable is not None
    assert status.stable.workload == "w"


def test_an_unknown_part_of_a_status_is_dropped() -> None:
    assert parse_status({"fromTheFuture": {"a": 1}, "replicas": 2}) == ModelDeploymentStatus(replicas=2)


def test_a_condition_for_an_unknown_reason_does_not_cost_the_workloads() -> None:
    condition = {"type": "Ready", "status": "True", "reason": "Alien", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = parse_status({"conditions": [condition], "candidate": STABLE, "workloadsCreated": 1})
    assert status.conditions == ()
    assert status.candidate is not None


def test_a_status_survives_being_written_and_read() -> None:
    status = parse_status({"stable": STABLE, "replicas": 2, "display": {"replicas": "2/2"}})
    assert parse_status(status.to_wire()) == status


def test_the_status_that_the_api_server_invents_can_be_read() -> None:
    ready = parse_status(SCHEMA["status"]["default"]).condition(ConditionType.READY)
    assert ready is not None
    assert (ready.status, ready.reason) == (ConditionStatus.UNKNOWN, Reason.NOT_OBSERVED)


@pytest.mark.parametrize(
    ("wire", "replicas"),
    [({}, 1), ({"replicas": 0}, 0), ({"replicas": 3}, 3), ({"replicas": 3, "suspend": True}, 0)],
)
def test_how_many_pods_are_wanted(wire: dict[str, Any], replicas: int) -> None:
    assert _spec({"model": MODEL, **wire}).desired_replicas == replicas
