"""Step 2: readings become what the network was trained on: centred, scaled, and the mean where one is missing."""

from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """READINGS FP32 [batch, 13] to FEATURES FP32 [batch, 13]."""

    def initialize(self, args: dict[str, str]) -> None:
        """Called once per instance."""
        del args
        scale = np.load(Path(__file__).parent / "scale.npz")
        self._mean, self._deviation = scale["mean"], scale["deviation"]

    def execute(self, requests: list[Any]) -> list[Any]:
        """One answer for each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        readings = pb_utils.get_input_tensor_by_name(request, "READINGS").as_numpy()
        features = np.nan_to_num((readings - self._mean) / self._deviation, nan=0.0).astype(np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("FEATURES", features)])
