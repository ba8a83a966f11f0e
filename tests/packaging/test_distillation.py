"""The recipe of manifests/samples: a student that has learnt from the digits-cnn is smaller, no worse, and packaged."""

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Final
from unittest import mock

import pytest
import torch
from safetensors.torch import save_file

from conch.packaging.options import read_held_out, read_labels
from conch.packaging.packaging import package
from conch.packaging.request import Head, Request
from conch.packaging.source.torch_module import load_module, load_object

SCRIPT: Final = Path(__file__).parents[2] / "manifests" / "samples" / "distillation.py"
TEMPERATURE: Final = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What the script has printed and written, of a teacher that was trained before."""

    out: Path
    teacher: torch.nn.Module
    printed: dict[str, tuple[float, int]]
    """Accuracy and number of weights, by who it is."""

    @property
    def student(self) -> torch.nn.Module:
        """As it was written."""
        return load_module(f"{SCRIPT}:net", self.out / "weights.safetensors")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    out = tmp_path_factory.mktemp("distilled")
    sample = load_object(f"{SCRIPT}:teacher_sample")()
    torch.manual_seed(sample.SEED)
    teacher = sample.Net()
    sample.fit(teacher, sample.EPOCHS)
    save_file(teacher.state_dict(), out / "teacher.safetensors")
    command = [SCRIPT.name, "--out", str(out), "--teacher", str(out / "teacher.safetensors")]
    with mock.patch.object(sys, "argv", command), redirect_stdout(StringIO()) as stdout:
        load_object(f"{SCRIPT}:main")()
    printed = {}
    for line in stdout.getvalue().splitlines():
        who, _, rest = line.partition(": accuracy ")
        score, _, weights = rest.removesuffix(" weights").partition(", ")
        printed[who] = float(score), int(weights.replace(",", ""))
    return Recipe(out=out, teacher=teacher, printed=printed)


def test_the_student_is_smaller_and_no_worse_than_without_a_teacher(recipe: Recipe) -> None:
    assert [*recipe.printed] == ["teacher", "student", "student without the teacher"]
    (teacher, teacher_weights), (student, weights), (plain, plain_weights) = recipe.printed.values()
    assert (teacher > 0.95, student > 0.93) == (True, True), recipe.printed
    assert student >= plain - 0.01, recipe.printed
    assert weights == plain_weights < teacher_weights / 60, recipe.printed


def test_the_student_answers_more_like_the_teacher_than_one_that_never_saw_it(recipe: Recipe) -> None:
    """Also where all of them are right: in how likely they find the other digits."""
    train, answers, sample = (load_object(f"{SCRIPT}:{name}") for name in ("train", "answers", "teacher_sample"))
    (images, labels), (held_out, _) = sample().data()
    wanted = (answers(recipe.teacher, held_out) / TEMPERATURE).softmax(dim=-1)

    def distance(module: torch.nn.Module) -> float:
        given = (answers(module, held_out) / TEMPERATURE).log_softmax(dim=-1)
        return float(torch.nn.functional.kl_div(given, wanted, reduction="batchmean"))

    assert distance(recipe.student) < distance(train(images, labels)) / 2


def test_the_student_is_packaged_as_the_scripts_usage_says(recipe: Recipe, tmp_path: Path) -> None:
    made = package(
        Request(
            source=f"{SCRIPT}:net",
            out=tmp_path / "models",
            name="digits-cnn",
            version=3,
            weights=recipe.out / "weights.safetensors",
            held_out=read_held_out(recipe.out / "test.npz"),
            labels=read_labels(recipe.out / "labels.txt"),
            head=Head.SOFTMAX,
        )
    )
    assert made.choice is not None
    score = made.choice.kept.score
    assert score is not None
    accuracy, weights = recipe.printed["student"]
    assert score.value == pytest.approx(accuracy, abs=1e-3)
    assert [each.name for each in made.config.output] == ["LABEL", "SCORE"]
    assert made.choice.kept.bytes < 5 * weights
