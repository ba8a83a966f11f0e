"""How good a graph's answers are on data that it has not been trained on."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from conch.packaging.errors import PackagingError
from conch.packaging.graph.session import Runner
from conch.packaging.optimise.not_made import NotMade
from conch.packaging.request import HeldOut
from conch.packaging.tensors import Array, Tensors, taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The larger the better; 1 is perfect."""

    metric: Literal["accuracy", "R2"]
    value: float


def score(runner: Runner, held_out: HeldOut, *, output: str | None = None, batch: int) -> Score:
    """Accuracy for integer targets, R2 for floats, answered in batches of `batch` as the server will make them.

    The batch matters: dynamic int8 answers differently beside other samples. `output` is by default the graph's first
    that fits the target: scores per class (largest on the last axis) or class numbers for accuracy, as many values as
    the target for R2. R2 = 1 - (sum of squared errors) / (sum of squared deviations from the mean), averaged over the
    target's columns; a column that is constant counts 1 if it is met exactly, else 0.

    Raises PackagingError where data, target and outputs do not fit, NotMade where an answer is no number.
    """
    target = held_out.target
    count = _count(held_out)
    if output is not None and output not in {port.name for port in runner.outputs}:
        names = ", ".join(port.name for port in runner.outputs)
        raise PackagingError(f"the graph has no output {output!r} to score; its outputs: {names}")
    answers = _answers(runner, held_out.inputs, count=count, batch=max(1, batch))
    candidates = {name: array for name, array in answers.items() if output in (None, name)}
    is_class = target.dtype.kind in "iub"
    if not is_class and target.dtype.kind != "f":
        raise PackagingError(
            f"the held-out target is {target.dtype.name}: expected integers (class numbers, for accuracy) or floats "
            "(values, for R2)"
        )
    for name, array in candidates.items():
        if is_class:
            classes = _classes(name, array, target)
            if classes is not None:
                return Score(metric="accuracy", value=float(np.mean(classes == target.reshape(classes.shape))))
        elif array.dtype.kind in "fiu" and array.size == target.size:
            return Score(metric="R2", value=_r2(_sound(name, array, ~np.isfinite(array), "NaN or infinite"), target))
    raise PackagingError(_misfit(candidates, target, is_class=is_class))


def _count(held_out: HeldOut) -> int:
    target = held_out.target
    if not held_out.inputs or target.ndim == 0 or target.shape[0] == 0:
        raise PackagingError("the held-out data has no samples: give inputs and a target with one sample at least")
    for name, array in held_out.inputs.items():
        found = array.shape[0] if array.ndim else 0
        if found != target.shape[0]:
            raise PackagingError(
                f"the held-out data's tensor {name!r} has {found} samples: expected {target.shape[0]}, as in the target"
            )
    if target.dtype.kind == "f" and not np.isfinite(target).all():
        raise PackagingError("the held-out target has NaN or infinity: leave such samples out")
    return int(target.shape[0])


def _answers(runner: Runner, inputs: Tensors, *, count: int, batch: int) -> dict[str, Array]:
    """The outputs that have a row for each sample, joined over all batches."""
    starts = range(0, count, batch)
    parts = [runner.run(taken(inputs, slice(start, start + batch))) for start in starts]
    lengths = [min(batch, count - start) for start in starts]
    return {
        port.name: np.concatenate(arrays)
        for port in runner.outputs
        if (arrays := [part[port.name] for part in parts])
        and all(
            array.ndim and len(array) == length and array.shape[1:] == arrays[0].shape[1:]
            for array, length in zip(arrays, lengths, strict=True)
        )
    }


def _classes(name: str, array: Array, target: Array) -> npt.NDArray[np.int64] | None:
    """The class number of each answer; None where the output is not about classes of this target."""
    shape = _squeezed(target.shape)
    if array.dtype.kind in "iu" and _squeezed(array.shape) == shape:
        return np.asarray(array.reshape(shape), dtype=np.int64)
    if array.dtype.kind != "f" or array.ndim < 2 or array.shape[-1] < 2 or _squeezed(array.shape[:-1]) != shape:
        return None
    least, most, classes = int(target.min()), int(target.max()), array.shape[-1]
    if least < 0 or most >= classes:
        raise PackagingError(
            f"the held-out target has class numbers from {least} to {most}: expected 0 to {classes - 1}, as the output "
            f"{name!r} has {classes} classes"
        )
    # Infinity may be meant: the score of a class that is masked out.
    numbers = _sound(name, array, np.isnan(array), "NaN")
    return np.asarray(np.argmax(numbers, axis=-1).reshape(shape), dtype=np.int64)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without axes of length 1 behind the batch: a target of [100, 1] is one of [100]."""
    return (*shape[:1], *(length for length in shape[1:] if length != 1))


def _sound(name: str, array: Array, bad: npt.NDArray[np.bool_], what: str) -> Array:
    samples: npt.NDArray[np.bool_] = np.any(bad.reshape(bad.shape[0], -1), axis=1)
    if samples.any():
        raise NotMade(
            f"the output {name!r} is {what} for {int(samples.sum())} of {len(samples)} held-out samples, the first is "
            f"sample {int(np.argmax(samples))}"
        )
    return array


def _r2(answers: Array, target: Array) -> float:
    columns = target.reshape(target.shape[0], -1).astype(np.float64)
    errors = ((columns - answers.reshape(columns.shape).astype(np.float64)) ** 2).sum(axis=0)
    spread = ((columns - columns.mean(axis=0)) ** 2).sum(axis=0)
    constant = np.where(errors == 0, 1.0, 0.0)
    return float(np.mean(np.where(spread > 0, 1 - errors / np.where(spread > 0, spread, 1.0), constant)))


def _misfit(candidates: dict[str, Array], target: Array, *, is_class: bool) -> str:
    described = ", ".join(f"{name} = {_described(array)}" for name, array in candidates.items())
    found = described or "no output with a row per sample"
    wanted = (
        "integers mean classes, so an output needs scores per class on its last axis (two at least), or class numbers; "
        "give floats to score values by R2"
        if is_class
        else "floats mean values, so an output needs as many of them; give integers to score classes by accuracy"
    )
    return f"no output fits the held-out target, which is {_described(target)}: {wanted}. Found {found}"


def _described(array: np.ndarray[Any, np.dtype[Any]]) -> str:
    return f"{array.dtype.name}[{','.join(map(str, array.shape))}]"
