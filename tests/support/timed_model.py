"""A model whose speed is known: it answers one request after the other, each after the same time."""

from typing import Final

from tests.support.archives import tar_gz

LONG: Final = 1000.0
"""A first pixel of LONG + n asks for an answer after n seconds."""

_CONFIG: Final = b"""
backend: "python"
max_batch_size: 1
input { name: "pixels" data_type: TYPE_FP32 dims: 64 }
output { name: "probabilities" data_type: TYPE_FP32 dims: 10 }
"""
_CODE: Final = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        time.sleep({load_seconds})

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        pixels = pb_utils.get_input_tensor_by_name(request, "pixels").as_numpy()
        asked = float(pixels[0][0]) - {long}
        time.sleep(asked if asked > 0 else {service_seconds})
        answer = np.full((len(pixels), 10), 0.1, dtype=np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("probabilities", answer)])
"""


def timed_model(*, service_seconds: float, load_seconds: float = 0.0) -> bytes:
    """Version 1 as an archive: 1 / `service_seconds` requests a second at most, and `load_seconds` until it is loaded.

    It sleeps instead of computing, so that several servers fit on a small machine.
    """
    code = _CODE
    for name, value in (("service_seconds", service_seconds), ("load_seconds", load_seconds), ("long", LONG)):
        code = code.replace("{" + name + "}", str(value))
    return tar_gz({"digits/config.pbtxt": _CONFIG, "digits/1/model.py": code.encode()})
