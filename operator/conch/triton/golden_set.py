"""A model's golden set: recorded samples with the answers that are right, in perf_analyzer's input-data format.

`{"data": [{"x": TENSOR}], "validation_data": [{"scores": TENSOR}], "conch": {...}}`; entry by entry the two belong
together, and an entry is one sample, without a batch axis. A tensor is a list of values, or `{"content": ...}` with
such a list or `{"b64": ...}` in it, or `{"b64": ...}` (the protocol's bytes); the last two may have a `shape`.
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/perf_analyzer/docs/input_data.html

What perf_analyzer ignores is Conch's: `"conch": {"dtypes": {"x": "FP32"}, "tolerances": {"scores": "exact" | "label" |
{"atol": 1e-4, "rtol": 1e-3}}}`. "label" asks only that the largest value of the last axis is where it was: what holds
of an int8 model, whose scores depend on their neighbours in a batch.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from conch.triton.tensors import (
    BYTES,
    DATATYPES,
    FLOATS,
    Array,
    ModelSignature,
    Tensor,
    TensorError,
    TensorSignature,
    allowed_shape,
    fits,
    from_raw,
    from_values,
    shaped,
    size_bytes,
)

ATOL: Final = 1e-4
RTOL: Final = 1e-3
FILE_BYTES_MOST: Final = 8 << 20
"""What is read is in memory beside every model, as text and as arrays."""
SET_BYTES_MOST: Final = 8 << 20
TENSOR_VALUES_MOST: Final = 1 << 21
ENTRIES_MOST: Final = 256
_FORM: Final = '{"data": [{"INPUT": VALUES}], "validation_data": [{"OUTPUT": VALUES}]}'
_LISTED_MOST: Final = 8


class GoldenSetError(Exception):
    """The set cannot be replayed as it is; the message says which entry and tensor is wrong, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """An output passes where |answer - expected| <= atol + rtol * |expected|."""

    atol: float = ATOL
    rtol: float = RTOL


@dataclass(frozen=True, slots=True, kw_only=True)
class SameLabel:
    """An output passes where the largest value of its last axis is at the expected place."""


