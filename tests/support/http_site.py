"""A small web server on loopback for stores that speak HTTP, and a name server that answers as a test wants."""

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer

from conch.store.remote import AsyncRemote, RemoteFile
from tests.cluster.pki import Authority

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Names(AbstractResolver):
    """A name server that gives one answer after the other, and counts."""

    answers: dict[str, list[list[str]]]
    asked: list[str] = field(default_factory=list)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family
        self.asked.append(host)
        answers = self.answers.get(host)
        if not answers:
            raise OSError("no such name")
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            ResolveResult(hostname=host, host=a, port=port, family=_family(a), proto=0, flags=socket.AI_NUMERICHOST)
            for a in addresses
        ]

    async def close(self) -> None:
        pass


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@dataclass
class Site:
    """A server whose one handler a test sets."""

    scheme: str = "http"
    port: int = 0
    authority: str = ""
    """The certificate of the CA that its own is from, if it speaks TLS."""
    handler: Handler | None = None
    requests: list[web.Request] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """What the server does with a request."""
        self.requests.append(request)
        assert self.handler is not None
        return await self.handler(request)

    def url(self, path: str = "/model.onnx", host: str = "127.0.0.1") -> str:
        """An address at this server."""
        return f"{self.scheme}://{host}:{self.port}{path}"


@asynccontextmanager
async def serving() -> AsyncIterator[Site]:
    """A server that speaks plain HTTP."""
    async with _serving(Site(), None) as site:
        yield site


@asynccontextmanager
async def serving_tls(folder: Path, hosts: tuple[str, ...] = ("127.0.0.1",)) -> AsyncIterator[Site]:
    """A server with a certificate for `hosts` from a CA of its own, whose files are put into `folder`."""
    authority = Authority(folder)
    pair = authority.issue("site", "site", hosts=hosts)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    site = Site(scheme="https", authority=authority.pair.certificate.read_text())
    async with _serving(site, context) as made:
        yield made


@asynccontextmanager
async def _serving(site: Site, context: ssl.SSLContext | None) -> AsyncIterator[Site]:
    application = web.Application()
    application.router.add_get("/{path:.*}", site.answer)
    server = TestServer(application, host="127.0.0.1")
    await server.start_server(ssl=context)
    try:
        site.port = server.port or 0
        yield site
    finally:
        await server.close()


def giving(body: bytes, **headers: str) -> Handler:
    """Answers with the whole body, whatever part was asked for."""

    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, headers=headers)

    return handler


def giving_parts(body: bytes, etag: str = '"v1"') -> Handler:
    """Answers with the part that was asked for, as RFC 9110 says."""

    async def handler(request: web.Request) -> web.StreamResponse:
        asked = request.headers.get("Range")
        if asked is None or request.headers.get("If-Range", etag) != etag:
            return web.Response(body=body, headers={"ETag": etag})
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) + 1 if last else len(body), len(body))
        if start >= len(body):
            return web.Response(status=416, headers={"Content-Range": f"bytes */{len(body)}", "ETag": etag})
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(body)}", "ETag": etag}
        return web.Response(status=206, body=body[start:end], headers=headers)

    return handler


def redirecting(location: str, status: int = 302) -> Handler:
    """Sends everybody elsewhere."""

    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": location})

    return handler


async def read(remote: AsyncRemote, file: RemoteFile, start: int = 0, end: int | None = None) -> bytes:
    """The bytes of a file, in one piece."""
    return b"".join([bytes(chunk) async for chunk in remote.read(file, start, end)])
