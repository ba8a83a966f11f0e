"""Versions of the sample model for rollouts: good ones, and one for each way in which a version can be bad."""

import json
from functools import cache
from typing import Any, Final

import numpy as np
import onnxruntime

from tests.support.archives import tar_gz
from tests.support.inference import SAMPLE, digits

MODEL: Final = (SAMPLE / "digits.onnx").read_bytes()

_ONNX: Final = b"""
backend: "onnxruntime"
max_batch_size: 16
input { name: "pixels" data_type: TYPE_FP32 dims: 64 }
output { name: "probabilities" data_type: TYPE_FP32 dims: 10 }
"""
_PYTHON: Final = _ONNX.replace(b"onnxruntime", b"python")
_CODE: Final = """
import os
import time
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.requests = 0
        if {crashes}:
            os._exit(1)

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        self.requests += 1
        time.sleep({delay_seconds})
        if self.requests % {fails_each} == 0:
            raise pb_utils.TritonModelException("a bad version")
        pixels = pb_utils.get_input_tensor_by_name(request, "pixels").as_numpy()
        answer = np.full((len(pixels), 10), 0.1, dtype=np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("probabilities", answer)])
"""


@cache
def golden_set() -> bytes:
    """What the sample model answers to three drawings."""
    pixels = np.stack([digit.pixels for digit in digits()[:3]])
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    (answers,) = session.run(["probabilities"], {"pixels": pixels})
    recorded: dict[str, Any] = {
        "data": [{"pixels": {"content": each.tolist(), "shape": [64]}} for each in pixels],
        "validation_data": [{"probabilities": {"content": each.tolist(), "shape": [10]}} for each in answers],
    }
    return json.dumps(recorded).encode()


def recorded(version: int) -> bytes:
    """The sample model with its golden set."""
    model = {"digits/config.pbtxt": _ONNX, f"digits/{version}/model.onnx": MODEL}
    return tar_gz(model | {"digits/golden.json": golden_set()})


def not_as_recorded(version: int) -> bytes:
    """A version of the right shape that answers every drawing alike, with the good one's golden set."""
    return tar_gz(_python(version) | {"digits/golden.json": golden_set()})


def failing(version: int, *, each: int) -> bytes:
    """A version that fails one of so many requests."""
    return tar_gz(_python(version, fails_each=each))


def slow(version: int, *, delay_seconds: float) -> bytes:
    """A version that takes its time."""
    return tar_gz(_python(version, delay_seconds=delay_seconds))


def crashing(version: int) -> bytes:
    """A version whose process ends while it loads, without a word."""
    return tar_gz(_python(version, crashes=True))


def _python(
    version: int, *, delay_seconds: float = 0.0, fails_each: int = 10**9, crashes: bool = False
) -> dict[str, bytes]:
    code = _CODE
    for name, value in (("delay_seconds", delay_seconds), ("fails_each", fails_each), ("crashes", crashes)):
        code = code.replace(f"{{{name}}}", str(value))
    return {"digits/config.pbtxt": _PYTHON, f"digits/{version}/model.py": code.encode()}