Tolerance = Within | SameLabel
EXACT: Final = Within(atol=0, rtol=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What an output shall be; without a batch axis."""

    tensor: Tensor
    tolerance: Tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One entry of the set, from 0; as they are recorded, its tensors have no batch axis."""

    number: int
    inputs: tuple[Tensor, ...]
    expected: tuple[Expected, ...]
    """Empty where the set holds no answers."""

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Samples with the same key can be parts of one batch."""
        return tuple(sorted((each.name, each.shape) for each in self.inputs))


def read_golden_set(content: bytes, model: ModelSignature) -> tuple[Sample, ...]:
    """All samples of a golden.json, each with an answer, within the limits of this file. Raises GoldenSetError."""
    reader = _Reader.of(_json(content), model, bounded=True)
    entries, answers = reader.part("data"), reader.part("validation_data")
    if not entries or len(entries) != len(answers):
        raise GoldenSetError(
            f"data has {len(entries)} entries and validation_data {len(answers)}; each sample needs its answer"
        )
    if len(entries) > ENTRIES_MOST:
        raise GoldenSetError(f"it has {len(entries)} samples; {ENTRIES_MOST} are allowed")
    samples = []
    for number, (entry, answer) in enumerate(zip(entries, answers, strict=True)):
        sample = reader.sample(number, entry, answer)
        if not sample.expected:
            raise GoldenSetError(f"validation_data[{number}] expects no output")
        samples.append(sample)
    return tuple(samples)


def read_sample(body: Any, number: int, model: ModelSignature) -> Sample:
    """One sample of what a golden.json holds, of any size; the others may be wrong. Raises GoldenSetError.

    The set may also hold no answers, or none to this sample.
    """
    reader = _Reader.of(body, model, bounded=False)
    entry = _numbered(reader.part("data"), "data", number)
    answers = reader.part("validation_data") if "validation_data" in reader.body else None
    answer = {} if answers is None else _numbered(answers, "validation_data", number)
    return reader.sample(number, entry, answer)


@dataclass(slots=True, kw_only=True)
class _Reader:
    body: Mapping[str, Any]
    model: ModelSignature
    datatypes: Mapping[str, Any]
    tolerances: Mapping[str, Any]
    bounded: bool
    bytes: int = 0

    @classmethod
    def of(cls, body: Any, model: ModelSignature, *, bounded: bool) -> Self:
        if not isinstance(body, dict):
            raise GoldenSetError(f"it is no object; a golden set is {_FORM}")
        # Also where that is null.
        ours = _object({} if (told := body.get("conch")) is None else told, "conch")
        tolerances = _object(ours.get("tolerances", {}), "conch.tolerances")
        for name in tolerances:
            _known(model.outputs, name, f"conch.tolerances.{name}", "output")
        datatypes = _object(ours.get("dtypes", {}), "conch.dtypes")
        return cls(body=body, model=model, datatypes=datatypes, tolerances=tolerances, bounded=bounded)

    def part(self, name: str) -> list[Any]:
        if not isinstance(part := self.body.get(name), list):
            raise GoldenSetError(f"{name} is no list of samples; a golden set is {_FORM}")
        return part

    def sample(self, number: int, entry: Any, answer: Any) -> Sample:
        if isinstance(entry, list):
            raise GoldenSetError(f"data[{number}] is a list: the steps of a sequence, which are not replayed")
        inputs = tuple(self._inputs(f"data[{number}]", entry))
        expected = tuple(self._expected(f"validation_data[{number}]", answer))
        return Sample(number=number, inputs=inputs, expected=expected)

    def _inputs(self, place: str, entry: Any) -> list[Tensor]:
        read = []
        for name, value in _object(entry, place).items():
            where = f"{place}.{name}"
            signature = _known(self.model.inputs, name, where, "input")
            tensor = self._tensor(where, value, signature)
            if tensor.datatype != signature.datatype:
                raise GoldenSetError(
                    f"{where}: it was recorded as {tensor.datatype}, the model takes {signature.datatype}"
                )
            read.append(tensor)
        return read

    def _expected(self, place: str, entry: Any) -> list[Expected]:
        read = []
        for name, value in _object(entry, place).items():
            where = f"{place}.{name}"
            tensor = self._tensor(where, value, _known(self.model.outputs, name, where, "output"))
            tolerance = _tolerance(f"conch.tolerances.{name}", tensor, self.tolerances.get(name))
            read.append(Expected(tensor=tensor, tolerance=tolerance))
        return read

    def _tensor(self, where: str, value: Any, signature: TensorSignature) -> Tensor:
        datatype = self.datatypes.get(signature.name, signature.datatype)
        if not isinstance(datatype, str) or datatype not in DATATYPES:
            raise GoldenSetError(f"conch.dtypes.{signature.name}: {datatype!r} is no datatype of Triton")
        body = value if isinstance(value, dict) else {"content": value}
        shape = body.get("shape")
        if shape is not None and not allowed_shape(shape):
            raise GoldenSetError(f"{where}: the shape {str(shape)[:80]} is no list of lengths")
        try:
            array = _array(datatype, body)
            if self.bounded:
                self._count(array)
            array = shaped(array, shape) if shape is not None else _default_shape(array, signature)
        except TensorError as error:
            raise GoldenSetError(f"{where}: {error}") from error
        return Tensor(name=signature.name, datatype=datatype, array=array)

    def _count(self, array: Array) -> None:
        if array.size > TENSOR_VALUES_MOST:
            raise TensorError(f"it has {array.size} values; {TENSOR_VALUES_MOST} are allowed")
        self.bytes += size_bytes(array)
        if self.bytes > SET_BYTES_MOST:
            raise TensorError(f"up to here the set takes more than {SET_BYTES_MOST >> 20} MiB; make it smaller")


def _json(content: bytes) -> Any:
    if len(content) > FILE_BYTES_MOST:
        raise GoldenSetError(f"it has more than {FILE_BYTES_MOST >> 20} MiB; record fewer samples, or as b64")
    try:
        return json.loads(content)
    except RecursionError as error:
        raise GoldenSetError("it is nested too deeply") from error
    except ValueError as error:
        raise GoldenSetError(f"it is no JSON: {error}") from error


def _array(datatype: str, body: Mapping[str, Any]) -> Array:
    """The values; of b64 they are flat."""
    content = body if "b64" in body else body.get("content")
    match content:
        case list():
            return from_values(datatype, content)
        case {"b64": str() as encoded}:
            try:
                return from_raw(datatype, base64.b64decode(encoded, validate=True))
            except TensorError:
                raise
            except ValueError as error:
                raise TensorError("its b64 is not base64") from error
        case _:
            raise TensorError('it is neither a list of values nor {"b64": "..."}')


def _default_shape(array: Array, signature: TensorSignature) -> Array:
    """Without a shape the model's is meant, where that leaves no choice; else that of nested lists."""
    if signature.whole_shape is not None and fits(array.shape, signature.whole_shape):
        return array
    if signature.shape.count(-1) <= 1:
        return shaped(array, signature.shape)
    if array.ndim == len(signature.shape):
        return array
    raise TensorError(f"it needs a shape: the model's {list(signature.shape)} is open")


def _tolerance(where: str, tensor: Tensor, told: Any) -> Tolerance:
    match told:
        case None:
            return Within() if tensor.datatype in FLOATS else EXACT
        case "exact":
            return EXACT
        case "label" if tensor.datatype in FLOATS and tensor.array.ndim and tensor.shape[-1] > 1:
            return SameLabel()
        case {"atol": float() | int() as atol, "rtol": float() | int() as rtol} if (
            tensor.datatype not in (BYTES, "BOOL") and 0 <= atol < float("inf") and 0 <= rtol < float("inf")
        ):
            return Within(atol=atol, rtol=rtol)
        case _:
            raise GoldenSetError(
                f'{where}: of {tensor.datatype} {list(tensor.shape)} it may be "exact", of numbers atol and rtol (not '
                'negative), of floats with several values in the last axis "label"'
            )


def _known(signatures: Mapping[str, TensorSignature], name: str, where: str, kind: str) -> TensorSignature:
    if name not in signatures:
        has = ", ".join(list(signatures)[:_LISTED_MOST]) or "none"
        raise GoldenSetError(f"{where}: the model has no such {kind}; it has {has}")
    return signatures[name]


def _numbered(part: list[Any], name: str, number: int) -> Any:
    if not 0 <= number < len(part):
        raise GoldenSetError(f"{name} has {len(part)} samples, numbered from 0; there is none {number}")
    return part[number]


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise GoldenSetError(f"{place} is no object")
    return value
