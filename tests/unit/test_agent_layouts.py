"""The agent's step from fetched files to Triton's repository, for every kind of source, and what it refuses."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import pytest

from conch.agent.errors import StepError
from conch.agent.settings import AgentSettings
from conch.agent.state import LoadedVersion
from conch.agent.step_kinds import LayOut, Load
from conch.agent.steps import Steps
from conch.agent.volume import Record, Volume
from conch.agent.wanted import Wanted
from conch.api.assignment import Assignment
from conch.api.batching import SequenceBatching
from conch.api.model import ModelConfig, ModelFormat, ModelSource
from conch.api.reasons import Reason
from conch.api.source_policy import SourcePolicy
from conch.api.tensors import DataType, TensorSpec
from conch.triton.config_pbtxt import parse_config
from conch.triton.errors import TritonRefusedError
from conch.triton.layout import read_tree
from tests.contract.models import CONFIG, classifier
from tests.unit.test_triton_content import COMPLETES, PROGRAM, TORCHSCRIPT

TENSORS: Final = ModelConfig(
    inputs=(TensorSpec(name="x", data_type=DataType.FP32, dims=(4,)),),
    outputs=(TensorSpec(name="y", data_type=DataType.FP32, dims=(3,)),),
)
EVERYTHING: Final = SourcePolicy(backends=("onnxruntime", "tensorrt", "pytorch", "python", "vllm", "tensorrtllm"))
ENSEMBLE: Final = """
platform: "ensemble" max_batch_size: 16
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "scores" data_type: TYPE_FP32 dims: 3 }
ensemble_scheduling {
  step { model_name: "member" input_map { key: "x" value: "x" } output_map { key: "scores" value: "scores" } }
}
"""


def assigned(policy: SourcePolicy = EVERYTHING, **changes: Any) -> Wanted:
    fields: dict[str, Any] = {
        "revision": "r",
        "name": "mlp",
        "version": 1,
        "source": ModelSource(uri="https://h.example/m.tar.gz", digest="sha256:" + "0" * 64),
        "source_policy": policy,
    }
    return Wanted.of(Assignment(**fields | changes))


def steps(volume: Volume, triton: Any = None) -> Steps:
    settings = AgentSettings(admin_key="k", triton_image="registry.example.com/triton:1")
    return Steps(settings, volume, triton, cast(Any, None), cast(Any, None), clock=lambda: 0.0)


def fetched(folder: Path, wanted: Wanted, files: Mapping[str, str | bytes]) -> Volume:
    volume = Volume(folder, boot="b")
    volume.prepare()
    for name, content in files.items():
        path = volume.tree(wanted.fetch_key) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return volume


async def laid_out(folder: Path, files: Mapping[str, str | bytes], wanted: Wanted) -> Path:
    """Triton's repository."""
    volume = fetched(folder, wanted, files)
    await steps(volume).run(LayOut(wanted=wanted))
    return volume.repository


async def refusal(folder: Path, files: Mapping[str, str | bytes], wanted: Wanted) -> tuple[Reason, str]:
    volume = fetched(folder, wanted, files)
    with pytest.raises(StepError) as caught:
        await steps(volume).run(LayOut(wanted=wanted))
    assert read_tree(volume.repository).folders == set(), "Triton sees nothing of it"
    return caught.value.reason, caught.value.message


def configuration(repository: Path, name: str = "mlp") -> Any:
    return parse_config((repository / name / "config.pbtxt").read_text())


@pytest.mark.parametrize(
    ("file", "content", "config", "backend"),
    [
        ("net.pt", TORCHSCRIPT, TENSORS, "pytorch"),
        ("net.plan", b"plan", ModelConfig(), "tensorrt"),
        ("model.py", COMPLETES, ModelConfig(), "python"),
        ("model.py", PROGRAM, TENSORS, "python"),
        ("net.onnx", classifier(), ModelConfig(), "onnxruntime"),
    ],
)
async def test_a_bare_file_becomes_a_model_directory(
    tmp_path: Path, file: str, content: bytes, config: ModelConfig, backend: str
) -> None:
    files: dict[str, str | bytes] = {file: content, "helper.txt": b"beside it"}
    repository = await laid_out(tmp_path, files, assigned(version=3, config=config))
    assert read_tree(repository).files == {
        f"mlp/3/{file}",
        "mlp/3/helper.txt",
        "mlp/config.pbtxt",
        "mlp/.conch-layout",
    }
    told = configuration(repository)
    assert (told.backend, told.default_model_filename, told.name) == (backend, file, "mlp")
    assert list(told.version_policy.specific.versions) == [3]
    if config is TENSORS:
        assert [(tensor.name, list(tensor.dims)) for tensor in (*told.input, *told.output)] == [("x", [4]), ("y", [3])]


