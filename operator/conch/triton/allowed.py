"""Holds a model against the installation's policy: most models are data, some are programs.

Who may only create ModelDeployments must not thereby run code of their own next to the admin key. Triton runs it from
several places: backends made for it, a library or `model.py` in the model's folder (where Triton looks first), another
`runtime`, and libraries with custom operators.
"""

from collections.abc import Iterable
from typing import Any, Final

from conch.api.source import SourcePolicy
from conch.triton.errors import InvalidModelError, ModelNotAllowedError

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


def settle_backend(config: Any, files: Iterable[str], policy: SourcePolicy) -> None:
    """Write the backend that Triton would find by itself into `config`, and refuse what the policy does not allow.

    `files` are relative to the model's folder. Raises ModelNotAllowedError, or InvalidModelError when nothing tells
    which backend is meant.
    """
    names = {file.rpartition("/")[2] for file in files}
    if config.platform == _ENSEMBLE:
        return
    backend = config.backend or _BACKEND_OF_PLATFORM.get(config.platform, config.platform)
    if not backend:
        found = sorted(_BACKEND_OF_FILE[name] for name in names & _BACKEND_OF_FILE.keys())
        if len(found) != 1:
            raise InvalidModelError(
                'the model\'s config.pbtxt names no backend; add one, such as backend: "onnxruntime"'
            )
        (backend,) = found
        config.backend = backend
    if backend not in policy.backends:
        raise ModelNotAllowedError(
            f"the model needs the backend {backend!r}; this installation allows {', '.join(policy.backends)} "
            "(chart: policy.models.backends)"
        )
    if not policy.allows_code and (code := _code(config, names)):
        raise ModelNotAllowedError(
            f"the model brings code ({code}), which this installation does not allow (chart: policy.models.backends)"
        )


def _code(config: Any, names: set[str]) -> str | None:
    programs = sorted(name for name in names if name == "model.py" or name.startswith("libtriton_"))
    if programs:
        return f"the file {programs[0]}"
    if config.runtime:
        return f"the runtime {config.runtime!r}"
    if config.model_operations.op_library_filename:
        return "model_operations"
    return None
