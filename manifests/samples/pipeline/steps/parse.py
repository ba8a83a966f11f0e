"""Step 4: the network's scores become a name and how sure it is of it."""

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """LOGITS FP32 [batch, 3] to WINE BYTES [batch, 1] and CONFIDENCE FP32 [batch, 1]."""

    def initialize(self, args: dict[str, str]) -> None:
        """Called once per instance."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._names = np.array(parameters["wines"]["string_value"].split(","), dtype=object)

    def execute(self, requests: list[Any]) -> list[Any]:
        """One answer for each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        logits = pb_utils.get_input_tensor_by_name(request, "LOGITS").as_numpy()
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = powers / powers.sum(axis=1, keepdims=True)
        wines = self._names[probabilities.argmax(axis=1)][:, None]
        confidences = probabilities.max(axis=1, keepdims=True).astype(np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("WINE", wines), pb_utils.Tensor("CONFIDENCE", confidences)])
