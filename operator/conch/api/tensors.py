"""A model's inputs and outputs, where its author's configuration does not say them or is to be changed."""

from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, Field, model_validator

from conch.api.cel import Rule, rules
from conch.api.types import ApiModel

TENSORS_MOST: Final = 64
AXES_MOST: Final = 16
_NO_ZERO: Final = "an axis has 1 or more elements, or -1 for any number of them; correct 0"


class DataType(StrEnum):
    """What a tensor holds, in the words of Triton's protocol."""

    BOOL = "BOOL"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    FP16 = "FP16"
    BF16 = "BF16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"


class TensorSpec(ApiModel):
    """An input or output of the model."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    data_type: Annotated[DataType, Field(description="BYTES are texts, and whatever has no fixed length.")]
    dims: Annotated[
        tuple[Annotated[int, Field(ge=-1, le=2**31 - 1)], ...],
        Field(
            min_length=1,
            max_length=AXES_MOST,
            description="Length of each axis, -1 for any; without the batch axis where maxBatchSize is above 0.",
            json_schema_extra=rules(Rule(rule="self.all(d, d != 0)", message=_NO_ZERO)),
        ),
    ]

    @model_validator(mode="after")
    def _no_empty_axis(self) -> Self:
        if 0 in self.dims:
            raise ValueError(_NO_ZERO)
        return self


def _each_once(tensors: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    names = [tensor.name for tensor in tensors]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice!r} is there twice; remove one")
    return tensors


_BY_NAME: Final[dict[str, Any]] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}

Tensors = Annotated[
    tuple[TensorSpec, ...],
    Field(min_length=1, max_length=TENSORS_MOST, json_schema_extra=_BY_NAME),
    AfterValidator(_each_once),
]
"""Inputs or outputs, each name once."""
