"""`spec.model.config` and `format`: what may be said of a model, and what is refused before anything is fetched."""

from typing import Any

import pytest

from conch.api.model_deployment import InvalidSpec, parse_spec
from conch.api.spec import ModelDeploymentSpec
from conch.core.revision import revision_of

X = {"name": "x", "dataType": "FP32", "dims": [-1, 4]}
Y = {"name": "y", "dataType": "BYTES", "dims": [1]}


def parsed(config: dict[str, Any] | None = None, **model: Any) -> ModelDeploymentSpec | InvalidSpec:
    source = {"uri": "https://models.example/m"}
    given = {} if config is None else {"config": config}
    return parse_spec({"model": {"version": 1, "source": source, **given, **model}})


@pytest.mark.parametrize(
    "config",
    [
        {"inputs": [X], "outputs": [Y]},
        {"dynamicBatching": {"timeoutMicroseconds": 0, "timeoutAction": "Delay", "allowTimeoutOverride": True}},
        {"dynamicBatching": {"priorityLevels": 2, "defaultPriorityLevel": 2, "priorityQueues": [{"level": 2}]}},
        {"dynamicBatching": {"defaultPriorityLevel": 9}},
        {"sequenceBatching": {}},
        {"sequenceBatching": {"maxSequenceIdleMicroseconds": 5_000_000}},
    ],
)
def test_what_may_be_said(config: dict[str, Any]) -> None:
    spec = parsed(config)
    assert isinstance(spec, ModelDeploymentSpec), spec
    assert spec.to_wire()["model"]["config"] == config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"inputs": []}, "at least 1"),
        ({"inputs": [X, X]}, "'x' is there twice; remove one"),
        ({"inputs": [X | {"dims": [0]}]}, "an axis has 1 or more elements, or -1"),
        ({"inputs": [X | {"dims": [-2]}]}, "greater than or equal to -1"),
        ({"inputs": [X | {"dims": []}]}, "at least 1"),
        ({"inputs": [X | {"dataType": "TYPE_FP32"}]}, "FP32"),
        ({"dynamicBatching": {}, "sequenceBatching": {}}, "a model has one scheduler"),
        (
            {"dynamicBatching": {"priorityLevels": 2, "defaultPriorityLevel": 3}},
            "one of the levels 1 to priorityLevels",
        ),
        ({"dynamicBatching": {"priorityLevels": 2, "priorityQueues": [{"level": 3}]}}, "one of 1 to priorityLevels"),
        ({"dynamicBatching": {"priorityQueues": [{"level": 1}, {"level": 1}]}}, "a level twice"),
        ({"dynamicBatching": {"priorityLevels": 2, "preserveOrdering": True}}, "priorityLevels changes it; remove one"),
        ({"optimization": {}}, "not permitted"),
    ],
)
def test_what_is_refused(config: dict[str, Any], message: str) -> None:
    spec = parsed(config)
    assert isinstance(spec, InvalidSpec)
    assert message in spec.message


@pytest.mark.parametrize("config", [None, {}, {"inputs": [X]}, {"outputs": [Y]}])
def test_torchscript_needs_its_inputs_and_outputs_at_once(config: dict[str, Any] | None) -> None:
    spec = parsed(config, format="TorchScript")
    assert isinstance(spec, InvalidSpec)
    assert "give config.inputs and config.outputs, each with name, dataType and dims" in spec.message
    assert isinstance(parsed({"inputs": [X], "outputs": [Y]}, format="TorchScript"), ModelDeploymentSpec)


@pytest.mark.parametrize("format", ["Auto", "Repository", "ONNX", "TensorRT", "Python"])
def test_the_other_formats_may_tell_by_themselves(format: str) -> None:
    assert isinstance(parsed(format=format), ModelDeploymentSpec)


def test_each_of_the_new_fields_makes_a_new_revision() -> None:
    configs: list[dict[str, Any]] = [
        {},
        {"inputs": [X]},
        {"outputs": [X]},
        {"sequenceBatching": {}},
        *({"dynamicBatching": {key: 1}} for key in ("priorityLevels", "defaultPriorityLevel", "timeoutMicroseconds")),
        {"dynamicBatching": {"preserveOrdering": True}},
        {"dynamicBatching": {"timeoutAction": "Reject"}},
        {"dynamicBatching": {"allowTimeoutOverride": False}},
        {"dynamicBatching": {"priorityQueues": [{"level": 1}]}},
    ]
    specs = [parsed(config) for config in configs]
    assert len({revision_of(spec) for spec in specs if isinstance(spec, ModelDeploymentSpec)}) == len(configs)
