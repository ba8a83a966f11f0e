"""Models of Triton's Python backend for the contract tests: they do what no graph can, on the test's word."""

from pathlib import Path

from conch.api.source_policy import SourcePolicy
from tests.contract.conftest import POLICY
from tests.support.archives import tar_gz

WITH_CODE: SourcePolicy = POLICY.model_copy(update={"backends": (*POLICY.backends, "python")})

_CONFIG = """
backend: "python"
max_batch_size: 4
input {{ name: "x" data_type: TYPE_FP32 dims: 4 }}
output {{ name: "y" data_type: TYPE_FP32 dims: 4 }}
instance_group {{ count: 1 kind: KIND_CPU }}
parameters {{ key: "folder" value {{ string_value: "{folder}" }} }}
"""

_HEAD = """
import json
import os
from pathlib import Path

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.folder = Path(json.loads(args["model_config"])["parameters"]["folder"]["string_value"])
        self.begin()

    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(request, "x").as_numpy()) for request in requests]

"""

_ECHO = """
    def answer(self, x):
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("y", x)])
"""

TWO_FIT = (
    _HEAD
    + _ECHO
    + """
    def begin(self):
        for place in (self.folder / "one", self.folder / "two"):
            try:
                os.close(os.open(place, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            self.place = place
            return
        raise pb_utils.TritonModelException("CUDA out of memory. Tried to allocate 2.00 GiB")

    def finalize(self):
        self.place.unlink()
"""
)
"""Says that the memory is full when a third instance starts."""

WAITS = (
    _HEAD
    + """
    def begin(self):
        pass

    def answer(self, x):
        if x[0, 0] > 0:
            with open(self.folder / "gate") as gate:  # until somebody opens the other end
                gate.read()
        if x[0, 0] < 0:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("less than nothing"))
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("y", x)])
"""
)
"""Answers a request above 0 once the named pipe `gate` was opened and closed; one below 0 with an error."""


def python_model(code: str, folder: Path, **files: bytes) -> bytes:
    """An archive of a model directory, with further `files`; the model finds `folder`."""
    return tar_gz(
        {
            **files,
            "config.pbtxt": _CONFIG.format(folder=folder).encode(),
            "1/model.py": code.encode(),
            # In the folder of this name Python would leave bytecode, so that Triton sees files that changed since the
            # load. In a pod the repository is mounted read-only.
            "1/__pycache__": b"",
        }
    )
