"""The few calls of Triton's gRPC API that the agent makes, typed, each with a timeout.

Authentication is the restricted-API header: over gRPC its name has the prefix `triton-grpc-protocol-`.
"""

from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from conch.api.pod import ADMIN_KEY_HEADER
from conch.triton.errors import TritonRefusedError, TritonUnavailableError
from conch.triton.statistics import Statistics, statistics_of

if TYPE_CHECKING:
    from conch.triton.tensors import ModelSignature, Tensor, TensorSignature

CALL_SECONDS: Final = 5.0
_GONE: Final = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """A version of a model as the repository index tells it; `version` and `state` are empty for one never loaded."""

    name: str
    version: str
    state: str
    reason: str


class TritonClient:
    """One Triton server, on loopback. Use as an async context manager inside a running event loop."""

    def __init__(self, address: str, admin_key: str) -> None:
        # Here, not at the top: numpy and the stubs are 15 MiB, of which `conch operator` needs nothing.
        from tritonclient.grpc.aio import InferenceServerClient

        # A failed start of Triton must not leave the channel waiting for the two minutes of gRPC's own back-off.
        options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
        self._client: Any = InferenceServerClient(
            address,
            channel_args=[*options, ("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 16 << 20)],
        )
        self._headers = {f"triton-grpc-protocol-{ADMIN_KEY_HEADER}": admin_key}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def live(self) -> bool:
        """Whether the server answers; never raises."""
        try:
            return bool(await _answer(self._client.is_server_live(client_timeout=CALL_SECONDS)))
        except (TritonRefusedError, TritonUnavailableError):
            return False

    async def index(self) -> tuple[IndexEntry, ...]:
        """All models of the repository with the state of their versions."""
        response = await _answer(
            self._client.get_model_repository_index(headers=self._headers, client_timeout=CALL_SECONDS)
        )
        return tuple(
            IndexEntry(name=m.name, version=m.version, state=m.state, reason=m.reason) for m in response.models
        )

    async def version_ready(self, name: str, version: int | None) -> bool:
        """Whether exactly this version, or with None the highest, answers inference."""
        try:
            return bool(
                await _answer(self._client.is_model_ready(name, _version(version), client_timeout=CALL_SECONDS))
            )
        except TritonRefusedError:
            return False  # how Triton says that it does not know the model

    async def config(self, name: str, version: int | None) -> Any:
        """The configuration that a loaded version runs with (a model_config_pb2.ModelConfig); None: of the highest."""
        response = await _answer(
            self._client.get_model_config(name, _version(version), headers=self._headers, client_timeout=CALL_SECONDS)
        )
        return response.config

    async def signature(self, name: str, version: int) -> "ModelSignature":
        """What a loaded version takes and gives."""
        from conch.triton.tensors import ModelSignature

        config = await self.config(name, version)
        told = await _answer(self._client.get_model_metadata(name, str(version), client_timeout=CALL_SECONDS))
        batch_axes = 1 if config.max_batch_size > 0 else 0
        decoupled = config.model_transaction_policy.decoupled
        return ModelSignature(
            inputs=_signatures(told.inputs, batch_axes),
            outputs=_signatures(told.outputs, batch_axes),
            max_batch_size=config.max_batch_size,
            one_answer=not decoupled and not config.HasField("sequence_batching"),
        )

    async def statistics(self, name: str, version: int | None) -> Statistics:
        """The counters of a loaded version, or with None of a model that has one; a load begins them anew."""
        response = await _answer(
            self._client.get_inference_statistics(name, _version(version), client_timeout=CALL_SECONDS)
        )
        if len(response.model_stats) != 1:
            shown = "the version" if version is None else f"version {version}"
            raise TritonRefusedError(f"Triton has no statistics of {shown} of {name!r}")
        return statistics_of(response.model_stats[0])

    async def infer(
        self, name: str, version: int, inputs: Sequence["Tensor"], outputs: Iterable[str], *, timeout_seconds: float
    ) -> tuple["Tensor", ...]:
        """Ask a version for some of its outputs, once.

        TritonUnavailableError also says that its queue is full; TritonRefusedError, in Triton's words, that it does not
        answer this request.
        """
        from tritonclient.grpc import InferInput, InferRequestedOutput

        sent = []
        for tensor in inputs:
            given = InferInput(tensor.name, list(tensor.shape), tensor.datatype)
            sent.append(given.set_data_from_numpy(tensor.array))
        asked = [InferRequestedOutput(output) for output in outputs]
        result = await _answer(
            self._client.infer(name, sent, str(version), outputs=asked, client_timeout=timeout_seconds)
        )
        return _outputs(result.get_response())

    async def load(self, name: str, *, timeout_seconds: float, config: str | None = None) -> None:
        """Load or reload a model as it lies in the repository, with another configuration (as JSON) if one is given.

        Returns when it is loaded; raises TritonRefusedError with Triton's own words. Note that success may also mean
        that Triton saw no change and did nothing: so it does when only the configuration of the call before differs
        from the file, unless the file's is given.
        """
        await _answer(
            self._client.load_model(name, headers=self._headers, config=config, client_timeout=timeout_seconds)
        )

    async def unload(self, name: str) -> None:
        """Begin to unload all versions of a model."""
        await _answer(self._client.unload_model(name, headers=self._headers, client_timeout=CALL_SECONDS))


def _version(version: int | None) -> str:
    return "" if version is None else str(version)


def _signatures(rows: Iterable[Any], batch_axes: int) -> dict[str, "TensorSignature"]:
    from conch.triton.tensors import TensorSignature

    return {
        row.name: TensorSignature(name=row.name, datatype=row.datatype, shape=tuple(row.shape)[batch_axes:])
        for row in rows
    }


def _outputs(response: Any) -> tuple["Tensor", ...]:
    from conch.triton.answers import AnswerError, grpc_answer

    try:
        return grpc_answer(response)[1]
    except AnswerError as error:
        raise TritonRefusedError(f"the answer is not whole: {error}") from error


async def _answer(call: Awaitable[Any]) -> Any:
    from tritonclient.utils import InferenceServerException

    try:
        return await call
    except InferenceServerException as error:
        message = error.message() or "no message"
        # But for inference, Triton itself never answers UNAVAILABLE: it is gRPC saying that nobody listens.
        kind = TritonUnavailableError if error.status() in _GONE else TritonRefusedError
        raise kind(message) from error
