"""What `conch package check` finds in a repository, each with the file or tensor and what to do."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from conch.packaging.checking.check import check, look_over
from conch.packaging.checking.finding import Finding
from conch.packaging.errors import PackagingError
from conch.packaging.golden import make_golden, tolerances_of
from conch.packaging.graph.clean import to_bytes
from conch.packaging.graph.head import add_head
from conch.packaging.graph.session import Runner
from conch.packaging.output.config import model_config
from conch.packaging.output.golden_set import golden_set
from conch.packaging.output.precision import Precision
from conch.packaging.output.tree import ModelFiles, write_model
from conch.packaging.request import Head
from conch.packaging.served import ensemble_answer, graph_answer, signature
from conch.packaging.text.ensemble import text_models
from conch.packaging.text.fit import text_inputs
from conch.packaging.text.triton_model import tokenise_files
from conch.store.digest import tree_digest
from conch.triton.config_pbtxt import format_config, parse_config
from tests.support.packaging_graphs import linear, many_types, samples
from tests.support.text_models import LABELS, text_classifier, word_tokenizer


def repository(folder: Path, *, labels: bool = True) -> Path:
    """One model, `net`, with labels and a golden set."""
    graph = linear()
    config = model_config(graph, name="net", max_batch_size=8, labels_file=labels)
    answer = graph_answer(config, Runner(to_bytes(graph)))
    golden = make_golden(
        answer,
        signature(config),
        {"x": samples(5)},
        count=5,
        tolerances=tolerances_of(signature(config), Precision.FULL, batch_deviation=None, classes=True),
        depends_on_batch=False,
    )
    files: dict[str, Any] = {"1/model.onnx": to_bytes(graph), "golden.json": golden.content}
    if labels:
        files["labels.txt"] = b"a\nb\nc\n"
    write_model(folder, {"net": ModelFiles(config=config, version=1, files=files)})
    return folder


def configured(out: Path, change: Callable[[Any], object], name: str = "net") -> None:
    """Its config.pbtxt, changed."""
    file = out / name / "config.pbtxt"
    config = parse_config(file.read_text())
    change(config)
    file.write_text(format_config(config))


def only(out: Path) -> Finding:
    (finding,) = check(out)
    return finding


def test_nothing_is_wrong(tmp_path: Path) -> None:
    out = repository(tmp_path / "models")
    checked = look_over(out)
    assert (checked.findings, checked.models, checked.replayed, checked.not_replayed) == ((), ("net",), {"net": 5}, {})
    assert checked.digest == tree_digest(out / "net"), "what one would push"
    alone = look_over(out / "net")
    assert (alone.findings, alone.digest, alone.pushed) == ((), checked.digest, out / "net")


def test_of_several_models_the_digest_is_of_all(tmp_path: Path) -> None:
    out = repository(tmp_path / "models")
    other = ModelFiles(config=parse_config('backend: "python"'), version=1, files={"1/model.py": b""})
    write_model(out, {"other": other})
    checked = look_over(out)
    assert (checked.findings, checked.pushed, checked.digest) == ((), out, tree_digest(out))
    assert checked.not_replayed == {"other": "it has no golden set"}


def rename(tensor: str) -> Callable[[Any], object]:
    return lambda config: setattr(config.input[0], "name", tensor)


@pytest.mark.parametrize(
    ("change", "place", "problem"),
    [
        (lambda c: c.input[0].__setattr__("data_type", 12), "net, input 'x'", "it is FP64 in config.pbtxt and FP32"),
        (lambda c: c.input[0].dims.__setitem__(0, 5), "net, input 'x'", r"the dims \[5\] in config.pbtxt and \[4\]"),
        (lambda c: c.output[0].dims.append(1), "net, output 'logits'", r"the dims \[3, 1\] in config.pbtxt and \[3\]"),
        (lambda c: c.output[0].dims.__setitem__(0, -1), "net, output 'logits'", r"dims \[-1\] in config.pbtxt and"),
        (lambda c: c.output.add(name="z", data_type=11, dims=[3]), "net, output 'z'", "has no such output; it has"),
        (lambda c: c.__setattr__("name", "other"), "net/config.pbtxt", "names the model 'other'.*folder is 'net'"),
        (lambda c: c.model_warmup.add(name="w", batch_size=1), "net/config.pbtxt", "model_warmup.*kills the whole"),
        (lambda c: c.__setattr__("default_model_filename", "a.onnx"), "net/1/a.onnx", "it is missing"),
    ],
)
def test_a_configuration_against_its_graph(
    tmp_path: Path, change: Callable[[Any], object], place: str, problem: str
) -> None:
    out = repository(tmp_path / "models", labels=False)
    (out / "net" / "golden.json").unlink()
    configured(out, change)
    finding = only(out)
    assert finding.place == place
    assert re.search(problem, finding.problem), finding
    assert finding.remedy


def test_inputs_by_another_name(tmp_path: Path) -> None:
    out = repository(tmp_path / "models")
    (out / "net" / "golden.json").unlink()
    configured(out, rename("X"))
    assert [(each.place, each.problem) for each in check(out)] == [
        ("net, input 'X'", "the graph net/1/model.onnx has no such input; it has x"),
        ("net, input 'x'", "the graph net/1/model.onnx needs it, and config.pbtxt does not name it"),
    ]


def test_a_batch_axis_that_the_graph_has_not(tmp_path: Path) -> None:
    out = repository(tmp_path / "models")
    onnx.save(linear(batch=1), out / "net" / "1" / "model.onnx")
    (out / "net" / "golden.json").unlink()
    finding = only(out)
    assert finding.place == "net/1/model.onnx"
    assert "takes no batches: axis 0 of x, logits" in finding.problem


def test_every_version_is_looked_at(tmp_path: Path) -> None:
    out = repository(tmp_path / "models")
    (out / "net" / "2").mkdir()
    onnx.save(many_types(), out / "net" / "2" / "model.onnx")
    (out / "net" / "golden.json").unlink()
    assert {"net/2/model.onnx" in each.problem for each in check(out)} == {True}


def test_open_dims_may_be_narrowed(tmp_path: Path) -> None:
    graph = many_types()
    config = model_config(graph, name="net", max_batch_size=8, labels_file=False)
    config.input[0].dims[0] = 5
    config.output[0].dims[0] = 5
    write_model(tmp_path, {"net": ModelFiles(config=config, version=1, files={"1/model.onnx": to_bytes(graph)})})
    assert check(tmp_path) == ()


@pytest.mark.parametrize(
    ("spoil", "place", "problem"),
    [
        (lambda out: (out / "net/1/model.onnx").write_bytes(b"\x00damaged"), "net/1/model.onnx", "not a valid ONNX"),
        (lambda out: (out / "net" / "1" / "model.onnx").unlink(), "net/1/", "it is empty, and empty folders are lost"),
        (lambda out: (out / "net" / "config.pbtxt").unlink(), "net/config.pbtxt", "it is missing"),
        (lambda out: (out / "net" / "config.pbtxt").write_text("input {"), "net/config.pbtxt", "is not valid"),
        (lambda out: (out / "net" / "labels.txt").write_text("a\nb\n"), "net/labels.txt", "2 labels.*has 3 classes"),
        (lambda out: (out / "net" / "labels.txt").unlink(), "net/labels.txt", "No such file"),
        (lambda out: (out / "net" / "golden.json").write_text("{"), "net/golden.json", "it is no JSON"),
        (lambda out: (out / "notes").mkdir(), "notes/", "Triton takes every folder here for one"),
        (lambda out: (out / ".conch").mkdir(), ".conch/", "Triton takes every folder here for one"),
        (lambda out: (out / "net").rename(out / "Net"), "Net/", "'Net' cannot be a model's name"),
        (lambda out: (out / "net" / "conch.json").write_text("[]"), "net/conch.json", "no record of packaging"),
    ],
)
def test_what_is_damaged(tmp_path: Path, spoil: Callable[[Path], object], place: str, problem: str) -> None:
    out = repository(tmp_path / "models")
    spoil(out)
    found = [each for each in check(out) if each.place == place]
    assert [each for each in found if re.search(problem, each.problem)], check(out)
    assert all(each.remedy for each in found)


@pytest.mark.parametrize(
    ("change", "place", "problem"),
    [
        (lambda c: c.output[0].__setattr__("label_filename", "../../secret"), "net/../../secret", "No such file"),
        (lambda c: c.output[0].__setattr__("label_filename", "a\0b"), "net/a\0b", "No such file"),
        (lambda c: c.output[0].ClearField("dims"), "net, output 'logits'", r"the dims \[\] in config.pbtxt"),
        (lambda c: c.__setattr__("default_model_filename", "../../../secret"), "net/1/../../../secret", "is missing"),
        (lambda c: c.__setattr__("default_model_filename", "a" * 5000), f"net/1/{'a' * 5000}", "it is missing"),
    ],
)
def test_names_in_a_configuration_lead_nowhere_else(
    tmp_path: Path, change: Callable[[Any], object], place: str, problem: str
) -> None:
    out = repository(tmp_path / "models")
    (tmp_path / "secret").write_text("a\nb\n")
    configured(out, change)
    assert [each for each in check(out) if each.place == place and re.search(problem, each.problem)], check(out)


@pytest.mark.parametrize("named", ["../secret", "/etc/hostname", "a" * 5000, "a\0b"])
def test_names_in_a_record_lead_nowhere_else(tmp_path: Path, named: str) -> None:
    out = repository(tmp_path / "models")
    (tmp_path / "secret").write_text("x")
    (out / "net" / "conch.json").write_text(json.dumps({"version": int("9" * 300), "files": {named: "0"}}))
    assert (only(out).place, only(out).problem) == (named, "net/conch.json names it, and it is missing")


def test_a_record_that_is_nested_too_deeply(tmp_path: Path) -> None:
    out = repository(tmp_path / "models")
    (out / "net" / "conch.json").write_text("[" * 100_000)
    assert "no record of packaging" in only(out).problem


def test_a_datatype_that_there_is_not(tmp_path: Path) -> None:
    out = repository(tmp_path / "models")
    (out / "net" / "config.pbtxt").write_text('backend: "onnxruntime" input { name: "x" data_type: 99 dims: 4 }')
    assert only(out).problem == "'x' has the data_type 99, which is none of Triton's"


def test_texts_are_no_numbers(tmp_path: Path) -> None:
    out = repository(tmp_path / "models")
    graph = linear()
    graph.graph.node[-1].output[0] = "numbers"
    graph.graph.node.append(onnx.helper.make_node("Cast", ["numbers"], ["logits"], to=onnx.TensorProto.STRING))
    graph.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    (out / "net" / "1" / "model.onnx").write_bytes(to_bytes(graph))
    (finding,) = (each for each in check(out) if each.place == "net/golden.json")
    assert "logits is texts, expected FP32" in finding.problem


def test_a_platform_in_place_of_a_backend(tmp_path: Path) -> None:
    out = repository(tmp_path / "models")
    configured(out, lambda c: c.ClearField("backend"))
    configured(out, lambda c: setattr(c, "platform", "onnxruntime_onnx"))
    assert look_over(out).replayed == {"net": 5}


@pytest.mark.parametrize("file", ["config.pbtxt", "conch.json", "labels.txt", "golden.json", "1/model.onnx"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/etc/hostname")])
def test_nothing_is_opened_of_a_model_with_links_or_special_files(
    tmp_path: Path, file: str, make: Callable[[Path], object]
) -> None:
    out = repository(tmp_path / "models")
    (out / "net" / file).unlink(missing_ok=True)
    make(out / "net" / file)
    checked = look_over(out)
    (finding,) = checked.findings
    assert re.search(f"the (symbolic link|special file) {file}", finding.problem)
    assert "nothing of it is opened" in checked.not_replayed["net"]


def test_a_models_folder_by_its_version(tmp_path: Path) -> None:
    out = repository(tmp_path / "models")
    assert look_over(out / "net" / "1" / "..").models == ("net",)


def nested(out: Path, depth: int, times: int) -> None:
    """Ensembles of ensembles, each `times` the next, around `net`."""
    for number in range(depth):
        (out / f"e{number}" / "1").mkdir(parents=True)
        (out / f"e{number}" / "1" / ".keep").touch()
        step = (
            f'step {{ model_name: "{"net" if number == depth - 1 else f"e{number + 1}"}" model_version: -1 '
            'input_map { key: "x" value: "x" } output_map { key: "logits" value: "logits" } }'
        )
        (out / f"e{number}" / "config.pbtxt").write_text(
            'platform: "ensemble" max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: 4 } '
            'output { name: "logits" data_type: TYPE_FP32 dims: 3 } '
            f"ensemble_scheduling {{ {step * times} }}"
        )
    (out / "e0" / "golden.json").write_bytes((out / "net" / "golden.json").read_bytes())


def test_ensembles_of_ensembles(tmp_path: Path) -> None:
    out = repository(tmp_path / "models")
    nested(out, 12, 1)
    checked = look_over(out)
    assert (checked.findings, checked.replayed) == ((), {"e0": 5, "net": 5})


def test_ensembles_that_multiply(tmp_path: Path) -> None:
    out = repository(tmp_path / "models")
    nested(out, 20, 8)
    assert "runs more than 1024 models for a request" in look_over(out).not_replayed["e0"]


def test_somebody_elses_tokenise_model(tmp_path: Path) -> None:
    out = text_repository(tmp_path / "models")
    (out / "net_tokenize" / "1" / "text_encoding.py").unlink()
    assert look_over(out).not_replayed["net"] == "net_tokenize (python) runs only in Triton"


def test_a_link_has_no_digest(tmp_path: Path) -> None:
    out = repository(tmp_path / "models")
    (out / "net" / "weights").symlink_to("1/model.onnx")
    checked = look_over(out)
    assert checked.digest is None
    assert "symbolic link weights" in checked.findings[0].problem


def test_no_version_folder(tmp_path: Path) -> None:
    out = repository(tmp_path / "models", labels=False)
    (out / "net" / "golden.json").unlink()
    (out / "net" / "1" / "model.onnx").unlink()
    (out / "net" / "1").rmdir()
    assert only(out).problem == "it has no version folder, so Triton does not serve it"


def test_a_model_that_does_not_answer_as_recorded(tmp_path: Path) -> None:
    out = repository(tmp_path / "models")
    graph = linear()
    graph.graph.initializer[0].raw_data = (np.ones((4, 3), np.float32)).tobytes()
    onnx.save(graph, out / "net" / "1" / "model.onnx")
    finding = only(out)
    assert finding.place == "net/golden.json"
    assert finding.problem.startswith("version 1 does not answer as recorded: 5 of 5 samples differ; sample ")


def test_the_tolerances_are_the_sets_own(tmp_path: Path) -> None:
    out = repository(tmp_path / "models")
    body = json.loads((out / "net" / "golden.json").read_bytes())
    body["validation_data"][2]["logits"]["content"][0] += 0.2
    for atol, wrong in ((0.1, 1), (0.3, 0)):
        body["conch"]["tolerances"]["logits"] = {"atol": atol, "rtol": 0}
        (out / "net" / "golden.json").write_text(json.dumps(body))
        assert len(check(out)) == wrong


def test_a_graph_that_fails_on_a_golden_sample(tmp_path: Path) -> None:
    graph = many_types()
    config = model_config(graph, name="net", max_batch_size=8, labels_file=False)
    ids = np.array([[1], [99]])  # of 10 rows
    content = golden_set(
        {"ids": ids, "x": samples(2, 2)},
        {"means": np.zeros((2, 1), np.float32)},
        batched=True,
        datatypes={"ids": "INT64", "x": "FP32", "means": "FP32"},
        tolerances={"means": {"atol": 9, "rtol": 0}},
    )
    files: dict[str, Any] = {"1/model.onnx": to_bytes(graph), "golden.json": content}
    write_model(tmp_path, {"net": ModelFiles(config=config, version=1, files=files)})
    assert "sample 1: it fails: the graph fails on inputs" in only(tmp_path).problem


def test_files_that_are_not_what_was_packaged(tmp_path: Path) -> None:
    out = repository(tmp_path / "models")
    told = {"version": 1, "files": {"net/labels.txt": "0" * 64, "net/gone": "0" * 64}}
    (out / "net" / "conch.json").write_text(json.dumps(told))
    assert [(each.place, each.problem) for each in check(out)] == [
        ("net/labels.txt", "it is not the file that was packaged: net/conch.json has another sha256 of it"),
        ("net/gone", "net/conch.json names it, and it is missing"),
    ]


def text_repository(folder: Path) -> Path:
    tokenizer = word_tokenizer()
    graph = add_head(text_classifier(), head=Head.SOFTMAX, labels=LABELS)
    inputs = text_inputs(text_classifier(), tokenizer, 32)
    config = model_config(graph, name="net", max_batch_size=8, labels_file=False)
    configs = text_models("net", config)
    files: dict[str, dict[str, Any]] = {
        "net_model": {"1/model.onnx": to_bytes(graph)},
        "net_tokenize": dict(tokenise_files(tokenizer, 32, inputs, version=1)),
        "net": {
            "golden.json": golden_set(
                {"TEXT": np.array([["good day"], ["bad"]])},
                {"LABEL": np.array([["praise"], ["blame"]])},
                batched=True,
                datatypes={"TEXT": "BYTES", "LABEL": "BYTES"},
                tolerances={},
            )
        },
    }
    models = {name: ModelFiles(config=each, version=1, files=files[name]) for name, each in configs.items()}
    write_model(folder, models)
    return folder


def test_an_ensemble_is_replayed_through_its_steps(tmp_path: Path) -> None:
    out = text_repository(tmp_path / "models")
    checked = look_over(out)
    assert (checked.findings, checked.replayed) == ((), {"net": 2})
    wrong = (out / "net" / "golden.json").read_text().replace("blame", "wonder")
    (out / "net" / "golden.json").write_text(wrong)
    assert "sample 1: LABEL[0] is 'blame', expected 'wonder'" in only(out).problem


def test_an_ensemble_without_its_parts(tmp_path: Path) -> None:
    out = text_repository(tmp_path / "models")
    (out / "net_model").rename(tmp_path / "away")
    problems = {each.place: each.problem for each in check(out)}
    assert problems["net/config.pbtxt"] == "its step 'net_model' is not in the repository"
    assert "there is no model 'net_model' in the repository" in problems["net/"]


def test_an_ensembles_empty_version_folder(tmp_path: Path) -> None:
    out = text_repository(tmp_path / "models")
    (out / "net" / "1" / ".keep").unlink()
    finding = only(out)
    assert (finding.place, finding.remedy) == ("net/1/", "put an empty file .keep into it")


def test_steps_that_run_only_in_triton(tmp_path: Path) -> None:
    out = text_repository(tmp_path / "models")
    configured(out, lambda config: setattr(config, "backend", "pytorch"), "net_model")
    checked = look_over(out)
    assert checked.not_replayed["net"] == "net_model (pytorch) runs only in Triton"


def test_an_ensemble_whose_steps_wait_for_each_other() -> None:
    config = parse_config(
        """
        name: "loop" platform: "ensemble" ensemble_scheduling {
            step { model_name: "a" input_map { key: "x" value: "p" } output_map { key: "y" value: "q" } }
            step { model_name: "b" input_map { key: "x" value: "q" } output_map { key: "y" value: "p" } }
        }"""
    )
    with pytest.raises(PackagingError, match="never runs a, b: no step gives what it takes"):
        ensemble_answer(config, {})({"x": np.zeros(1)})


def test_an_ensemble_that_contains_itself(tmp_path: Path) -> None:
    out = text_repository(tmp_path / "models")
    configured(out, lambda config: setattr(config.ensemble_scheduling.step[1], "model_name", "net"))
    assert any("the ensemble 'net' contains itself" in each.problem for each in check(out))


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_text("")])
def test_where_there_is_no_repository(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "models")
    with pytest.raises(PackagingError, match=r"holds no model|is no folder"):
        check(tmp_path / "models")
