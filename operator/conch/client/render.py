"""An answer for a person, or as JSON for programs."""

import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from conch.client.golden import Verdict
from conch.client.server import Answer
from conch.triton.tensors import BYTES, Array, Tensor

_VALUES_SHOWN: Final = 40
_LINE: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An answer and what goes with it."""

    model: str
    protocol: str
    answered_by: str
    milliseconds: float
    """What the request took its client, its tensors' encoding included; connection and metadata are not in it."""
    answer: Answer
    sample: int | None = None
    """The golden set's, from 0."""
    verdicts: tuple[Verdict, ...] | None = None
    """None where the golden set holds no answers, or none was sent."""

    @property
    def as_expected(self) -> bool | None:
        """Whether every output is what the golden set says; None where it says nothing."""
        return None if self.verdicts is None else all(verdict.passed for verdict in self.verdicts)


def as_text(told: Told) -> str:
    """Some lines; long outputs are shortened."""
    version = f" version {told.answer.version}" if told.answer.version else ""
    lines = [
        f"{told.model}{version} answered in {told.milliseconds:.1f} ms ({told.protocol}, {told.answered_by})",
        *(_output(tensor) for tensor in told.answer.outputs),
    ]
    if told.sample is not None:
        verdict = {None: "the set holds no answers", True: "as expected", False: "DIFFERS"}[told.as_expected]
        lines.append(f"golden sample {told.sample}: {verdict}")
        lines += [
            f"  {each.output}: {'ok' if each.passed else 'DIFFERS'}, {each.words}" for each in told.verdicts or ()
        ]
    return printable("\n".join(lines))


def printable(text: str) -> str:
    """Without what would steer the terminal: names and errors are what a model's author wrote."""
    return "".join(character for character in text if character.isprintable() or character in "\n\t")


def as_json(told: Told) -> str:
    """The protocol's outputs, with what else there is to tell. What JSON numbers are not (NaN) is text."""
    golden = None
    if told.sample is not None:
        verdicts = [{"output": each.output, "passed": each.passed, "words": each.words} for each in told.verdicts or ()]
        golden = {"sample": told.sample, "asExpected": told.as_expected, "outputs": verdicts}
    body = {
        "model": told.model,
        "version": told.answer.version,
        "protocol": told.protocol,
        "answeredBy": told.answered_by,
        "milliseconds": round(told.milliseconds, 3),
        "outputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "data": [_value(value) for value in _readable(tensor).ravel().tolist()],
            }
            for tensor in told.answer.outputs
        ],
        "golden": golden,
    }
    return json.dumps(body, indent=2, allow_nan=False)


def _output(tensor: Tensor) -> str:
    values = np.array2string(
        _readable(tensor), threshold=_VALUES_SHOWN, edgeitems=3, max_line_width=_LINE, separator=", "
    )
    return f"{tensor.name} {tensor.datatype} {list(tensor.shape)}\n  {values.replace(chr(10), chr(10) + '  ')}"


def _readable(tensor: Tensor) -> Array:
    """With texts in place of their bytes; what is no UTF-8 is escaped."""
    if tensor.datatype != BYTES:
        return tensor.array
    texts = np.empty(tensor.array.size, dtype=object)
    texts[:] = [content.decode(errors="backslashreplace") for content in tensor.array.ravel()]
    return texts.reshape(tensor.shape)


def _value(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value
