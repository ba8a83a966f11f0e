"""A text service is three models; the tokenise step brings all that it needs, and nothing of this machine."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from tokenizers import Tokenizer
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc.model_config_pb2 import ModelConfig as TritonConfig

from conch.packaging.errors import PackagingError
from conch.packaging.output.config import model_config
from conch.packaging.text.ensemble import text_models
from conch.packaging.text.fit import text_inputs
from conch.packaging.text.tokenizer import encode
from conch.packaging.text.triton_model import library_files, tokenise, tokenise_files
from tests.support.text_models import text_classifier, word_tokenizer


def graph_config(max_batch_size: int = 8, **kinds: Any) -> Any:
    return model_config(text_classifier(**kinds), name="any", max_batch_size=max_batch_size, labels_file=False)


def files_of(max_length: int = 20, version: int = 1) -> dict[str, bytes | Path]:
    tokenizer = word_tokenizer()
    inputs = text_inputs(text_classifier(), tokenizer, max_length)
    return tokenise_files(tokenizer, max_length, inputs, version=version)


def described(entries: Any) -> list[tuple[str, str, list[int]]]:
    return [(each.name, model_config_pb2.DataType.Name(each.data_type), list(each.dims)) for each in entries]


def test_the_three_models() -> None:
    made = text_models("mood", graph_config())
    assert list(made) == ["mood_tokenize", "mood_model", "mood"], "what clients call comes after what it needs"
    assert [config.name for config in made.values()] == list(made)
    tokens, graph, ensemble = made.values()
    text, ids = ("TEXT", "TYPE_STRING", [1]), [(n, "TYPE_INT64", [-1]) for n in ("input_ids", "attention_mask")]
    assert (described(tokens.input), described(tokens.output)) == ([text], ids)
    assert (tokens.backend, tokens.max_batch_size, tokens.HasField("dynamic_batching")) == ("python", 8, True)
    (group,) = tokens.instance_group
    assert (group.count, group.kind) == (1, model_config_pb2.ModelInstanceGroup.KIND_CPU)
    assert described(graph.input) == ids
    assert (ensemble.platform, ensemble.backend, ensemble.max_batch_size) == ("ensemble", "", 8)
    assert described(ensemble.input) == [text]
    assert described(ensemble.output) == described(graph.output) == [("logits", "TYPE_FP32", [3])]
    first, second = ensemble.ensemble_scheduling.step
    assert (first.model_name, dict(first.input_map)) == ("mood_tokenize", {"TEXT": "TEXT"})
    assert dict(first.output_map) == dict(second.input_map) == {n: n for n, _, _ in ids}
    assert (second.model_name, dict(second.output_map)) == ("mood_model", {"logits": "logits"})
    assert {first.model_version, second.model_version} == {-1}


def test_fixed_lengths_other_types_and_numbers_per_sample() -> None:
    tokens = text_models("mood", graph_config(length=24, integer=TensorProto.INT32))["mood_tokenize"]
    assert described(tokens.output)[0] == ("input_ids", "TYPE_INT32", [24])
    one = text_models("mood", graph_config(max_batch_size=1))["mood_tokenize"]
    assert (one.max_batch_size, one.HasField("dynamic_batching")) == (1, False)
    scalar = graph_config()
    scalar.output[0].dims[:] = [1]
    scalar.output[0].reshape.SetInParent()
    made = text_models("mood", scalar)
    assert made["mood_model"].output[0].HasField("reshape")
    assert not made["mood"].output[0].HasField("reshape"), "only what runs has a shape of its own"


def test_a_graph_without_batches_and_names_that_clash() -> None:
    with pytest.raises(PackagingError, match="a text model takes batches"):
        text_models("mood", TritonConfig(max_batch_size=0))
    for name in ("TEXT", "token_type_ids"):
        clash = graph_config()
        clash.output[0].name = name
        with pytest.raises(PackagingError, match=f"output {name} has the name of a tensor of the tokenise step"):
            text_models("mood", clash)


def test_the_files_are_what_was_installed_and_nothing_of_this_machine() -> None:
    files = files_of(version=3)
    assert all(name.startswith("3/") for name in files)
    assert {"3/model.py", "3/text_encoding.py", "3/tokenizer.json", "3/tokenizers/tokenizers.abi3.so"} < files.keys()
    names = [Path(name) for name in files]
    assert not [name for name in names if "__pycache__" in name.parts or "dist-info" in str(name)]
    assert {name.suffix for name in names} == {".py", ".so", ".json", ".txt"}
    version = importlib.metadata.version("tokenizers")
    note = files["3/tokenizers.txt"]
    assert isinstance(note, bytes)
    assert f"tokenizers {version}, unchanged; Apache License 2.0".encode() in note
    here = str(Path(sys.prefix)).encode()
    for name, content in files.items():
        read = content if isinstance(content, bytes) else content.read_bytes()
        assert here not in read, f"{name} tells where it was made"
    assert files == files_of(version=3)


def test_a_tokenizer_file_that_is_laid_out_otherwise_gives_the_same_bytes() -> None:
    tokenizer = word_tokenizer()
    inputs = text_inputs(text_classifier(), tokenizer, 20)
    wide = Tokenizer.from_str(json.dumps(json.loads(tokenizer.to_str()), indent=4, sort_keys=True))
    one, other = (tokenise_files(each, 20, inputs, version=1)["1/tokenizer.json"] for each in (tokenizer, wide))
    assert one == other


def test_the_copied_library_is_whole(tmp_path: Path) -> None:
    files = files_of()
    for name, content in files.items():
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / '1')!r}); import tokenizers; "
        f"t = tokenizers.Tokenizer.from_file({str(tmp_path / '1' / 'tokenizer.json')!r}); "
        "print(tokenizers.__file__, t.encode('good bad').ids[:4])"
    )
    # Without this environment's packages, among which are those that the library wants for downloads.
    run = subprocess.run([sys.executable, "-I", "-S", "-B", "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{tmp_path / '1' / 'tokenizers' / '__init__.py'} [2, 4, 5, 3]\n"


def test_what_is_packaged_encodes_as_before() -> None:
    tokenizer, texts = word_tokenizer(), ["good day", "bad " * 90, ""]
    config = text_models("mood", graph_config())["mood_tokenize"]
    content = files_of()["1/tokenizer.json"]
    assert isinstance(content, bytes)
    expected = encode(tokenizer, texts, 20)
    for values in (texts, [text.encode() for text in texts]):
        found = tokenise(config, content, np.array([[value] for value in values], dtype=object))
        assert list(found) == ["input_ids", "attention_mask"]
        assert all(np.array_equal(found[name], expected[name]) for name in found)
        assert found["input_ids"].dtype == np.int64
    with pytest.raises(PackagingError, match="mood_tokenize: TEXT: text 0 is not UTF-8"):
        tokenise(config, content, np.array([[b"\xff"]], dtype=object))


class Distribution:
    """An installed library with other files."""

    version = "0.1"

    def __init__(self, files: dict[str, Path]) -> None:
        self._files = files

    @property
    def files(self) -> list[importlib.metadata.PackagePath]:
        return [importlib.metadata.PackagePath(name) for name in self._files]

    def locate_file(self, path: importlib.metadata.PackagePath) -> Path:
        return self._files[path.as_posix()]


def test_a_library_that_no_image_of_triton_can_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "library").write_bytes(b"\xcf\xfa\xed\xfe of another system")
    for name in ("tokenizers/tokenizers.abi3.so", "tokenizers/tokenizers.cpython-314t-x86_64-linux-gnu.so"):
        installed = Distribution({name: tmp_path / "library"})
        monkeypatch.setattr(importlib.metadata, "distribution", lambda _, it=installed: it)
        with pytest.raises(PackagingError, match=r"library 0.1 has no tokenizers/tokenizers.abi3.so for Linux"):
            library_files()


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(PackagingError, match=r"pip install 'conch\[package\]'"):
        library_files()
