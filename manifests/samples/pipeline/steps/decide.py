"""Step 5: what is to be done with the bottle."""

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """WINE BYTES [batch, 1] and CONFIDENCE FP32 [batch, 1] to DECISION BYTES [batch, 1]."""

    def initialize(self, args: dict[str, str]) -> None:
        """Called once per instance."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._least = float(parameters["confidence_least"]["string_value"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One answer for each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        wines = pb_utils.get_input_tensor_by_name(request, "WINE").as_numpy().reshape(-1)
        confidences = pb_utils.get_input_tensor_by_name(request, "CONFIDENCE").as_numpy().reshape(-1)
        decisions = [
            f"label it {wine.decode()}" if confidence >= self._least else "ask the laboratory again"
            for wine, confidence in zip(wines, confidences, strict=True)
        ]
        return pb_utils.InferenceResponse([pb_utils.Tensor("DECISION", np.array(decisions, dtype=object)[:, None])])
