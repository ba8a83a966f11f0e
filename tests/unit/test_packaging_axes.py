"""A graph takes batches only if axis 0 of every input and output is the batch; else the message says which is not."""

import pytest
from onnx import ModelProto, TensorProto, helper

from conch.packaging.errors import PackagingError
from conch.packaging.graph.axes import batch_axis, fixed_axes, require_batch_axis

Dims = list[str | int | None]


def graph(inputs: dict[str, Dims], outputs: dict[str, Dims], weights: str = "") -> ModelProto:
    made = helper.make_graph(
        [helper.make_node("Identity", [next(iter(inputs))], [name]) for name in outputs],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs.items()],
        [helper.make_tensor(weights, TensorProto.FLOAT, [1], [0.0])] if weights else [],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({"x": ["batch", 4]}, {"y": ["batch", 3]}),
        ({"x": [None, 4], "ids": ["n", "seq"]}, {"y": ["unk__7"], "z": ["n", "seq"]}),
        ({"x": ["n"]}, {"y": ["n"]}),
    ],
)
def test_symbolic_everywhere(inputs: dict[str, Dims], outputs: dict[str, Dims]) -> None:
    model = graph(inputs, outputs)
    assert batch_axis(model)
    assert fixed_axes(model) == ()
    require_batch_axis(model)


def test_zero_and_less_is_how_old_exporters_write_it() -> None:
    model = graph({"x": [0, 4]}, {"y": ["n", 3]})
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert batch_axis(model)


def test_weights_that_are_listed_as_inputs_do_not_count() -> None:
    assert batch_axis(graph({"x": ["n", 4], "w": [1]}, {"y": ["n", 3]}, weights="w"))


def test_fixed_everywhere_takes_no_batches() -> None:
    model = graph({"x": [1, 4]}, {"y": [1, 3], "total": []})
    assert not batch_axis(model)
    assert fixed_axes(model) == ("x", "y", "total")
    with pytest.raises(
        PackagingError, match=r"batch axis is frozen: axis 0 of 'x' \[1, 4\], 'y' \[1, 3\], 'total' \(a "
    ):
        require_batch_axis(model)


@pytest.mark.parametrize(
    ("inputs", "outputs", "fixed", "free"),
    [
        ({"x": ["n", 4]}, {"y": ["n", 3], "state": [1, "n", 64]}, r"'state' \[1, n, 64\]", "'x', 'y'"),
        ({"x": ["n", 4], "state": [2, 64]}, {"y": ["n", 3]}, r"'state' \[2, 64\]", "'x', 'y'"),
        ({"x": ["n", 4]}, {"loss": []}, r"'loss' \(a scalar\)", "'x'"),
        ({"x": [1, None]}, {"y": ["n", 3]}, r"'x' \[1, \?\]", "'y'"),
    ],
)
def test_frozen_on_one(inputs: dict[str, Dims], outputs: dict[str, Dims], fixed: str, free: str) -> None:
    model = graph(inputs, outputs)
    for check in (batch_axis, require_batch_axis):
        with pytest.raises(PackagingError, match=f"axis 0 of {fixed} is fixed, of {free} it is not; export"):
            check(model)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ({"x": ["seq", "batch", 4]}, {"y": ["seq", "batch", 4]}, "axis 1 of input 'x' is named 'batch'"),
        ({"x": ["n", "seq"]}, {"y": ["seq", "n"]}, "axis 0 of output 'y' is 'seq', which is axis 1 of input 'x'"),
        ({"x": ["n", 4]}, {"y": ["2*n", 4]}, r"axis 0 of output 'y' is '2\*n', not one row per sample"),
        ({"a": ["n"], "b": ["m"]}, {"y": ["n + m"]}, r"axis 0 of output 'y' is 'n \+ m'"),
    ],
)
def test_axis_0_is_something_else(inputs: dict[str, Dims], outputs: dict[str, Dims], message: str) -> None:
    with pytest.raises(PackagingError, match=message):
        batch_axis(graph(inputs, outputs))


def test_what_is_no_tensor() -> None:
    model = graph({"x": ["n", 4]}, {"y": ["n", 3]})
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None))
    with pytest.raises(PackagingError, match=r"'y' is no tensor \(sequence\).*zipmap=False"):
        batch_axis(model)


def test_a_tensor_without_a_shape() -> None:
    model = graph({"x": ["n", 4]}, {"y": ["n", 3]})
    model.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(PackagingError, match="'y' has no shape"):
        fixed_axes(model)
