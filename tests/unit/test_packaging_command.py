"""The command line of `conch package`: what it takes, what it hands on, and how it ends."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner, Result

from conch.cli import app
from conch.packaging import run
from conch.packaging.errors import PackagingError
from conch.packaging.optimise import optimise as optimising
from conch.packaging.options import Options, default_name, dynamic_axis, optimise_of, read_labels, request_of
from conch.packaging.packaging import Package
from conch.packaging.progress import Progress
from conch.packaging.request import DynamicAxis, Head, Optimise, Request
from conch.packaging.terminal import Terminal
from conch.store.digest import tree_digest
from tests.support.packaging_graphs import linear, samples


def conch(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["package", *map(str, arguments)], prog_name="conch")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a graph and data, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(optimising, "_SECONDS_ALONE", 0.0)
    onnx.save(linear(), "net.onnx")
    x = samples()
    np.savez("data.npz", x=x, target=np.arange(len(x)) % 3)
    np.savez("inputs.npz", x=x)
    Path("labels.txt").write_text("a\nb\nc\n")
    Path("train.py").write_text("")
    return tmp_path


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What reaches package(), which then refuses it."""
    seen: list[Request] = []

    def package(request: Request, _progress: Progress) -> Package:
        seen.append(request)
        raise PackagingError("that is all")

    monkeypatch.setattr(run, "package", package)
    return seen


def test_it_packages_and_checks(here: Path) -> None:
    done = conch("net.onnx", "--example-input", "inputs.npz", "-o", "models")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == tree_digest(here / "models" / "net")
    assert "conch push models/net s3://BUCKET/net/1" in done.stdout
    checked = conch("check", "models")
    assert (checked.exit_code, checked.stdout.splitlines()[-1]) == (0, tree_digest(here / "models" / "net"))
    again = conch("net.onnx", "--example-input", "inputs.npz", "-o", "models")
    assert (again.exit_code, again.stdout) == (1, "")
    assert "has a version 1 already" in again.stderr


def test_json(here: Path) -> None:
    done = conch("net.onnx", "--data", "data.npz", "-o", "models", "--json")
    assert json.loads(done.stdout)["digest"] == tree_digest(here / "models" / "net")
    assert json.loads(conch("check", "models", "--json").stdout)["findings"] == []


def test_a_check_that_finds_something(here: Path) -> None:
    conch("net.onnx", "--data", "data.npz", "-o", "models")
    (here / "models" / "net" / "golden.json").write_text("{")
    checked = conch("check", "models")
    assert checked.exit_code == 1
    assert "net/golden.json: it is no JSON" in checked.stdout
    nothing = conch("check", here / "models" / "net" / "1")
    assert (nothing.exit_code, nothing.stdout) == (2, "")
    assert "holds no model" in nothing.stderr


def test_every_option_reaches_the_request(here: Path, requests: list[Request]) -> None:
    (here / "tokenizer.json").write_text("{}")
    (here / "net.safetensors").write_text("")
    options = """--name clf --version 3 --weights net.safetensors --example-input x=float32[2,4] --max-batch 16
        --dynamic x:1=seq:2..64 --dynamic y:2=width:1..3 --labels labels.txt --head sigmoid --tokenizer tokenizer.json
        --max-length 64 --optimise int8,fp16,prune=0.5 --data data.npz --calibration inputs.npz --finetune train.py:fit
        --max-drop 0.02 --golden data.npz --golden-count 8 --target-image 25.06 -o models"""
    done = conch("train.py:net", *options.split())
    assert (done.exit_code, done.stderr) == (1, "that is all\n")
    (asked,) = requests
    assert (asked.source, asked.out, asked.name, asked.version) == ("train.py:net", Path("models"), "clf", 3)
    assert asked.weights == Path("net.safetensors")
    assert asked.example is not None
    assert asked.example["x"].shape == (2, 4)
    assert asked.dynamic == (
        DynamicAxis(input="x", axis=1, name="seq", least=2, most=64),
        DynamicAxis(input="y", axis=2, name="width", least=1, most=3),
    )
    assert (asked.max_batch_size, asked.labels, asked.head) == (16, ("a", "b", "c"), Head.SIGMOID)
    assert (asked.tokenizer, asked.max_length) == (Path("tokenizer.json"), 64)
    assert asked.optimise == Optimise(int8=True, fp16=True, prune=0.5, finetune="train.py:fit", max_drop=0.02)
    assert asked.held_out is not None
    assert asked.held_out.inputs.keys() == {"x"}
    assert asked.held_out.target.shape == (40,)
    assert asked.calibration is not None
    assert asked.golden is not None
    assert asked.golden.keys() == {"x"}, "the target is no input"
    assert (asked.golden_count, asked.target_image) == (8, "25.06")


