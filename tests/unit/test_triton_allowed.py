"""Which models are programs, and that they are refused unless the installation allows programs."""

import pytest

from conch.api.source_policy import SourcePolicy
from conch.triton.allowed import settle_backend
from conch.triton.config_pbtxt import parse_config
from conch.triton.errors import InvalidModelError, ModelNotAllowedError

DATA_ONLY = SourcePolicy()
PROGRAMS = SourcePolicy(backends=("onnxruntime", "python"))


@pytest.mark.parametrize(
    ("config", "files"),
    [
        ('backend: "python"', ["1/model.py"]),
        ("", ["1/model.py"]),
        ("", ["1/model.pt"]),
        ('platform: "pytorch_libtorch"', ["1/model.pt"]),
        ('backend: "evil"', ["1/libtriton_evil.so"]),
        ('backend: "onnxruntime"', ["1/model.onnx", "1/libtriton_onnxruntime.so"]),
        ('backend: "onnxruntime"', ["1/model.onnx", "libtriton_onnxruntime.so"]),
        ('backend: "onnxruntime"', ["1/model.onnx", "1/model.py"]),
        ('backend: "onnxruntime" runtime: "model.py"', ["1/model.onnx"]),
        ('backend: "onnxruntime" model_operations { op_library_filename: "x.so" }', ["1/model.onnx", "x.so"]),
        ('backend: "onnxruntime" model_operations { op_library_filename: "x" }', ["1/model.onnx", "x"]),
        ('backend: "onnxruntime" model_repository_agents { agents { name: "../x" } }', ["1/model.onnx"]),
        ('platform: "ensemble" model_repository_agents { agents { name: "../x" } }', []),
        ('backend: "onnxruntime"', ["1/model.onnx", "1/d/libtritonrepoagent_../x"]),
        ('backend: "onnxruntime" default_model_filename: "model.py"', ["1/model.py/x", "1/model/__init__.py"]),
        ('backend: "onnxruntime" default_model_filename: "../../x"', ["1/model.onnx"]),
        ('backend: "onnxruntime"', ["1/model.onnx", "1/x.so.1"]),
        ('backend: "openvino" parameters { key: "CPU_EXTENSION_PATH" value { string_value: "x" } }', ["1/model.xml"]),
        ('backend: "openvino" parameters { key: "new" value { string_value: "/models/x" } }', ["1/model.xml"]),
        (
            'backend: "onnxruntime" parameters { key: "x" value { string_value: "$$TRITON_MODEL_DIRECTORY" } }',
            ["1/model.onnx"],
        ),
        ('backend: "onnxruntime"', ["1/model.onnx", "1/lib/model.py"]),
        (
            'backend: "onnxruntime" optimization { execution_accelerators { cpu_execution_accelerator '
            '{ name: "openvino" parameters { key: "load_config" value: "/models/x.json" } } } }',
            ["1/model.onnx"],
        ),
        ('backend: "onnxruntime" parameters { key: "EXECUTION_ENV_PATH" value { string_value: "e" } }', ["1/m.onnx"]),
    ],
)
def test_a_program_is_refused_where_models_must_be_data(config: str, files: list[str]) -> None:
    with pytest.raises(ModelNotAllowedError, match=r"policy\.models\.backends"):
        settle_backend(parse_config(config), files, DATA_ONLY)


@pytest.mark.parametrize(
    ("config", "files", "backend"),
    [
        ('backend: "onnxruntime"', ["1/model.onnx"], "onnxruntime"),
        ("", ["1/model.onnx", "labels.txt", "golden.json", "conch.json"], "onnxruntime"),
        ("", ["1/model.plan"], "tensorrt"),
        ("", ["1/model.onnx", "1/model.json"], "onnxruntime"),
        ('platform: "onnxruntime_onnx"', ["1/model.onnx"], "onnxruntime"),
        ('platform: "ensemble"', [], ""),
        ('ensemble_scheduling { step { model_name: "a" } }', [], ""),
        (
            'backend: "onnxruntime" parameters { key: "intra_op_thread_count" value { string_value: "2" } }',
            ["1/model.onnx", "1/model.onnx.data"],
            "onnxruntime",
        ),
    ],
)
def test_data_is_served_with_the_backend_that_triton_would_find(config: str, files: list[str], backend: str) -> None:
    parsed = parse_config(config)
    settle_backend(parsed, files, DATA_ONLY)
    assert parsed.backend == backend


def test_a_program_is_served_where_its_backend_is_allowed() -> None:
    settle_backend(parse_config('backend: "python"'), ["1/model.py"], PROGRAMS)
    with pytest.raises(ModelNotAllowedError):
        settle_backend(parse_config('backend: "pytorch"'), ["1/model.pt"], PROGRAMS)


@pytest.mark.parametrize("platform", ["onnxruntime", "python", "somebodys"])
def test_a_platform_that_triton_would_understand_differently_is_invalid(platform: str) -> None:
    with pytest.raises(InvalidModelError, match="platform"):
        settle_backend(parse_config(f'platform: "{platform}" default_model_filename: "model.py"'), [], DATA_ONLY)


def test_what_triton_is_told_names_the_backend_alone() -> None:
    config = parse_config('platform: "tensorrt_plan"')
    settle_backend(config, ["1/model.plan"], DATA_ONLY)
    assert (config.backend, config.platform) == ("tensorrt", "")


def test_an_ensemble_with_a_backend_is_invalid() -> None:
    with pytest.raises(InvalidModelError, match="ensemble"):
        settle_backend(parse_config('platform: "ensemble" backend: "onnxruntime"'), [], DATA_ONLY)


def test_a_model_that_names_no_backend_and_has_no_known_file_is_invalid() -> None:
    with pytest.raises(InvalidModelError, match="names no backend"):
        settle_backend(parse_config(""), ["1/weights.bin"], DATA_ONLY)


def test_an_engine_file_alone_means_vllm() -> None:
    config = parse_config("")
    settle_backend(config, ["1/model.json", "1/weights/model.safetensors"], SourcePolicy(backends=("vllm",)))
    assert config.backend == "vllm"
    with pytest.raises(InvalidModelError, match="names no backend, and its files are of onnxruntime and tensorrt; add"):
        settle_backend(parse_config(""), ["1/model.onnx", "1/model.plan"], DATA_ONLY)
