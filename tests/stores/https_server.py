"""An HTTPS server that keeps to RFC 9110, except where a test gives a path a fault."""

from __future__ import annotations

import asyncio
import base64
import secrets
import socket
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from aiohttp import web

from tests.stores import tls as certificates
from tests.stores.store import Store, counted
from tests.stores.tls import Tls
from tests.stores.web import WebServer, answered_part, strong_etag

_SLOW_CHUNKS_PER_SECOND = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """Sends nothing more after so many bytes of the body; without a number not even the headers."""

    after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """Resets the connection (TCP RST) after so many bytes of the body."""

    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncate:
    """Closes the connection after so many bytes of the body, fewer than Content-Length says."""

    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """Sends elsewhere; to its own URL is a loop."""

    to: str
    status: int = 302


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongLength:
    """Answers to HEAD and to ranges name a size that is so many bytes off; the bytes themselves are right."""

    by: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Changing:
    """Each request finds the next of these contents, the last one for good; the ETag is always the content's."""

    contents: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ByClient:
    """Each client (by its address) finds the next of these contents, always the same; all further ones the last."""

    contents: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoRanges:
    """Always sends the whole file, and no ETag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """Sends so many bytes in a second."""

    bytes_per_second: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Answers with a status and no file."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()


Fault = Stall | Reset | Truncate | Redirect | WrongLength | Changing | ByClient | NoRanges | Slow | Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a client asked for."""

    method: str
    path: str
    range: str | None
    authorized: bool


@dataclass(slots=True)
class _Failing:
    fault: Fault
    left: int | None
    contents: list[bytes] = field(default_factory=list)
    clients: list[str] = field(default_factory=list)


class HttpsServer(Store):
    """With `login` it wants a name and a password, with `token` that bearer token, else it is open to everybody."""

    def __init__(
        self,
        folder: Path,
        *,
        address: str = "127.0.0.1",
        host: str | None = None,
        tls: Tls | None = None,
        login: tuple[str, str] | None = None,
        token: str | None = None,
    ) -> None:
        own = tls or certificates.issue(folder / "tls", *{host or address, address})
        super().__init__(folder, address=address, host=host, tls=own)
        self.files: dict[str, bytes] = {}
        self.log: list[Request] = []
        self.authenticates = bool(login or token)
        self.ca_certificate = own.ca_certificate
        self._login_wanted, self._token_wanted = login, token
        self._failing: dict[str, _Failing] = {}
        self._server = WebServer(self._handle, address=self.address, port=self.port, context=own.server_context())

    def uri(self, path: str) -> str:
        return f"{self.endpoint}/{path}"

    @property
    def requests(self) -> Counter[str]:
        return Counter(counted(request.method, request.path) for request in self.log)

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def put(self, path: str, content: bytes) -> None:
        self.files[path] = content

    def delete(self, path: str) -> None:
        self.files = {name: content for name, content in self.files.items() if not f"{name}/".startswith(f"{path}/")}

    def fail(self, path: str, fault: Fault, *, times: int | None = None) -> None:
        """From now on the path has this fault, for all requests or for so many."""
        self._failing[path] = _Failing(fault, times, list(fault.contents) if isinstance(fault, Changing) else [])

    def heal(self, path: str) -> None:
        """The path has no fault any more."""
        self._failing.pop(path, None)

    def _login(self, *, right: bool) -> dict[str, str]:
        if self._login_wanted:
            username, password = self._login_wanted
            return {"username": username, "password": password if right else secrets.token_hex(8)}
        if self._token_wanted:
            return {"token": self._token_wanted if right else secrets.token_hex(8)}
        return {}

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        authorized = self._authorized(request)
        self.log.append(
            Request(
                method=request.method,
                path=request.path,
                range=request.headers.get("Range"),
                authorized=authorized,
            )
        )
        if not authorized:
            challenge = 'Basic realm="models"' if self._login_wanted else "Bearer"
            return web.Response(status=HTTPStatus.UNAUTHORIZED, headers={"WWW-Authenticate": challenge})
        path = request.path.removeprefix("/")
        failing = self._next(path)
        fault = failing.fault if failing else None
        content = self.files.get(path)
        if failing and failing.contents:
            content = failing.contents.pop(0) if len(failing.contents) > 1 else failing.contents[0]
        if failing and isinstance(fault, ByClient):
            if request.remote not in failing.clients:
                failing.clients.append(str(request.remote))
            content = fault.contents[min(failing.clients.index(str(request.remote)), len(fault.contents) - 1)]
        match fault:
            case Redirect():
                return web.Response(status=fault.status, headers={"Location": fault.to})
            case Status():
                return web.Response(status=fault.status, headers=fault.headers)
            case Stall(after=None):
                await _for_ever()
        if content is None:
            return web.Response(status=HTTPStatus.NOT_FOUND)
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=HTTPStatus.METHOD_NOT_ALLOWED)
        return await _send(request, content, fault)

    def _next(self, path: str) -> _Failing | None:
        failing = self._failing.get(path)
        if failing is None or failing.left is None:
            return failing
        failing.left -= 1
        if failing.left <= 0:
            self.heal(path)
        return failing

    def _authorized(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization")
        if self._login_wanted:
            wanted = base64.b64encode(":".join(self._login_wanted).encode()).decode()
            return given == f"Basic {wanted}"
        return not self._token_wanted or given == f"Bearer {self._token_wanted}"


async def _send(request: web.Request, content: bytes, fault: Fault | None) -> web.StreamResponse:
    if isinstance(fault, NoRanges):
        return web.Response(body=content, content_type="application/octet-stream")
    size = len(content)
    response, part = answered_part(request, size, strong_etag(content))
    if isinstance(fault, WrongLength):
        said = size + fault.by
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            response.headers["Content-Range"] = response.headers["Content-Range"].replace(f"/{size}", f"/{said}")
        if request.method == "HEAD":
            response.content_length = said
    if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return response
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    for chunk in _chunks(content[part.start : part.stop], fault):
        await response.write(chunk)
        if isinstance(fault, Slow):
            await asyncio.sleep(1 / _SLOW_CHUNKS_PER_SECOND)
    match fault:
        case Stall():
            await _for_ever()
        case Reset():
            _reset(request)
        case Truncate():
            # Not write_eof, which would wait for a next request on this connection.
            assert request.transport is not None
            request.transport.close()
        case _:
            await response.write_eof()
    return response


def _chunks(body: bytes, fault: Fault | None) -> Iterable[bytes]:
    match fault:
        case Stall(after=int(after)) | Reset(after=after) | Truncate(after=after):
            return [body[:after]]
        case Slow():
            step = max(fault.bytes_per_second // _SLOW_CHUNKS_PER_SECOND, 1)
            return (body[start : start + step] for start in range(0, len(body), step))
        case _:
            return [body]


async def _for_ever() -> None:
    """Until the client goes or the server is stopped: both cancel the handler."""
    await asyncio.Event().wait()


def _reset(request: web.Request) -> None:
    transport = request.transport
    assert transport is not None
    # Lingering for no time makes close() send RST instead of FIN.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
