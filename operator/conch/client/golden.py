"""One sample of a model's golden set, and how the answer compares, in words for a person.

The protocol's metadata do not tell whether a model has a batch axis. One in front may be it if its length may be 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from conch.client.errors import ClientError
from conch.client.input_files import read_json
from conch.client.metadata import ModelMetadata, Signature
from conch.triton.comparison import Comparison, comparison
from conch.triton.golden_set import EXACT, Expected, GoldenSetError, SameLabel, Sample, Tolerance
from conch.triton.golden_set import read_sample as read_sample_of
from conch.triton.tensors import ModelSignature, Tensor, TensorSignature, shaped


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one output compares; `words` say it for a person."""

    output: str
    passed: bool
    words: str


def read_sample(path: Path, number: int, metadata: ModelMetadata) -> Sample:
    """The sample of this number, from 0; its inputs are a batch of one where there may be a batch axis.

    Raises ClientError.
    """
    signature = ModelSignature(inputs=_signatures(metadata.inputs), outputs=_signatures(metadata.outputs))
    try:
        sample = read_sample_of(read_json(path), number, signature)
    except GoldenSetError as error:
        raise ClientError(f"{path}: {error}.") from error
    return replace(sample, inputs=tuple(_batched(each, signature.inputs[each.name]) for each in sample.inputs))


def compare(expected: Sequence[Expected], outputs: Sequence[Tensor]) -> tuple[Verdict, ...]:
    """One verdict for each expected output."""
    answers = {output.name: output for output in outputs}
    return tuple(_verdict(each, answers.get(each.tensor.name)) for each in expected)


def _verdict(expected: Expected, answer: Tensor | None) -> Verdict:
    wanted = expected.tensor
    if answer is not None and answer.shape[:1] == (1,) and len(answer.shape) == len(wanted.shape) + 1:
        # Not [0], which of texts in one axis is no array.
        answer = replace(answer, array=shaped(answer.array, answer.shape[1:]))
    found = comparison(expected, answer)
    return Verdict(output=wanted.name, passed=found.passed, words=_words(wanted.name, found, expected.tolerance))


def _words(name: str, found: Comparison, tolerance: Tolerance) -> str:
    deviation = _deviation(found.largest_deviation, tolerance)
    if found.passed:
        return deviation or ("the same label" if isinstance(tolerance, SameLabel) else "equal")
    if not found.count:
        return f"it{found.worst}"
    return f"{', '.join(filter(None, (found.count, deviation)))}; {name}{found.worst}"


def _deviation(largest: float | None, tolerance: Tolerance) -> str:
    """Empty where none was measured."""
    if largest is None or isinstance(tolerance, SameLabel):
        return ""
    allowed = f"allowed {tolerance.atol:g} + {tolerance.rtol:g} of the expected value"
    return f"largest deviation {largest:.3g}, {'exact' if tolerance == EXACT else allowed}"


def _signatures(rows: Mapping[str, Signature]) -> dict[str, TensorSignature]:
    return {name: _signature(row) for name, row in rows.items()}


def _signature(row: Signature) -> TensorSignature:
    if row.shape[:1] not in ((-1,), (1,)):
        return TensorSignature(name=row.name, datatype=row.datatype, shape=row.shape)
    return TensorSignature(name=row.name, datatype=row.datatype, shape=row.shape[1:], whole_shape=row.shape)


def _batched(tensor: Tensor, signature: TensorSignature) -> Tensor:
    if signature.whole_shape is None or len(signature.whole_shape) != len(tensor.shape) + 1:
        return tensor
    return replace(tensor, array=shaped(tensor.array, (1, *tensor.shape)))
