"""conch.json: what it tells, and what it must not."""

import json
from typing import Any

import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from conch.packaging.output.precision import Precision, precision_of
from conch.packaging.output.record import Made, record, tool_versions
from tests.support.packaging_graphs import linear


def made(**changes: Any) -> Made:
    told: dict[str, Any] = {
        "name": "net",
        "version": 2,
        "source": {"kind": "onnx", "sha256": "ab"},
        "graph": linear(),
        "files": {"net/golden.json": "b", "net/1/model.onnx": "a"},
        "parity": {"largest": 0.0, "output": "y"},
        "variants": [{"name": "fp32"}],
        "kept": "fp32",
        "batch_deviation": 0.0,
        "golden_samples": 3,
        "tools": {"onnx": "1", "conch": "0"},
        "more": {"head": "none"},
    }
    return Made(**(told | changes))


def test_what_it_tells() -> None:
    told = json.loads(record(made()))
    assert told["graph"] == {"ir": 10, "opsets": {"ai.onnx": 20}}
    assert list(told["files"]) == ["net/1/model.onnx", "net/golden.json"]
    assert list(told["tools"]) == ["conch", "onnx"]
    assert (told["name"], told["version"], told["kept"], told["goldenSamples"]) == ("net", 2, "fp32", 3)
    assert told["head"] == "none"


def test_the_same_is_told_in_the_same_bytes() -> None:
    other = made(files={"net/1/model.onnx": "a", "net/golden.json": "b"}, tools={"conch": "0", "onnx": "1"})
    assert record(made()) == record(other)
    assert record(made()) != record(made(version=3))


def test_what_has_no_number_is_not_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        record(made(batch_deviation=float("nan")))


def test_versions_of_what_is_installed() -> None:
    assert tool_versions(["onnx", "no-such-distribution"]).keys() == {"onnx"}


def _with(graph: ModelProto, node: str = "", weight: int | None = None) -> ModelProto:
    if node:
        graph.graph.node.append(helper.make_node(node, ["x"], ["q"]))
    if weight is not None:
        half = numpy_helper.from_array(numpy_helper.to_array(graph.graph.initializer[0]).astype("float16"), "half")
        half.data_type = weight
        graph.graph.initializer.append(half)
    return graph


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (linear(), Precision.FULL),
        (_with(linear(), weight=TensorProto.FLOAT16), Precision.HALF),
        (_with(linear(), weight=TensorProto.BFLOAT16), Precision.HALF),
        (_with(linear(), "QuantizeLinear"), Precision.INT8),
        (_with(linear(), "MatMulInteger", TensorProto.FLOAT16), Precision.INT8),
    ],
)
def test_the_coarsest_arithmetic(graph: ModelProto, expected: Precision) -> None:
    assert precision_of(graph) is expected
