"""Small graphs to package, made in the test: nothing is trained."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

FEATURES, CLASSES = 4, 3
WEIGHTS = np.random.default_rng(0).normal(size=(FEATURES, CLASSES)).astype(np.float32)


def made(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    **weights: npt.NDArray[Any],
) -> ModelProto:
    """A checked model of opset 20."""
    initialisers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def value(name: str, *dims: str | int, kind: int = TensorProto.FLOAT) -> ValueInfoProto:
    """An input or output."""
    return helper.make_tensor_value_info(name, kind, list(dims))


def linear(*, batch: str | int = "batch", output: str = "logits") -> ModelProto:
    """`logits = x @ WEIGHTS`, x of [batch, 4]."""
    return made(
        [helper.make_node("MatMul", ["x", "weights"], [output])],
        [value("x", batch, FEATURES)],
        [value(output, batch, CLASSES)],
        weights=WEIGHTS,
    )


def wide(*, features: int = 64, hidden: int = 512, classes: int = 4, seed: int = 0) -> ModelProto:
    """A perceptron of one hidden layer, large enough for int8 to change something."""
    random = np.random.default_rng(seed)
    return made(
        [
            helper.make_node("MatMul", ["x", "first"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("MatMul", ["active", "second"], ["logits"]),
        ],
        [value("x", "batch", features)],
        [value("logits", "batch", classes)],
        first=random.normal(size=(features, hidden)).astype(np.float32),
        second=random.normal(size=(hidden, classes)).astype(np.float32),
    )


def many_types() -> ModelProto:
    """Two inputs, four outputs: integers, booleans, a number per sample, an axis of any length."""
    return made(
        [
            helper.make_node("Gather", ["table", "ids"], ["vectors"]),
            helper.make_node("ReduceMean", ["vectors", "last"], ["means"], keepdims=0),
            helper.make_node("ReduceSum", ["x", "last_of_two"], ["sum"], keepdims=0),
            helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT32),
            helper.make_node("Greater", ["x", "zero"], ["positive"]),
        ],
        [value("ids", "batch", "seq", kind=TensorProto.INT64), value("x", "batch", 2)],
        [
            value("means", "batch", "seq"),
            value("sum", "batch"),
            value("whole", "batch", 2, kind=TensorProto.INT32),
            value("positive", "batch", 2, kind=TensorProto.BOOL),
        ],
        table=np.arange(30, dtype=np.float32).reshape(10, 3) / 7,
        last=np.array([2], np.int64),
        last_of_two=np.array([1], np.int64),
        zero=np.array(0, np.float32),
    )


def mixing() -> ModelProto:
    """`y = x - mean of the batch`: an answer depends on who else asks."""
    return made(
        [
            helper.make_node("ReduceMean", ["x", "first"], ["mean"], keepdims=1),
            helper.make_node("Sub", ["x", "mean"], ["y"]),
        ],
        [value("x", "batch", FEATURES)],
        [value("y", "batch", FEATURES)],
        first=np.array([0], np.int64),
    )


def samples(count: int = 40, features: int = FEATURES, seed: int = 1) -> npt.NDArray[np.float32]:
    """Normal floats, the same each time."""
    return np.random.default_rng(seed).normal(size=(count, features)).astype(np.float32)
