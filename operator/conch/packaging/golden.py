"""Makes the golden set of a model from what that model answers here: each sample alone, then held against batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from conch.packaging.errors import PackagingError
from conch.packaging.output.golden_set import ToleranceWords, golden_set, samples_that_fit
from conch.packaging.output.precision import Precision
from conch.packaging.replay import Answer, replay
from conch.packaging.tensors import Array, Tensors, rows, taken
from conch.triton.comparison import summary
from conch.triton.golden_set import ATOL, RTOL, read_golden_set
from conch.triton.tensors import FLOATS, ModelSignature

_HALF_ATOL: Final = 2e-3
_COARSE_RTOL: Final = 1e-2
_HALVES: Final = ("FP16", "BF16")
_ROUNDS_MOST: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """A golden set and how it came about."""

    content: bytes
    samples: int
    left_out: int = 0
    """Samples whose answers another batch changes by more than is tolerated."""


def make_golden(
    answer: Answer,
    model: ModelSignature,
    inputs: Tensors,
    *,
    count: int,
    tolerances: Mapping[str, ToleranceWords],
    depends_on_batch: bool,
) -> Golden:
    """The answers to `count` of the inputs (evenly spread: data is often sorted by class), fewer where they are large.

    Where the model takes batches, axis 0 of the inputs counts samples; else they are one sample. The set is replayed as
    the agent will. Of a model whose answers depend on the batch, samples that do not stay within the tolerances there
    are left out; of any other that is a PackagingError.
    """
    if model.max_batch_size < 1:
        samples = [dict(inputs)]
    else:
        samples = [taken(inputs, [int(each)]) for each in _spread(rows(inputs), count)]
    first = answer(samples[0])
    fitting = samples_that_fit(samples[0], first, batched=model.max_batch_size > 0)
    if not fitting:
        raise PackagingError(
            "one sample and its answer are too large for a golden set, which servers hold in memory; give smaller "
            "samples with --golden"
        )
    if len(samples) > fitting:
        samples = [samples[int(each)] for each in _spread(len(samples), fitting)]
    answers = [answer(sample) for sample in samples]
    left_out = 0
    for _ in range(_ROUNDS_MOST):
        content = _content(model, samples, answers, tolerances)
        differences = replay(answer, model=model, samples=read_golden_set(content, model))
        wrong = {each.sample for each in differences}
        if not wrong:
            return Golden(content=content, samples=len(samples), left_out=left_out)
        if not depends_on_batch:
            _, words = summary(len(samples), differences)
            raise PackagingError(
                f"the model answers a sample otherwise in a batch than alone: {words}. Dynamic batching would make "
                "answers depend on who else asks: look for what mixes samples (a norm over the batch), or give "
                "--max-batch 1"
            )
        if len(wrong) == len(samples):
            break
        left_out += len(wrong)
        # Another composition changes other answers, so they are asked anew.
        samples = [sample for number, sample in enumerate(samples) if number not in wrong]
        answers = [known for number, known in enumerate(answers) if number not in wrong]
    raise PackagingError(
        "there is no sample whose answer is the same alone and in batches, within the golden set's tolerances; leave "
        "int8 out of --optimise, or give other samples with --golden"
    )


def tolerances_of(
    model: ModelSignature, precision: Precision, *, batch_deviation: float | None, classes: bool
) -> dict[str, ToleranceWords]:
    """How exactly each output has to be repeated, by another server and beside other samples.

    Integers and texts exactly; FP32 within the reader's defaults. Answers of int8 depend on their neighbours in the
    batch and on the processor's instructions: of scores per `classes` only the largest has to stay the largest, other
    values get twice what a batch was seen to change (`batch_deviation`).
    """
    return {
        name: _tolerance(each.datatype, each.shape, precision, batch_deviation or 0.0, classes)
        for name, each in model.outputs.items()
    }


def _tolerance(
    datatype: str, shape: tuple[int, ...], precision: Precision, batch_deviation: float, classes: bool
) -> ToleranceWords:
    if datatype not in FLOATS:
        return "exact"
    if precision is Precision.INT8:
        if classes and shape[-1] > 1:
            return "label"
        return {"atol": max(ATOL, 2 * batch_deviation), "rtol": _COARSE_RTOL}
    if precision is Precision.HALF or datatype in _HALVES:
        return {"atol": _HALF_ATOL, "rtol": _COARSE_RTOL}
    return {"atol": ATOL, "rtol": RTOL}


def _spread(there: int, wanted: int) -> list[int]:
    """Evenly spread numbers below `there`.

    >>> _spread(10, 4)
    [0, 2, 5, 7]
    """
    count = min(there, wanted)
    return [number * there // count for number in range(count)]


def _content(
    model: ModelSignature,
    samples: Sequence[Tensors],
    answers: Sequence[Mapping[str, Array]],
    tolerances: Mapping[str, ToleranceWords],
) -> bytes:
    batched = model.max_batch_size > 0
    datatypes = {each.name: each.datatype for each in (*model.inputs.values(), *model.outputs.values())}

    def column(tensors: Sequence[Mapping[str, Array]], name: str) -> list[Array] | Array:
        return [np.asarray(each[name])[0] for each in tensors] if batched else tensors[0][name]

    return golden_set(
        {name: column(samples, name) for name in model.inputs},
        {name: column(answers, name) for name in model.outputs},
        batched=batched,
        datatypes=datatypes,
        tolerances=tolerances,
    )