def test_defaults(here: Path) -> None:
    asked = request_of(Options(source="train.py:Net", output=Path("models")))
    assert asked == Request(source="train.py:Net", out=Path("models"), name="net")
    labelled = request_of(Options(source="net.onnx", output=Path("models"), labels=here / "labels.txt"))
    assert labelled.head is Head.SOFTMAX, "labels are there to be answered"
    plain = request_of(Options(source="net.onnx", output=Path("models"), labels=here / "labels.txt", head="none"))
    assert plain.head is Head.NONE


def test_names(here: Path) -> None:
    for file, expected in (("My Net.onnx", "my-net"), ("resnet_50.onnx", "resnet_50"), ("2-ß.onnx", "2")):
        (here / file).write_text("")
        assert default_name(file) == expected
    (here / "chain.yaml").write_text(
        "{name: decide, inputs: [x], outputs: [y], steps: [{name: a, model: a.onnx, inputs: {x: x}, outputs: {y: y}}]}"
    )
    assert default_name("chain.yaml") == "decide"


def test_dynamic_axes() -> None:
    assert dynamic_axis("a:b:1=seq:2..128") == DynamicAxis(input="a:b", axis=1, name="seq", least=2, most=128)
    for text, words in (
        ("x=seq", "give INPUT:AXIS=NAME:LEAST..MOST"),
        ("x:1=seq", "give INPUT:AXIS=NAME:LEAST..MOST"),
        ("x:0=seq:2..3", "axis 0 is the batch"),
        ("x:1=seq:5..2", "5..2 is no range"),
        ("x:1=seq:0..2", "0..2 is no range"),
    ):
        with pytest.raises(PackagingError, match=words):
            dynamic_axis(text)


@pytest.mark.parametrize("text", ["int4", "", "int8,", "prune", "prune=", "prune=1", "prune=x", "prune=nan", "int8=1"])
def test_optimisations_that_there_are_not(text: str) -> None:
    if not text:
        assert not optimise_of(None, finetune=None, max_drop=0.01).asks_something
    else:
        with pytest.raises(PackagingError, match=f"--optimise {text}: "):
            optimise_of(text, finetune=None, max_drop=0.01)


@pytest.mark.parametrize(
    ("finetune", "optimise", "words"),
    [
        ("train.py:fit", "int8", "needs --optimise prune=SHARE"),
        ("train.py", "prune=0.5", "give FILE.py:FUNCTION"),
        ("train.py:", "prune=0.5", "give FILE.py:FUNCTION"),
        ("gone.py:fit", "prune=0.5", "there is no file gone.py"),
    ],
)
@pytest.mark.usefixtures("here")
def test_finetuning(finetune: str, optimise: str, words: str) -> None:
    with pytest.raises(PackagingError, match=words):
        optimise_of(optimise, finetune=finetune, max_drop=0.01)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a\nb c\n\n", ("a", "b c")),
        ("ß\r\nü".encode(), ("ß", "ü")),
        (b"", "is empty; write one label a line"),
        (b"a\n\nb\n", "line 2 is empty"),
        (b"a\nb\na\n", "'a' is there twice"),
        (b"\xff", "is not UTF-8"),
    ],
)
def test_labels(tmp_path: Path, content: bytes, expected: tuple[str, ...] | str) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes(content)
    if isinstance(expected, tuple):
        assert read_labels(file) == expected
    else:
        with pytest.raises(PackagingError, match=expected):
            read_labels(file)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": samples()}, "has no array 'target' beside x"),
        ({"target": np.zeros(3)}, "has nothing but 'target'"),
        ({"x": samples(3), "target": np.zeros(4)}, r"one row per sample each: x \[3, 4\], target \[4\]"),
        ({"x": samples(3), "target": np.array(1)}, "one row per sample"),
        ({"x": samples(2), "target": np.array(["a", "b"])}, "give class numbers"),
    ],
)
def test_held_out_data(here: Path, arrays: dict[str, Any], words: str) -> None:
    np.savez(here / "wrong.npz", **arrays)
    with pytest.raises(PackagingError, match=words):
        request_of(Options(source="net.onnx", output=Path("models"), data=here / "wrong.npz"))


