"""Step 1: a laboratory's record, JSON as it comes, becomes thirteen readings; what was not measured is NaN."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """RECORD BYTES [batch, 1] to READINGS FP32 [batch, 13]."""

    def initialize(self, args: dict[str, str]) -> None:
        """Called once per instance."""
        del args
        self._names = [str(name) for name in np.load(Path(__file__).parent / "scale.npz")["names"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """One answer for each request: a record that cannot be read spoils its own request only."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        texts = pb_utils.get_input_tensor_by_name(request, "RECORD").as_numpy().reshape(-1)
        try:
            rows = [self._readings(text) for text in texts]
        except ValueError as error:
            refusal = pb_utils.TritonError(f"RECORD: {error}", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=refusal)
        return pb_utils.InferenceResponse([pb_utils.Tensor("READINGS", np.array(rows, dtype=np.float32))])

    def _readings(self, text: bytes) -> list[float]:
        record = json.loads(text)
        if not isinstance(record, dict):
            raise ValueError("a record is a JSON object of readings by name")
        if unknown := sorted(record.keys() - set(self._names)):
            raise ValueError(f"there is no reading {unknown[0]!r}; there are {', '.join(self._names)}")
        values = [record.get(name) for name in self._names]
        for name, value in zip(self._names, values, strict=True):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ValueError(f"{name} is {value!r}, which is no number")
        return [float("nan") if value is None else float(value) for value in values]
