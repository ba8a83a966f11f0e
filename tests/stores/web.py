"""HTTP servers of our own, each in a thread with an event loop of its own, and answers with ranges by RFC 9110."""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_START_SECONDS = 20
_STOP_SECONDS = 20
_BODY_BYTES_MOST = 1 << 30
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class WebServer:
    """Gives every request to one handler, which runs in the server's thread."""

    def __init__(self, handler: Handler, *, address: str, port: int, context: ssl.SSLContext | None = None) -> None:
        self._handler = handler
        self._address = address
        self._port = port
        self._context = context
        self._thread: threading.Thread | None = None
        self._end: Callable[[], object] = lambda: None

    def start(self) -> None:
        """Returns when it listens."""
        ready: Future[None] = Future()
        # A daemon: a test that forgets to stop it must not keep the tests' process.
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        ready.result(_START_SECONDS)

    def stop(self) -> None:
        """Breaks off what is being answered."""
        if self._thread is None:
            return
        self._end()
        self._thread.join(_STOP_SECONDS)
        assert not self._thread.is_alive(), "a handler does not end"
        self._thread = None

    async def _serve(self, ready: Future[None]) -> None:
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        self._end = lambda: loop.call_soon_threadsafe(end.set)
        application = web.Application(client_max_size=_BODY_BYTES_MOST)
        application.router.add_route("*", "/{path:.*}", self._handler)
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        try:
            try:
                await runner.setup()
                await web.TCPSite(runner, self._address, self._port, ssl_context=self._context).start()
            except BaseException as error:
                self._end = lambda: None
                ready.set_exception(error)
                return
            ready.set_result(None)
            await end.wait()
        finally:
            await runner.cleanup()


def strong_etag(content: bytes) -> str:
    """An ETag that names these bytes."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def wanted_part(request: web.Request, size: int, etag: str) -> range | None:
    """The bytes that the request wants: all of them, a part, or None if there are no such bytes."""
    match = _RANGE.fullmatch(request.headers.get("Range", ""))
    if not match or match[0] == "bytes=-" or request.headers.get("If-Range", etag) != etag:
        return range(size)
    if not match[1]:
        part = range(max(size - int(match[2]), 0), size)
    else:
        part = range(int(match[1]), min(int(match[2]) + 1, size) if match[2] else size)
    return part or None


def answered_part(
    request: web.Request, size: int, etag: str, headers: Mapping[str, str] | None = None
) -> tuple[web.StreamResponse, range]:
    """The answer to be prepared, with status and headers, and the bytes to be written."""
    head = {"Content-Type": "application/octet-stream", **(headers or {}), "ETag": etag, "Accept-Ranges": "bytes"}
    part = wanted_part(request, size, etag)
    if part is None:
        return web.Response(status=416, headers={**head, "Content-Range": f"bytes */{size}"}), range(0)
    if len(part) < size:
        head["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    response = web.StreamResponse(status=206 if len(part) < size else 200, headers=head)
    response.content_length = len(part)
    return response, part


async def answer(
    request: web.Request, content: bytes, etag: str, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """The content, or the part of it that was asked for."""
    response, part = answered_part(request, len(content), etag, headers)
    if response.status == 416:
        return response
    await response.prepare(request)
    if request.method != "HEAD":
        await response.write(content[part.start : part.stop])
        await response.write_eof()
    return response
