"""What a person asks of `conch package`: pure data, checked where it is made (see command.py)."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from conch.packaging.tensors import Array, Tensors

DEFAULT_MAX_BATCH_SIZE: Final = 32
MAX_BATCH_SIZE_MOST: Final = 65_536
DEFAULT_MAX_LENGTH: Final = 128
MAX_LENGTH_MOST: Final = 131_072
DEFAULT_MAX_DROP: Final = 0.01
DEFAULT_GOLDEN_COUNT: Final = 32


class Head(StrEnum):
    """What turns a classifier's scores per class into the two outputs LABEL and SCORE, inside the graph."""

    NONE = "none"
    """The model's outputs stay as they are."""
    SOFTMAX = "softmax"
    """One label of several: the largest of softmax(logits)."""
    SIGMOID = "sigmoid"
    """Yes or no for each label: sigmoid(logits), the largest of them is LABEL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicAxis:
    """An axis besides the batch whose length differs from request to request, such as a text's."""

    input: str
    axis: int
    """Counted with the batch axis, which is 0."""
    name: str
    least: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimise:
    """What to try; what does not gain, or costs more than `max_drop`, is not kept."""

    int8: bool = False
    fp16: bool = False
    """For GPUs: inputs and outputs stay FP32."""
    prune: float | None = None
    """Share of the channels that structured pruning takes out, 0 to 1."""
    finetune: str | None = None
    """`train.py:fit`, called with the pruned module; returns nothing or the module."""
    max_drop: float = DEFAULT_MAX_DROP
    """The score may fall by so much (absolute: accuracy 0.97 -> 0.96 is 0.01)."""

    @property
    def asks_something(self) -> bool:
        """Whether anything is to be tried."""
        return self.int8 or self.fp16 or self.prune is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Data that the model has not been trained on, to measure its score with."""

    inputs: Tensors
    target: Array
    """Integers (class numbers) for a classifier, scored by accuracy; floats for a regression, scored by R2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Everything that decides what is written. The same request with the same files gives the same digest."""

    source: str
    """`model.py:net` (a module, a class or a factory without arguments) or `model.onnx`."""
    out: Path
    """Folder of the repository; `<out>/<name>` is made in it."""
    name: str
    version: int = 1
    weights: Path | None = None
    example: Tensors | None = None
    """One batch of inputs. Required for a torch module; of an ONNX file the golden set is made from it."""
    dynamic: tuple[DynamicAxis, ...] = ()
    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE
    labels: tuple[str, ...] = ()
    head: Head = Head.NONE
    tokenizer: Path | None = None
    max_length: int = DEFAULT_MAX_LENGTH
    """Tokens that a text is cut to."""
    optimise: Optimise = Optimise()
    held_out: HeldOut | None = None
    calibration: Tensors | None = None
    golden: Tensors | None = None
    """Inputs of the golden set; default: of the held-out data, else of the example."""
    golden_count: int = DEFAULT_GOLDEN_COUNT
    target_image: str | None = None
    """Release of NVIDIA's image that will serve it, such as 25.06."""
