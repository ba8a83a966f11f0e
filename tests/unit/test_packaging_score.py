"""The score of answers on held-out data: accuracy for classes, R2 for values, and what does not fit."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from conch.packaging.errors import PackagingError
from conch.packaging.graph.clean import to_bytes
from conch.packaging.graph.session import Port, Runner
from conch.packaging.optimise.not_made import NotMade
from conch.packaging.optimise.score import Score, score
from conch.packaging.request import HeldOut
from conch.packaging.tensors import Array, Tensors
from tests.unit import optimise_graphs as graphs


class Answering(Runner):
    """Gives the answers that were set, sample by sample; the input is the sample's number."""

    def __init__(self, **answers: Array) -> None:
        self.answers = answers
        self.batches: list[int] = []
        self.inputs = (Port(name="x", dtype=np.dtype(np.int64), dims=("batch",)),)
        self.outputs = tuple(
            Port(name=name, dtype=array.dtype, dims=("batch", *array.shape[1:])) for name, array in answers.items()
        )

    def run(self, inputs: Tensors) -> dict[str, Array]:
        self.batches.append(len(inputs["x"]))
        return {name: array[inputs["x"]] if array.ndim else array for name, array in self.answers.items()}


def held_out(target: Any) -> HeldOut:
    target = np.asarray(target)
    return HeldOut(inputs={"x": np.arange(len(target))}, target=target)


LOGITS = np.array([[3, 1, 0], [0, 2, 1], [0, 1, 2], [5, 1, 2]], np.float32)
VALUES = np.array([[1.0], [2.0], [3.0], [5.0]], np.float32)


def test_accuracy() -> None:
    assert score(Answering(y=LOGITS), held_out([0, 1, 2, 1]), batch=4) == Score(metric="accuracy", value=0.75)


@pytest.mark.parametrize("target", [[[0], [1], [2], [0]], np.array([0, 1, 2, 0], np.uint8)])
def test_accuracy_takes_targets_as_columns_and_of_any_integer_type(target: Any) -> None:
    assert score(Answering(y=LOGITS), held_out(target), batch=4).value == 1


def test_accuracy_of_booleans() -> None:
    assert score(Answering(y=LOGITS[:, :2]), held_out([False, True, True, True]), batch=4).value == 0.75


def test_accuracy_of_every_position() -> None:
    tokens = np.stack([LOGITS, LOGITS[::-1]])
    assert score(Answering(y=tokens), held_out([[0, 1, 2, 0], [0, 2, 1, 2]]), batch=1).value == 7 / 8


def test_accuracy_of_class_numbers_that_the_graph_gives() -> None:
    assert score(Answering(y=np.array([[0], [1], [2], [2]])), held_out([0, 1, 2, 0]), batch=4).value == 0.75


def test_a_masked_class_may_be_minus_infinity() -> None:
    masked = LOGITS.copy()
    masked[:, 2] = -np.inf
    assert score(Answering(y=masked), held_out([0, 1, 1, 0]), batch=4).value == 1


def test_r2() -> None:
    # By hand: mean 2.75, spread 3.0625 + .5625 + .0625 + 5.0625 = 8.75, errors 1.
    found = score(Answering(y=VALUES), held_out([[1.0], [2.0], [3.0], [4.0]]), batch=4)
    assert found.metric == "R2"
    assert found.value == pytest.approx(1 - 1 / 5)
    assert score(Answering(y=VALUES), held_out([1.0, 2.0, 3.0, 5.0]), batch=4).value == 1


def test_r2_of_several_columns_is_their_mean_and_a_constant_one_counts_if_it_is_met() -> None:
    target = np.hstack([VALUES, np.full((4, 1), 7.0)])
    met, missed = target.astype(np.float32), target.astype(np.float32)
    missed[0, 1] = 8
    assert score(Answering(y=met), held_out(target), batch=4).value == 1
    assert score(Answering(y=missed), held_out(target), batch=4).value == 0.5


def test_the_first_output_that_fits_unless_one_is_named() -> None:
    runner = Answering(
        hidden=np.ones((4, 8, 3), np.float32), total=np.array(3, np.float32), a=LOGITS, b=LOGITS[:, ::-1]
    )
    assert score(runner, held_out([0, 1, 2, 0]), batch=2).value == 1
    assert score(runner, held_out([0, 1, 2, 0]), output="b", batch=2).value == 0.25
    with pytest.raises(PackagingError, match="no output 'c' to score; its outputs: hidden, total, a, b"):
        score(runner, held_out([0, 1, 2, 0]), output="c", batch=2)


@pytest.mark.parametrize(("batch", "sizes"), [(0, [1] * 4), (1, [1] * 4), (3, [3, 1]), (9, [4])])
def test_batches_as_the_server_makes_them(batch: int, sizes: list[int]) -> None:
    runner = Answering(y=LOGITS)
    assert score(runner, held_out([0, 1, 2, 0]), batch=batch).value == 1
    assert runner.batches == sizes


def test_a_real_graph_is_better_than_chance() -> None:
    found = score(Runner(to_bytes(graphs.classifier())), graphs.held_out(), batch=32)
    assert 0.8 < found.value < 1


def changed(array: npt.NDArray[np.float32], value: float) -> npt.NDArray[np.float32]:
    copy = array.copy()
    copy[2, 0] = value
    return copy


@pytest.mark.parametrize(
    ("answers", "target", "words"),
    [
        (
            changed(LOGITS, math.nan),
            [0, 1, 2, 0],
            "the output 'y' is NaN for 1 of 4 held-out samples, the first is sample 2",
        ),
        (changed(VALUES, math.inf), [[1.0], [2.0], [3.0], [4.0]], "'y' is NaN or infinite for 1 of 4 .* sample 2"),
    ],
)
def test_answers_that_are_no_numbers(answers: Array, target: Any, words: str) -> None:
    with pytest.raises(NotMade, match=words):
        score(Answering(y=answers), held_out(target), batch=2)


@pytest.mark.parametrize(
    ("answers", "target", "words"),
    [
        (LOGITS, [0, 1, 2, 3], r"class numbers from 0 to 3: expected 0 to 2, as the output 'y' has 3 classes"),
        (LOGITS, [-1, 1, 2, 0], r"class numbers from -1 to 2: expected 0 to 2"),
        (VALUES, [0, 1, 1, 0], r"which is int64\[4\]: integers mean classes.*two at least.*Found y = float32\[4,1\]"),
        (LOGITS, [0.5, 1, 2, 0], r"which is float64\[4\]: floats mean values.*Found y = float32\[4,3\]"),
        (np.float32(1), [0, 1, 2, 0], r"no output fits.*Found no output with a row per sample"),
        (LOGITS, ["a", "b", "c", "d"], r"the held-out target is str\d*: expected integers .* or floats"),
        (VALUES, [1.0, 2.0, math.nan, 4.0], r"held-out target has NaN or infinity"),
        (LOGITS, np.zeros(0, np.int64), r"held-out data has no samples"),
    ],
    ids=["class too large", "class too small", "one value", "too many values", "scalar", "text", "nan", "empty"],
)
def test_targets_that_do_not_fit(answers: Array, target: Any, words: str) -> None:
    with pytest.raises(PackagingError, match=words):
        score(Answering(y=np.asarray(answers)), held_out(target), batch=2)


def test_lengths_that_differ() -> None:
    wrong = HeldOut(inputs={"x": np.arange(3)}, target=np.array([0, 1, 2, 0]))
    with pytest.raises(PackagingError, match="tensor 'x' has 3 samples: expected 4, as in the target"):
        score(Answering(y=LOGITS), wrong, batch=2)
