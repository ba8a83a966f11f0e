# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "onnx", "scikit-learn"]
# ///
"""Trains the sample model: a softmax classifier of handwritten digits (8 x 8 pixels), written as ONNX.

Usage: pip install numpy onnx scikit-learn && python train.py

Input `pixels` FP32 [batch, 64], 0 (white) to 16 (black); output `probabilities` FP32 [batch, 10]. The same versions of
the libraries write the same bytes. Prints the accuracy on the held-out fifth of the data; of that, `examples.json` gets
one drawing of each digit to try the served model with.
"""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

HIDDEN = 48
PIXEL_MAX = 16.0
OPSET = 20
IR_VERSION = 10


def main() -> None:
    """Train, write `digits.onnx` and `examples.json` beside this file, print what came out."""
    pixels, digits = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(pixels, digits, test_size=0.2, random_state=0, stratify=digits)
    classifier = MLPClassifier(hidden_layer_sizes=(HIDDEN,), alpha=1e-2, max_iter=600, random_state=0)
    classifier.fit(train_x / PIXEL_MAX, train_y)
    model = to_onnx(classifier)
    path = Path(__file__).with_name("digits.onnx")
    path.write_bytes(model.SerializeToString(deterministic=True))
    accuracy = classifier.score(test_x / PIXEL_MAX, test_y)
    firsts = [int(np.flatnonzero(test_y == digit)[0]) for digit in range(10)]
    examples = [{"digit": int(test_y[i]), "pixels": test_x[i].astype(int).tolist()} for i in firsts]
    lines = ",\n".join(json.dumps(example) for example in examples)
    path.with_name("examples.json").write_text(f"[\n{lines}\n]\n")
    print(f"{path.name}: {path.stat().st_size} bytes, accuracy {accuracy:.3f} on {len(test_y)} held-out digits")


def to_onnx(classifier: MLPClassifier) -> onnx.ModelProto:
    """The trained weights as a graph: scale, linear, ReLU, linear, softmax."""
    (weights_1, weights_2), (bias_1, bias_2) = classifier.coefs_, classifier.intercepts_
    constants = {
        "pixel_max": np.array(PIXEL_MAX, dtype=np.float32),
        "weights_1": weights_1.astype(np.float32),
        "bias_1": bias_1.astype(np.float32),
        "weights_2": weights_2.astype(np.float32),
        "bias_2": bias_2.astype(np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Div", ["pixels", "pixel_max"], ["scaled"]),
            helper.make_node("Gemm", ["scaled", "weights_1", "bias_1"], ["linear_1"]),
            helper.make_node("Relu", ["linear_1"], ["hidden"]),
            helper.make_node("Gemm", ["hidden", "weights_2", "bias_2"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
        ],
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="conch-samples")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    main()
