"""Replays a golden set on this machine, as conch/triton/replay.py does on a served model: alone and in batches."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from conch.packaging.errors import PackagingError
from conch.packaging.tensors import Array
from conch.triton.comparison import Difference, compare, difference
from conch.triton.golden_set import Sample
from conch.triton.replay import batches
from conch.triton.tensors import BYTES, ModelSignature, Tensor

Answer = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""A model: from inputs to outputs by name, with a batch axis where it takes batches. Texts may be str or bytes."""


def replay(answer: Answer, *, model: ModelSignature, samples: Sequence[Sample]) -> tuple[Difference, ...]:
    """What the model answers otherwise than recorded; that it fails on a request is such a difference."""
    found: list[Difference] = []
    for batch in batches(samples, model.max_batch_size):
        found += _ask(answer, batch, model)
    return tuple(found)


def _ask(answer: Answer, batch: Sequence[Sample], model: ModelSignature) -> Iterator[Difference]:
    size, batched = len(batch), model.max_batch_size > 0
    by_name = [{tensor.name: tensor.array for tensor in sample.inputs} for sample in batch]
    try:
        inputs = {
            name: np.stack([arrays[name] for arrays in by_name]) if batched else by_name[0][name] for name in by_name[0]
        }
        outputs = answer(inputs)
    except PackagingError as error:
        yield from (difference(sample.number, f"it fails: {error}", batch=size) for sample in batch)
        return
    for position, sample in enumerate(batch):
        for expected in sample.expected:
            name, datatype = expected.tensor.name, expected.tensor.datatype
            array = outputs.get(name)
            if array is not None and batched and array.shape[:1] != (size,):
                yield difference(
                    sample.number, f"{name} has the shape {list(array.shape)}, which is no batch of {size}", batch=size
                )
                continue
            told = None
            if array is not None:
                own = np.asarray(array[position] if batched else array)
                if (own.dtype == object) != (datatype == BYTES):
                    words = f"{name} is {'texts' if own.dtype == object else own.dtype.name}, expected {datatype}"
                    yield difference(sample.number, words, batch=size)
                    continue
                told = Tensor(name=name, datatype=datatype, array=_as_served(own, datatype))
            if found := compare(sample.number, expected, told, batch=size):
                yield found


def _as_served(array: Array, datatype: str) -> Array:
    """As it would come from Triton: texts as bytes, and one number per sample as [1]."""
    array = array.reshape(array.shape or (1,))
    if datatype != BYTES:
        return array
    texts = np.empty(array.size, dtype=object)
    for number, item in enumerate(array.flat):
        texts[number] = item.encode() if isinstance(item, str) else item
    return texts.reshape(array.shape)
