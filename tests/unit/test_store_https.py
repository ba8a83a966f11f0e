"""Downloads: resumed, bounded, in clear words; and no way to an address that the policy does not allow."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer

from conch.api.reasons import Reason
from conch.api.source import HttpSource, SourcePolicy, parse_source_uri
from conch.store import https
from conch.store.addresses import check_address
from conch.store.errors import StoreError
from conch.store.https import Download, download
from tests.support.virtual_time import run_virtually, virtual_now

LOCAL = SourcePolicy(http_hosts=("*",), private_hosts=("127.0.0.1", "files.example"))
Handler = Callable[[web.Request], Any]


@dataclass
class Names(AbstractResolver):
    """A name server that gives one answer after the other, and counts."""

    answers: dict[str, list[list[str]]]
    port: int = 0
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
    """A server on loopback whose one handler a test sets."""

    port: int = 0
    handler: Handler | None = None
    requests: list[web.Request] = field(default_factory=list)

    async def answer(self, request: web.Request) -> Any:
        self.requests.append(request)
        assert self.handler is not None
        return await self.handler(request)

    def url(self, path: str = "/model.onnx", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    application = web.Application()
    application.router.add_get("/{path:.*}", made.answer)
    async with TestServer(application, host="127.0.0.1") as server:
        made.port = server.port or 0
        yield made


async def fetched(
    url: str, to: Path, policy: SourcePolicy = LOCAL, names: Names | None = None, limit: int = 1 << 20, **kw: Any
) -> bytes:
    source = parse_source_uri(url)
    assert isinstance(source, HttpSource)
    wanted = Download(source=source, destination=to / "file", policy=policy, limit_bytes=limit, **kw)
    await download(wanted, resolver=names, sleep=lambda _seconds: asyncio.sleep(0))
    return wanted.destination.read_bytes()


async def failure(url: str, to: Path, **kw: Any) -> StoreError:
    with pytest.raises(StoreError) as caught:
        await fetched(url, to, **kw)
    assert "secret" not in caught.value.message
    return caught.value


def giving(body: bytes, **headers: str) -> Handler:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(body=body, headers=headers)

    return handler


def redirecting(location: str, status: int = 302) -> Handler:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": location})

    return handler


async def test_bytes_progress_and_no_compression(site: Site, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    site.handler = giving(b"w" * 5000)
    assert await fetched(site.url(), tmp_path, progress=lambda done, total: seen.append((done, total))) == b"w" * 5000
    assert (seen[0], seen[-1]) == ((0, 5000), (5000, 5000))
    assert site.requests[0].headers["Accept-Encoding"] == "identity"


async def test_a_signed_url_is_sent_as_written(site: Site, tmp_path: Path) -> None:
    site.handler = giving(b"x")
    await fetched(site.url("/a%2Fb/m%20x.onnx?X-Signature=a%2Bb%3D&e=~"), tmp_path)
    assert site.requests[0].raw_path == "/a%2Fb/m%20x.onnx?X-Signature=a%2Bb%3D&e=~"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, Reason.SOURCE_NOT_FOUND),
        (410, Reason.SOURCE_NOT_FOUND),
        (401, Reason.SOURCE_ACCESS_DENIED),
        (403, Reason.SOURCE_ACCESS_DENIED),
        (500, Reason.SOURCE_UNREACHABLE),
        (418, Reason.SOURCE_UNREACHABLE),
    ],
)
async def test_statuses_in_the_apis_words(site: Site, tmp_path: Path, status: int, reason: Reason) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=status)

    site.handler = handler
    error = await failure(site.url("/m.onnx?token=secret"), tmp_path)
    assert (error.reason, "/m.onnx" in error.message, str(status) in error.message) == (reason, True, True)
    assert len(site.requests) == (3 if status == 500 else 1)


async def test_an_interrupted_transfer_is_resumed(site: Site, tmp_path: Path) -> None:
    body = bytes(range(256)) * 40

    async def handler(request: web.Request) -> web.StreamResponse:
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        end = min(start + 4000, len(body))
        response = web.StreamResponse(status=206 if start else 200, headers={"ETag": '"v1"'})
        response.content_length = len(body) - start
        if start:
            assert request.headers["If-Range"] == '"v1"'
            response.headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        await response.prepare(request)
        await response.write(body[start:end])
        if end < len(body):
            assert request.transport is not None
            request.transport.close()
        return response

    site.handler = handler
    assert await fetched(site.url(), tmp_path) == body
    assert len(site.requests) == 3


async def test_a_file_that_changed_meanwhile_starts_anew(site: Site, tmp_path: Path) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if len(site.requests) > 1:
            return web.Response(body=b"new" * 100, headers={"ETag": '"v2"'})
        response = web.StreamResponse(headers={"ETag": '"v1"'})
        response.content_length = 500
        await response.prepare(request)
        await response.write(b"old")
        assert request.transport is not None
        request.transport.close()
        return response

    site.handler = handler
    assert await fetched(site.url(), tmp_path) == b"new" * 100


async def test_too_large_is_said_at_once_and_also_when_the_server_lies(site: Site, tmp_path: Path) -> None:
    site.handler = giving(b"x" * 5000)
    assert (await failure(site.url(), tmp_path, limit=100)).reason is Reason.SOURCE_TOO_LARGE

    async def chunked(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for _ in range(10):
            await response.write(b"x" * 1000)
        return response

    site.handler = chunked
    assert (await failure(site.url(), tmp_path, limit=100)).reason is Reason.SOURCE_TOO_LARGE


async def test_nobody_listens_and_no_such_name(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = await failure(f"http://127.0.0.1:{unused.getsockname()[1]}/m.onnx?t=secret", tmp_path)
    assert error.reason is Reason.SOURCE_UNREACHABLE
    error = await failure("http://nowhere.example/m.onnx", tmp_path, names=Names({}))
    assert (error.reason, "does not resolve" in error.message) == (Reason.SOURCE_UNREACHABLE, True)


@pytest.mark.parametrize(("attempt_seconds", "attempts"), [(5.0, 1), (2.5, 2), (0.1, 3)])
def test_an_address_that_swallows_everything_is_told_within_seconds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, attempt_seconds: float, attempts: int
) -> None:
    begun: list[float] = []

    async def attempt(_transfer: object) -> None:
        begun.append(virtual_now())
        await asyncio.sleep(attempt_seconds)
        raise https._TransientError("no connection")

    monkeypatch.setattr(https._Transfer, "attempt", attempt)
    run_virtually(lambda: failure("http://127.0.0.1/m.onnx", tmp_path))
    assert len(begun) == attempts


ANY = SourcePolicy(http_hosts=("*",))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:169.254.169.254]",
     "0.0.0.0", "[fd00::1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "100.64.0.1", "224.0.0.1", "[fe80::1]"],  # noqa: S104 - an address that must be refused
)  # fmt: skip
async def test_literal_addresses_that_are_not_public(tmp_path: Path, host: str) -> None:
    assert (await failure(f"http://{host}/m.onnx", tmp_path, policy=ANY)).reason is Reason.SOURCE_NOT_ALLOWED


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "localhost"])
async def test_other_spellings_of_loopback(tmp_path: Path, host: str) -> None:
    error = await failure(f"http://{host}:9/m.onnx", tmp_path, policy=ANY)
    assert error.reason in (Reason.SOURCE_NOT_ALLOWED, Reason.SOURCE_UNREACHABLE, Reason.INVALID_SPEC)
    assert "no connection" not in error.message


@pytest.mark.parametrize(
    "answer", [["10.1.2.3"], ["::ffff:10.1.2.3"], ["93.184.216.34", "127.0.0.1"], ["fe80::1%eth0"]]
)
async def test_names_with_an_address_that_is_not_public(tmp_path: Path, answer: list[str]) -> None:
    error = await failure("http://model.example/m.onnx", tmp_path, policy=ANY, names=Names({"model.example": [answer]}))
    assert (error.reason, "privateHosts" in error.message) == (Reason.SOURCE_NOT_ALLOWED, True)


async def test_the_checked_address_is_the_dialled_one(site: Site, tmp_path: Path) -> None:
    """Rebinding: each connection asks once and dials that answer; a second answer is never looked at unchecked."""
    site.handler = giving(b"x")
    names = Names({"files.example": [["127.0.0.1"], ["169.254.169.254"]]})
    assert await fetched(site.url(host="files.example"), tmp_path, names=names) == b"x"
    assert names.asked == ["files.example"]
    names = Names({"evil.example": [["93.184.216.34"], ["127.0.0.1"]]})
    source = SourcePolicy(http_hosts=("*",), private_hosts=("files.example",))
    site.handler = redirecting(site.url(host="evil.example"))
    names.answers["files.example"] = [["127.0.0.1"]]
    names.answers["evil.example"].pop(0)
    assert (
        await failure(site.url(host="files.example"), tmp_path, policy=source, names=names)
    ).reason is Reason.SOURCE_NOT_ALLOWED


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/latest/meta-data/", "//169.254.169.254/x", "http://[::ffff:169.254.169.254]/", "http://10.0.0.1/x",
     "ftp://files.example/x", "file:///etc/passwd", "pvc://claim/x", "http://user:secret@files.example/x", "http://blocked.example/x"],
)  # fmt: skip
async def test_redirects_are_checked_like_the_first_hop(site: Site, tmp_path: Path, location: str) -> None:
    policy = SourcePolicy(
        allowed_hosts=("127.0.0.1", "169.254.*", "10.*", "*:*", "files.example"),
        http_hosts=("*",),
        private_hosts=("127.0.0.1",),
    )
    site.handler = redirecting(location)
    assert (await failure(site.url(), tmp_path, policy=policy)).reason is Reason.SOURCE_NOT_ALLOWED


async def test_redirects_are_followed_within_the_policy_and_end(site: Site, tmp_path: Path) -> None:
    async def handler(request: web.Request) -> web.Response:
        step = int(request.query.get("n", "0"))
        if request.path == "/good" and step == 3:
            return web.Response(body=b"there")
        return web.Response(status=307, headers={"Location": f"{request.path}?n={step + 1}"})

    site.handler = handler
    assert await fetched(site.url("/good"), tmp_path) == b"there"
    assert "redirects more than" in (await failure(site.url("/loop"), tmp_path)).message


async def test_a_proxy_of_the_environment_is_not_used(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    site.handler = giving(b"x")
    assert await fetched(site.url(), tmp_path) == b"x"


def test_private_hosts_may_be_private_and_nothing_else() -> None:
    policy = SourcePolicy(private_hosts=("minio.models.svc",))
    check_address(policy, "minio.models.svc", "10.0.0.9")
    check_address(policy, "public.example", "93.184.216.34")
    with pytest.raises(StoreError):
        check_address(policy, "public.example", "10.0.0.9")
