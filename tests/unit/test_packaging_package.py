"""From a request to what lies in the repository; torch is not needed, its part is played by a graph."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from conch.packaging.checking.check import check, look_over
from conch.packaging.errors import PackagingError
from conch.packaging.graph.clean import to_bytes
from conch.packaging.graph.session import Runner
from conch.packaging.optimise import optimise as optimising
from conch.packaging.optimise.latency import Latency
from conch.packaging.options import read_labels
from conch.packaging.output import tree
from conch.packaging.output.record import finite
from conch.packaging.packaging import package
from conch.packaging.pipeline.steps import read_pipeline
from conch.packaging.request import DynamicAxis, Head, HeldOut, Optimise, Request
from conch.packaging.tensors import Array, Tensors
from conch.store.digest import tree_digest
from conch.triton.config_pbtxt import parse_config
from tests.support.packaging_graphs import WEIGHTS, linear, many_types, mixing, samples, wide
from tests.support.text_models import LABELS, text_classifier, word_tokenizer

DIGITS = ("zero", "one", "two")
TEXTS = np.array(["good day", "a bad day", "odd", "very very good", "quite a day", "bad"])


@pytest.fixture(autouse=True)
def latencies(monkeypatch: pytest.MonkeyPatch) -> dict[str, Latency]:
    """What is measured, by variant; no time passes."""
    told: dict[str, Latency] = {}

    def measure(runners: Mapping[str, Runner], inputs: Tensors, **_options: Any) -> dict[str, Latency]:
        for runner in runners.values():
            runner.run(inputs)
        return {name: told.get(name, Latency(one_us=10, most_us=100)) for name in runners}

    monkeypatch.setattr(optimising, "measure_latencies", measure)
    return told


def request(folder: Path, graph: ModelProto | None = None, **changes: Any) -> Request:
    source = folder / "net.onnx"
    onnx.save(linear() if graph is None else graph, source)
    told: dict[str, Any] = {"source": str(source), "out": folder / "models", "name": "net"}
    if not {"golden", "example", "held_out"} & changes.keys():
        told["example"] = {"x": samples()}
    return Request(**(told | changes))


def names(folder: Path) -> set[str]:
    return {each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()}


def held_out(graph: ModelProto, inputs: Array) -> HeldOut:
    """Of which the graph knows every answer."""
    answers = Runner(to_bytes(graph)).run({"x": inputs})["logits"]
    return HeldOut(inputs={"x": inputs}, target=answers.argmax(axis=1))


def test_a_graph_becomes_a_model_with_its_proof(tmp_path: Path) -> None:
    made = package(request(tmp_path, max_batch_size=8))
    out = tmp_path / "models"
    assert made.path == out / "net"
    assert names(out) == {f"net/{each}" for each in ("config.pbtxt", "1/model.onnx", "golden.json", "conch.json")}
    assert made.digest == tree_digest(out / "net")
    assert parse_config((out / "net" / "config.pbtxt").read_text()) == made.config
    assert made.config.max_batch_size == 8
    assert made.parity is not None
    assert made.parity.by_batch.keys() == {1, 2, 3, 7, 32}
    assert (made.models, made.golden_count, made.notes) == (("net",), 32, ())
    assert [each.name for each in made.variants] == ["fp32"]
    assert check(out) == check(out / "net") == ()


def test_the_golden_set_holds_the_inputs_that_are_nearest(tmp_path: Path) -> None:
    golden, data = samples(5, seed=2), samples(seed=3)
    both: dict[str, Any] = {
        "golden": {"x": golden},
        "held_out": held_out(linear(), data),
        "example": {"x": samples(seed=4)},
    }
    for number, (left, first) in enumerate(((both, golden), ({**both, "golden": None}, data))):
        asked = request(tmp_path, name=f"net{number}", golden_count=3, **left)
        package(asked)
        body = json.loads((asked.out / asked.name / "golden.json").read_bytes())
        assert body["data"][0]["x"]["content"] == pytest.approx(first[0])
        assert len(body["data"]) == 3


def test_labels_in_the_graph(tmp_path: Path) -> None:
    made = package(request(tmp_path, labels=DIGITS, head=Head.SOFTMAX))
    assert [each.name for each in made.config.output] == ["LABEL", "SCORE"]
    assert (made.path / "labels.txt").read_text() == "zero\none\ntwo\n"
    body = json.loads((made.path / "golden.json").read_bytes())
    best = int((samples()[0] @ WEIGHTS).argmax())
    assert body["validation_data"][0]["LABEL"] == {"content": [DIGITS[best]], "shape": [1]}
    assert body["conch"]["tolerances"] == {"LABEL": "exact", "SCORE": {"atol": 1e-4, "rtol": 1e-3}}


def test_labels_beside_the_graph(tmp_path: Path) -> None:
    made = package(request(tmp_path, labels=DIGITS))
    (output,) = made.config.output
    assert (output.name, output.label_filename) == ("logits", "labels.txt")
    with pytest.raises(PackagingError, match=r"2 labels, and no output has 2 values on its last axis: logits \[3\]"):
        package(request(tmp_path, labels=DIGITS[:2], name="other"))


def test_every_type_of_tensor(tmp_path: Path) -> None:
    example = {"ids": np.arange(20).reshape(4, 5) % 10, "x": samples(4, 2)}
    dynamic = (DynamicAxis(input="ids", axis=1, name="tokens", least=1, most=9),)
    made = package(request(tmp_path, many_types(), example=example, dynamic=dynamic))
    assert made.golden_count == 4
    assert 'dim_param: "tokens"' in str(onnx.load(made.path / "1" / "model.onnx").graph.input)
    assert check(made.path) == ()


def test_a_graph_without_a_batch_axis(tmp_path: Path) -> None:
    made = package(request(tmp_path, linear(batch=2), example={"x": samples(2)}))
    assert (made.config.max_batch_size, made.golden_count) == (0, 1)
    assert made.notes == ("it takes no batches: axis 0 of x, logits is fixed in the graph",)
    assert check(made.path) == ()


def test_no_batches_because_nobody_wants_them(tmp_path: Path) -> None:
    made = package(request(tmp_path, max_batch_size=0))
    assert (made.config.max_batch_size, list(made.config.input[0].dims)) == (0, [-1, 4])
    assert made.golden_count == 1
    assert check(made.path) == ()


def test_answers_that_depend_on_the_batch(tmp_path: Path) -> None:
    with pytest.raises(PackagingError, match="otherwise in a batch than alone"):
        package(request(tmp_path, mixing()))
    assert not (tmp_path / "models").exists()
    assert package(request(tmp_path, mixing(), max_batch_size=1)).golden_count == 32


def test_an_int8_model_that_gains_is_served_and_its_golden_set_allows_for_it(
    tmp_path: Path, latencies: dict[str, Latency]
) -> None:
    graph = wide()
    latencies["int8 (dynamic)"] = Latency(one_us=5, most_us=50)
    data = held_out(graph, samples(100, 64))
    made = package(request(tmp_path, graph, held_out=data, optimise=Optimise(int8=True, max_drop=0.2)))
    assert made.choice is not None
    assert made.choice.kept.name == "int8 (dynamic)"
    assert "MatMulInteger" in {node.op_type for node in onnx.load(made.path / "1" / "model.onnx").graph.node}
    model = json.loads((made.path / "conch.json").read_bytes())
    assert (model["kept"], len(model["variants"])) == ("int8 (dynamic)", 3)
    assert model["batchDeviation"] > 0
    body = json.loads((made.path / "golden.json").read_bytes())
    assert body["conch"]["tolerances"] == {"logits": "label"}
    assert check(made.path) == ()


def test_one_that_loses_too_much_is_not(tmp_path: Path, latencies: dict[str, Latency]) -> None:
    graph = wide()
    latencies |= dict.fromkeys(("int8 (dynamic)", "int8 (static)"), Latency(one_us=5, most_us=50))
    # What of the graph's answers int8 changes, it gets wrong.
    data = held_out(graph, samples(2000, 64))
    made = package(request(tmp_path, graph, held_out=data, optimise=Optimise(int8=True, max_drop=0)))
    assert made.choice is not None
    assert made.choice.kept.name == "fp32"
    assert "more than --max-drop 0" in made.choice.reasons["int8 (dynamic)"]


def test_half_precision_is_asked_for(tmp_path: Path) -> None:
    data = held_out(linear(), samples())
    made = package(request(tmp_path, held_out=data, optimise=Optimise(fp16=True)))
    assert made.choice is not None
    assert made.choice.kept.name == "fp16"
    assert json.loads((made.path / "golden.json").read_bytes())["conch"]["tolerances"] == {
        "logits": {"atol": 2e-3, "rtol": 1e-2}
    }


def test_a_graph_that_is_quantised_already_is_known_as_such(tmp_path: Path) -> None:
    from conch.packaging.optimise.int8 import dynamic_int8

    made = package(request(tmp_path, dynamic_int8(wide()), example={"x": samples(features=64)}))
    assert json.loads((made.path / "golden.json").read_bytes())["conch"]["tolerances"] == {"logits": "label"}


def text_request(folder: Path, **changes: Any) -> Request:
    word_tokenizer().save(str(folder / "tokenizer.json"))
    told: dict[str, Any] = {
        "golden": {"text": TEXTS},
        "tokenizer": folder / "tokenizer.json",
        "max_length": 32,
        "labels": LABELS,
        "head": Head.SOFTMAX,
    }
    return request(folder, text_classifier(), **(told | changes))


def test_texts_are_tokenised_in_front_of_the_graph(tmp_path: Path) -> None:
    made = package(text_request(tmp_path))
    assert made.path == tmp_path / "models"
    assert (made.name, set(made.models)) == ("net", {"net", "net_tokenize", "net_model"})
    files = {name for name in names(made.path) if "/tokenizers/" not in name}
    assert files >= {"net/1/.keep", "net/golden.json", "net/conch.json", "net_tokenize/1/model.py"}
    assert files >= {"net_model/1/model.onnx", "net_model/labels.txt"}
    body = json.loads((made.path / "net" / "golden.json").read_bytes())
    assert body["data"][1] == {"TEXT": {"content": ["a bad day"], "shape": [1]}}
    assert [each["LABEL"]["content"] for each in body["validation_data"]][:3] == [["praise"], ["blame"], ["wonder"]]
    told = json.loads((made.path / "net" / "conch.json").read_bytes())
    assert (told["maxLength"], "tokenizers" in told["tools"]) == (32, True)
    checked = look_over(made.path)
    assert (checked.findings, checked.replayed) == ((), {"net": 6})


def test_texts_are_scored_as_texts(tmp_path: Path) -> None:
    data = HeldOut(inputs={"text": TEXTS}, target=np.array([0, 1, 2, 0, 0, 0]))
    made = package(text_request(tmp_path, golden=None, held_out=data))
    assert made.variants[0].score is not None
    assert made.variants[0].score.value == pytest.approx(5 / 6)


def test_of_a_repository_with_other_models_the_digest_is_of_all(tmp_path: Path) -> None:
    package(request(tmp_path, name="other"))
    made = package(text_request(tmp_path))
    assert any("also holds other: the digest is of all" in note for note in made.notes)


def test_a_pipeline(tmp_path: Path) -> None:
    onnx.save(linear(), tmp_path / "net.onnx")
    file = tmp_path / "chain.yaml"
    file.write_text(
        "name: chain\ninputs: [x]\noutputs: [y]\nsteps:\n"
        "- {name: infer, model: net.onnx, inputs: {x: x}, outputs: {logits: y}}\n"
    )
    asked = Request(source=str(file), out=tmp_path / "models", name="chain", version=2)
    made = package(asked)
    assert (made.models, made.path) == (("chain_infer", "chain"), tmp_path / "models")
    assert (made.choice, made.variants, made.golden_count) == (None, (), 0)
    assert check(made.path) == ()
    with pytest.raises(PackagingError, match="the pipeline is named 'chain' in"):
        package(replace(asked, name="other"))


def test_another_version(tmp_path: Path) -> None:
    first = package(request(tmp_path))
    second = package(request(tmp_path, linear(), version=2, golden={"x": samples(3, seed=9)}))
    assert (second.path, second.golden_count) == (first.path, 3)
    assert second.digest != first.digest
    assert {"1/model.onnx", "2/model.onnx"} < names(second.path)
    assert check(second.path) == ()


def test_the_public_names() -> None:
    import conch.packaging as public

    assert public.package is package
    assert public.check is check
    assert public.Request is Request
    assert [name for name in public.__all__ if getattr(public, name).__module__.startswith("conch.packaging")] == [
        *("DynamicAxis", "Finding", "Head", "HeldOut", "Optimise", "Package", "PackagingError", "Progress", "Request"),
        *("check", "package"),
    ]
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = public.nothing


# Torch's part.


class Torch:
    """Stands for torch's modules of this room: the source is a graph, whatever is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, graph: ModelProto) -> None:
        self.graph = graph
        self.pruned: ModelProto | None = None
        self.calls: list[tuple[str, Any]] = []
        for name, functions in (
            ("torch_module", {"load_module": self.load}),
            ("torch_export", {"export_module": self.export, "run_module": self.run}),
            ("torch_pruning", {"prune_module": self.prune}),
        ):
            module = ModuleType(f"conch.packaging.source.{name}")
            vars(module).update(functions)
            monkeypatch.setitem(sys.modules, module.__name__, module)

    def load(self, reference: str, weights: Path | None) -> Any:
        self.calls.append(("load", (reference, weights)))
        return Module(self.graph)

    def export(self, module: "Module", example: Tensors, dynamic: Any) -> ModelProto:
        self.calls.append(("export", ({name: each.shape for name, each in example.items()}, dynamic)))
        return module.graph

    def run(self, module: "Module", inputs: Tensors) -> dict[str, Array]:
        return Runner(to_bytes(module.graph)).run(inputs)

    def prune(self, _module: "Module", _example: Tensors, *, share: float, finetune: str | None) -> "Module":
        self.calls.append(("prune", (share, finetune)))
        assert self.pruned is not None
        return Module(self.pruned)


