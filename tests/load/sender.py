"""What sends the requests of one stream of a plan."""

from collections.abc import Callable
from typing import Protocol

from conch.client.tensors import from_values
from conch.triton.tensors import Tensor
from tests.load import plan
from tests.load.recorder import Sending


class Sender(Protocol):
    """Made inside of the running event loop; its requests are prepared once."""

    async def send(self, sending: Sending) -> None:
        """Send once, and return when it is answered; whatever else happens is raised."""

    async def close(self) -> None:
        """End the connections, once nothing is in flight."""


def tensors(stream: plan.Stream) -> list[Tensor]:
    """The inputs of a stream."""
    return [from_values(each.name, each.datatype, list(each.data), each.shape) for each in stream.inputs]


def sender_of(stream: plan.Stream) -> Sender:
    """The sender for a stream's protocol."""
    from tests.load.grpc_sender import GrpcSender
    from tests.load.grpc_stream_sender import GrpcStreamSender
    from tests.load.http_sender import HttpSender, SseSender

    senders: dict[plan.Protocol, Callable[[plan.Stream], Sender]] = {
        plan.Protocol.HTTP: HttpSender,
        plan.Protocol.SSE: SseSender,
        plan.Protocol.GRPC: GrpcSender,
        plan.Protocol.GRPC_STREAM: GrpcStreamSender,
    }
    return senders[stream.protocol](stream)