@pytest.mark.parametrize(("size", "batches"), [(None, False), (1, False), (8, True)])
async def test_a_bare_file_that_takes_batches_is_batched(tmp_path: Path, size: int | None, batches: bool) -> None:
    config = TENSORS.model_copy(update={"max_batch_size": size})
    told = configuration(await laid_out(tmp_path, {"net.pt": TORCHSCRIPT}, assigned(config=config)))
    assert (told.max_batch_size, told.HasField("dynamic_batching")) == (size or 0, batches)


@pytest.mark.parametrize(("file", "content"), [("net.pt", TORCHSCRIPT), ("net.onnx", classifier())])
async def test_a_bare_file_that_takes_sequences_has_no_other_scheduler(
    tmp_path: Path, file: str, content: bytes
) -> None:
    tensors = TENSORS if file == "net.pt" else ModelConfig()
    config = tensors.model_copy(update={"max_batch_size": 8, "sequence_batching": SequenceBatching()})
    told = configuration(await laid_out(tmp_path, {file: content}, assigned(config=config)))
    assert told.WhichOneof("scheduling_choice") == "sequence_batching"


async def test_a_language_models_paths_are_as_triton_sees_them(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "vllm/1/model.json": json.dumps({"model": "weights"}),
        "vllm/1/weights/model.safetensors": b"x",
        "vllm/config.pbtxt": 'backend: "vllm"',
        "trt/1/config.json": "{}",
        "trt/1/rank0.engine": b"x",
        "trt/config.pbtxt": 'backend: "tensorrtllm" parameters { key: "gpt_model_path" value { string_value: "." } }',
    }
    repository = await laid_out(tmp_path / "a", files, assigned(name="vllm"))
    assert json.loads((repository / "vllm/1/model.json").read_text()) == {"model": f"{repository}/vllm/1/weights"}
    repository = await laid_out(tmp_path / "b", files, assigned(name="trt"))
    assert configuration(repository, "trt").parameters["gpt_model_path"].string_value == f"{repository}/trt/1"


async def test_foreign_folders_and_warm_ups_never_reach_triton(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "mlp/config.pbtxt": ENSEMBLE + 'model_warmup { name: "w" batch_size: 1 }',
        "member/config.pbtxt": CONFIG + 'model_warmup { name: "w" batch_size: 1 }',
        "member/1/model.onnx": classifier(),
        "stranger/1/model.onnx": b"x",
        ".git/config": "x",
        "notes/a.md": "x",
        "README.md": "x",
    }
    repository = await laid_out(tmp_path, files, assigned())
    assert {path.name for path in repository.iterdir()} == {"mlp", "member"}
    assert (repository / "mlp" / "1").is_dir(), "an ensemble's version folder is empty, and gets lost"
    for name in ("mlp", "member"):
        assert not configuration(repository, name).model_warmup


