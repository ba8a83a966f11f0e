"""A model server on loopback that doubles `x`, over HTTP (JSON and binary tensors) and gRPC; it can be made to err."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import grpc
import numpy as np
from aiohttp import web
from numpy.typing import NDArray
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from conch.gateway.envoy.cluster import ServerPorts
from conch.triton.answers import HEADER_LENGTH

Values = NDArray[np.float32]
_LENGTH: Final = HEADER_LENGTH


def doubled(x: Values) -> Values:
    """What is right."""
    return x * 2


class DoublingServer:
    """Has one input `x` and one output `y`, FP32 with one axis."""

    def __init__(self, address: str, ports: ServerPorts) -> None:
        self.address, self.ports = address, ports
        self.answer: Callable[[Values], Values] = doubled
        self.gate = asyncio.Event()
        """Whether anything is answered."""
        self.gate.set()
        self.status = 200
        self.requests = 0
        self.waiting = 0
        self.headers: list[dict[str, str]] = []

    async def start(self, stack: AsyncExitStack) -> None:
        """Until the stack is closed."""
        application = web.Application(client_max_size=2**30)
        application.router.add_get("/v2/health/live", self._live)
        application.router.add_post("/v2/models/{name:[^/]+}/infer", self._http)
        runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self.address, self.ports.http).start()
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Handler(self),))
        server.add_insecure_port(f"{self.address}:{self.ports.grpc}")
        await server.start()
        stack.push_async_callback(server.stop, None)

    async def infer(self, x: Values) -> Values:
        """One request."""
        self.requests += 1
        self.waiting += 1
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        return self.answer(x)

    async def _live(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def _http(self, request: web.Request) -> web.Response:
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        body = await request.read()
        head = json.loads(body[: int(request.headers.get(_LENGTH, len(body)))])
        (given,) = head["inputs"]
        is_binary = _LENGTH in request.headers
        x = np.frombuffer(body[int(request.headers[_LENGTH]) :], np.float32) if is_binary else np.float32(given["data"])
        y = await self.infer(np.asarray(x, np.float32))
        if self.status != 200:
            return web.json_response({"error": "the model failed"}, status=self.status)
        row: dict[str, Any] = {"name": "y", "datatype": "FP32", "shape": list(y.shape)}
        if not is_binary:
            row["data"] = [float(each) for each in y]
            return web.json_response({"model_name": "m", "model_version": "1", "outputs": [row]})
        row["parameters"] = {"binary_data_size": y.nbytes}
        told = json.dumps({"model_name": "m", "model_version": "1", "outputs": [row]}).encode()
        return web.Response(body=told + y.tobytes(), headers={_LENGTH: str(len(told))})

    async def grpc(self, message: bytes, context: Any) -> bytes:
        """A ModelInfer."""
        request = ModelInferRequest.FromString(message)
        y = await self.infer(np.frombuffer(request.raw_input_contents[0], np.float32))
        if self.status != 200:
            await context.abort(grpc.StatusCode.INTERNAL, "the model failed")
        response = ModelInferResponse(model_name="m", model_version="1")
        response.outputs.add(name="y", datatype="FP32", shape=list(y.shape))
        response.raw_output_contents.append(y.tobytes())
        return bytes(response.SerializeToString())


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no annotations
    def __init__(self, server: DoublingServer) -> None:
        self._server = server

    def service(self, _details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._server.grpc)


def json_request(x: Values, **parameters: Any) -> dict[str, Any]:
    """The body of a request in JSON."""
    row = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": [float(each) for each in x]}
    return {"inputs": [row]} | ({"parameters": parameters} if parameters else {})


def binary_request(x: Values) -> tuple[dict[str, str], bytes]:
    """Headers and body of a request with binary tensors."""
    row = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "parameters": {"binary_data_size": x.nbytes}}
    head = json.dumps({"inputs": [row], "parameters": {"binary_data_output": True}}).encode()
    return {_LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}, head + x.tobytes()


def grpc_request(x: Values, **parameters: int) -> bytes:
    """A ModelInferRequest."""
    request = ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=list(x.shape))
    request.raw_input_contents.append(x.tobytes())
    for name, value in parameters.items():
        request.parameters[name].int64_param = value
    return bytes(request.SerializeToString())
