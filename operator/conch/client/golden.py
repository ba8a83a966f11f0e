"""A model's golden set: samples with the answers that are right, in perf_analyzer's input-data format.

`{"data": [{"x": {"content": [...], "shape": [...]}}], "validation_data": [{"scores": {...}}]}`. A tensor is a list, or
has `content` (a list) or `b64` (the protocol's bytes). Each entry is one sample, without a batch axis. What
perf_analyzer ignores, `{"conch": {"tolerances": {"scores": "exact" | {"atol": 1e-4, "rtol": 1e-3}}}}`, says how far an
output may be from its expectation.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from conch.client.errors import ClientError
from conch.client.metadata import ModelMetadata, Signature
from conch.client.tensors import BYTES, Array, Tensor, from_raw, from_values, shaped

ATOL: Final = 1e-4
RTOL: Final = 1e-3
_DISCRETE: Final = "Obiu"
"""numpy's kinds of BYTES, BOOL and integers: equal unless the set says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """An output passes where |answer - expected| <= atol + rtol * |expected|."""

    atol: float = ATOL
    rtol: float = RTOL


EXACT: Final = Tolerance(atol=0, rtol=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What an output shall be; without a batch axis."""

    tensor: Tensor
    tolerance: Tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One entry of the set, as a batch of one where the model has a batch axis."""

    number: int
    inputs: tuple[Tensor, ...]
    expected: tuple[Expected, ...] = ()
    """Empty where the set holds no answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one output compares; `words` say it for a person."""

    output: str
    passed: bool
    words: str


def read_sample(body: Any, number: int, metadata: ModelMetadata) -> Sample:
    """The sample of this number, from 0. Raises ClientError."""
    if not isinstance(body, dict) or not isinstance(body.get("data"), list):
        raise ClientError('A golden set is {"data": [{"INPUT": {"content": [...], "shape": [...]}}]}.')
    inputs = _entry(body, "data", number)
    expected = _entry(body, "validation_data", number) if "validation_data" in body else {}
    tolerances = (body.get("conch") or {}).get("tolerances", {})
    if not isinstance(tolerances, dict):
        raise ClientError("The golden set's conch.tolerances are no object with the outputs' names.")
    return Sample(
        number=number,
        inputs=tuple(_batched(_tensor(name, value, metadata.input(name)), metadata) for name, value in inputs.items()),
        expected=tuple(
            Expected(
                tensor=(tensor := _tensor(name, value, _output(name, metadata))),
                tolerance=_tolerance(tensor, tolerances.get(name)),
            )
            for name, value in expected.items()
        ),
    )


def compare(expected: tuple[Expected, ...], outputs: tuple[Tensor, ...]) -> tuple[Verdict, ...]:
    """One verdict for each expected output."""
    answers = {output.name: output for output in outputs}
    return tuple(_compare(each, answers.get(each.tensor.name)) for each in expected)


def _compare(expected: Expected, answer: Tensor | None) -> Verdict:
    wanted = expected.tensor
    if answer is None:
        return Verdict(output=wanted.name, passed=False, words="it is not in the answer")
    got = answer.array
    if got.ndim == wanted.array.ndim + 1 and got.shape[0] == 1:
        got = got[0]
    if (answer.datatype, got.shape) != (wanted.datatype, wanted.shape):
        words = f"it is {answer.datatype} {list(got.shape)} instead of {wanted.datatype} {list(wanted.shape)}"
        return Verdict(output=wanted.name, passed=False, words=words)
    if wanted.array.dtype.kind in _DISCRETE and expected.tolerance == EXACT:
        # As they are: a float holds no integer beyond 2**53.
        wrong = int(np.count_nonzero(got != wanted.array))
        words = f"{wrong} of {got.size} values differ" if wrong else "equal"
        return Verdict(output=wanted.name, passed=not wrong, words=words)
    return _compare_numbers(wanted.name, got, wanted.array, expected.tolerance)


def _compare_numbers(name: str, got: Array, wanted: Array, tolerance: Tolerance) -> Verdict:
    answer, right = got.astype(np.float64), wanted.astype(np.float64)
    close = np.isclose(answer, right, atol=tolerance.atol, rtol=tolerance.rtol, equal_nan=True)
    with np.errstate(invalid="ignore"):  # of two infinities; those are compared above
        away = np.abs(answer - right)
    largest = float(np.nanmax(away)) if np.isfinite(away).any() else 0.0
    bound = "exact" if tolerance == EXACT else f"allowed {tolerance.atol:g} + {tolerance.rtol:g} of the expected value"
    wrong = int(close.size - np.count_nonzero(close))
    words = f"largest deviation {largest:.3g}, {bound}"
    return Verdict(
        output=name, passed=not wrong, words=f"{wrong} of {close.size} values differ, {words}" if wrong else words
    )


def _entry(body: Mapping[str, Any], part: str, number: int) -> Mapping[str, Any]:
    entries = body[part]
    count = len(entries) if isinstance(entries, list) else 0
    if not 0 <= number < count:
        raise ClientError(f"The golden set's {part} has {count} samples, numbered from 0; there is none {number}.")
    entry = entries[number]
    if not isinstance(entry, dict):
        # perf_analyzer's sequences: the steps of one client, which are several requests.
        raise ClientError(f"The golden set's {part}[{number}] is no object of tensors; sequences are not replayed.")
    return entry


def _output(name: str, metadata: ModelMetadata) -> Signature:
    if name not in metadata.outputs:
        raise ClientError(
            f"The golden set expects an output {name!r}; the model has {', '.join(metadata.outputs) or 'none'}."
        )
    return metadata.outputs[name]


def _tensor(name: str, value: Any, signature: Signature) -> Tensor:
    body = value if isinstance(value, dict) else {"content": value}
    shape = body.get("shape")
    if shape is None:
        shape = _shape_without_batch(signature)
    if "b64" in body:
        try:
            raw = base64.b64decode(body["b64"], validate=True)
        except (ValueError, TypeError) as error:
            raise ClientError(f"The golden set's {name} has a b64 that is not base64.") from error
        return from_raw(name, signature.datatype, raw, (-1,) if shape is None else shape)
    if not isinstance(content := body.get("content"), list):
        raise ClientError(f"The golden set's {name} has neither a list as content nor b64.")
    return from_values(name, signature.datatype, content, shape)


def _shape_without_batch(signature: Signature) -> tuple[int, ...] | None:
    """What a sample's shape is where the set does not say it; None where the model leaves that open."""
    shape = signature.shape[1:] if signature.shape[:1] == (-1,) else signature.shape
    return None if -1 in shape else shape


def _batched(tensor: Tensor, metadata: ModelMetadata) -> Tensor:
    shape = metadata.input(tensor.name).shape
    if len(shape) != len(tensor.shape) + 1 or shape[0] != -1:
        return tensor
    return Tensor(
        name=tensor.name,
        datatype=tensor.datatype,
        array=shaped(tensor.name, tensor.array, (1, *tensor.shape)),
    )


def _tolerance(tensor: Tensor, told: Any) -> Tolerance:
    match told:
        case None:
            return EXACT if tensor.array.dtype.kind in _DISCRETE else Tolerance()
        case "exact":
            return EXACT
        case {"atol": float() | int() as atol, "rtol": float() | int() as rtol} if tensor.datatype != BYTES:
            return Tolerance(atol=atol, rtol=rtol)
        case _:
            raise ClientError(
                f'The golden set\'s tolerance of {tensor.name} ({tensor.datatype}) is neither "exact" nor, of numbers, '
                "atol and rtol."
            )
