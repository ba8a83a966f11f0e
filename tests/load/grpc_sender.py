"""gRPC, one call a request, over a few channels."""

import itertools
from pathlib import Path
from typing import Any, Final

import grpc
from tritonclient.grpc import service_pb2

from conch.triton.tensors import to_raw
from tests.load.plan import Stream
from tests.load.recorder import RequestFailedError, Sending
from tests.load.sender import tensors

SERVICE: Final = "/inference.GRPCInferenceService"
OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_http_proxy", 0),
    # A connection for each channel; they are shared otherwise.
    ("grpc.use_local_subchannel_pool", 1),
    # Clients come back at once when a server does.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


def message(stream: Stream, *, id_: str = "") -> bytes:
    """A request as it is sent."""
    inputs = tensors(stream)
    return bytes(
        service_pb2.ModelInferRequest(
            model_name=stream.model,
            id=id_,
            inputs=[
                service_pb2.ModelInferRequest.InferInputTensor(
                    name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
                )
                for tensor in inputs
            ],
            raw_input_contents=[to_raw(tensor) for tensor in inputs],
        ).SerializeToString()
    )


def channels(stream: Stream) -> list[Any]:
    """The channels of a stream of the plan."""
    if not stream.ca_file:
        return [grpc.aio.insecure_channel(stream.address, options=OPTIONS) for _ in range(stream.connections)]
    credentials = grpc.ssl_channel_credentials(Path(stream.ca_file).read_bytes())
    named = [("grpc.ssl_target_name_override", stream.server_name)] if stream.server_name else []
    options = [*OPTIONS, *named]
    return [grpc.aio.secure_channel(stream.address, credentials, options) for _ in range(stream.connections)]


def as_failure(error: Any) -> RequestFailedError:
    """A call's status as a failure of its kind."""
    return RequestFailedError(error.code().name, error.details() or "")


class GrpcSender:
    """ModelInfer, the channels in turn."""

    def __init__(self, stream: Stream) -> None:
        self._channels = channels(stream)
        self._turns = itertools.cycle(
            [
                (channel, channel.unary_unary(f"{SERVICE}/ModelInfer", None, service_pb2.ModelInferResponse.FromString))
                for channel in self._channels
            ]
        )
        self._message = message(stream)
        self._metadata = tuple(stream.headers.items())

    async def send(self, sending: Sending) -> None:
        """One call."""
        channel, call = next(self._turns)
        sending.reused_connection = channel.get_state() is grpc.ChannelConnectivity.READY
        sending.goes()
        try:
            answer = await call(self._message, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise as_failure(error) from error
        if not answer.outputs:
            raise RequestFailedError("empty answer")

    async def close(self) -> None:
        """End the connections."""
        for channel in self._channels:
            await channel.close()