@pytest.mark.parametrize(
    ("files", "changes", "reason", "words"),
    [
        (
            {"net.pt": TORCHSCRIPT},
            {},
            Reason.INVALID_MODEL,
            "inputs and outputs missing; give spec.model.config.inputs and outputs",
        ),
        ({"net.pt": b"pickle"}, {"config": TENSORS}, Reason.INVALID_MODEL, "1/net.pt is no TorchScript file"),
        ({"model.py": PROGRAM}, {}, Reason.INVALID_MODEL, "has no auto_complete_config() and does not tell"),
        ({"net.pt": TORCHSCRIPT, "net.onnx": b""}, {}, Reason.INVALID_MODEL, "set spec.model.format to the one"),
        (
            {"net.pt": TORCHSCRIPT},
            {"policy": SourcePolicy()},
            Reason.MODEL_NOT_ALLOWED,
            "needs the backend 'pytorch'",
        ),
        (
            {"model.py": PROGRAM},
            {"policy": SourcePolicy()},
            Reason.MODEL_NOT_ALLOWED,
            "needs the backend 'python'",
        ),
        (
            {"mlp/config.pbtxt": CONFIG, "mlp/2/model.onnx": classifier()},
            {},
            Reason.INVALID_MODEL,
            "has no version 1; it has 2; set spec.model.version",
        ),
        ({"config.pbtxt": CONFIG}, {}, Reason.INVALID_MODEL, "has no version folder; put its files into a folder 1"),
        (
            {"config.pbtxt": 'name: "other" ' + CONFIG, "1/model.onnx": classifier()},
            {},
            Reason.INVALID_MODEL,
            "set spec.model.name to 'other'",
        ),
        (
            {"config.pbtxt": CONFIG + "\nbatching {}", "1/model.onnx": classifier()},
            {},
            Reason.INVALID_MODEL,
            "Triton knows no field 'batching' there",
        ),
        (
            {"config.pbtxt": CONFIG.replace("dims: 4", "dims: 0"), "1/model.onnx": classifier()},
            {},
            Reason.INVALID_MODEL,
            "the input 'x' has an axis of 0",
        ),
        (
            {"config.pbtxt": CONFIG.replace("dims: 4", "dims: 5"), "1/model.onnx": classifier()},
            {},
            Reason.INVALID_MODEL,
            "and [-1, 4] in the graph",
        ),
        (
            {
                "mlp/config.pbtxt": ENSEMBLE.replace('key: "x"', 'key: "q"'),
                "member/config.pbtxt": CONFIG,
                "member/1/model.onnx": classifier(),
            },
            {},
            Reason.INVALID_MODEL,
            "step 1 (member) gets nothing for its input 'x'",
        ),
        (
            {"mlp/config.pbtxt": ENSEMBLE, "member/1/model.pt": TORCHSCRIPT},
            {},
            Reason.INVALID_MODEL,
            "the step 'member': a TorchScript file does not tell what the model takes and gives: inputs and outputs "
            "missing; write input and output into its config.pbtxt",
        ),
        (
            {"1/model.json": json.dumps({"model": "org/name"})},
            {"policy": SourcePolicy(backends=("vllm",))},
            Reason.INVALID_MODEL,
            "'model' is 'org/name', which is not in the model's folder",
        ),
        (
            {"1/model.json": json.dumps({"model": ".", "trust_remote_code": True})},
            {"policy": SourcePolicy(backends=("vllm",))},
            Reason.MODEL_NOT_ALLOWED,
            "says 'trust_remote_code': true",
        ),
    ],
)
async def test_what_is_refused_before_triton_sees_it(
    tmp_path: Path, files: dict[str, str | bytes], changes: dict[str, Any], reason: Reason, words: str
) -> None:
    said, message = await refusal(tmp_path, files, assigned(**changes))
    assert (said, words in message) == (reason, True), message


async def test_a_declared_format_is_what_is_laid_out(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "model.py": COMPLETES,
        "weights.pt": b"read by the program",
        "lib/__init__.py": b"",
    }
    repository = await laid_out(tmp_path, files, assigned(format=ModelFormat.PYTHON))
    assert {f"mlp/1/{name}" for name in files} < read_tree(repository).files
    assert configuration(repository).backend == "python"


class Refusing:
    """A Triton without a model that says no to every load."""

    def __init__(self, words: str) -> None:
        self._words = words

    async def index(self) -> list[LoadedVersion]:
        return []

    async def load(self, _name: str, **_options: Any) -> None:
        raise TritonRefusedError(self._words)


async def test_a_backend_that_the_image_lacks_is_told_with_the_image(tmp_path: Path) -> None:
    wanted = assigned()
    volume = fetched(tmp_path, wanted, {"net.plan": b"plan"})
    assert wanted.expected_digest
    volume.trust(wanted.fetch_key, Record(digest=wanted.expected_digest, bytes=4))
    said = "Invalid argument: unable to find backend library for backend 'tensorrt', try specifying runtime"
    agent = steps(volume, Refusing(said))
    await agent.run(LayOut(wanted=wanted))
    with pytest.raises(StepError) as caught:
        await agent.run(Load(wanted=wanted))
    assert caught.value.reason is Reason.MODEL_LOAD_FAILED
    assert caught.value.message == (
        "the image registry.example.com/triton:1 has no backend 'tensorrt': set runtime.image to one that has it, or "
        f"export the model for another backend. Triton says: {said}"
    )


async def test_a_language_model_that_is_no_longer_allowed_is_not_loaded_again(tmp_path: Path) -> None:
    wanted = assigned()
    files: dict[str, str | bytes] = {
        "1/model.json": json.dumps({"model": "weights", "trust_remote_code": True}),
        "1/weights/a": "x",
    }
    volume = fetched(tmp_path, wanted, files)
    assert wanted.expected_digest
    volume.trust(wanted.fetch_key, Record(digest=wanted.expected_digest, bytes=4))
    await steps(volume).run(LayOut(wanted=wanted))
    stricter = assigned(policy=SourcePolicy(backends=("vllm",)))
    assert stricter.layout_key == wanted.layout_key
    with pytest.raises(StepError) as caught:
        await steps(volume, Refusing("never asked")).run(Load(wanted=stricter))
    assert (caught.value.reason, "trust_remote_code" in caught.value.message) == (Reason.MODEL_NOT_ALLOWED, True)
