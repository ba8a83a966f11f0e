"""A model of the TensorRT-LLM backend: parameters that name the folder of an engine, which lies in the model's folder.

NVIDIA's repository for it is a template: `ensemble` (or the program `tensorrt_llm_bls`) over `preprocessing` and
`postprocessing`, which are Python, and `tensorrt_llm`, which this is about.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from conch.triton.errors import InvalidModelError
from conch.triton.own_paths import Place
from conch.triton.plain_file import read_small

BACKEND: Final = "tensorrtllm"
ENGINES: Final = ("gpt_model_path", "encoder_model_path")
PATHS: Final = frozenset({*ENGINES, "tokenizer_dir", "xgrammar_tokenizer_info_path"})
"""Parameters that name files; elsewhere than in the model's folder they count as code (allowed.py)."""
WORKER: Final = ("executor_worker_path", "/opt/tritonserver/backends/tensorrtllm/trtllmExecutorWorker")
"""The parameter that names the image's own program, as NVIDIA's template has it."""
_BYTES_MOST: Final = 16 << 20
_GPUS_MOST: Final = 10_000
_RANK: Final = re.compile(r"rank([0-9]{1,4})\.engine")
_UNFILLED: Final = re.compile(r"\$\{\w+\}|")


def settle_engine(config: Any, files: Mapping[str, Path], place: Place, *, allows_code: bool) -> None:
    """Make the paths among the parameters absolute, and check that whole engines are there.

    One that the template left open is the version's own folder. Raises InvalidModelError.
    """
    given = {key: config.parameters[key].string_value for key in PATHS if key in config.parameters}
    open_ones = {key for key, value in given.items() if _UNFILLED.fullmatch(value)}
    for key in open_ones:
        del config.parameters[key]
    paths = {key: value for key, value in given.items() if key not in open_ones}
    for key, value in ({ENGINES[0]: "."} | paths).items():
        own = place.own(value)
        if own is None and not allows_code:
            raise InvalidModelError(
                f"the parameter {key} is {value[:128]!r}, which is not in the model's folder; put the files there, and "
                f"give their folder as seen from the folder {place.version} (. is that folder itself)"
            )
        if own is not None and key in ENGINES:
            _check_engine(own, files, place)
        config.parameters[key].string_value = own or value


def _check_engine(folder: str, files: Mapping[str, Path], place: Place) -> None:
    there = place.below(folder)
    shown = folder.removeprefix(place.folder).lstrip("/") or "the model's folder"
    ranks = sorted(int(match[1]) for file in there if (match := _RANK.fullmatch(file)))
    if "config.json" not in there or not ranks:
        raise InvalidModelError(
            f"{shown} holds no TensorRT-LLM engine (config.json and rank0.engine, rank1.engine, ...); build one with "
            "trtllm-build and put it there, or name its folder in the parameter gpt_model_path"
        )
    inner = "" if shown == "the model's folder" else f"{shown}/"
    name = f"{inner}config.json"
    wanted = _gpus(files[name], name) or ranks[-1] + 1
    if ranks != list(range(wanted)):
        raise InvalidModelError(
            f"the engine in {shown} is for {wanted} GPUs, and the files there are of the ranks "
            f"{', '.join(map(str, ranks))}; put rank0.engine to rank{wanted - 1}.engine there, of the same build"
        )


def _gpus(file: Path, name: str) -> int | None:
    """For how many GPUs an engine was built; None where its config.json says it elsewhere, as older ones do."""
    try:
        told = json.loads(read_small(file, most=_BYTES_MOST, name=name))
        world = told["pretrained_config"]["mapping"]["world_size"]
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"the model's {name} is not valid JSON: {error}") from error
    except (LookupError, TypeError):
        return None
    return world if type(world) is int and 0 < world <= _GPUS_MOST else None
