"""FP16 graphs: the same answers within its precision, the same inputs and outputs, a valid graph."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from conch.packaging.graph.clean import to_bytes
from conch.packaging.graph.session import Runner
from conch.packaging.optimise.fp16_range import beyond_fp16
from conch.packaging.optimise.half_precision import to_fp16
from conch.packaging.optimise.not_made import NotMade
from tests.unit import optimise_graphs as graphs

X = graphs.clusters(32)[0]


def test_halves_the_weights_and_keeps_the_signature() -> None:
    graph = graphs.classifier()
    half = to_fp16(graph)
    assert {each.data_type for each in half.graph.initializer} == {TensorProto.FLOAT16}
    assert half.graph.input == graph.graph.input
    assert half.graph.output == graph.graph.output
    # Strict about the order of nodes, which the converter leaves wrong.
    onnx.checker.check_model(half, full_check=True)
    exact = Runner(to_bytes(graph)).run({"x": X})["logits"]
    near = Runner(to_bytes(half)).run({"x": X})["logits"]
    assert near.dtype == np.float32
    assert 0 < np.abs(exact - near).max() < 5e-3


@pytest.mark.parametrize("make", [graphs.convolutional, graphs.recurrent, graphs.textual])
def test_other_kinds_load(make: Callable[[], ModelProto]) -> None:
    half = to_fp16(make())
    onnx.checker.check_model(half, full_check=True)
    assert TensorProto.FLOAT16 in {each.data_type for each in half.graph.initializer}
    assert Runner(to_bytes(half)).outputs[0].dtype == np.float32


def test_same_bytes_and_the_original_is_left_as_it_was() -> None:
    graph = graphs.classifier()
    before = to_bytes(graph)
    assert to_bytes(to_fp16(graph)) == to_bytes(to_fp16(graph))
    assert to_bytes(graph) == before


def test_nothing_is_written_or_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    to_fp16(graphs.classifier())
    assert list(tmp_path.iterdir()) == []
    assert tuple(capfd.readouterr()) == ("", "")


def test_nothing_to_convert() -> None:
    with pytest.raises(NotMade, match="nothing to convert to fp16: the graph has no FP32 weights"):
        to_fp16(graphs.nothing_to_multiply())


def test_a_converter_that_fails() -> None:
    graph = graphs.classifier()
    # A weight's name twice: the converter asserts that there is none.
    graph.graph.node.append(
        helper.make_node(
            "If",
            ["yes"],
            ["z"],
            then_branch=helper.make_graph([], "t", [], [], [graph.graph.initializer[0]]),
            else_branch=helper.make_graph([], "e", [], []),
        )
    )
    with pytest.raises(NotMade, match="onnxruntime cannot convert this graph"):
        to_fp16(graph)


def scaled(factor: float, value: float = 0.0) -> ModelProto:
    """y = (x * factor + value) * 0."""
    weights = {"f": np.array([factor], np.float32), "v": np.array([value], np.float32), "z": np.zeros(1, np.float32)}
    return graphs.model(
        [
            helper.make_node("Mul", ["x", "f"], ["m"], name="m"),
            helper.make_node("Add", ["m", "v"], ["a"], name="a"),
            helper.make_node("Mul", ["a", "z"], ["y"], name="y"),
        ],
        [graphs.value("x", graphs.F, "batch", 1)],
        [graphs.value("y", graphs.F, "batch", 1)],
        weights,
    )


ONES = {"x": np.ones((300, 1), np.float32)}


@pytest.mark.parametrize(
    ("factor", "value", "words"),
    [
        (65_504, 0, None),
        (65_600, -200, "the tensor 'm' reaches 65,600 on held-out data, and FP16 ends at 65,504"),
        (-70_000, 0, "the tensor '[ma]' reaches 70,000"),
        (1e12, 0, "the tensor '[ma]' reaches 999,999,995,904"),
        # As attention masks are written.
        (1, -3.4e38, None),
        (1, -1e9, None),
        (1, -np.inf, None),
    ],
)
def test_numbers_that_fp16_does_not_hold(factor: float, value: float, words: str | None) -> None:
    found = beyond_fp16(scaled(factor, value), ONES, batch=32)
    if words is None:
        assert found is None
    else:
        assert found is not None
        assert re.match(words, found)


def test_the_last_sample_is_looked_at_too() -> None:
    x = ONES["x"].copy()
    x[-1] = 70_000
    assert beyond_fp16(scaled(1), {"x": x}, batch=0) is not None
