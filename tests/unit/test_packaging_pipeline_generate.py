"""From a pipeline's file to the models of a repository: a program, a graph, a packaged model, and the ensemble."""

from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig as TritonConfig

from conch.packaging.errors import PackagingError
from conch.packaging.output.tree import write_model
from conch.packaging.pipeline.generate import generate
from tests.contract.models import CONFIG, classifier

PROGRAM = """
class TritonPythonModel:
    def execute(self, requests):
        raise SystemExit("it is not run while it is packaged")
"""
COLLECT: dict[str, Any] = {
    "name": "collect",
    "model": "steps/collect.py",
    "inputs": {"RECORD": "RECORD"},
    "outputs": {"X": "x"},
    "types": {"RECORD": "BYTES[1]", "X": "FP32[4]"},
    "files": ["steps/limits.json"],
    "parameters": {"limit": "0.9"},
}
INFER: dict[str, Any] = {"name": "infer", "model": "net.onnx", "inputs": {"x": "x"}, "outputs": {"scores": "SCORES"}}


def pipeline(folder: Path, *steps: dict[str, Any], **changes: Any) -> Path:
    """A pipeline's file beside the files that it names; a step's None takes a field away."""
    (folder / "steps").mkdir(exist_ok=True)
    (folder / "steps" / "limits.json").write_text("{}")
    for name, content in (("steps/collect.py", PROGRAM.encode()), ("net.onnx", classifier())):
        if not (folder / name).exists():
            (folder / name).write_bytes(content)
    written = [{key: value for key, value in step.items() if value is not None} for step in steps or (COLLECT, INFER)]
    body = {"name": "inspection", "inputs": ["RECORD"], "outputs": ["SCORES"], "max_batch_size": 8, "steps": written}
    file = folder / "pipeline.yaml"
    file.write_text(yaml.safe_dump(body | changes))
    return file


def packaged(folder: Path, config: str = CONFIG, labels: bytes | None = None) -> Path:
    """A model's folder with the versions 1 and 2."""
    for version in ("1", "2"):
        (folder / version).mkdir(parents=True)
        (folder / version / "model.onnx").write_bytes(classifier(int(version)))
    (folder / "config.pbtxt").write_text(config)
    if labels is not None:
        (folder / "labels.txt").write_bytes(labels)
    return folder


def test_a_program_and_a_graph(tmp_path: Path) -> None:
    made = generate(pipeline(tmp_path), version=3)
    assert made.name == "inspection"
    assert list(made.models) == ["inspection_collect", "inspection_infer", "inspection"]
    assert {model.version for model in made.models.values()} == {3}
    collect, infer, ensemble = made.models.values()
    assert collect.files == {
        "3/model.py": tmp_path / "steps" / "collect.py",
        "3/limits.json": tmp_path / "steps" / "limits.json",
    }
    expected = """
    name: "inspection_collect" backend: "python" max_batch_size: 8 dynamic_batching { }
    input { name: "RECORD" data_type: TYPE_STRING dims: 1 }
    output { name: "X" data_type: TYPE_FP32 dims: 4 }
    instance_group { count: 1 kind: KIND_CPU }
    parameters { key: "limit" value { string_value: "0.9" } }
    """
    assert collect.config == text_format.Parse(expected, TritonConfig())
    assert list(infer.files) == ["3/model.onnx"]
    assert (infer.config.name, infer.config.backend, infer.config.max_batch_size) == (
        "inspection_infer",
        "onnxruntime",
        8,
    )
    assert (ensemble.files, ensemble.config.platform) == ({}, "ensemble")


def test_what_is_written_is_a_repository(tmp_path: Path) -> None:
    write_model(tmp_path / "repo", generate(pipeline(tmp_path)).models)
    found = {
        path.relative_to(tmp_path / "repo").as_posix() for path in (tmp_path / "repo").rglob("*") if path.is_file()
    }
    assert found == {
        "inspection/config.pbtxt",
        "inspection/1/.keep",
        "inspection_collect/config.pbtxt",
        "inspection_collect/1/model.py",
        "inspection_collect/1/limits.json",
        "inspection_infer/config.pbtxt",
        "inspection_infer/1/model.onnx",
    }


