"""A TensorRT-LLM model's parameters: its engine lies in its own folder, and is whole."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from conch.api.source_policy import SourcePolicy
from conch.triton.allowed import settle_backend
from conch.triton.config_pbtxt import parse_config
from conch.triton.errors import InvalidModelError, ModelNotAllowedError
from conch.triton.own_paths import Place
from conch.triton.tensorrt_llm import WORKER, settle_engine

FOLDER = "/var/lib/conch/repository/tensorrt_llm"
DATA_ONLY = SourcePolicy(backends=("onnxruntime", "tensorrtllm"))
TWO_RANKS = ("config.json", "rank0.engine", "rank1.engine")


def built_for(gpus: int) -> str:
    return json.dumps({"pretrained_config": {"mapping": {"world_size": gpus}}})


def config_of(**parameters: str) -> Any:
    config = parse_config('backend: "tensorrtllm"')
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return config


def settle(
    tmp_path: Path,
    *files: str,
    told: str = built_for(2),
    parameters: Mapping[str, str] = MappingProxyType({}),
    allows_code: bool = False,
) -> dict[str, str]:
    """The parameters that Triton gets."""
    places = {}
    for name in files:
        path = places[name] = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(told if name.endswith("config.json") else "x")
    config = config_of(**parameters)
    settle_engine(config, places, Place(folder=FOLDER, version=1, files=places), allows_code=allows_code)
    return {key: value.string_value for key, value in config.parameters.items()}


@pytest.mark.parametrize("given", [{}, {"gpt_model_path": ""}, {"gpt_model_path": "${engine_dir}"}])
def test_an_engine_in_the_versions_folder_needs_no_parameter(tmp_path: Path, given: dict[str, str]) -> None:
    assert settle(tmp_path, *(f"1/{file}" for file in TWO_RANKS), parameters=given) == {"gpt_model_path": f"{FOLDER}/1"}


@pytest.mark.parametrize("given", ["../engine", "$$TRITON_MODEL_DIRECTORY/engine", f"{FOLDER}/engine/"])
def test_an_engine_elsewhere_in_the_models_folder_is_named(tmp_path: Path, given: str) -> None:
    parameters = settle(
        tmp_path,
        *(f"engine/{file}" for file in TWO_RANKS),
        "1/tokenizer/a",
        parameters={"gpt_model_path": given, "tokenizer_dir": "tokenizer"},
    )
    assert parameters == {"gpt_model_path": f"{FOLDER}/engine", "tokenizer_dir": f"{FOLDER}/1/tokenizer"}


@pytest.mark.parametrize(
    ("files", "told", "message"),
    [
        (("1/config.json",), built_for(1), "^1 holds no TensorRT-LLM engine"),
        (("1/rank0.engine",), built_for(1), "^1 holds no TensorRT-LLM engine"),
        (
            ("1/rank0.engine", "1/config.json"),
            built_for(2),
            "is for 2 GPUs, and the files there are of the ranks 0; put",
        ),
        (("1/rank1.engine", "1/config.json"), "{}", "is for 2 GPUs, and the files there are of the ranks 1; put rank0"),
        (("1/rank0.engine", "1/config.json"), "{", r"1/config\.json is not valid JSON"),
    ],
)
def test_an_engine_that_is_not_whole_is_told(tmp_path: Path, files: tuple[str, ...], told: str, message: str) -> None:
    with pytest.raises(InvalidModelError, match=message):
        settle(tmp_path, *files, told=told)


def test_an_older_engine_that_does_not_say_its_gpus_passes(tmp_path: Path) -> None:
    settle(tmp_path, *(f"1/{file}" for file in TWO_RANKS), told="{}")


@pytest.mark.parametrize("parameter", ["gpt_model_path", "encoder_model_path", "tokenizer_dir"])
@pytest.mark.parametrize("elsewhere", ["/engines/llama", "../../other/1", "$$TRITON_MODEL_DIRECTORY/../other"])
def test_paths_lead_elsewhere_only_where_code_is_allowed(tmp_path: Path, parameter: str, elsewhere: str) -> None:
    files = [f"1/{file}" for file in TWO_RANKS]
    with pytest.raises(InvalidModelError, match=f"the parameter {parameter} is .* which is not in the model's folder"):
        settle(tmp_path, *files, parameters={parameter: elsewhere})
    assert settle(tmp_path, *files, allows_code=True, parameters={parameter: elsewhere})[parameter] == elsewhere


def test_the_policy_lets_its_paths_and_the_images_own_program_pass_and_no_other() -> None:
    path, program = WORKER
    settle_backend(config_of(gpt_model_path="../engine", **{path: program}), ["1/rank0.engine"], DATA_ONLY)
    for parameters in ({path: "/var/lib/conch/repository/x"}, {"other_path": "x"}, {"other": "a/b"}):
        with pytest.raises(ModelNotAllowedError, match="the parameter"):
            settle_backend(config_of(**parameters), ["1/rank0.engine"], DATA_ONLY)
    other = parse_config('backend: "onnxruntime" parameters { key: "gpt_model_path" value { string_value: "x" } }')
    with pytest.raises(ModelNotAllowedError, match="the parameter gpt_model_path"):
        settle_backend(other, ["1/model.onnx"], DATA_ONLY)
