"""Small graphs of the usual kinds, for the tests of conch.packaging.optimise."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from conch.packaging.request import HeldOut

Floats = npt.NDArray[np.float32]
F, I64 = TensorProto.FLOAT, TensorProto.INT64
FEATURES, HIDDEN, CLASSES = 16, 64, 4


def value(name: str, kind: int, *dims: int | str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(dims))


def model(
    nodes: list[NodeProto],
    inputs: list[ValueInfoProto],
    outputs: list[ValueInfoProto],
    weights: Mapping[str, npt.NDArray[Any]],
    opset: int = 20,
) -> ModelProto:
    graph: GraphProto = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(array, name) for name, array in weights.items()]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def normal(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def clusters(count: int = 256, seed: int = 5) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Samples of four classes, a little mixed with each other."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count)
    centres = np.random.default_rng(1).normal(size=(CLASSES, FEATURES))
    return (centres[labels] + random.normal(size=(count, FEATURES))).astype(np.float32), labels


def classifier(batch: int | str = "batch", opset: int = 20) -> ModelProto:
    """A hidden layer of random features and an output layer by least squares: a model that is truly good."""
    x, labels = clusters(1024, seed=2)
    hidden, bias = normal(3, FEATURES, HIDDEN) / 4, normal(4, HIDDEN)
    features = np.hstack([np.maximum(x @ hidden + bias, 0), np.ones((len(x), 1), np.float32)])
    solution = np.linalg.lstsq(features, np.eye(CLASSES, dtype=np.float32)[labels], rcond=None)[0].astype(np.float32)
    return model(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first"),
            helper.make_node("Relu", ["h"], ["r"], name="relu"),
            helper.make_node("Gemm", ["r", "w2", "b2"], ["logits"], name="second"),
        ],
        [value("x", F, batch, FEATURES)],
        [value("logits", F, batch, CLASSES)],
        {"w1": hidden, "b1": bias, "w2": solution[:-1], "b2": solution[-1]},
        opset,
    )


def held_out() -> HeldOut:
    x, labels = clusters()
    return HeldOut(inputs={"x": x}, target=labels)


def convolutional() -> ModelProto:
    return model(
        [
            helper.make_node("Conv", ["x", "k", "c"], ["m"], name="conv", kernel_shape=[3, 3]),
            helper.make_node("Relu", ["m"], ["r"], name="relu"),
            helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
            helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
            helper.make_node("Gemm", ["f", "w", "b"], ["y"], name="head"),
        ],
        [value("x", F, "batch", 1, 8, 8)],
        [value("y", F, "batch", 3)],
        {"k": normal(1, 8, 1, 3, 3), "c": normal(2, 8), "w": normal(3, 8, 3), "b": normal(4, 3)},
    )


def pooled() -> ModelProto:
    """Between two that multiply: a Relu, a pool and a change of shape; behind them a sum."""
    return model(
        [
            helper.make_node("Conv", ["x", "k", "c"], ["m"], name="conv", kernel_shape=[3, 3]),
            helper.make_node("Relu", ["m"], ["r"], name="relu"),
            helper.make_node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
            helper.make_node("Gemm", ["f", "w"], ["g"], name="head"),
            helper.make_node("Add", ["g", "b"], ["s"], name="sum"),
            helper.make_node("Sigmoid", ["s"], ["y"], name="sigmoid"),
        ],
        [value("x", F, "batch", 1, 8, 8)],
        [value("y", F, "batch", 3)],
        {"k": normal(1, 8, 1, 3, 3), "c": normal(2, 8), "w": normal(3, 72, 3), "b": normal(4, 1)},
    )


def recurrent() -> ModelProto:
    """As torch exports it: the weights that the LSTM takes are computed from those that are stored."""
    size = 8
    return model(
        [
            helper.make_node("Unsqueeze", ["w0", "zero"], ["w"], name="w"),
            helper.make_node("Unsqueeze", ["r0", "zero"], ["r"], name="r"),
            helper.make_node("Transpose", ["x"], ["t"], name="t", perm=[1, 0, 2]),
            helper.make_node("LSTM", ["t", "w", "r"], ["", "h"], name="lstm", hidden_size=size),
            helper.make_node("Squeeze", ["h", "zero"], ["y"], name="squeeze"),
        ],
        [value("x", F, "batch", 6, 4)],
        [value("y", F, "batch", size)],
        {"w0": normal(1, 4 * size, 4), "r0": normal(2, 4 * size, size), "zero": np.array([0], np.int64)},
    )


def textual() -> ModelProto:
    """Token ids of any length to two scores."""
    return model(
        [
            helper.make_node("Gather", ["table", "ids"], ["e"], name="embed"),
            helper.make_node("MatMul", ["e", "w"], ["m"], name="dense"),
            helper.make_node("ReduceMean", ["m", "axes"], ["y"], name="mean", keepdims=0),
        ],
        [value("ids", I64, "batch", "seq")],
        [value("y", F, "batch", 2)],
        {"table": normal(1, 100, 16), "w": normal(2, 16, 2), "axes": np.array([1], np.int64)},
    )


def nothing_to_multiply() -> ModelProto:
    return model(
        [helper.make_node("Relu", ["x"], ["y"], name="relu")],
        [value("x", F, "batch", 4)],
        [value("y", F, "batch", 4)],
        {},
    )


def operators(graph: ModelProto) -> set[str]:
    return {node.op_type for node in graph.graph.node}
