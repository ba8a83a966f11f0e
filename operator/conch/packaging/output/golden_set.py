"""Writes a golden set, in the format that conch/triton/golden_set.py reads.

Values are JSON numbers in the shortest form that reads back as the same float. What JSON cannot hold exactly (FP16,
BF16, NaN, infinities, bytes that are no UTF-8) and tensors of more than 64 values, where it is also shorter, are the
protocol's bytes in base64.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from conch.packaging.errors import PackagingError
from conch.packaging.tensors import Tensors
from conch.triton import golden_set as reader
from conch.triton.tensors import BYTES, FLOATS, Array, Tensor, dtype_of, to_raw

Samples = Mapping[str, Array | Sequence[Array]]
"""By name, with one place per sample along axis 0; a list where the samples' shapes differ."""
ToleranceWords = str | Mapping[str, float]
""""exact", "label" or {"atol": ..., "rtol": ...}."""
_PLAIN_VALUES_MOST: Final = 64
_BASE64_ONLY: Final = frozenset({"FP16", "BF16"})


def golden_set(
    inputs: Samples,
    outputs: Samples,
    *,
    batched: bool,
    datatypes: Mapping[str, str],
    tolerances: Mapping[str, ToleranceWords],
) -> bytes:
    """The content of golden.json: the answers `outputs` to the samples `inputs`.

    Batched, axis 0 of every array counts the samples; else the arrays are one sample. Texts are arrays of str or bytes.
    `datatypes` are Triton's, of every input and output. Raises PackagingError over the limits of those who read it.
    """
    sample_counts = {len(array) if batched else 1 for array in (*inputs.values(), *outputs.values())}
    if len(sample_counts) != 1 or not (count := sample_counts.pop()):
        raise PackagingError("the golden set's inputs and answers are not one each: their batch axes differ, or are 0")
    data = [_entry(inputs, number if batched else None, datatypes) for number in range(count)]
    answers = [_entry(outputs, number if batched else None, datatypes) for number in range(count)]
    ours = {"dtypes": {name: datatypes[name] for name in (*inputs, *outputs)}, "tolerances": dict(tolerances)}
    content = (
        f'{{"data": {_lines(data)},\n"validation_data": {_lines(answers)},\n"conch": {json.dumps(ours)}}}\n'.encode()
    )
    if count > reader.ENTRIES_MOST or len(content) > reader.FILE_BYTES_MOST:
        raise PackagingError(
            f"a golden set of {count} samples would take {len(content) / (1 << 20):.1f} MiB; at most "
            f"{reader.ENTRIES_MOST} samples and {reader.FILE_BYTES_MOST >> 20} MiB are replayed: lower --golden-count"
        )
    return content


def samples_that_fit(inputs: Tensors, outputs: Tensors, *, batched: bool) -> int:
    """How many samples of this size a golden set may hold; 0 where not even one does."""
    arrays = [array[:1] if batched else array for array in (*inputs.values(), *outputs.values())]
    if any(array.size > reader.TENSOR_VALUES_MOST for array in arrays):
        return 0
    each = sum(_written_bytes(array) for array in arrays)
    return min(reader.ENTRIES_MOST, (min(reader.FILE_BYTES_MOST, reader.SET_BYTES_MOST) - 4096) // (each + 128))


def _written_bytes(array: Array) -> int:
    """No fewer than it takes as JSON."""
    if array.dtype.kind in "OSU":
        return sum(16 + 6 * len(item) for item in array.flat) + 64
    return 64 + max(array.nbytes * 4 // 3, 24 * min(array.size, _PLAIN_VALUES_MOST))


def _lines(entries: list[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(json.dumps(entry, allow_nan=False) for entry in entries) + "\n]"


def _entry(tensors: Samples, number: int | None, datatypes: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: _tensor(name, np.asarray(array if number is None else array[number]), datatypes[name])
        for name, array in tensors.items()
    }


def _tensor(name: str, array: Array, datatype: str) -> dict[str, Any]:
    # A sample of a model that has one number each is [1] to Triton.
    array = array.reshape(array.shape or (1,))
    array = _bytes(array) if datatype == BYTES else array.astype(dtype_of(datatype), copy=False)
    return {"content": _content(name, array, datatype), "shape": list(array.shape)}


def _bytes(array: Array) -> Array:
    # One by one: of a list numpy would make texts of one length, without the zeros at their ends.
    whole = np.empty(array.size, dtype=object)
    for number, item in enumerate(array.flat):
        whole[number] = item.encode() if isinstance(item, str) else bytes(item)
    return whole.reshape(array.shape)


def _content(name: str, array: Array, datatype: str) -> Any:
    if array.size <= _PLAIN_VALUES_MOST and datatype not in _BASE64_ONLY:
        if datatype == BYTES:
            try:
                return [item.decode() for item in array.flat]
            except UnicodeDecodeError:
                pass
        elif datatype not in FLOATS:
            return array.reshape(-1).tolist()
        elif np.isfinite(array).all():
            # numpy's words for a float32 are the shortest; as a Python float it would be written with 17 digits.
            return [float(str(value)) for value in array.reshape(-1)]
    raw = to_raw(Tensor(name=name, datatype=datatype, array=array))
    return {"b64": base64.b64encode(raw).decode()}
