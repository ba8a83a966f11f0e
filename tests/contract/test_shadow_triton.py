"""Copies of requests at the real Triton: sent as they came, over both protocols, and its answers read and compared."""

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest
from tritonclient.http import InferenceServerClient as HttpClient
from tritonclient.http import InferInput as HttpInput
from tritonclient.http import InferRequestedOutput

from conch.api.shadow import Shadow
from conch.gateway.envoy.cluster import ServerPorts
from conch.gateway.envoy.naming import Protocol
from conch.gateway.envoy.shadow import GRPC_INFER
from conch.gateway.shadow_comparison import compare
from conch.gateway.shadow_outcomes import Answered, Differs, Failed, Same
from conch.gateway.shadow_senders import Copy, Senders
from tests.contract.models import CONFIG, classifier, written
from tests.contract.served_repository import ServedRepository

pytestmark = pytest.mark.contract

SHARE: Final = Shadow(percent=1).share
X: Final = np.array([[0.5, -1.25, 3.0, 1e-3]], dtype=np.float32)
X_OTHER: Final = -X


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedRepository]:
    folder = tmp_path_factory.mktemp("shadow")
    written(folder / "repository" / "classifier" / "config.pbtxt", CONFIG.encode())
    written(folder / "repository" / "classifier" / "1" / "model.onnx", classifier())
    triton = ServedRepository(folder, folder / "repository")
    triton.start()
    try:
        triton.load("classifier")
        yield triton
    finally:
        triton.stop(9)


def http(x: Any, *, binary: bool, path: str = "/v2/models/classifier/infer") -> tuple[Copy, bytes]:
    """As NVIDIA's client makes it."""
    outputs = [InferRequestedOutput("scores", binary_data=binary)]
    given = [HttpInput("x", list(x.shape), "FP32").set_data_from_numpy(x, binary_data=binary)]
    body, length = HttpClient.generate_request_body(given, outputs=outputs)
    headers = {} if length is None else {"Inference-Header-Content-Length": str(length)}
    return Copy(protocol=Protocol.HTTP, path=path, headers=headers), bytes(body)


def grpc(x: Any, name: str = "classifier") -> tuple[Copy, bytes]:
    """The one message of a unary request, in its frame."""
    request = ModelInferRequest(model_name=name)
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    request.raw_input_contents.append(x.tobytes())
    message = request.SerializeToString()
    return Copy(protocol=Protocol.GRPC, path=GRPC_INFER, headers={}), b"\0" + len(message).to_bytes(4, "big") + message


def asked(server: ServedRepository, *copies: tuple[Copy, bytes]) -> list[Any]:
    async def ask() -> list[Any]:
        senders = Senders(ServerPorts(http=server.http, grpc=server.grpc))
        try:
            return [await senders.ask("127.0.0.1", copy, body, seconds=20) for copy, body in copies]
        finally:
            await senders.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("kind", ["json", "binary", "grpc"])
def test_answers_are_read_and_compared(server: ServedRepository, kind: str) -> None:
    def copy(x: Any) -> tuple[Copy, bytes]:
        return grpc(x) if kind == "grpc" else http(x, binary=kind == "binary")

    one, again, other = asked(server, copy(X), copy(X), copy(X_OTHER))
    for each in (one, again, other):
        assert isinstance(each, Answered), each
        assert each.milliseconds > 0
    protocol = Protocol.GRPC if kind == "grpc" else Protocol.HTTP
    assert compare(protocol, one, again, SHARE) == Same()
    found = compare(protocol, one, other, SHARE)
    assert isinstance(found, Differs)
    assert found.words.startswith("scores: 3 of 3 values differ, by up to ")


def test_refusals_are_told_in_words_without_content(server: ServedRepository) -> None:
    refused = asked(
        server,
        http(X, binary=True, path="/v2/models/classifier/versions/9/infer"),
        grpc(X, name="unknown"),
        http(np.ones((1, 5), np.float32), binary=True),
    )
    assert all(isinstance(each, Failed) for each in refused), refused
    assert refused[1] == Failed(words="gRPC NOT_FOUND")
    assert refused[2] == Failed(words="HTTP 400 Bad Request")
