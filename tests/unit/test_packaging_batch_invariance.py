"""Whether a sample's answer depends on its neighbours: real graphs in three precisions, and every kind of output."""

import math

import numpy as np
import pytest

from conch.packaging.errors import PackagingError
from conch.packaging.graph.clean import to_bytes
from conch.packaging.graph.session import Port, Runner
from conch.packaging.optimise.batch_invariance import deviation_in_batch
from conch.packaging.optimise.int8 import dynamic_int8, static_int8
from conch.packaging.tensors import Array, Tensors
from tests.unit import optimise_graphs as graphs

X = {"x": graphs.clusters(64)[0]}


class Neighbourly(Runner):
    """Adds `shift` to the answer of sample 2 where it is not alone."""

    def __init__(self, answers: Array, shift: Array | float | str) -> None:
        self.answers, self.shift = answers, shift
        self.inputs = (Port(name="x", dtype=np.dtype(np.int64), dims=("batch",)),)
        self.outputs = (Port(name="y", dtype=answers.dtype, dims=("batch",)),)

    def run(self, inputs: Tensors) -> dict[str, Array]:
        answers = self.answers[inputs["x"]].copy()
        if len(answers) > 1:
            answers[np.flatnonzero(inputs["x"] == 2)] = self.shift
        return {"y": answers}


NUMBERS = {"x": np.arange(4)}


@pytest.mark.parametrize(
    ("answers", "shift", "deviation"),
    [
        (np.array([0, 1, 2, 3], np.float32), 2.5, 0.5),
        (np.array([0, 1, 2, 3], np.float32), 2, 0),
        (np.array([0, 1, 2, 3], np.uint8), 0, 2),
        (np.array(["a", "b", "c", "d"], np.object_), "a", 1),
        (np.array(["a", "b", "c", "d"], np.object_), "c", 0),
        (np.array([True, True, True, False]), False, 1),
        (np.array([0, 1, 2, 3], np.float32), math.nan, math.inf),
        (np.array([0, 1, np.nan, np.inf], np.float32), math.nan, 0),
        (np.array([[0, 1], [2, 3], [4, 5], [6, 7]], np.float32), np.array([4, 9], np.float32), 4),
        (np.zeros((4, 0), np.float32), 0, 0),
    ],
)
def test_the_largest_change(answers: Array, shift: Array | float | str, deviation: float) -> None:
    assert deviation_in_batch(Neighbourly(answers, shift), NUMBERS, batch=4) == deviation


def test_samples_beyond_the_batch_are_left_out_and_few_are_repeated() -> None:
    runner = Neighbourly(np.array([0, 1, 2, 3], np.float32), 3)
    assert deviation_in_batch(runner, NUMBERS, batch=2) == 0
    assert deviation_in_batch(runner, NUMBERS, batch=64) == 1


def test_precisions() -> None:
    graph = graphs.classifier()
    fp32, static, dynamic = (
        deviation_in_batch(Runner(to_bytes(each)), X) for each in (graph, static_int8(graph, X), dynamic_int8(graph))
    )
    assert fp32 < 1e-6
    # Rounding may put a value on the other side of a step, but never far.
    assert static < 1e-6
    assert dynamic > 1e-4


@pytest.mark.parametrize(("samples", "batch"), [(1, 64), (0, 64), (4, 1)])
def test_too_few_samples(samples: int, batch: int) -> None:
    with pytest.raises(PackagingError, match=f"{samples} samples in batches of {batch}: .*two different samples"):
        deviation_in_batch(Neighbourly(np.zeros(4), 0), {"x": np.arange(samples)}, batch=batch)
