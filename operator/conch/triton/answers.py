"""What a server answers to an inference request, as tensors: of JSON, of JSON with binary tensors, and of gRPC."""

import json
from collections.abc import Mapping
from typing import Any, Final

from conch.triton.tensors import Tensor, TensorError, from_raw, from_values, shaped

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
"""Where the JSON part of a body ends; the tensors' bytes follow, in its order."""


class AnswerError(Exception):
    """The answer is not one of the Open Inference Protocol; the message says why."""


def http_answer(headers: Mapping[str, str], body: bytes) -> tuple[str, tuple[Tensor, ...]]:
    """The model's version and outputs. Raises AnswerError."""
    try:
        length = int(headers.get(HEADER_LENGTH, len(body)))
        described = json.loads(body[:length])
        outputs, at = [], length
        for row in described["outputs"]:
            size = row.get("parameters", {}).get("binary_data_size")
            if size is None:
                outputs.append(_tensor(row["name"], row["datatype"], row["shape"], values=row["data"]))
                continue
            outputs.append(_tensor(row["name"], row["datatype"], row["shape"], raw=body[at : at + size]))
            at += size
        return str(described.get("model_version", "")), tuple(outputs)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AnswerError(str(error) or type(error).__name__) from error


def grpc_answer(response: Any) -> tuple[str, tuple[Tensor, ...]]:
    """The same of a ModelInferResponse; Triton sends all of them as bytes. Raises AnswerError."""
    raw = list(response.raw_output_contents)
    if len(raw) != len(response.outputs):
        raise AnswerError(f"it has {len(response.outputs)} outputs and the bytes of {len(raw)}")
    try:
        outputs = tuple(
            _tensor(row.name, row.datatype, row.shape, raw=content)
            for row, content in zip(response.outputs, raw, strict=True)
        )
    except ValueError as error:
        raise AnswerError(str(error)) from error
    return response.model_version, outputs


def _tensor(name: str, datatype: str, shape: Any, *, values: Any = None, raw: bytes | None = None) -> Tensor:
    try:
        array = from_values(datatype, values) if raw is None else from_raw(datatype, raw)
        return Tensor(name=name, datatype=datatype, array=shaped(array, shape))
    except TensorError as error:
        raise TensorError(f"{name}: {error}") from error
