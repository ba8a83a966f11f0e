"""Takes the copies of requests that Envoy makes, on loopback. It is answered at once, for it passes no answer on."""

import asyncio
from typing import Final

import aiohttp
from aiohttp import web

from conch.gateway.envoy.naming import ROUTE_HEADER, Protocol
from conch.gateway.envoy.shadow import GRPC_INFER, HTTP_INFER
from conch.gateway.shadow import BODY_BYTES_MOST, Shadow
from conch.gateway.shadow_senders import Copy

WAIT_SECONDS: Final = 0.25
"""Before a copy is answered for which there was no room. Envoy makes only so many at a time, so this is what keeps it
from sending thousands per second here, to be thrown away."""


def add_routes(application: web.Application, shadow: Shadow) -> None:
    """The paths of unary inference; the object is in the header that Envoy gives to copies."""

    async def take(request: web.Request) -> web.Response:
        namespace, _, name = request.headers.get(ROUTE_HEADER, "").partition(".")
        is_grpc = request.path == GRPC_INFER
        copy = Copy(
            protocol=Protocol.GRPC if is_grpc else Protocol.HTTP, path=request.raw_path, headers=request.headers
        )
        if not await shadow.take((namespace, name), copy, lambda: _body(request)):
            await asyncio.sleep(WAIT_SECONDS)
            return web.Response(status=503)
        return web.Response(status=204)

    application.router.add_post(GRPC_INFER, take)
    application.router.add_post(f"/v2/models/{{rest:.+}}{HTTP_INFER}", take)


async def _body(request: web.Request) -> bytes | None:
    """Of a bounded length, whatever the copied request says of it."""
    if (request.content_length or 0) > BODY_BYTES_MOST:
        return None
    body = bytearray()
    try:
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > BODY_BYTES_MOST:
                return None
    except (aiohttp.ClientError, ConnectionError):
        # Its client has gone before it was whole.
        return None
    return bytes(body)