def test_a_packaged_model_is_taken_over_in_its_newest_version(tmp_path: Path) -> None:
    config = 'name: "net" version_policy { specific { versions: 1 } } model_warmup { name: "w" batch_size: 1 }' + CONFIG
    folder = packaged(tmp_path / "net", config, labels=b"a\nb\nc\n")
    (folder / "2" / "__pycache__").mkdir()
    (folder / "2" / "__pycache__" / "x.pyc").write_bytes(b"")
    # Its record names files by the name that the model had.
    (folder / "conch.json").write_text('{"files": {"net/2/model.onnx": ""}}')
    made = generate(pipeline(tmp_path, COLLECT, INFER | {"model": "net"}), version=5)
    infer = made.models["inspection_infer"]
    assert infer.files == {"5/model.onnx": folder / "2" / "model.onnx", "labels.txt": folder / "labels.txt"}
    assert infer.config == text_format.Parse('name: "inspection_infer"' + CONFIG, TritonConfig())


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (
            COLLECT | {"model": "steps/missing.py"},
            "step 'collect' names the model steps/missing.py, which is not there",
        ),
        (COLLECT | {"model": "steps/limits.json"}, "which only a .py needs; steps/limits.json has them itself"),
        (
            COLLECT | {"model": "steps/limits.json", "types": None, "files": None, "parameters": None},
            "step 'collect' names the model steps/limits.json, which is neither a .py, an .onnx nor a model's folder",
        ),
        (
            COLLECT | {"types": {"RECORD": "BYTES[1]"}},
            "step 'collect' does not say what its tensor X is; add `types: {X",
        ),
        (COLLECT | {"types": COLLECT["types"] | {"Y": "BOOL[1]"}}, "step 'collect' has a type for Y, which is none of"),
        (COLLECT | {"outputs": {"RECORD": "x"}, "types": {"RECORD": "BYTES[1]"}}, "both an input and an output RECORD"),
        (
            COLLECT | {"files": ["steps/other.json"]},
            "step 'collect' names the file steps/other.json, which is not there",
        ),
        (COLLECT | {"files": ["net.onnx", "steps/../net.onnx"]}, "two files that are to be called net.onnx"),
        (COLLECT | {"files": ["steps/model.py"]}, "two files that are to be called model.py"),
        (
            INFER | {"types": {"x": "FP32[4]"}},
            "step 'infer' has types, which only a .py needs; net.onnx has them itself",
        ),
    ],
)
def test_a_step_that_names_no_model_or_tells_too_much_or_too_little(
    tmp_path: Path, step: dict[str, Any], told: str
) -> None:
    file = pipeline(tmp_path, *((step, INFER) if step["name"] == "collect" else (COLLECT, step)))
    (tmp_path / "steps" / "model.py").write_text("")
    with pytest.raises(PackagingError) as caught:
        generate(file)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("def f(:\n", "steps/collect.py is no valid Python: invalid syntax"),
        ("a = '\0'", "steps/collect.py is no valid Python: "),
        ("class Model:\n    def execute(self, requests): ...\n", "has no class TritonPythonModel"),
        ("class TritonPythonModel:\n    def initialize(self, args): ...\n", "with a method execute(self, requests)"),
    ],
)
def test_a_program_that_triton_could_not_run(tmp_path: Path, program: str, told: str) -> None:
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "collect.py").write_text(program)
    with pytest.raises(PackagingError) as caught:
        generate(pipeline(tmp_path))
    assert str(caught.value).startswith("step 'collect': ")
    assert told in str(caught.value)


def test_a_program_that_inherits_its_method(tmp_path: Path) -> None:
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "collect.py").write_text("class TritonPythonModel(Base):\n    pass\n")
    assert "inspection_collect" in generate(pipeline(tmp_path)).models


ENSEMBLE = 'platform: "ensemble" input { name: "x" } output { name: "y" } ensemble_scheduling { }'


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (None, "step 'infer': the folder net has no config.pbtxt, so it is no model's"),
        ("backend: [", "step 'infer': net: the model's config.pbtxt is not valid"),
        (ENSEMBLE, "step 'infer': net is an ensemble, which is no single model; name its members as steps"),
        ('backend: "onnxruntime"', "step 'infer': net/config.pbtxt does not name its inputs and outputs"),
    ],
)
def test_a_folder_that_is_no_models(tmp_path: Path, config: str | None, told: str) -> None:
    folder = packaged(tmp_path / "net", config or "")
    if config is None:
        (folder / "config.pbtxt").unlink()
    with pytest.raises(PackagingError) as caught:
        generate(pipeline(tmp_path, COLLECT, INFER | {"model": "net"}))
    assert told in str(caught.value)


def test_a_folder_without_a_version_or_with_a_link(tmp_path: Path) -> None:
    file = pipeline(tmp_path, COLLECT, INFER | {"model": "net"})
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "config.pbtxt").write_text(CONFIG)
    with pytest.raises(PackagingError, match="the model's folder net has no version folder"):
        generate(file)
    (tmp_path / "net" / "1").mkdir()
    (tmp_path / "net" / "1" / "model.onnx").symlink_to(tmp_path / "net.onnx")
    with pytest.raises(PackagingError, match=r"step 'infer': the folder net contains the link 1/model.onnx"):
        generate(file)


def test_a_graph_that_is_damaged_or_takes_no_batches(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"this is no graph")
    with pytest.raises(PackagingError, match=r"step 'infer': .*net\.onnx is damaged"):
        generate(pipeline(tmp_path))
    fixed = onnx.ModelProto.FromString(classifier())
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    (tmp_path / "net.onnx").write_bytes(fixed.SerializeToString())
    with pytest.raises(PackagingError, match=r"step 'infer': its model net\.onnx takes no batches, and the pipeline"):
        generate(pipeline(tmp_path))
    one = COLLECT | {"types": {"RECORD": "BYTES[1]", "X": "FP32[1, 4]"}}
    made = generate(pipeline(tmp_path, one, INFER, max_batch_size=0))
    assert [list(each.dims) for each in made.models["inspection"].config.output] == [[1, 3]]


def test_tensors_that_do_not_fit_are_told_before_anything_is_written(tmp_path: Path) -> None:
    wrong = COLLECT | {"types": {"RECORD": "BYTES[1]", "X": "FP32[5]"}}
    with pytest.raises(PackagingError, match=r"step 'infer', tensor x takes FP32\[4\], but the value 'x' is FP32\[5\]"):
        generate(pipeline(tmp_path, wrong, INFER))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "pipeline.yaml", "steps"]
