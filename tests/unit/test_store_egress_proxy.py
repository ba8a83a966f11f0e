"""The way out for clients that dial by themselves: only to addresses that were checked, and each request by itself."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import ResolveResult
from aiohttp.test_utils import TestServer

from conch.api.reasons import Reason
from conch.api.source_policy import SourcePolicy
from conch.store import egress_proxy
from conch.store.addresses import PolicyResolver
from conch.store.egress_proxy import HEAD_BYTES_MOST, EgressProxy
from conch.store.errors import StoreError
from tests.support.http_site import Names, giving, serving_tls

LOCAL = SourcePolicy(private_hosts=("*.example",))
ESTABLISHED = b"HTTP/1.1 200 "


def names(**more: list[list[str]]) -> Names:
    found = Names({"a.example": [["127.0.0.1"]], "b.example": [["127.0.0.1"]]})
    found.answers.update({name.replace("_", "."): answers for name, answers in more.items()})
    return found


@asynccontextmanager
async def proxied(policy: SourcePolicy = LOCAL, resolver: Names | None = None) -> AsyncIterator[EgressProxy]:
    proxy = EgressProxy(PolicyResolver(policy, resolver or names()), policy)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.close()
        await ended()


async def ended() -> None:
    """No thread of a proxy is left."""
    async with asyncio.timeout(60):
        await until(lambda: not any(thread.name == "egress" for thread in threading.enumerate()))


async def until(happened: Callable[[], bool]) -> None:
    while not happened():  # noqa: ASYNC110 - it happens in another thread
        await asyncio.sleep(0.01)


@pytest.fixture
async def proxy() -> AsyncIterator[EgressProxy]:
    async with proxied() as made:
        yield made


class Echo:
    """Answers every request with what it was, and remembers it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str, bytes]] = []
        self.headers: list[Mapping[str, str]] = []
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.headers.append(request.headers)
        self.seen.append((request.method, request.raw_path, request.headers["Host"], body))
        return web.Response(body=b"%d:" % len(self.seen) + body)


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    made = Echo()
    application = web.Application(client_max_size=1 << 24)
    application.router.add_route("*", "/{path:.*}", made.answer)
    server = TestServer(application, host="127.0.0.1")
    await server.start_server()
    try:
        made.port = server.port or 0
        yield made
    finally:
        await server.close()


