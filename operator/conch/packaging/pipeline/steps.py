"""The YAML file of a pipeline: which models, in which steps, and which tensor of one is which of another.

    name: inspection
    inputs: [RECORD]                # values that the client sends
    outputs: [LABEL, DECISION]      # values that it gets
    max_batch_size: 32              # 0: one request at a time, and no tensor has a batch axis
    steps:
    - name: collect
      model: steps/collect.py       # a TritonPythonModel of one's own; a model's folder; or an .onnx file
      inputs: {RECORD: RECORD}      # tensor of the model: value of the pipeline
      outputs: {PIXELS: pixels}
      types: {RECORD: "BYTES[1]", PIXELS: "FP32[1, 28, 28]"}   # only of a .py, which does not say it; no batch axis
      files: [scale.npz]            # only of a .py: laid beside it
      parameters: {limit: "0.9"}    # only of a .py: parameters of its config.pbtxt
    - name: infer
      model: net.onnx
      inputs: {x: pixels}
      outputs: {LABEL: LABEL, SCORE: score, logits: ~}         # ~: nobody wants it

Paths are relative to the file. The steps may stand in any order.
"""

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from conch.packaging.errors import PackagingError
from conch.packaging.request import DEFAULT_MAX_BATCH_SIZE, MAX_BATCH_SIZE_MOST
from conch.triton.tensors import DATATYPES

ANY_LENGTH: Final = -1
_TYPE: Final = re.compile(r"\s*([A-Za-z0-9]+)\s*\[([^\]]*)\]\s*")
_EXAMPLE: Final = "such as FP32[10] or BYTES[1] (Triton's datatype, then the lengths without the batch axis; -1 is any)"


@dataclass(frozen=True, slots=True)
class TensorType:
    """Datatype and lengths of a tensor, without the batch axis; -1 is any length."""

    datatype: str
    dims: tuple[int, ...]

    def __str__(self) -> str:
        """As it is written in the file."""
        return f"{self.datatype}[{', '.join(map(str, self.dims))}]"


def tensor_type(text: object) -> TensorType:
    """Parse `FP32[1, 28, 28]`. Raises ValueError."""
    matched = _TYPE.fullmatch(text) if isinstance(text, str) else None
    if not matched:
        raise ValueError(f"{text!r} is no type; write one {_EXAMPLE}")
    datatype, lengths = matched[1].upper(), matched[2]
    if datatype not in DATATYPES:
        raise ValueError(f"{matched[1]!r} is no datatype; there are {', '.join(DATATYPES)}")
    try:
        dims = tuple(int(each) for each in lengths.split(","))
    except ValueError:
        raise ValueError(f"{text!r} has lengths that are no numbers; write it {_EXAMPLE}") from None
    if wrong := [each for each in dims if not 1 <= each < 2**63 and each != ANY_LENGTH]:
        raise ValueError(f"{text!r} has the length {wrong[0]}; write it {_EXAMPLE}")
    return TensorType(datatype, dims)


Name = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][-a-z0-9_]*$")]
TensorName = Annotated[str, Field(min_length=1)]
Value = Annotated[str, Field(min_length=1)]


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Step(_Written):
    """One model and where its tensors come from and go to."""

    name: Name
    model: Annotated[str, Field(min_length=1)]
    """Path of a `.py`, an `.onnx` or a model's folder, relative to the pipeline's file."""
    inputs: Annotated[dict[TensorName, Value], Field(min_length=1)]
    outputs: Annotated[dict[TensorName, Value | None], Field(min_length=1)]
    types: dict[TensorName, Annotated[TensorType, BeforeValidator(tensor_type)]] = {}
    files: tuple[str, ...] = ()
    parameters: dict[str, str] = {}


class Pipeline(_Written):
    """A pipeline as its author wrote it; how its parts fit together is checked in wiring.py."""

    name: Name
    inputs: Annotated[tuple[Value, ...], Field(min_length=1)]
    outputs: Annotated[tuple[Value, ...], Field(min_length=1)]
    max_batch_size: Annotated[int, Field(ge=0, le=MAX_BATCH_SIZE_MOST)] = DEFAULT_MAX_BATCH_SIZE
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]


def read_pipeline(file: Path) -> Pipeline:
    """Read the YAML file. Raises PackagingError naming the step and field that is wrong."""
    try:
        body = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise PackagingError(f"the pipeline {file} cannot be read: {reason}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
        raise PackagingError(f"the pipeline {file} is no valid YAML: {error}") from error
    if not isinstance(body, dict):
        raise PackagingError(f"the pipeline {file} holds no mapping; it has the keys name, inputs, outputs and steps")
    try:
        return Pipeline.model_validate(body)
    except ValidationError as error:
        told = "; ".join(f"{_place(body, each['loc'])}: {_reason(each)}" for each in error.errors())
        raise PackagingError(f"the pipeline {file} is not right: {told}") from error


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which YAML itself would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                mark = node.value[number][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", mark)
        return super().construct_mapping(node, deep)


def _place(body: dict[str, Any], location: tuple[int | str, ...]) -> str:
    """`steps.2.types.x` as a person sees it: step 'infer', types.x."""
    match location:
        case ("steps", int(number), *rest):
            step = body["steps"][number]
            name = step.get("name") if isinstance(step, dict) else None
            called = f"step {name!r}" if name else f"step {number + 1}"
            return ", ".join([called, ".".join(map(str, rest))] if rest else [called])
        case _:
            return ".".join(map(str, location))


def _reason(error: Any) -> str:
    match error["type"]:
        case "value_error":
            return str(error["ctx"]["error"])
        case "extra_forbidden":
            return "there is no such field"
        case "missing":
            return "it is missing"
        case _:
            return str(error["msg"])
