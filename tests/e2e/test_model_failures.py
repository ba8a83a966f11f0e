"""Models that arrive and cannot be served: why, in Triton's words, and what to do."""

import numpy as np
import pytest

from tests.e2e.conftest import SAMPLE, Namespace
from tests.support.archives import tar_gz
from tests.support.inference import infer
from tests.support.model_store import ModelStore
from tests.support.waiting import until

MODEL = SAMPLE.read_bytes()
NO_GPU = {"count": 0}
WRONG_DIMS = b"""
backend: "onnxruntime"
max_batch_size: 128
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
            "InvalidModel",
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


ENSEMBLE = """
platform: "ensemble" max_batch_size: 128
input { name: "pixels" data_type: TYPE_FP32 dims: 64 }
output { name: "probabilities" data_type: TYPE_FP32 dims: 10 }
ensemble_scheduling { step {
  model_name: "net"
  input_map { key: "INPUT" value: "pixels" }
  output_map { key: "probabilities" value: "probabilities" }
} }
"""
NET = b"""
backend: "onnxruntime"
max_batch_size: 128
input { name: "pixels" data_type: TYPE_FP32 dims: 64 }
output { name: "probabilities" data_type: TYPE_FP32 dims: 10 }
"""
WORKING = ENSEMBLE.replace('"INPUT"', '"pixels"')


def _repository(ensemble: str, **files: bytes) -> bytes:
    return tar_gz(
        {"digits/config.pbtxt": ensemble.encode(), "net/config.pbtxt": NET, "net/1/model.onnx": MODEL, **files}
    )


def test_a_source_is_mended_one_refusal_after_the_other_until_it_serves(
    namespace: Namespace, store: ModelStore
) -> None:
    """One object, each time with other files: each refusal names the next thing to do."""
    mistakes = (
        (
            tar_gz({"digits/config.pbtxt": NET, "digits/2/model.onnx": MODEL}),
            "no version 1; it has 2; set spec.model.ver",
        ),
        (tar_gz({"config.pbtxt": b'name: "net"' + NET, "1/model.onnx": MODEL}), "set spec.model.name to 'net'"),
        (tar_gz({"config.pbtxt": NET + b"max_batch: 8", "1/model.onnx": MODEL}), "knows no field 'max_batch'"),
        (_repository(ENSEMBLE.replace('"net"', '"gone"')), "a step of the model 'gone', which is not in the source"),
        (_repository(ENSEMBLE), "step 1 (net) gets nothing for its input 'pixels'"),
        (tar_gz({"model.py": b"x = 1", "net.onnx": MODEL}), "set spec.model.format to the one that is meant"),
        (tar_gz({"model.py": b"class TritonPythonModel: pass"}), "give spec.model.config.inputs and outputs"),
    )
    for number, (content, words) in enumerate(mistakes):
        namespace.deploy("digits", store.put(f"/{namespace.name}/{number}.tar.gz", content), gpu=NO_GPU)

        def told(words: str = words) -> bool:
            ready = namespace.condition("digits", "Ready")
            return ready.get("reason") == "InvalidModel" and words in ready["message"]

        until(told, f"{words!r} to be told")
        assert namespace.ready_endpoints("digits") == set()
    # What is foreign in the repository is not laid out: Triton would take it for a model.
    foreign = {"notes/how.md": b"x", ".git/config": b"x", "other/1/model.onnx": b"no graph"}
    good = store.put(f"/{namespace.name}/good.tar.gz", _repository(WORKING, **foreign))
    namespace.deploy("digits", good, gpu=NO_GPU)
    namespace.wait_ready("digits")
    namespace.wait_answers("digits")


PROGRAM = b"""
import numpy as np
import triton_python_backend_utils as pb_utils

from sums import total


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(each, "pixels").as_numpy()) for each in requests]

    def answer(self, x):
        sums = pb_utils.Tensor("probabilities", total(x).astype(np.float32))
        return pb_utils.InferenceResponse(output_tensors=[sums])
"""
HELPER = b"def total(x):\n    return x.sum(axis=-1, keepdims=True)\n"


def test_a_bare_program_serves_with_what_is_said_of_it(namespace: Namespace, store: ModelStore) -> None:
    content = tar_gz({"model.py": PROGRAM, "sums.py": HELPER})
    config = {
        "maxBatchSize": 4,
        "inputs": [{"name": "pixels", "dataType": "FP32", "dims": [64]}],
        "outputs": [{"name": "probabilities", "dataType": "FP32", "dims": [1]}],
        "dynamicBatching": {"timeoutMicroseconds": 5_000_000, "timeoutAction": "Reject", "preserveOrdering": True},
    }
    uri = store.put(f"/{namespace.name}/program.tar.gz", content)
    namespace.deploy("digits", uri, gpu=NO_GPU, model={"config": config})
    namespace.wait_ready("digits")
    pixels = np.ones((2, 64), dtype=np.float32)
    address = f"{namespace.address('digits')}:8000"
    answer = until(lambda: infer(address, "digits", pixels, protocol="http").tolist(), "an answer")
    assert answer == [[64.0], [64.0]]
