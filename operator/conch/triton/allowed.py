"""Holds a model against the installation's policy: most models are data, some are programs.

Who may only create ModelDeployments must not thereby run code of their own next to the admin key. Triton runs it from
many places: backends made for it, a library or `model.py` in the model's folder (where Triton looks first, whatever the
backend), repository agents, another `runtime`, libraries with custom operators, and parameters of a backend that name a
library. So what may be data is listed, and everything else counts as code.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from conch.api.source_policy import SourcePolicy
from conch.triton import tensorrt_llm, vllm
from conch.triton.config_pbtxt import is_ensemble
from conch.triton.errors import InvalidModelError, ModelNotAllowedError
from conch.triton.own_paths import MODEL_DIRECTORY

_BACKEND_OF_FILE: Final = {
    "model.onnx": "onnxruntime",
    "model.plan": "tensorrt",
    "model.pt": "pytorch",
    "model.py": "python",
}
_BACKEND_OF_PLATFORM: Final = {
    "onnxruntime_onnx": "onnxruntime",
    "tensorrt_plan": "tensorrt",
    "pytorch_libtorch": "pytorch",
}
_ENSEMBLE: Final = "ensemble"

_DATA_FIELDS: Final = frozenset(
    {
        "name",
        "platform",
        "backend",
        "version_policy",
        "max_batch_size",
        "input",
        "output",
        "batch_input",
        "batch_output",
        "optimization",
        "dynamic_batching",
        "sequence_batching",
        "ensemble_scheduling",
        "instance_group",
        "default_model_filename",
        "cc_model_filenames",
        "metric_tags",
        "parameters",
        "model_transaction_policy",
        "response_cache",
        "model_metrics",
    }
)
"""Fields of config.pbtxt that make nothing run but the backend. A field that a newer Triton has is not among them."""
_PROGRAM: Final = re.compile(r"(.*\.(py|pyc|so|dll)|.*\.so\..*|libtriton.*)", re.IGNORECASE)
"""Names, of files and folders, that Triton or one of its backends would run."""
_LIBRARY_KEY: Final = re.compile(r"path|librar|plugin|extension|execution_env|python", re.IGNORECASE)
_LIBRARY_VALUE: Final = re.compile(rf"[/\\]|\.so\b|{re.escape(MODEL_DIRECTORY)}", re.IGNORECASE)


def settle_backend(config: Any, files: Iterable[str], policy: SourcePolicy) -> None:
    """Write the backend that Triton would find by itself into `config`, and refuse what the policy does not allow.

    `files` are relative to the model's folder. Raises ModelNotAllowedError, or InvalidModelError when nothing tells
    which backend is meant.
    """
    names = frozenset(files)
    if is_ensemble(config):
        config.platform = _ENSEMBLE
        if config.backend:
            raise InvalidModelError("the model's config.pbtxt names a backend although it is an ensemble; remove it")
    else:
        config.backend = _backend(config, names)
        # Triton would go by it where it knows a platform that Conch does not.
        config.ClearField("platform")
        if config.backend not in policy.backends:
            raise ModelNotAllowedError(
                f"the model needs the backend {config.backend!r}; this installation allows "
                f"{', '.join(policy.backends)} (chart: policy.models.backends)"
            )
    if not policy.allows_code and (code := _code(config, names)):
        raise ModelNotAllowedError(
            f"the model brings code ({code}), which this installation does not allow (chart: policy.models.backends)"
        )


def _backend(config: Any, files: frozenset[str]) -> str:
    if config.backend:
        return str(config.backend)
    if config.platform:
        backend = _BACKEND_OF_PLATFORM.get(config.platform)
        if backend is None:
            raise InvalidModelError(
                f"the model's config.pbtxt names the platform {config.platform!r}, which Conch does not know; "
                'name the backend instead, such as backend: "onnxruntime"'
            )
        return backend
    leaves = {file.rpartition("/")[2] for file in files}
    found = sorted(_BACKEND_OF_FILE[leaf] for leaf in leaves & _BACKEND_OF_FILE.keys())
    if not found and vllm.ENGINE_FILE in leaves:
        return vllm.BACKEND
    if len(found) != 1:
        which = f"its files are of {' and '.join(found)}" if found else "none of its files tells it"
        raise InvalidModelError(
            f'the model\'s config.pbtxt names no backend, and {which}; add one, such as backend: "onnxruntime"'
        )
    return found[0]


def _code(config: Any, files: frozenset[str]) -> str | None:
    programs = sorted(file for file in files if any(_PROGRAM.fullmatch(part) for part in file.split("/")))
    if programs:
        return f"the file {programs[0]}"
    fields = sorted(field.name for field, _ in config.ListFields() if field.name not in _DATA_FIELDS)
    if fields:
        return f"the field {fields[0]} of its config.pbtxt"
    named = [config.default_model_filename, *config.cc_model_filenames.values()]
    if outside := [name for name in named if "/" in name]:
        return f"the file name {outside[0]!r}, which leads out of its folder"
    for key, value in sorted(_parameters(config)):
        if config.backend == tensorrt_llm.BACKEND and (
            key in tensorrt_llm.PATHS or (key, value) == tensorrt_llm.WORKER
        ):
            continue  # tensorrt_llm.py looks where they lead; the program is the image's own
        if _LIBRARY_KEY.search(key) or _LIBRARY_VALUE.search(value):
            return f"the parameter {key}, which can name a library"
    return None


def _parameters(config: Any) -> Iterator[tuple[str, str]]:
    yield from ((key, value.string_value) for key, value in config.parameters.items())
    accelerators = config.optimization.execution_accelerators
    for accelerator in (*accelerators.gpu_execution_accelerator, *accelerators.cpu_execution_accelerator):
        yield from accelerator.parameters.items()
