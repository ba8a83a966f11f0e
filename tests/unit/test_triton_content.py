"""A model's files held against its configuration, by the backend that is to run them."""

import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from conch.api.source_policy import SourcePolicy
from conch.triton.config_pbtxt import parse_config
from conch.triton.content import PROGRAM_BYTES_MOST, settle_content
from conch.triton.errors import InvalidModelError
from conch.triton.own_paths import Place
from tests.contract.models import classifier

TOLD = 'input { name: "x" data_type: TYPE_FP32 dims: 4 } output { name: "y" data_type: TYPE_FP32 dims: 3 }'
PROGRAM = b"class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"
COMPLETES = PROGRAM + b"    @staticmethod\n    def auto_complete_config(config):\n        return config\n"


def zipped(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return content.getvalue()


TORCHSCRIPT = zipped("net/data.pkl", "net/code/__torch__.py", "net/constants.pkl", "net/data/0", "net/version")


def settle(
    tmp_path: Path, text: str, files: Mapping[str, bytes], *, is_member: bool = False
) -> tuple[Any, dict[str, bytes]]:
    places = {}
    for name, content in files.items():
        path = places[name] = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    config = parse_config(text)
    place = Place(folder="/repository/m", version=1, files=places)
    return config, settle_content(config, places, place, SourcePolicy(), is_member=is_member)


def refusal(tmp_path: Path, text: str, files: Mapping[str, bytes], *, is_member: bool = False) -> str:
    with pytest.raises(InvalidModelError) as caught:
        settle(tmp_path, text, files, is_member=is_member)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "files"),
    [
        (f'backend: "pytorch" {TOLD}', {"1/model.pt": TORCHSCRIPT}),
        (f'backend: "pytorch" default_model_filename: "net.pt" {TOLD}', {"1/net.pt": TORCHSCRIPT}),
        ('backend: "pytorch" runtime: "model.py"', {"1/model.pt": b"weights"}),
        (f'backend: "python" {TOLD}', {"1/model.py": PROGRAM}),
        ('backend: "python"', {"1/model.py": COMPLETES}),
        ('backend: "python"', {"1/model.py": b"from base import Base\nclass TritonPythonModel(Base): pass"}),
        ('backend: "python"', {"1/model.py": b"from impl import TritonPythonModel"}),
        ('backend: "tensorrt"', {"1/model.plan": b"x"}),
        ('backend: "onnxruntime"', {"1/model.onnx": b"broken: Triton says why in its own words"}),
        ('backend: "onnxruntime" input { name: "x" data_type: TYPE_FP32 }', {"1/model.onnx": classifier()}),
        ('platform: "ensemble"', {}),
        ('backend: "somebodys"', {"1/model.bin": b"x"}),
    ],
)
def test_what_may_be_right_passes(tmp_path: Path, text: str, files: dict[str, bytes]) -> None:
    before = parse_config(text)
    assert settle(tmp_path, text, files) == (before, {})


def test_torchscript_needs_its_inputs_and_outputs(tmp_path: Path) -> None:
    files = {"1/model.pt": TORCHSCRIPT}
    assert refusal(tmp_path, 'backend: "pytorch"', files) == (
        "a TorchScript file does not tell what the model takes and gives: inputs and outputs missing; give "
        "spec.model.config.inputs and outputs, each with name, dataType and dims"
    )
    without_dims = 'backend: "pytorch" input { name: "x" data_type: TYPE_FP32 } ' + TOLD.partition("} ")[2]
    assert "data_type or dims of the input 'x' missing" in refusal(tmp_path, without_dims, files)
    assert "write input and output into its config.pbtxt" in refusal(
        tmp_path, 'backend: "pytorch"', files, is_member=True
    )


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (
            zipped("net/data.pkl", "net/data/0", "net/version"),
            "what torch.save writes, a pickle without the model's code",
        ),
        (zipped("net/models/model.json", "net/archive_format"), "an exported program"),
        (zipped("a.txt"), "another kind of archive"),
        (b"not a zip", "File is not a zip file"),
        (TORCHSCRIPT[:-8], "1/model.pt is no TorchScript file"),
        (b"", "1/model.pt is no TorchScript file"),
    ],
)
def test_another_file_than_torchscript_is_told(tmp_path: Path, content: bytes, found: str) -> None:
    message = refusal(tmp_path, f'backend: "pytorch" {TOLD}', {"1/model.pt": content})
    assert found in message
    assert "torch.jit.save" in message


