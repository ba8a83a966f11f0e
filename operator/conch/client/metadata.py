"""What a model takes and gives, as the server tells it, and whether given tensors are that."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from conch.client.errors import ClientError
from conch.triton.tensors import Tensor, fits


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One input or output; -1 in the shape is any length, and the batch axis is in it."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.datatype} {list(self.shape)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetadata:
    """A model as the protocol describes it."""

    name: str
    inputs: Mapping[str, Signature]
    outputs: Mapping[str, Signature]

    @property
    def signature(self) -> str:
        """The inputs in a sentence."""
        return f"The model {self.name} takes {_listed(self.inputs.values())}."

    def input(self, name: str) -> Signature:
        """An input by its name. Raises ClientError."""
        if name not in self.inputs:
            raise ClientError(f"The model has no input {name!r}. {self.signature}")
        return self.inputs[name]


def signatures(rows: Iterable[Signature]) -> dict[str, Signature]:
    """By name."""
    return {row.name: row for row in rows}


def check_inputs(tensors: Iterable[Tensor], metadata: ModelMetadata) -> None:
    """Raises ClientError for a name, datatype or shape that is not the model's.

    A missing input is left to Triton: metadata do not tell which ones are optional.
    """
    seen: set[str] = set()
    for tensor in tensors:
        wanted = metadata.input(tensor.name)
        if tensor.name in seen:
            raise ClientError(f"The input {tensor.name!r} is given twice.")
        seen.add(tensor.name)
        if tensor.datatype != wanted.datatype:
            raise ClientError(f"The input {tensor.name} is {tensor.datatype}, the model takes {wanted.datatype}.")
        if not fits(tensor.shape, wanted.shape):
            batch = " Its first axis is the batch." if len(tensor.shape) + 1 == len(wanted.shape) else ""
            raise ClientError(
                f"The input {tensor.name} has the shape {list(tensor.shape)}, the model takes {list(wanted.shape)} "
                f"(-1: any length).{batch}"
            )


def _listed(rows: Iterable[Signature]) -> str:
    return ", ".join(map(str, rows)) or "nothing"
