"""A vLLM model's engine arguments: paths of its own are made absolute, and nothing leads elsewhere where it may not."""

import json
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from conch.triton.config_pbtxt import parse_config
from conch.triton.errors import InvalidModelError, ModelNotAllowedError
from conch.triton.own_paths import Place
from conch.triton.vllm import settle_engine

FOLDER = "/var/lib/conch/repository/llm"
WEIGHTS = (
    "1/weights/config.json",
    "1/weights/model.safetensors",
    "shared/tokenizer.json",
    "1/lora/adapter.safetensors",
)


def settle(
    tmp_path: Path,
    engine: object,
    *more: str,
    loras: object = None,
    config: str = 'backend: "vllm"',
    allows_code: bool = False,
) -> tuple[dict[str, Any], Any]:
    """What Triton gets of the JSON files, and the configuration."""
    texts = {"1/model.json": engine, **({"1/multi_lora.json": loras} if loras is not None else {})}
    files = {}
    for name in (*WEIGHTS, *more, *texts):
        path = files[name] = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = texts.get(name, "x")
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    parsed = parse_config(config)
    written = settle_engine(parsed, files, Place(folder=FOLDER, version=1, files=files), allows_code=allows_code)
    return {name: json.loads(content) for name, content in written.items()}, parsed


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("weights", f"{FOLDER}/1/weights"),
        ("./weights/", f"{FOLDER}/1/weights"),
        ("../1/weights", f"{FOLDER}/1/weights"),
        ("$$TRITON_MODEL_DIRECTORY/1/weights", f"{FOLDER}/1/weights"),
        (f"{FOLDER}/1/weights", f"{FOLDER}/1/weights"),
        (".", f"{FOLDER}/1"),
    ],
)
def test_the_models_own_folder_is_named_as_triton_sees_it(tmp_path: Path, given: str, meant: str) -> None:
    engine = {"model": given, "tokenizer": "../shared", "max_model_len": 4096, "dtype": "bfloat16", "seed": None}
    written, config = settle(tmp_path, engine)
    assert written == {"1/model.json": engine | {"model": meant, "tokenizer": f"{FOLDER}/shared"}}
    (group,) = config.instance_group
    assert (group.count, group.kind) == (1, ModelInstanceGroup.KIND_MODEL)


def test_what_came_of_it_may_be_settled_again(tmp_path: Path) -> None:
    written, _ = settle(tmp_path, {"model": "weights"})
    again, _ = settle(tmp_path, written["1/model.json"])
    assert again == written


def test_the_authors_instance_group_stays(tmp_path: Path) -> None:
    _, config = settle(tmp_path, {"model": "weights"}, config="instance_group { count: 1 kind: KIND_GPU }")
    assert [group.kind for group in config.instance_group] == [ModelInstanceGroup.KIND_GPU]


def test_adapters_lie_in_the_models_folder_too(tmp_path: Path) -> None:
    written, _ = settle(tmp_path, {"model": "weights", "enable_lora": "true"}, loras={"de": "lora"})
    assert written["1/multi_lora.json"] == {"de": f"{FOLDER}/1/lora"}
    with pytest.raises(
        InvalidModelError, match=r"1/multi_lora\.json: 'de' is '/elsewhere', which is not in the model's"
    ):
        settle(tmp_path, {"model": "weights", "enable_lora": True}, loras={"de": "/elsewhere"})
    (tmp_path / "1" / "multi_lora.json").unlink()
    with pytest.raises(InvalidModelError, match=r"the model has no 1/multi_lora\.json"):
        settle(tmp_path, {"model": "weights", "enable_lora": True})


@pytest.mark.parametrize(
    "elsewhere",
    [
        "facebook/opt-125m",
        "/models/weights",
        "../../other/1/weights",
        "$$TRITON_MODEL_DIRECTORY/../other",
        f"{FOLDER}-2/1/weights",
        "s3://bucket/weights",
        "weight",
    ],
)
def test_what_is_not_in_the_source_is_used_only_where_code_is_allowed(tmp_path: Path, elsewhere: str) -> None:
    with pytest.raises(
        InvalidModelError, match=r"1/model\.json: 'model' is .* which is not in the model's folder; put"
    ):
        settle(tmp_path, {"model": elsewhere})
    written, _ = settle(tmp_path, {"model": elsewhere}, allows_code=True)
    assert written["1/model.json"]["model"] == elsewhere


@pytest.mark.parametrize(
    "argument",
    [
        {"trust_remote_code": True},
        {"trust_remote_code": "true"},
        {"worker_cls": "evil.Worker"},
        {"hf_overrides": {"auto_map": {}}},
        {"download_dir": "x"},
        {"distributed_executor_backend": "evil.Executor"},
        {"load_format": "../x"},
        {"quantization": ["awq"]},
        {"a_field_of_next_year": 1},
    ],
)
def test_arguments_that_may_run_code_need_the_policy(tmp_path: Path, argument: dict[str, object]) -> None:
    engine = {"model": "weights", **argument}
    with pytest.raises(ModelNotAllowedError, match=rf"says '{next(iter(argument))}': .*policy\.models\.backends"):
        settle(tmp_path, engine)
    written, _ = settle(tmp_path, engine, allows_code=True)
    assert written["1/model.json"] == engine | {"model": f"{FOLDER}/1/weights"}


def test_not_to_trust_code_needs_nothing(tmp_path: Path) -> None:
    settle(tmp_path, {"model": "weights", "trust_remote_code": False})


@pytest.mark.parametrize("file", ["1/weights/pytorch_model.bin", "1/weights/x.PT", "lora.ckpt"])
def test_pickles_need_the_policy(tmp_path: Path, file: str) -> None:
    with pytest.raises(ModelNotAllowedError, match=f"the file {file}, which may be a pickle.*safetensors"):
        settle(tmp_path, {"model": "weights"}, file)
    settle(tmp_path, {"model": "weights"}, file, allows_code=True)


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("{", r"1/model\.json is not valid JSON"),
        ("[" * 100_000, r"1/model\.json is not valid JSON"),
        ("[]", r"1/model\.json is no JSON object"),
        ("{}", r'1/model\.json names no "model"; give the folder of its weights'),
        ({"model": 7}, r"'model' is no path"),
        (" " * (1 << 20) + "{}", r"has more than 1048576 bytes"),
    ],
)
def test_what_is_no_engine_file_is_told(tmp_path: Path, engine: object, message: str) -> None:
    with pytest.raises(InvalidModelError, match=message):
        settle(tmp_path, engine)
