"""A pipeline's file: what is wrong in it is told by the step and the field or tensor."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from conch.packaging.errors import PackagingError
from conch.packaging.pipeline.steps import Pipeline, TensorType, read_pipeline, tensor_type

GOOD: dict[str, Any] = {
    "name": "inspection",
    "inputs": ["RECORD"],
    "outputs": ["DECISION"],
    "steps": [
        {
            "name": "collect",
            "model": "collect.py",
            "inputs": {"RECORD": "RECORD"},
            "outputs": {"X": "x"},
            "types": {"RECORD": "BYTES[1]", "X": "FP32[4]"},
        },
        {
            "name": "decide",
            "model": "decide.py",
            "inputs": {"X": "x"},
            "outputs": {"D": "DECISION", "WHY": None},
            "types": {"X": "FP32[4]", "D": "BOOL[1]", "WHY": "BYTES[-1, 2]"},
            "files": ["limits.json"],
            "parameters": {"limit": "0.9"},
        },
    ],
}


def read(path: Path, body: Any) -> Pipeline:
    file = path / "pipeline.yaml"
    file.write_text(body if isinstance(body, str) else yaml.safe_dump(body))
    return read_pipeline(file)


def with_step(number: int, **changes: Any) -> dict[str, Any]:
    """GOOD with a step changed; None takes a field away."""
    steps = list(GOOD["steps"])
    changed = steps[number] | changes
    steps[number] = {key: value for key, value in changed.items() if value is not None}
    return GOOD | {"steps": steps}


def test_a_file(tmp_path: Path) -> None:
    pipeline = read(tmp_path, GOOD)
    assert (pipeline.name, pipeline.inputs, pipeline.outputs, pipeline.max_batch_size) == (
        "inspection",
        ("RECORD",),
        ("DECISION",),
        32,
    )
    collect, decide = pipeline.steps
    assert collect.types == {"RECORD": TensorType("BYTES", (1,)), "X": TensorType("FP32", (4,))}
    assert dict(decide.outputs) == {"D": "DECISION", "WHY": None}
    assert decide.types["WHY"] == TensorType("BYTES", (-1, 2))
    assert (decide.files, decide.parameters) == (("limits.json",), {"limit": "0.9"})
    assert read(tmp_path, GOOD | {"max_batch_size": 0}).max_batch_size == 0


def test_types() -> None:
    assert tensor_type(" fp32 [1,28, 28] ") == TensorType("FP32", (1, 28, 28))
    assert str(tensor_type("BYTES[-1]")) == "BYTES[-1]"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("FP32", "'FP32' is no type; write one such as FP32"),
        (5, "5 is no type"),
        ("float32[3]", "'float32' is no datatype; there are BOOL, "),
        ("FP32[]", "has lengths that are no numbers"),
        ("FP32[batch, 3]", "has lengths that are no numbers"),
        ("FP32[0]", "has the length 0"),
        ("FP32[-2]", "has the length -2"),
    ],
)
def test_what_is_no_type(tmp_path: Path, text: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        tensor_type(text)
    body = with_step(0, types={"RECORD": "BYTES[1]", "X": text})
    with pytest.raises(PackagingError, match=rf"pipeline.yaml is not right: step 'collect', types.X: .*{told}"):
        read(tmp_path, body)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("", "holds no mapping; it has the keys name, inputs, outputs and steps"),
        ("- a", "holds no mapping"),
        ("name: [", "is no valid YAML"),
        ({}, "name: it is missing; inputs: it is missing; outputs: it is missing; steps: it is missing"),
        (GOOD | {"name": "Inspection"}, "name: String should match pattern"),
        (GOOD | {"steps": []}, "steps: Tuple should have at least 1 item"),
        (GOOD | {"version": 2}, "version: there is no such field"),
        (GOOD | {"max_batch_size": -1}, "max_batch_size: Input should be greater than or equal to 0"),
        (with_step(1, model=None), "step 'decide', model: it is missing"),
        (with_step(1, name=None), "step 2, name: it is missing"),
        (with_step(1, input={"X": "x"}), "step 'decide', input: there is no such field"),
        (with_step(1, inputs={}), "step 'decide', inputs: Dictionary should have at least 1 item"),
        (with_step(1, inputs={"X": None}), "step 'decide', inputs.X: Input should be a valid string"),
        (with_step(1, parameters={"limit": 0.9}), "step 'decide', parameters.limit: Input should be a valid string"),
        (GOOD | {"steps": [5]}, "step 1: Input should be a valid dictionary"),
    ],
)
def test_what_is_wrong_in_a_file(tmp_path: Path, body: Any, told: str) -> None:
    with pytest.raises(PackagingError) as caught:
        read(tmp_path, body)
    assert told in str(caught.value)
    assert str(tmp_path / "pipeline.yaml") in str(caught.value)


def test_a_key_that_stands_twice(tmp_path: Path) -> None:
    text = yaml.safe_dump(GOOD).replace("  outputs:\n    X: x\n", "  outputs:\n    X: x\n    X: y\n")
    with pytest.raises(PackagingError, match=r"(?s)the key 'X' stands twice.*line \d+"):
        read(tmp_path, text)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(PackagingError, match=r"pipeline.yaml cannot be read: No such file"):
        read_pipeline(tmp_path / "pipeline.yaml")
    (tmp_path / "pipeline.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PackagingError, match="it is not UTF-8"):
        read_pipeline(tmp_path / "pipeline.yaml")