async def raw(proxy: EgressProxy, sent: bytes) -> bytes:
    """All that the proxy answers to these bytes, until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    try:
        writer.write(sent)
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def asked(proxy: EgressProxy, target: str) -> bytes:
    return await raw(proxy, tunnel(target))


def tunnel(target: str) -> bytes:
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()


def get(url: str, more: str = "") -> bytes:
    host = url.split("/")[2]
    return f"GET {url} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode()


async def test_whole_urls_on_one_connection(proxy: EgressProxy, echo: Echo) -> None:
    """With bodies larger than one read, and what is between client and proxy only is not handed on."""
    large = bytes(range(256)) * 4000
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        for number, body in enumerate((b"", b"small", large, b"again"), start=1):
            url = f"http://a.example:{echo.port}/p%2Fx?q=1&r=a%20b"
            headers = {"Proxy-Authorization": "Basic c2VjcmV0", "X-Own": "kept"}
            async with session.put(url, data=body, headers=headers, proxy=proxy.url) as response:
                assert await response.read() == b"%d:" % number + body
    assert {seen[:3] for seen in echo.seen} == {("PUT", "/p%2Fx?q=1&r=a%20b", f"a.example:{echo.port}")}
    assert all("Proxy-Authorization" not in headers and headers["X-Own"] == "kept" for headers in echo.headers)
    assert proxy.take_problem() is None


async def test_a_tunnel_with_a_private_authority(proxy: EgressProxy, tmp_path: Path) -> None:
    async with serving_tls(tmp_path, hosts=("a.example",)) as site:
        body = bytes(range(256)) * 20_000
        site.handler = giving(body)
        trust = ssl.create_default_context(cadata=site.authority)
        async with (
            aiohttp.ClientSession() as session,
            session.get(site.url(host="a.example"), proxy=proxy.url, ssl=trust) as response,
        ):
            assert await response.read() == body


async def test_bytes_right_behind_a_tunnels_head(proxy: EgressProxy, echo: Echo) -> None:
    target = f"a.example:{echo.port}"
    answer = await raw(proxy, tunnel(target) + get(f"http://{target}/", "Connection: close\r\n"))
    assert answer.startswith(ESTABLISHED)
    assert answer.endswith(b"1:")


REFUSED = [
    ("10.0.0.1:443", "not public"),
    ("127.0.0.1:443", "not public"),
    ("169.254.169.254:80", "not public"),
    ("[::ffff:169.254.169.254]:80", "not public"),
    ("[::1]:443", "not public"),
    ("[fd00:ec2::254]:80", "not public"),
    ("mapped.example.org:443", "not public"),
    ("one-is-private.example.org:443", "not public"),
]


@pytest.mark.parametrize(("target", "words"), REFUSED)
async def test_addresses_that_are_not_public(target: str, words: str) -> None:
    literal = target.rpartition(":")[0].strip("[]")
    resolver = names(**{literal: [[literal]]})
    resolver.answers["mapped.example.org"] = [["::ffff:10.0.0.1"]]
    resolver.answers["one-is-private.example.org"] = [["93.184.216.34", "10.0.0.1"]]
    async with proxied(resolver=resolver) as proxy:
        for sent in (tunnel(target), get(f"http://{target}/latest/meta-data/")):
            assert (await raw(proxy, sent)).startswith(b"HTTP/1.1 403 ")
            problem = proxy.take_problem()
            assert isinstance(problem, StoreError)
            assert (problem.reason, words in problem.message) == (Reason.SOURCE_NOT_ALLOWED, True)
            assert proxy.take_problem() is None


@pytest.mark.parametrize("target", ["169.254.169.254:80", "[::ffff:169.254.169.254]:80", "[::1]:80", "127.0.0.1:80"])
async def test_the_systems_resolver_makes_nothing_else_of_literal_addresses(target: str) -> None:
    async with asyncio.timeout(10):
        proxy = EgressProxy(PolicyResolver(LOCAL), LOCAL)
        proxy.start()
        try:
            assert (await asked(proxy, target)).startswith(b"HTTP/1.1 403 ")
            assert isinstance(proxy.take_problem(), StoreError)
        finally:
            proxy.close()
            await ended()


async def test_hosts_that_are_not_on_the_list(echo: Echo) -> None:
    policy = SourcePolicy(private_hosts=("*.example",), allowed_hosts=("a.example",))
    resolver = names()
    async with proxied(policy, resolver) as proxy:
        assert (await asked(proxy, f"b.example:{echo.port}")).startswith(b"HTTP/1.1 403 ")
        problem = proxy.take_problem()
        assert isinstance(problem, StoreError)
        assert "allowedHosts" in problem.message
        assert resolver.asked == []


async def test_what_was_checked_is_what_is_dialled(echo: Echo) -> None:
    """The name has another address when it is asked the second time; there is no second time for one connection."""
    resolver = names(rebinding_example=[["127.0.0.1"], ["169.254.169.254"]])
    policy = SourcePolicy(private_hosts=("rebinding.example",))
    async with proxied(policy, resolver) as proxy:
        target = f"rebinding.example:{echo.port}"
        answer = await raw(proxy, tunnel(target) + get(f"http://{target}/", "Connection: close\r\n"))
        assert answer.endswith(b"1:")
        assert resolver.asked == ["rebinding.example"]
    resolver = names(evil_test=[["93.184.216.34"], ["127.0.0.1"]])
    resolver.answers["evil.test"].pop(0)
    async with proxied(policy, resolver) as proxy:
        assert (await raw(proxy, get(f"http://evil.test:{echo.port}/"))).startswith(b"HTTP/1.1 403 ")
    assert len(echo.seen) == 1


@pytest.mark.parametrize("other", ["http://b.example:{port}/b", "http://a.example:1/b", "https://a.example/b", "/b"])
@pytest.mark.parametrize("body", ["", "Content-Length: 3\r\n"])
async def test_a_second_request_is_not_sent_to_the_first_ones_host(
    proxy: EgressProxy, echo: Echo, other: str, body: str
) -> None:
    """Not even one that comes in the same piece as the first one and its body."""
    first = get(f"http://a.example:{echo.port}/a", body) + (b"abc" if body else b"")
    second = f"GET {other.format(port=echo.port)} HTTP/1.1\r\nHost: b.example\r\n\r\n".encode()
    await raw(proxy, first + second)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    writer.write(first)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.write(second)
    async with asyncio.timeout(10):
        await reader.read()
    writer.close()
    assert {seen[1] for seen in echo.seen} <= {"/a"}


async def test_requests_in_one_piece(proxy: EgressProxy, echo: Echo) -> None:
    """Each is handed on in origin form, whatever the boundaries of what was read."""
    url = f"http://a.example:{echo.port}"
    sent = get(f"{url}/1", "Content-Length: 3\r\n") + b"abc" + get(f"{url}/2", "Content-Length: 2\r\n") + b"de"
    await raw_answers(proxy, sent, (b"abc", b"de"))
    await raw_answers(proxy, sent, (b"abc", b"de"), pieces=7)
    assert [seen[1::2] for seen in echo.seen] == [("/1", b"abc"), ("/2", b"de")] * 2


async def raw_answers(proxy: EgressProxy, sent: bytes, bodies: tuple[bytes, ...], pieces: int = 1 << 20) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    async with asyncio.timeout(10):
        for position in range(0, len(sent), pieces):
            writer.write(sent[position : position + pieces])
            await writer.drain()
            if pieces < 100:
                await asyncio.sleep(0.002)
        for body in bodies:
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert (await reader.readexactly(2 + len(body)))[2:] == body
    writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00garbage\r\n\r\n",
        b"GET\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\n\r\n",
        b"GET http://a.example/ HTTP/1.0\r\n\r\n",
        b"CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT a.example:99999 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET ftp://a.example/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET https://a.example/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http:/// HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT :443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (2 * HEAD_BYTES_MOST) + b"\r\n\r\n",
        b"x" * (4 * HEAD_BYTES_MOST),
    ],
)
async def test_what_makes_no_sense_ends_the_connection(proxy: EgressProxy, sent: bytes) -> None:
    answer = await raw(proxy, sent)
    assert not answer.startswith(ESTABLISHED)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 502 "))


async def test_a_body_of_unknown_length_is_not_handed_on(proxy: EgressProxy, echo: Echo) -> None:
    chunked = get(f"http://a.example:{echo.port}/", "Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n"
    assert await raw(proxy, chunked) == b""
    assert not echo.seen


async def test_nobody_listens(proxy: EgressProxy) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        target = f"a.example:{unused.getsockname()[1]}"
        assert (await asked(proxy, target)).startswith(b"HTTP/1.1 502 ")
    assert proxy.take_problem() == f"no connection to {target} (Connection refused)"


async def test_no_such_name(proxy: EgressProxy) -> None:
    assert (await asked(proxy, "nowhere.example:443")).startswith(b"HTTP/1.1 502 ")
    assert "nowhere.example:443 (no such name)" in str(proxy.take_problem())


async def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, proxy: EgressProxy) -> None:
    monkeypatch.setattr(egress_proxy, "CONNECT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        await asyncio.sleep(0.05)
        answer = await asked(proxy, f"a.example:{full.getsockname()[1]}")
        for each in waiting:
            each.close()
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert "within 0.1 s" in str(proxy.take_problem())


class Silent(Names):
    """A name server that does not answer."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del port, family
        self.asked.append(host)
        await asyncio.Event().wait()
        return []


