"""The graph has to compute what the model computes, at every batch size, and the message says where it does not."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from conch.packaging.errors import PackagingError
from conch.packaging.graph.parity import Parity, deviations, measure_parity
from conch.packaging.graph.session import Runner
from conch.packaging.tensors import Array, Tensors

X = {"x": np.array([[1, 2], [3, 4], [5, 6]], np.float32)}


def runner(*nodes: Any, batch: str | int = "batch", outputs: tuple[tuple[str, int], ...] = (("y", 1),)) -> Runner:
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Add", ["x", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 2])],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return Runner(bytes(model.SerializeToString()))


class Doubling:
    """The model that the graph was made of, off by a little from a batch size on."""

    def __init__(self, off: float = 0.0, since: int = 1) -> None:
        self.off, self.since = off, since
        self.seen: list[list[list[float]]] = []

    def __call__(self, inputs: Tensors) -> Mapping[str, Array]:
        self.seen.append(inputs["x"].tolist())
        y = inputs["x"] * 2
        if len(y) >= self.since:
            y[-1, 1] += self.off * y[-1, 1]
        return {"y": y}


def test_the_same_at_every_batch_size() -> None:
    model = Doubling()
    assert measure_parity(model, runner(), X) == Parity(
        largest=0.0, by_batch={1: 0.0, 2: 0.0, 3: 0.0, 7: 0.0, 32: 0.0}, output="y"
    )
    assert [len(batch) for batch in model.seen] == [1, 2, 3, 7, 32]
    assert model.seen[3] == [[1, 2], [3, 4], [5, 6], [1, 2], [3, 4], [5, 6], [1, 2]]


def test_a_deviation_within_the_bound_is_recorded() -> None:
    parity = measure_parity(Doubling(off=1e-4, since=7), runner(), X, batch_sizes=(1, 7), bound=1e-3)
    assert parity.by_batch[1] == 0
    assert parity.largest == parity.by_batch[7] == pytest.approx(1e-4, rel=1e-2)


def test_over_the_bound_it_says_where() -> None:
    with pytest.raises(PackagingError) as caught:
        measure_parity(Doubling(off=0.25, since=2), runner(), X)
    assert "at batch size 2 output 'y' deviates by 0.2 (bound 1e-05), 8.0 instead of 10.0 at [1, 1]" in str(
        caught.value
    )


def test_without_a_bound_it_only_measures() -> None:
    parity = measure_parity(Doubling(off=1.0), runner(), X, batch_sizes=(1,), bound=math.inf)
    assert parity.largest == pytest.approx(0.5)


def test_the_output_that_deviates_most_is_named() -> None:
    graph = runner(
        helper.make_node("Add", ["x", "x"], ["y"]), helper.make_node("Neg", ["x"], ["z"]), outputs=(("y", 1), ("z", 1))
    )
    parity = measure_parity(
        lambda inputs: {"y": inputs["x"] * 2 + 1e-7, "z": -inputs["x"] + 1e-2}, graph, X, batch_sizes=(2,), bound=1
    )
    assert parity.output == "z"


def test_a_graph_without_a_batch_axis_runs_as_given() -> None:
    model = Doubling()
    assert measure_parity(model, runner(batch=3), X).by_batch == {3: 0.0}
    assert model.seen == [X["x"].tolist()]


@pytest.mark.parametrize("names", [{"z"}, {"y", "z"}])
def test_outputs_of_other_names(names: set[str]) -> None:
    with pytest.raises(PackagingError, match=r"the model gives the outputs .*its graph 'y'"):
        measure_parity(lambda inputs: dict.fromkeys(sorted(names), inputs["x"]), runner(), X)


def test_a_length_that_was_fixed_from_the_example() -> None:
    with pytest.raises(PackagingError, match=r"at batch size 2 output 'y'.*\[1, 2\], of its graph \[2, 2\]"):
        measure_parity(lambda inputs: {"y": (inputs["x"] * 2)[:1]}, runner(), X)


def test_class_numbers_have_to_be_equal() -> None:
    graph = runner(helper.make_node("ArgMax", ["x"], ["y"], axis=1, keepdims=0), outputs=(("y", TensorProto.INT64),))
    assert measure_parity(lambda inputs: {"y": inputs["x"].argmax(1)}, graph, X).largest == 0
    with pytest.raises(PackagingError, match=r"deviates by 1 \(bound 1e-05\), 1 instead of 0 at \[0\]"):
        measure_parity(lambda inputs: {"y": inputs["x"].argmin(1)}, graph, X)


@pytest.mark.parametrize(
    ("reference", "graph", "expected"),
    [
        ([0.5, 100.0], [0.5 + 1e-3, 101.0], [1e-3, 1e-2]),  # absolute below 1, relative above
        ([-200.0], [-199.0], [5e-3]),
        ([math.nan, math.nan, 1.0], [math.nan, 1.0, math.nan], [0, math.inf, math.inf]),
        ([math.inf, math.inf, -math.inf, 1.0], [math.inf, 1.0, math.inf, math.inf], [0, math.inf, math.inf, math.inf]),
        ([True, False], [True, True], [0, 1]),
        (["a", "b"], ["a", "c"], [0, 1]),
    ],
)
def test_what_a_deviation_is(reference: list[Any], graph: list[Any], expected: list[float]) -> None:
    np.testing.assert_allclose(deviations(np.array(reference), np.array(graph)), expected, rtol=1e-9)
    if isinstance(reference[0], str):
        np.testing.assert_array_equal(deviations(np.array(reference, object), np.array(graph, object)), expected)


def test_nan_is_over_every_bound() -> None:
    with pytest.raises(PackagingError, match="deviates by inf"):
        measure_parity(lambda inputs: {"y": inputs["x"] * math.nan}, runner(), X)