class Module:
    def __init__(self, graph: ModelProto) -> None:
        self.graph = graph

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        """Its parameters are what a tokenizer's tensors are matched with."""


def torch_request(folder: Path, **changes: Any) -> Request:
    (folder / "train.py").write_text("raise SystemExit('nobody imports it here')")
    asked = request(folder, **changes)
    return replace(asked, source=f"{folder}/train.py:net")


def test_a_torch_module_goes_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = Torch(monkeypatch, linear())
    weights = tmp_path / "net.safetensors"
    weights.write_bytes(b"weights")
    made = package(torch_request(tmp_path, weights=weights))
    assert torch.calls == [("load", (f"{tmp_path}/train.py:net", weights)), ("export", ({"x": (40, 4)}, ()))]
    told = json.loads((made.path / "conch.json").read_bytes())
    assert (told["source"]["kind"], told["source"]["object"], len(told["source"]["weights"])) == ("torch", "net", 64)
    assert check(made.path) == ()


def test_without_an_example_the_data_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = Torch(monkeypatch, linear())
    package(torch_request(tmp_path, golden={"x": samples(100)}))
    assert torch.calls[1] == ("export", ({"x": (32, 4)}, ()))


def test_a_frozen_batch_axis_is_no_model_without_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Torch(monkeypatch, linear(batch=2))
    with pytest.raises(PackagingError, match="the batch axis is frozen: axis 0 of 'x'"):
        package(torch_request(tmp_path))
    assert not (tmp_path / "models").exists()


