"""The protocol over gRPC, by NVIDIA's own client."""

from collections.abc import Awaitable, Sequence
from typing import Any, Final

from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from conch.client.credentials import NOTHING, Credentials
from conch.client.metadata import ModelMetadata, Signature, signatures
from conch.client.server import Answer, ServerError
from conch.triton.answers import AnswerError, grpc_answer
from conch.triton.tensors import Tensor

MESSAGE_BYTES_MOST: Final = 2**31 - 1
CHANNEL_OPTIONS: Final = (
    # Proxies of the machine are for elsewhere, and a request is sent once.
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MOST),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MOST),
)


class GrpcServer:
    """A server at host:port; inside a running event loop."""

    def __init__(self, address: str, *, timeout_seconds: float, credentials: Credentials = NOTHING) -> None:
        tls = credentials.tls
        named = [("grpc.ssl_target_name_override", tls.server_name)] if tls and tls.server_name else []
        self._client: Any = InferenceServerClient(
            address, creds=tls.channel_credentials() if tls else None, channel_args=[*CHANNEL_OPTIONS, *named]
        )
        self._asking = {"client_timeout": timeout_seconds, "headers": credentials.headers}

    async def metadata(self, model: str) -> ModelMetadata:
        """What the model takes and gives."""
        told = await self._answer(self._client.get_model_metadata(model, **self._asking))
        inputs, outputs = (
            signatures(Signature(name=row.name, datatype=row.datatype, shape=tuple(row.shape)) for row in rows)
            for rows in (told.inputs, told.outputs)
        )
        return ModelMetadata(name=told.name, inputs=inputs, outputs=outputs)

    async def infer(self, model: str, inputs: Sequence[Tensor]) -> Answer:
        """Ask once."""
        sent = [_input(tensor) for tensor in inputs]
        answer = await self._answer(self._client.infer(model, sent, **self._asking))
        return parse_answer(answer.get_response())

    async def close(self) -> None:
        """End the connection."""
        await self._client.close()

    async def _answer(self, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except InferenceServerException as error:
            status = (error.status() or "").removeprefix("StatusCode.")
            raise ServerError(": ".join(filter(None, (status, error.message())))) from error


def parse_answer(response: Any) -> Answer:
    """A ModelInferResponse as an answer. Raises ServerError when it is not whole."""
    try:
        version, outputs = grpc_answer(response)
    except AnswerError as error:
        raise ServerError(f"The answer is not one of the Open Inference Protocol: {error}") from error
    return Answer(version=version, outputs=outputs)


def _input(tensor: Tensor) -> Any:
    given = InferInput(tensor.name, list(tensor.shape), tensor.datatype)
    given.set_data_from_numpy(tensor.array)
    return given
