"""Small models for the contract tests, and archives of them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Floats = npt.NDArray[np.float32]
FEATURES, CLASSES = 4, 3
CONFIG = """
backend: "onnxruntime"
max_batch_size: 16
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "scores" data_type: TYPE_FP32 dims: 3 }
dynamic_batching { }
"""


def classifier(seed: int = 0) -> bytes:
    """A softmax classifier `x[batch, 4] -> scores[batch, 3]`; the seed changes its weights."""
    weights = np.random.default_rng(seed).normal(size=(FEATURES, CLASSES)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["logits"]), helper.make_node("Softmax", ["logits"], ["scores"])],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def scores_of(
    model: bytes, x: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """What onnxruntime itself answers."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # newer Linux wheels carry a telemetry client
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (scores,) = session.run(["scores"], {"x": x})
    return np.asarray(scores)


def written(path: Path, content: bytes) -> Path:
    """Write a file and give its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
