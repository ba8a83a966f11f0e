"""From torch modules to packages: the whole way, with the real torch."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conch.packaging import Head, HeldOut, Optimise, PackagingError, Request, check, package
from tests.packaging import examples
from tests.packaging.examples import Example
from tests.support.text_models import word_tokenizer

CODE = "from conch.cli import main; main()"


def request(model: Example, out: Path, /, **changes: object) -> Request:
    told: dict[str, object] = {"source": model.reference, "example": model.inputs, "dynamic": model.dynamic}
    return Request(out=out, name="net", **(told | changes))  # type: ignore[arg-type]  # each test says its fields


@pytest.mark.parametrize("example", examples.ALL, ids=lambda each: each.file)
def test_each_of_the_six_models(example: Example, tmp_path: Path) -> None:
    made = package(request(example, tmp_path))
    assert made.parity is not None
    assert made.parity.largest <= 1e-5
    assert made.config.max_batch_size == 32
    assert made.golden_count == 5
    assert check(made.path) == ()
    for file in made.path.rglob("*.*"):
        content = file.read_bytes()
        assert str(examples.MODELS).encode() not in content, f"{file} tells where it was made"
    assert {"torch", "onnxscript"} < json.loads((made.path / "conch.json").read_bytes())["tools"].keys()


def test_the_same_module_has_the_same_digest_wherever_it_lies(tmp_path: Path) -> None:
    digests = set()
    for number, folder in enumerate(("one", "another/place")):
        place = tmp_path / folder
        place.mkdir(parents=True)
        shutil.copy(examples.MODELS / "digits.py", place / "digits.py")
        np.savez(place / "x.npz", image=examples.DIGITS.inputs["image"])
        source = f"{place}/digits.py:net" if number else "digits.py:net"
        done = subprocess.run(
            [sys.executable, "-c", CODE, "package", source, "--example-input", "x.npz", "-o", f"out{number}"],
            cwd=place,
            env={**os.environ, "PYTHONHASHSEED": str(number), "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout.splitlines()[-1])
    assert len(digests) == 1


def test_a_pruned_module_that_is_faster_is_served(tmp_path: Path) -> None:
    images = np.random.default_rng(1).normal(size=(40, 1, 28, 28)).astype(np.float32)
    held_out = HeldOut(inputs={"image": images}, target=np.zeros(40, np.int64))
    made = package(request(examples.DIGITS, tmp_path, held_out=held_out, optimise=Optimise(prune=0.75, max_drop=1.0)))
    assert made.choice is not None
    assert [each.name for each in made.variants] == ["fp32", "pruned"]
    assert made.choice.kept.name == "pruned", made.choice.reasons
    assert made.variants[1].bytes < made.variants[0].bytes / 4
    assert check(made.path) == ()


def test_texts_in_front_of_a_module(tmp_path: Path) -> None:
    word_tokenizer().save(str(tmp_path / "tokenizer.json"))
    texts = np.array(["good day", "a bad day", "very " * 70, "odd", "quite a good day"])
    made = package(
        request(
            examples.TEXT,
            tmp_path / "models",
            example=None,
            dynamic=(),
            golden={"text": texts},
            tokenizer=tmp_path / "tokenizer.json",
            max_length=64,
            labels=("a", "b", "c", "d"),
            head=Head.SOFTMAX,
        )
    )
    assert set(made.models) == {"net", "net_model", "net_tokenize"}
    assert made.golden_count == 5
    assert check(made.path) == ()


def test_a_text_longer_than_the_positions(tmp_path: Path) -> None:
    word_tokenizer().save(str(tmp_path / "tokenizer.json"))
    asked = request(
        examples.TEXT,
        tmp_path / "models",
        example=None,
        dynamic=(),
        golden={"text": np.array(["good"])},
        tokenizer=tmp_path / "tokenizer.json",
        max_length=128,
    )
    with pytest.raises(PackagingError):
        package(asked)
    assert not (tmp_path / "models").exists()
