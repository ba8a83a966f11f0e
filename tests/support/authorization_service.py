"""An authorisation service of an installation (Envoy's ext_authz over gRPC) that answers as it is told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse
from envoy.type.v3.http_status_pb2 import HttpStatus
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it has no stubs

CHECK = "/envoy.service.auth.v3.Authorization/Check"
_PERMISSION_DENIED = 7


def allowed(**headers: str) -> CheckResponse:
    """Lets the request in, with further headers."""
    options = [HeaderValueOption(header=HeaderValue(key=k.replace("_", "-"), value=v)) for k, v in headers.items()]
    return CheckResponse(status=Status(code=0), ok_response=OkHttpResponse(headers=options))


def denied(status: int, body: str) -> CheckResponse:
    """Refuses it."""
    response = DeniedHttpResponse(status=HttpStatus(code=status), body=body)
    return CheckResponse(status=Status(code=_PERMISSION_DENIED), denied_response=response)


class AuthorizationService(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no annotations
    """`asked` are the headers of the requests that it was asked about."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.answer: Callable[[dict[str, str]], CheckResponse] = lambda _headers: allowed()
        self.release = asyncio.Event()
        self.release.set()
        """Cleared, it does not answer."""

    def service(self, details: Any) -> Any:
        """Its one method."""
        assert details.method == CHECK
        return grpc.unary_unary_rpc_method_handler(
            self._check,
            request_deserializer=CheckRequest.FromString,
            response_serializer=CheckResponse.SerializeToString,
        )

    async def _check(self, request: CheckRequest, _context: Any) -> CheckResponse:
        headers = dict(request.attributes.request.http.headers)
        self.asked.append(headers)
        await self.release.wait()
        return self.answer(headers)


@asynccontextmanager
async def serving(service: AuthorizationService, port: int, credentials: Any = None) -> AsyncIterator[None]:
    """On loopback, until the block ends."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((service,))
    address = f"127.0.0.1:{port}"
    assert server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