def test_a_graph_that_computes_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = Torch(monkeypatch, linear())
    module = sys.modules["conch.packaging.source.torch_export"]
    monkeypatch.setattr(
        module, "run_module", lambda *told: {"logits": torch.run(*told)["logits"] + np.float32(1e-3)}, raising=False
    )
    with pytest.raises(PackagingError, match=r"'logits' deviates by 0\.00"):
        package(torch_request(tmp_path))


def test_what_is_pruned_is_verified_measured_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, latencies: dict[str, Latency]
) -> None:
    torch = Torch(monkeypatch, wide())
    torch.pruned = wide(hidden=256)
    latencies["pruned"] = Latency(one_us=1, most_us=1)
    fit = tmp_path / "fit.py"
    fit.write_text("")
    wishes = Optimise(prune=0.5, finetune=f"{fit}:fit", max_drop=1)
    data = held_out(wide(), samples(50, 64))
    made = package(torch_request(tmp_path, held_out=data, optimise=wishes))
    assert ("prune", (0.5, f"{fit}:fit")) in torch.calls
    assert made.choice is not None
    assert made.choice.kept.name == "pruned"
    assert (made.path / "1" / "model.onnx").stat().st_size < made.variants[0].bytes


def test_texts_are_the_example_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = Torch(monkeypatch, text_classifier())
    asked = replace(text_request(tmp_path), source=torch_request(tmp_path).source)
    made = package(asked)
    axes = tuple(
        DynamicAxis(input=name, axis=1, name="seq", least=2, most=32) for name in ("input_ids", "attention_mask")
    )
    shapes = {"input_ids": (6, 16), "attention_mask": (6, 16)}
    assert torch.calls[1] == ("export", (shapes, axes))
    assert made.golden_count == 6


