"""A server that speaks the Open Inference Protocol, over either of its transports."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from conch.client.metadata import ModelMetadata
from conch.triton.tensors import Tensor


class ServerError(Exception):
    """The server's refusal, or that there is no server; the message is its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    version: str
    """The model's version that answered."""
    outputs: tuple[Tensor, ...]


class Server(Protocol):
    """One connection to one address. Its methods raise ServerError."""

    async def metadata(self, model: str) -> ModelMetadata:
        """What the model takes and gives; also makes the connection."""

    async def infer(self, model: str, inputs: Sequence[Tensor]) -> Answer:
        """Ask once; nothing is repeated."""

    async def close(self) -> None:
        """End the connection."""
