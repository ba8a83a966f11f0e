"""Replays a golden set on a served model: each sample alone, and samples of the same shapes together in a batch.

A batch is what dynamic batching makes of several callers' requests, so an answer must not depend on it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from conch.triton.client import TritonClient
from conch.triton.comparison import Difference, compare, difference
from conch.triton.errors import TritonRefusedError
from conch.triton.golden_set import GoldenSetError, Sample
from conch.triton.tensors import ModelSignature, Tensor

INFER_SECONDS: Final = 60.0
"""For one request; a large model may take its time for the first one."""


async def replay(
    triton: TritonClient, name: str, version: int, *, model: ModelSignature, samples: Sequence[Sample]
) -> tuple[Difference, ...]:
    """What the model answers otherwise than recorded; a request that Triton refuses is such a difference.

    Raises TritonUnavailableError when Triton is not there or too busy, GoldenSetError when this kind of model cannot be
    replayed.
    """
    if not model.one_answer:
        raise GoldenSetError("the model is decoupled or takes sequences, so that a request has no answer of its own")
    found: list[Difference] = []
    for batch in batches(samples, model.max_batch_size):
        found += await _ask(triton, name, version, batch, has_batch_axis=model.max_batch_size > 0)
    return tuple(found)


def batches(samples: Sequence[Sample], max_batch_size: int) -> Iterator[Sequence[Sample]]:
    """What is asked together: each sample alone, then as many as fit. An int8 model's answers depend on it."""
    yield from ([sample] for sample in samples)
    alike: dict[object, list[Sample]] = defaultdict(list)
    for sample in samples:
        alike[sample.batch_key].append(sample)
    if max_batch_size > 1:
        for group in alike.values():
            full = [group[start : start + max_batch_size] for start in range(0, len(group), max_batch_size)]
            yield from (batch for batch in full if len(batch) > 1)


async def _ask(
    triton: TritonClient, name: str, version: int, batch: Sequence[Sample], *, has_batch_axis: bool
) -> list[Difference]:
    size = len(batch)
    outputs = dict.fromkeys(each.tensor.name for sample in batch for each in sample.expected)
    inputs = _stacked(batch) if has_batch_axis else batch[0].inputs
    try:
        answers = await triton.infer(name, version, inputs, outputs, timeout_seconds=INFER_SECONDS)
    except TritonRefusedError as error:
        return [difference(sample.number, f"Triton does not answer it: {error}", batch=size) for sample in batch]
    whole = {answer.name: answer for answer in answers}
    found: list[Difference | None] = []
    for position, sample in enumerate(batch):
        for expected in sample.expected:
            answer = whole.get(expected.tensor.name)
            if answer is not None and has_batch_axis:
                if answer.shape[:1] != (size,):
                    words = f"{answer.name} has the shape {list(answer.shape)}, which is no batch of {size}"
                    found.append(difference(sample.number, words, batch=size))
                    continue
                own = answer.array[position : position + 1].reshape(answer.shape[1:])
                answer = Tensor(name=answer.name, datatype=answer.datatype, array=own)
            found.append(compare(sample.number, expected, answer, batch=size))
    return [each for each in found if each is not None]


def _stacked(batch: Sequence[Sample]) -> list[Tensor]:
    """The inputs with a batch axis; by name, since an entry may list them in any order."""
    by_name = [{tensor.name: tensor.array for tensor in sample.inputs} for sample in batch]
    return [
        Tensor(name=first.name, datatype=first.datatype, array=np.stack([arrays[first.name] for arrays in by_name]))
        for first in batch[0].inputs
    ]