def test_torch_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("conch.packaging.source.torch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(PackagingError, match=r"pip install 'conch\[torch\]'"):
        package(torch_request(tmp_path))


# Wrong requests: told before anything is loaded.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "net.pt"}, "net.pt is nothing that can be packaged: give FILE.py:NAME"),
        ({"source": "train.py"}, "which module of it\\? train.py:net"),
        ({"source": "gone.onnx"}, "there is no file gone.onnx"),
        ({"source": "gone.py:net"}, "there is no file gone.py, of which gone.py:net"),
        ({"name": "Net"}, "'Net' cannot be a model's name: .* give one with --name"),
        ({"name": "a" * 64}, "cannot be a model's name"),
        ({"version": 0}, "0 cannot be a version"),
        ({"version": 2**31}, "cannot be a version"),
        ({"example": None}, "nothing is given to run the model on; give --example-input"),
        ({"example": {"x": np.zeros((0, 4), np.float32)}}, "--example-input: the array 'x' is empty"),
        ({"weights": Path("net.pth")}, "--weights is for torch modules"),
        ({"optimise": Optimise(prune=0.5)}, "--optimise prune is for torch modules"),
        ({"optimise": Optimise(int8=True)}, "--optimise needs --data"),
        ({"calibration": {"x": samples()}}, "--calibration is for --optimise int8"),
        ({"optimise": Optimise(max_drop=2)}, "--max-drop 2: the score is at most 1"),
        ({"head": Head.SOFTMAX}, "--head softmax makes labels of scores; give the labels' file with --labels"),
        ({"max_batch_size": -1}, "--max-batch -1"),
        ({"golden_count": 0}, "--golden-count 0"),
        ({"golden_count": 257}, "--golden-count 257"),
        ({"tokenizer": Path("gone.json")}, "a text model's golden set is made of texts"),
        ({"tokenizer": Path("gone.json"), "golden": {"text": TEXTS}}, "--tokenizer gone.json: there is no such file"),
        ({"tokenizer": Path("t"), "golden": {"text": TEXTS}, "max_batch_size": 0}, "a text model takes batches"),
        ({"tokenizer": Path("t"), "golden": {"text": TEXTS}, "max_length": 0}, "--max-length 0"),
        ({"tokenizer": Path("t"), "golden": {"text": TEXTS}, "name": "a" * 60}, "_tokenize' cannot be a model's name"),
        ({"target_image": "1.01"}, "the image '1.01' can load is not known"),
    ],
)
def test_what_is_wrong_with_the_request(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    asked = replace(request(tmp_path), **changes)
    with pytest.raises(PackagingError, match=words):
        package(asked)
    assert not (tmp_path / "models").exists()


def test_nothing_is_loaded_for_a_version_that_is_there(tmp_path: Path) -> None:
    asked = request(tmp_path)
    package(asked)
    Path(asked.source).write_bytes(b"damaged")
    with pytest.raises(PackagingError, match="has a version 1 already"):
        package(asked)


@pytest.mark.parametrize("option", ["weights", "labels", "golden", "target_image"])
def test_a_pipeline_takes_no_options_of_one_model(tmp_path: Path, option: str) -> None:
    (tmp_path / "chain.yaml").write_text("{}")
    given: dict[str, Any] = {option: {"x": samples()} if option == "golden" else ("a",)}
    with pytest.raises(PackagingError, match="is a pipeline of several"):
        package(Request(source=f"{tmp_path}/chain.yaml", out=tmp_path / "models", name="chain", **given))


def test_a_damaged_graph(tmp_path: Path) -> None:
    asked = request(tmp_path)
    Path(asked.source).write_bytes(b"damaged")
    with pytest.raises(PackagingError, match="is damaged or no ONNX file"):
        package(asked)


def test_inputs_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(PackagingError, match=r"float64\[.*convert it before saving it"):
        package(request(tmp_path, example={"x": samples().astype(np.float64)}))
    with pytest.raises(PackagingError, match="no array for the input 'x'"):
        package(request(tmp_path, example={"y": samples()}))


def test_a_full_disk_and_an_interruption_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(tmp_path)
    there = {each.name for each in tmp_path.iterdir()}
    for error, expected in ((OSError(28, "No space left on device"), PackagingError), (KeyboardInterrupt(), None)):

        def fail(*_told: Any, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(tree, "_move_in", fail)
        with pytest.raises(expected or KeyboardInterrupt):
            package(asked)
        assert {each.name for each in tmp_path.iterdir()} == there


# The digest.


COMMAND = "import sys; from conch.cli import main; main()"


def _digest(folder: Path, *options: str, seed: str) -> str:
    """Of the very command, in a process and a folder of its own."""
    run = subprocess.run(
        [sys.executable, "-c", COMMAND, "package", *options],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": seed, "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()[-1]


def test_the_same_inputs_have_the_same_digest_wherever_they_lie(tmp_path: Path) -> None:
    digests = set()
    for number, (folder, out) in enumerate((("one", "models"), ("another/place", "../out"))):
        place = tmp_path / folder
        place.mkdir(parents=True)
        onnx.save(linear(), place / "net.onnx")
        (place / "labels.txt").write_text("a\nb\nc\n")
        source = "net.onnx" if number else str(place / "net.onnx")
        options = (source, "--example-input", "x=float32[8,4]", "--labels", "labels.txt", "-o", out)
        digests.add(_digest(place, *options, seed=str(number)))
    assert len(digests) == 1
    assert digests.pop().startswith("sha256:")


def test_no_path_is_in_anything_that_is_written(tmp_path: Path) -> None:
    graph = linear()
    graph.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value=f"File {tmp_path}/train.py, line 3")
    graph.graph.doc_string = str(tmp_path)
    made = package(request(tmp_path, graph))
    for file in made.path.rglob("*"):
        assert file.is_dir() or str(tmp_path).encode() not in file.read_bytes(), file


def test_another_input_has_another_digest(tmp_path: Path) -> None:
    first = package(request(tmp_path))
    others = (
        request(tmp_path, name="net2", golden={"x": samples(3)}),
        request(tmp_path, name="net3", max_batch_size=4),
        request(tmp_path, name="net4", labels=DIGITS),
    )
    assert len({first.digest, *(package(each).digest for each in others)}) == 4


def test_a_graph_that_is_too_new_for_the_image(tmp_path: Path) -> None:
    graph = linear()
    graph.opset_import[0].version = 22
    with pytest.raises(PackagingError, match=r"Triton 24.10 .* cannot load the graph: it has opset 22"):
        package(request(tmp_path, graph, target_image="24.10"))
    assert package(request(tmp_path, graph, target_image="25.06")).golden_count == 32


def test_beside_what_has_no_digest_nothing_is_written(tmp_path: Path) -> None:
    made = package(request(tmp_path))
    (made.path / "link").symlink_to("golden.json")
    with pytest.raises(PackagingError, match="cannot get another version: the model contains the symbolic link"):
        package(request(tmp_path, version=2))
    assert not (made.path / "2").exists()


def test_progress_is_told(tmp_path: Path) -> None:
    stages: list[str] = []

    class Listener:
        def stage(self, words: str) -> None:
            stages.append(words)

        def advance(self, done: int, total: int) -> None:
            assert 0 <= done <= total

    package(request(tmp_path), Listener())
    assert stages[0] == "read the graph"
    assert stages[-1] == "write"
    assert "verify" in stages


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": np.ones((5, 4), np.float32), "z": np.ones((3, 4), np.float32)}, r"x \[5, 4\], z \[3, 4\]"),
        ({"x": np.ones((), np.float32)}, r"axis 0 of every array counts the samples.*x \[\]"),
        ({}, "there is no array in it"),
    ],
)
def test_arrays_that_are_no_batch(tmp_path: Path, given: Tensors, message: str) -> None:
    with pytest.raises(PackagingError, match=message):
        package(request(tmp_path, example=given))


