"""The inputs and outputs of an ONNX file, read without loading its weights.

onnx.load would take a 2 GB model into the agent's memory. The file is a protobuf message; its wire format lets us walk
over the fields and skip the initialisers' content, so only the pages with headers are touched.
https://protobuf.dev/programming-guides/encoding, field numbers from onnx.proto.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from conch.triton.errors import InvalidModelError
from conch.triton.plain_file import open_plain

Buffer = mmap.mmap

_MODEL_GRAPH: Final = 7
_TENSOR_NAME: Final = 8
_SPARSE_VALUES: Final = 1
_FIELDS_MOST: Final = 4_000_000


class Field(IntEnum):
    """Fields of a GraphProto."""

    INITIALIZER = 5
    INPUT = 11
    OUTPUT = 12
    SPARSE_INITIALIZER = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or output of a graph; a dimension is a number, or -1 for a symbolic one."""

    name: str
    element_type: int
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a graph takes and gives."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def read_signature(file: Path) -> Signature:
    """Inputs (without those that are weights) and outputs in graph order; raises InvalidModelError."""
    try:
        with (
            open_plain(file, name=file.name) as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as buffer,
        ):
            return _Walker(buffer).signature()
    except (ValueError, IndexError) as error:
        raise InvalidModelError(
            f"{file.name} is not a valid ONNX file ({error}); export and upload it again"
        ) from error


class _Walker:
    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._left = _FIELDS_MOST

    def signature(self) -> Signature:
        inputs: list[tuple[int, int]] = []
        outputs: list[tuple[int, int]] = []
        weights: set[str] = set()
        graphs = [span for field, span in self._messages(0, len(self._buffer)) if field == _MODEL_GRAPH]
        if not graphs:
            raise ValueError("it contains no graph")
        for field, span in self._messages(*graphs[-1]):
            match field:
                case Field.INPUT:
                    inputs.append(span)
                case Field.OUTPUT:
                    outputs.append(span)
                case Field.INITIALIZER:
                    weights.add(self._tensor_name(span))
                case Field.SPARSE_INITIALIZER:
                    weights.update(self._tensor_name(s) for f, s in self._messages(*span) if f == _SPARSE_VALUES)
        taken = [_value_info(self._buffer[start:end]) for start, end in inputs]
        return Signature(
            inputs=tuple(_tensor(value, "input") for value in taken if value.name not in weights),
            outputs=tuple(_tensor(_value_info(self._buffer[start:end]), "output") for start, end in outputs),
        )

    def _tensor_name(self, span: tuple[int, int]) -> str:
        for field, (start, end) in self._messages(*span):
            if field == _TENSOR_NAME:
                return self._buffer[start:end].decode()
        return ""

    def _messages(self, start: int, end: int) -> Iterator[tuple[int, tuple[int, int]]]:
        """(field number, span) of the length-delimited fields between two positions; others are skipped."""
        position = start
        while position < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError("it has too many fields")
            key, position = self._varint(position)
            match key & 7:
                case 0:
                    _, position = self._varint(position)
                case 1:
                    position += 8
                case 5:
                    position += 4
                case 2:
                    length, position = self._varint(position)
                    if position + length > end:
                        raise ValueError("it is cut off or damaged")
                    yield key >> 3, (position, position + length)
                    position += length
                case kind:
                    raise ValueError(f"unknown wire type {kind}")
        if position != end:
            raise ValueError("it is cut off or damaged")

    def _varint(self, position: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = self._buffer[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
            shift += 7
            if shift > 63:
                raise ValueError("a number has too many bytes")


def _value_info(content: bytes) -> Any:
    # Only here: the agent that serves a Triton model directory never needs it.
    from google.protobuf.message import DecodeError
    from onnx import ValueInfoProto

    try:
        return ValueInfoProto.FromString(content)
    except DecodeError as error:
        raise ValueError(str(error)) from error


def _tensor(value: Any, kind: str) -> Tensor:
    if not value.type.HasField("tensor_type"):
        found = value.type.WhichOneof("value") or "untyped"
        raise InvalidModelError(
            f"the graph's {kind} {value.name!r} is no tensor ({found}), which Triton cannot serve; export the model "
            "with plain tensors (scikit-learn: zipmap=False)"
        )
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise InvalidModelError(f"the graph's {kind} {value.name!r} has no shape; export the model with shapes")
    dims = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else -1 for d in tensor.shape.dim)
    return Tensor(name=value.name, element_type=tensor.elem_type, dims=dims)
