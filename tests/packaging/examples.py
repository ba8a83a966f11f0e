"""The six models of the tests, with five samples for each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from conch.packaging.request import DynamicAxis
from conch.packaging.tensors import Array

MODELS: Final = Path(__file__).parent / "models"
_RANDOM: Final = np.random.default_rng(0)
_ROWS, _LENGTH, _TOKENS = 5, 12, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A model's file, a batch of its inputs and its axes besides the batch."""

    file: str
    inputs: dict[str, Array]
    dynamic: tuple[DynamicAxis, ...] = ()

    @property
    def reference(self) -> str:
        """As `conch package` takes it."""
        return f"{MODELS / self.file}:net"


def _floats(*shape: int) -> Array:
    return _RANDOM.normal(size=(_ROWS, *shape)).astype(np.float32)


def _texts() -> dict[str, Array]:
    lengths = _RANDOM.integers(1, _LENGTH, size=_ROWS)
    return {
        "input_ids": _RANDOM.integers(0, _TOKENS, size=(_ROWS, _LENGTH)),
        "attention_mask": (np.arange(_LENGTH) < lengths[:, None]).astype(np.int64),
    }


LINEAR = Example(file="linear.py", inputs={"input": _floats(10)})
REGRESSION = Example(file="regression.py", inputs={"input": _floats(10)})
CLASSIFIER = Example(file="classifier.py", inputs={"pixels": _floats(64)})
DIGITS = Example(file="digits.py", inputs={"image": _floats(1, 28, 28)})
SEQUENCE = Example(file="sequence.py", inputs={"steps": _floats(20, 8)})
TEXT = Example(
    file="text.py",
    inputs=_texts(),
    dynamic=tuple(
        DynamicAxis(input=name, axis=1, name="seq", least=2, most=64) for name in ("input_ids", "attention_mask")
    ),
)
ALL: Final = (LINEAR, REGRESSION, CLASSIFIER, DIGITS, SEQUENCE, TEXT)