def test_outputs_of_one_name(tmp_path: Path) -> None:
    graph = linear()
    graph.graph.output.append(graph.graph.output[0])
    with pytest.raises(PackagingError, match="two outputs 'logits'"):
        package(request(tmp_path, graph))


def test_a_scalar_is_refused_in_words(tmp_path: Path) -> None:
    graph = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 20]> g (float x) => (float y) { y = Abs(x) }')
    with pytest.raises(PackagingError, match="'x' is a scalar"):
        package(request(tmp_path, graph, example={"x": np.ones((), np.float32)}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_batch_size": 2**31}, "--max-batch 2147483648: give 1 to 65536"),
        ({"labels": ("a", "b\nc", "d")}, "is not one line"),
        ({"tokenizer": Path("t"), "max_length": 10**9}, "a text has 1 to 131072 tokens"),
    ],
)
def test_limits(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PackagingError, match=message):
        package(request(tmp_path, **changes))


@pytest.mark.parametrize("texts", [np.array(["a", "\ud800"]), np.array([b"a", b"\xff"])])
def test_texts_that_are_no_unicode(tmp_path: Path, texts: Array) -> None:
    with pytest.raises(PackagingError, match="text 1 of those to package with is no Unicode"):
        package(request(tmp_path, golden={"text": texts}, tokenizer=Path("t")))


