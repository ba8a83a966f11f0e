"""A model's files held against its configuration before Triton sees either, for the backends of which they tell.

What they do not tell, or what cannot be read here, is for Triton to refuse, in its own words.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from conch.api.source_policy import SourcePolicy
from conch.triton import tensorrt_llm, vllm
from conch.triton.errors import InvalidModelError
from conch.triton.layout import DEFAULT_ONNX
from conch.triton.onnx_signature import read_signature
from conch.triton.own_paths import Place, settle_parameters
from conch.triton.plain_file import read_small
from conch.triton.tensor_check import check_graph, check_tensors, is_told
from conch.triton.torchscript import check_torchscript

PROGRAM_BYTES_MOST: Final = 4 << 20
_DEFAULT_FILES: Final = {"onnxruntime": DEFAULT_ONNX, "pytorch": "model.pt", "python": "model.py"}
_MODEL_CLASS: Final = re.compile(rb"\bTritonPythonModel\b")
_WHOLE_CLASS: Final = re.compile(rb"\bclass\s+TritonPythonModel\s*(\(\s*(object)?\s*\))?\s*:")
"""One that inherits nothing: what it does not say, nobody says."""
_COMPLETES: Final = re.compile(rb"\bauto_complete_config\b")


def settle_content(
    config: Any, files: Mapping[str, Path], place: Place, policy: SourcePolicy, *, is_member: bool = False
) -> dict[str, bytes]:
    """Check the files of a model whose backend is settled (allowed.py), and write its own paths into `config`.

    `files` are those of the model's folder, and where each lies. Returns those that have another content for Triton.
    Raises InvalidModelError and ModelNotAllowedError. May be repeated on what came of it.
    """
    check_tensors(config)
    settle_parameters(config, place)
    name = f"{place.version}/{config.default_model_filename or _DEFAULT_FILES.get(config.backend, '')}"
    file = files.get(name)
    match config.backend:
        case "onnxruntime" if file is not None:
            graph = None
            with suppress(InvalidModelError):
                graph = read_signature(file)
            if graph is not None:
                check_graph(config, graph)
        case "pytorch" if not config.runtime and file is not None:
            check_torchscript(file, name=name)
            _need_tensors(config, "a TorchScript file does not tell", is_member=is_member)
        case "python" if file is not None:
            _check_program(config, file, name, is_member=is_member)
        case tensorrt_llm.BACKEND:
            tensorrt_llm.settle_engine(config, files, place, allows_code=policy.allows_code)
        case vllm.BACKEND:
            return vllm.settle_engine(config, files, place, allows_code=policy.allows_code)
    return {}


def _check_program(config: Any, file: Path, name: str, *, is_member: bool) -> None:
    content = read_small(file, most=PROGRAM_BYTES_MOST, name=name)
    if not _MODEL_CLASS.search(content):
        raise InvalidModelError(
            f"{name} has no class TritonPythonModel, which Triton's Python backend runs; write one, with execute()"
        )
    if _WHOLE_CLASS.search(content) and not _COMPLETES.search(content):
        _need_tensors(config, f"{name} has no auto_complete_config() and does not tell", is_member=is_member)


def _need_tensors(config: Any, what: str, *, is_member: bool) -> None:
    if is_told(config):
        return
    missing = " and ".join(_untold("input", config.input) + _untold("output", config.output))
    remedy = (
        "write input and output into its config.pbtxt (name, data_type, dims)"
        if is_member
        else "give spec.model.config.inputs and outputs, each with name, dataType and dims"
    )
    raise InvalidModelError(f"{what} what the model takes and gives: {missing} missing; {remedy}")


def _untold(kind: str, tensors: Iterable[Any]) -> list[str]:
    named = list(tensors)
    if not named:
        return [f"{kind}s"]
    return [f"data_type or dims of the {kind} {t.name!r}" for t in named if not t.data_type or not t.dims]
