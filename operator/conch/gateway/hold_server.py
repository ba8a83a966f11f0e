"""What Envoy asks before it lets a request go on, over HTTP on loopback: one request here for each that is held.

Bodies never come here. A refusal is plain text: Envoy puts it into the shape of Triton's own errors, or into a gRPC
status.
"""

from typing import Final
from urllib.parse import quote

from aiohttp import web

from conch.gateway.envoy.hold_refusals import UNAVAILABLE_STATUS
from conch.gateway.envoy.naming import CLUSTER_HEADER, HOLD, ROUTE_HEADER, Protocol
from conch.gateway.hold import GoOn, Hold, Refusal

_GRPC: Final = "application/grpc"
_BACKLOG: Final = 4096
"""A burst of held requests is a burst of connections; the kernel bounds this."""
_KEEP_ALIVE_SECONDS: Final = 2 * 3600
"""Longer than Envoy keeps an idle connection (an hour): it must be Envoy who ends it, or a check may be lost."""


def make_application(hold: Hold) -> web.Application:
    """Any method and path below `/hold`; the object is in the header that its listener has set."""

    async def check(request: web.Request) -> web.Response:
        namespace, _, name = request.headers.get(ROUTE_HEADER, "").partition(".")
        is_grpc = request.headers.get("Content-Type", "").startswith(_GRPC)
        verdict = await hold.check((namespace, name), Protocol.GRPC if is_grpc else Protocol.HTTP)
        match verdict:
            case GoOn():
                return web.Response(headers={CLUSTER_HEADER: verdict.cluster})
            case Refusal():
                return _refusal(verdict, is_grpc=is_grpc)

    application = web.Application()
    application.router.add_route("*", f"/{HOLD}{{rest:.*}}", check)
    return application


def _refusal(refusal: Refusal, *, is_grpc: bool) -> web.Response:
    headers = {"Retry-After": str(refusal.retry_after_seconds)}
    if is_grpc:
        # The message of a gRPC status is percent-encoded on the wire.
        headers |= {"grpc-status": str(refusal.grpc_status), "grpc-message": quote(refusal.message, safe=" ,:;'()")}
    status = UNAVAILABLE_STATUS if refusal.status == 503 else refusal.status
    return web.Response(status=status, text=refusal.message, headers=headers)


async def serve(application: web.Application, port: int) -> web.AppRunner:
    """Start to listen on loopback; the caller cleans the runner up."""
    runner = web.AppRunner(
        application,
        access_log=None,
        # Of copies, which are passed on as they are; a check has no body.
        auto_decompress=False,
        # Envoy ends its question when the client has gone: then its place is free.
        handler_cancellation=True,
        keepalive_timeout=_KEEP_ALIVE_SECONDS,
        shutdown_timeout=0.2,
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=_BACKLOG).start()
    return runner