def test_labels_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes("\ufeffa\r\nb\r\n".encode())
    assert read_labels(tmp_path / "labels.txt") == ("a", "b")


def test_a_deviation_that_is_no_number_is_recorded() -> None:
    assert json.dumps([finite(float("inf")), finite(0.5), finite(None)], allow_nan=False) == '["inf", 0.5, null]'


@pytest.mark.parametrize(
    ("program", "message"), [("x=" + "-" * 100_000 + "1", "no valid Python"), ("", "cannot be a model's name")]
)
def test_pipelines_that_cannot_be(tmp_path: Path, program: str, message: str) -> None:
    (tmp_path / "s.py").write_text(program or "class TritonPythonModel:\n    def execute(self, r): return []\n")
    (tmp_path / "p.yaml").write_text(
        f"name: {'p' * 63}\ninputs: [X]\noutputs: [Y]\nsteps:\n- name: s\n  model: s.py\n"
        "  inputs: {X: X}\n  outputs: {Y: Y}\n  types: {X: 'FP32[3]', Y: 'FP32[3]'}\n"
    )
    with pytest.raises(PackagingError, match=message):
        package(Request(source=str(tmp_path / "p.yaml"), out=tmp_path / "models", name="p" * 63))
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("text", ["name: 2001-99-99\n", "[" * 20_000])
def test_yaml_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(PackagingError, match="no valid YAML"):
        read_pipeline(tmp_path / "p.yaml")
