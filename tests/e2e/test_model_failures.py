"""Models that arrive and cannot be served: why, in Triton's words, and what to do."""

import pytest

from tests.e2e.conftest import SAMPLE, Namespace
from tests.support.archives import tar_gz
from tests.support.model_store import ModelStore

MODEL = SAMPLE.read_bytes()
NO_GPU = {"count": 0}
WRONG_DIMS = b"""
backend: "onnxruntime"
max_batch_size: 8
input { name: "pixels" data_type: TYPE_FP32 dims: 63 }
output { name: "probabilities" data_type: TYPE_FP32 dims: 10 }
"""
PYTHON = b"""
backend: "python"
max_batch_size: 0
input { name: "x" data_type: TYPE_FP32 dims: 1 }
output { name: "y" data_type: TYPE_FP32 dims: 1 }
"""


def _raising(error: str) -> bytes:
    code = f"class TritonPythonModel:\n    def initialize(self, args):\n        raise RuntimeError({error!r})\n"
    return tar_gz({"digits/config.pbtxt": PYTHON, "digits/1/model.py": code.encode()})


@pytest.mark.parametrize(
    ("content", "name", "reason", "words"),
    [
        (b"this is no graph", "m.onnx", "InvalidModel", ("ONNX",)),
        (
            tar_gz({"digits/config.pbtxt": WRONG_DIMS, "digits/1/model.onnx": MODEL}),
            "m.tar.gz",
            "ModelLoadFailed",
            ("pixels", "63"),
        ),
        (_raising("the weights are for another tokenizer"), "m.tar.gz", "ModelLoadFailed", ("another tokenizer",)),
        (
            _raising("CUDA out of memory. Tried to allocate 20.00 GiB"),
            "m.tar.gz",
            "OutOfGPUMemory",
            ("Tried to allocate 20.00 GiB", "gpu.products"),
        ),
        (
            tar_gz({"digits/config.pbtxt": b'backend: "pytorch"', "digits/1/model.pt": b"x"}),
            "m.tar.gz",
            "ModelNotAllowed",
            ("pytorch", "policy.models.backends"),
        ),
    ],
    ids=["no-onnx", "wrong-dims", "python-raises", "gpu-memory", "not-allowed"],
)
def test_why_a_model_is_not_served(
    namespace: Namespace, store: ModelStore, content: bytes, name: str, reason: str, words: tuple[str, ...]
) -> None:
    path = f"/{namespace.name}/{name}"
    namespace.deploy("digits", store.put(path, content), gpu=NO_GPU)
    message = namespace.wait_reason("digits", reason)
    assert [word for word in words if word not in message] == [], message
    assert namespace.condition("digits", "Stalled")["status"] == "True"
    assert namespace.ready_endpoints("digits") == set()