def test_a_list_of_files_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    claims = bytearray(bytes(9 << 20) + zipped("a"))
    directory = claims.rindex(b"PK\x05\x06")
    claims[directory + 12 : directory + 16] = (directory - 4).to_bytes(4, "little")
    claims[directory + 16 : directory + 20] = (0).to_bytes(4, "little")
    message = refusal(tmp_path, f'backend: "pytorch" {TOLD}', {"1/model.pt": bytes(claims)})
    assert "its list of files is too long" in message


def test_a_program_needs_its_class_and_what_it_takes(tmp_path: Path) -> None:
    assert "1/model.py has no class TritonPythonModel" in refusal(
        tmp_path, 'backend: "python"', {"1/model.py": b"x = 1"}
    )
    message = refusal(tmp_path, 'backend: "python"', {"1/model.py": PROGRAM})
    assert message.startswith(
        "1/model.py has no auto_complete_config() and does not tell what the model takes and gives"
    )
    message = refusal(tmp_path, 'backend: "python"', {"1/model.py": bytes(PROGRAM_BYTES_MOST + 1)})
    assert f"more than {PROGRAM_BYTES_MOST} bytes" in message


def test_a_graph_is_held_against_its_configuration(tmp_path: Path) -> None:
    wrong = 'backend: "onnxruntime" max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: 5 }'
    assert "the input 'x' has the dims [5]" in refusal(tmp_path, wrong, {"1/model.onnx": classifier()})


def test_wrong_axes_are_told_of_any_backend(tmp_path: Path) -> None:
    text = 'backend: "somebodys" input { name: "x" data_type: TYPE_FP32 dims: 0 }'
    assert "the input 'x' has an axis of 0" in refusal(tmp_path, text, {})


def test_parameters_may_name_the_models_folder(tmp_path: Path) -> None:
    text = f'backend: "python" {TOLD} parameters {{ key: "tokenizer_dir" value {{ string_value: "%s" }} }}'
    config, _ = settle(tmp_path, text % "$$TRITON_MODEL_DIRECTORY/1/tokenizer", {"1/model.py": PROGRAM})
    assert config.parameters["tokenizer_dir"].string_value == "/repository/m/1/tokenizer"
    config, _ = settle(tmp_path, text % "/opt/tokenizer", {"1/model.py": PROGRAM})
    assert config.parameters["tokenizer_dir"].string_value == "/opt/tokenizer"


def test_the_engines_of_language_models_are_settled(tmp_path: Path) -> None:
    files = {"1/model.json": json.dumps({"model": "w"}).encode(), "1/w/config.json": b"{}"}
    _, written = settle(tmp_path, 'backend: "vllm"', files)
    assert json.loads(written["1/model.json"]) == {"model": "/repository/m/1/w"}
    engine = {"1/config.json": b"{}", "1/rank0.engine": b"x"}
    config, written = settle(tmp_path, 'backend: "tensorrtllm"', engine)
    assert (config.parameters["gpt_model_path"].string_value, written) == ("/repository/m/1", {})


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (f'backend: "pytorch" {TOLD}', "1/model.pt", "1/model.pt is no TorchScript file"),
        (f'backend: "python" {TOLD}', "1/model.py", "1/model.py is no plain file"),
        ('backend: "vllm"', "1/model.json", "1/model.json is no plain file"),
    ],
)
def test_a_pipe_in_a_files_place_is_not_waited_for(tmp_path: Path, text: str, name: str, message: str) -> None:
    """On a claim, a file may have become anything since it was verified."""
    os.mkfifo(tmp_path / "pipe")
    config, files = parse_config(text), {name: tmp_path / "pipe"}
    with pytest.raises(InvalidModelError, match=message):
        settle_content(config, files, Place(folder="/repository/m", version=1, files=files), SourcePolicy())
    graph = parse_config('backend: "onnxruntime"')
    settle_content(graph, {"1/model.onnx": tmp_path / "pipe"}, Place(folder="/m", version=1, files=()), SourcePolicy())
