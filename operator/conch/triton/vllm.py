"""A model of the vLLM backend: `<version>/model.json` holds the engine's arguments, weights lie in the model's folder.

The arguments can also name what vLLM downloads by itself, files of the image, and classes that it imports. Where models
must be data, only what is listed here may be said, of files that were fetched and verified.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from conch.triton.errors import InvalidModelError, ModelNotAllowedError
from conch.triton.own_paths import Place
from conch.triton.plain_file import read_small

BACKEND: Final = "vllm"
ENGINE_FILE: Final = "model.json"
LORA_FILE: Final = "multi_lora.json"
_BYTES_MOST: Final = 1 << 20
_PATHS: Final = ("model", "tokenizer")
_DATA: Final = frozenset(
    {
        "block_size",
        "cpu_offload_gb",
        "data_parallel_size",
        "disable_custom_all_reduce",
        "disable_log_requests",
        "disable_log_stats",
        "distributed_executor_backend",
        "dtype",
        "enable_chunked_prefill",
        "enable_expert_parallel",
        "enable_lora",
        "enable_prefix_caching",
        "enforce_eager",
        "gpu_memory_utilization",
        "kv_cache_dtype",
        "load_format",
        "lora_dtype",
        "max_cpu_loras",
        "max_logprobs",
        "max_lora_rank",
        "max_loras",
        "max_model_len",
        "max_num_batched_tokens",
        "max_num_seqs",
        "max_seq_len_to_capture",
        "pipeline_parallel_size",
        "quantization",
        "seed",
        "swap_space",
        "tensor_parallel_size",
        "tokenizer_mode",
        "trust_remote_code",
    }
)
"""Arguments that make vLLM neither read nor run anything else, whatever word or number they have."""
_WORD: Final = re.compile(r"[A-Za-z0-9_-]{0,64}|[0-9]{1,16}\.[0-9]{1,16}")
"""No path, no address, no name of a class."""
_PICKLE: Final = re.compile(r".*\.(bin|pt|pth|ckpt|pkl|pickle)", re.IGNORECASE)


def settle_engine(config: Any, files: Mapping[str, Path], place: Place, *, allows_code: bool) -> dict[str, bytes]:
    """Check the engine's arguments, and give the files that name other files with their absolute paths.

    `files` are those of the model's folder, and where each lies. Raises InvalidModelError and ModelNotAllowedError.
    """
    name = f"{place.version}/{ENGINE_FILE}"
    engine = _object(files, name)
    if not engine.get("model"):
        raise InvalidModelError(
            f'the model\'s {name} names no "model"; give the folder of its weights, such as "weights"'
        )
    if not allows_code:
        check_is_data(engine, files, name)
    settled = {
        name: engine | {key: _own(engine[key], key, name, place, allows_code) for key in _PATHS if key in engine}
    }
    if _is_true(engine.get("enable_lora")):
        loras = f"{place.version}/{LORA_FILE}"
        told = _object(files, loras)
        settled[loras] = {key: _own(value, key, loras, place, allows_code) for key, value in told.items()}
    if not config.instance_group:
        # Of the kind that leaves the GPUs to vLLM: with Triton's own it refuses more than one.
        config.instance_group.add(count=1, kind=ModelInstanceGroup.KIND_MODEL)
    return {file: json.dumps(content, indent=2).encode() for file, content in settled.items()}


def _object(files: Mapping[str, Path], name: str) -> dict[str, Any]:
    if name not in files:
        raise InvalidModelError(f"the model has no {name}, in which the vLLM backend finds its engine's arguments")
    try:
        told = json.loads(read_small(files[name], most=_BYTES_MOST, name=name))
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"the model's {name} is not valid JSON: {error}") from error
    if not isinstance(told, dict):
        raise InvalidModelError(f'the model\'s {name} is no JSON object such as {{"model": "weights"}}')
    return told


def _own(value: object, key: str, name: str, place: Place, allows_code: bool) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidModelError(f"the model's {name}: {key!r} is no path; give it as text")
    own = place.own(value)
    if own is None and not allows_code:
        raise InvalidModelError(
            f"the model's {name}: {key!r} is {value[:128]!r}, which is not in the model's folder; put the files there, "
            f"and give their folder as seen from {name} (what is elsewhere is used only where policy.models.backends "
            "allows code)"
        )
    return own or value


def check_is_data(engine: Mapping[str, Any], files: Mapping[str, Path], name: str) -> None:
    """Raises ModelNotAllowedError for arguments, and files beside them, that could make vLLM run code."""
    for key, value in engine.items():
        is_known = key in _PATHS or (key in _DATA and _is_plain(value))
        if not is_known or (key == "trust_remote_code" and _is_true(value)):
            raise ModelNotAllowedError(
                f"the model's {name} says {key[:64]!r}: {json.dumps(value)[:64]}, which can make vLLM run code or read "
                "other files; remove it (chart: policy.models.backends)"
            )
    if pickled := sorted(file for file in files if _PICKLE.fullmatch(file)):
        raise ModelNotAllowedError(
            f"the model brings the file {pickled[0]}, which may be a pickle, and such can run code; save the weights "
            "as safetensors and leave it out (chart: policy.models.backends)"
        )


def _is_plain(value: object) -> bool:
    return (
        value is None
        or isinstance(value, bool | int | float)
        or (isinstance(value, str) and _WORD.fullmatch(value) is not None)
    )


def _is_true(value: object) -> bool:
    return str(value).lower() not in ("none", "false", "0", "")