def test_files_that_cannot_be_read(here: Path) -> None:
    (here / "no.npz").write_text("text")
    for option in ("--golden", "--data", "--calibration"):
        done = conch("net.onnx", option, "no.npz", "-o", "models")
        assert done.exit_code == 1
        assert done.stderr.startswith(f"{option}: no.npz cannot be read as arrays")
        missing = conch("net.onnx", option, "gone.npz", "-o", "models")
        assert missing.exit_code == 2
        assert "gone.npz" in missing.stderr


def test_help_is_that_of_packaging_and_names_check() -> None:
    told = conch("--help")
    assert told.exit_code == 0
    assert "Usage: conch package [OPTIONS]" in told.output
    for words in ("--example-input", "--optimise", "--target-image", "Examples:", "conch package check models"):
        assert words in told.output
    assert "--golden-count" in conch().output, "also without anything"
    assert "REPOSITORY" in conch("check", "--help").output
    assert "Usage: conch package [OPTIONS]" in conch("net.onnx", "--no-such-option").output


@pytest.mark.usefixtures("here")
def test_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_told: Any) -> Package:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("unreachable")

    monkeypatch.setattr(run, "package", interrupted)
    assert conch("net.onnx", "--data", "data.npz", "-o", "models").exit_code == 130


@pytest.mark.usefixtures("here")
def test_sigterm_lets_it_clear_up(monkeypatch: pytest.MonkeyPatch) -> None:
    cleared: list[bool] = []

    def terminated(*_told: Any) -> Package:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            cleared.append(True)
        raise AssertionError("unreachable")

    monkeypatch.setattr(run, "package", terminated)
    before = signal.getsignal(signal.SIGTERM)
    assert conch("net.onnx", "--data", "data.npz", "-o", "models").exit_code == 143
    assert cleared == [True]
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_terminal_counts() -> None:
    with Terminal() as terminal:
        terminal.advance(1, 2)
        terminal.stage("first")
        terminal.advance(1, 2)
        terminal.stage("second")
        first, second = terminal._progress.tasks
    assert (first.description, first.completed, first.total) == ("first", 1, 1)
    assert (second.description, second.total) == ("second", None)


def _modules(*arguments: str) -> set[str]:
    """What a process has imported once the command is over."""
    code = (
        "import sys\nfrom conch.cli import app\ntry:\n    app(sys.argv[1:])\nfinally:\n"
        "    print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["package", "--help"], ["package", "check", "--help"]])
def test_the_command_line_starts_without_what_packaging_needs(arguments: Sequence[str]) -> None:
    heavy = {"onnx", "onnxruntime", "torch", "numpy", "tokenizers", "tritonclient", "rich.progress"}
    assert not heavy & _modules(*arguments)


def test_a_graph_is_packaged_without_torch_and_tokenizers(here: Path) -> None:
    loaded = _modules("package", str(here / "net.onnx"), "--data", str(here / "data.npz"), "-o", str(here / "out"))
    assert "onnxruntime" in loaded
    assert not {"torch", "tokenizers", "transformers", "safetensors"} & loaded