async def test_a_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_proxy, "CONNECT_SECONDS", 0.1)
    async with proxied(resolver=Silent({})) as proxy:
        assert (await asked(proxy, "a.example:443")).startswith(b"HTTP/1.1 502 ")
        assert "within 0.1 s" in str(proxy.take_problem())


async def test_closing_ends_a_connection_that_waits_for_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_proxy, "CONNECT_SECONDS", 60)
    resolver = Silent({})
    async with proxied(resolver=resolver) as proxy:
        waiting = asyncio.ensure_future(asked(proxy, "a.example:443"))
        async with asyncio.timeout(60):
            await until(lambda: bool(resolver.asked))
    await waiting


async def test_closing_ends_what_is_open(echo: Echo) -> None:
    """Tunnels, connections that said nothing yet, and the listener."""
    async with proxied() as proxy:
        port = int(proxy.url.rpartition(":")[2])
        target = f"a.example:{echo.port}"
        opened = await asyncio.open_connection("127.0.0.1", port)
        opened[1].write(tunnel(target))
        assert (await opened[0].readuntil(b"\r\n\r\n")).startswith(ESTABLISHED)
        silent = await asyncio.open_connection("127.0.0.1", port)
        half = await asyncio.open_connection("127.0.0.1", port)
        half[1].write(b"CONNECT ")
        async with asyncio.timeout(60):
            await until(lambda: len(proxy._open) == 4)
    for reader, writer in (opened, silent, half):
        async with asyncio.timeout(60):
            # What it has not read yet makes the end a reset.
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
    with pytest.raises(OSError, match=r"refused|Connect"):
        await asyncio.open_connection("127.0.0.1", port)
    proxy.close()
