"""What every store that speaks HTTP relies on: credentials stay at home, parts are what was asked for, clear words."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from aiohttp import web

from conch.api.reasons import Reason
from conch.api.source_policy import SourcePolicy
from conch.store import http_client
from conch.store.credentials import Credentials
from conch.store.errors import StoreError
from conch.store.http_client import HttpClient, Opened
from conch.store.remote import ChangedError, RemoteFile, Surroundings, TransientError
from tests.support.http_site import Handler, Names, Site, giving, giving_parts, serving, serving_tls

LOCAL = SourcePolicy(http_hosts=("*",), private_hosts=("*",))
BODY = bytes(range(256)) * 40
FILE = RemoteFile(path="m", key="m", size=len(BODY))


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving() as made:
        yield made


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    made = client_of()
    yield made
    await made.close()


def client_of(names: Names | None = None, **credentials: str) -> HttpClient:
    entries = {name.replace("_", "."): value for name, value in credentials.items()}
    return HttpClient(Surroundings(shown="the model", policy=LOCAL, resolver=names, credentials=Credentials(entries)))


async def part(
    client: HttpClient, site: Site, start: int, end: int | None, file: RemoteFile = FILE, etag: str = ""
) -> bytes:
    def get(headers: Mapping[str, str]) -> Opened:
        return client.get(site.url(), headers)

    return b"".join([bytes(chunk) async for chunk in client.read_part(get, file, start, end, etag=etag)])


async def whole(client: HttpClient, url: str, most_bytes: int = 100) -> bytes:
    async with client.get(url) as response:
        return await client.read_whole(response, most_bytes, "the list")


@pytest.mark.parametrize(("start", "end"), [(0, 100), (100, 5000), (9000, None), (0, None), (0, len(BODY))])
async def test_parts(site: Site, client: HttpClient, start: int, end: int | None) -> None:
    site.handler = giving_parts(BODY)
    assert await part(client, site, start, end) == BODY[start:end]


async def test_all_of_a_file_needs_no_range_and_nothing_needs_no_request(site: Site, client: HttpClient) -> None:
    site.handler = giving_parts(BODY)
    await part(client, site, 0, len(BODY))
    assert "Range" not in site.requests[0].headers
    assert await part(client, site, 0, 0, RemoteFile(path="m", key="m", size=0)) == b""
    assert len(site.requests) == 1


async def test_a_server_without_ranges_serves_the_beginning_only(site: Site, client: HttpClient) -> None:
    site.handler = giving(BODY)
    assert await part(client, site, 0, 100) == BODY[:100]
    with pytest.raises(TransientError, match="whole file instead of the part"):
        await part(client, site, 100, 200)


@pytest.mark.parametrize(
    "content_range",
    ["", "bytes 0-99/10240", "bytes 101-199/10240", "bytes x", "bytes */10240", f"bytes 100-199/{'9' * 5000}"],
)
async def test_another_part_than_asked_for(site: Site, client: HttpClient, content_range: str) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=206, body=b"x" * 100, headers={"Content-Range": content_range})

    site.handler = handler
    with pytest.raises(TransientError, match="another part"):
        await part(client, site, 100, 200)


@pytest.mark.parametrize(
    "handler",
    [
        giving_parts(BODY + b"more", etag=""),
        giving_parts(b"less", etag=""),
        giving_parts(BODY, etag='"v2"'),
        giving(b"other"),
    ],
)
@pytest.mark.parametrize("start", [0, 100])
async def test_a_file_that_is_another_by_now(site: Site, client: HttpClient, handler: Handler, start: int) -> None:
    site.handler = handler
    with pytest.raises(ChangedError, match="the model"):
        await part(client, site, start, 200, etag='"v1"')


async def test_parts_that_end_early_or_late(site: Site, client: HttpClient) -> None:
    def answering(count: int) -> Handler:
        async def handler(_request: web.Request) -> web.Response:
            return web.Response(status=206, body=b"x" * count, headers={"Content-Range": f"bytes 100-199/{len(BODY)}"})

        return handler

    site.handler = answering(50)
    with pytest.raises(TransientError, match="ended after 150 of 10240 bytes"):
        await part(client, site, 100, 200)
    site.handler = answering(500)
    assert await part(client, site, 100, 200) == b"x" * 100


async def test_a_transfer_that_breaks_off(site: Site, client: HttpClient) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(BODY))})
        await response.prepare(request)
        await response.write(BODY[:100])
        assert request.transport is not None
        request.transport.close()
        return response

    site.handler = handler
    with pytest.raises(TransientError, match="broke off"):
        await part(client, site, 0, None)


async def test_closing_a_reader_ends_its_request(site: Site, client: HttpClient) -> None:
    ended = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(1 << 40)})
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * (1 << 20))
        finally:
            ended.set()

    site.handler = endless
    huge = RemoteFile(path="m", key="m", size=1 << 40)
    chunks = client.read_part(lambda headers: client.get(site.url(), headers), huge, 0, None)
    assert 0 < len(await anext(chunks)) <= 4 << 20
    await chunks.aclose()
    await asyncio.wait_for(ended.wait(), 5)


@pytest.mark.parametrize("encoding", ["br", "deflate"])
async def test_an_encoding_that_was_not_asked_for(site: Site, client: HttpClient, encoding: str) -> None:
    site.handler = giving(BODY, **{"Content-Encoding": encoding})
    with pytest.raises(StoreError, match="encoding"):
        await part(client, site, 0, None)
    site.handler = giving(b"x", **{"Content-Encoding": "gzip"})
    with pytest.raises(StoreError, match="encoding"):
        await whole(client, site.url())


async def test_a_compressed_file_arrives_as_it_is(site: Site, client: HttpClient) -> None:
    site.handler = giving(BODY, **{"Content-Encoding": "gzip"})
    assert await part(client, site, 0, None) == BODY


async def test_small_answers_are_bounded(site: Site, client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    site.handler = giving(b"x" * 101)
    with pytest.raises(StoreError, match="the list is larger than 100 bytes") as caught:
        await whole(client, site.url())
    assert caught.value.reason is Reason.SOURCE_TOO_LARGE

    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.02)

    site.handler = trickle
    monkeypatch.setattr(http_client, "METADATA_SECONDS", 0.2)
    with pytest.raises(TransientError, match="did not answer in time"):
        await whole(client, site.url())


async def test_a_silent_server_is_not_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(_request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    site.handler = silent
    assert http_client.SILENCE_SECONDS < 5
    monkeypatch.setattr(http_client, "SILENCE_SECONDS", 0.2)
    client = client_of()
    try:
        with pytest.raises(TransientError, match="did not answer in time"):
            await asyncio.wait_for(whole(client, site.url()), 5)
    finally:
        await client.close()


async def test_a_name_server_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class SlowNames(Names):
        async def resolve(self, host: str, port: int = 0, family: object = None) -> list[object]:  # type: ignore[override]  # as wide as the one it stands for
            await asyncio.sleep(30)
            raise AssertionError((host, port, family))

    monkeypatch.setattr(http_client, "SILENCE_SECONDS", 0.2)
    client = client_of(SlowNames({}))
    try:
        with pytest.raises(TransientError, match="did not answer in time"):
            await asyncio.wait_for(whole(client, "http://slow.example/"), 5)
    finally:
        await client.close()


async def test_credentials_go_to_their_own_origin_only(site: Site) -> None:
    async with serving() as other:
        other.handler = giving(b"there")
        names = Names({"files.example": [["127.0.0.1"]]})
        client = client_of(names)

        async def step(request: web.Request) -> web.StreamResponse:
            targets = {"/same": "/end", "/port": other.url("/x"), "/host": site.url("/end", host="files.example")}
            if target := targets.get(request.path):
                return web.Response(status=307, headers={"Location": target})
            return web.Response(body=b"there")

        async def back(_request: web.Request) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": site.url("/end")})

        async def sent(path: str) -> list[str | None]:
            site.requests.clear()
            other.requests.clear()
            async with client.get(site.url(path), authorization="Basic secret") as response:
                assert await response.read() == b"there"
            return [request.headers.get("Authorization") for request in (*site.requests, *other.requests)]

        try:
            site.handler = step
            assert await sent("/same") == ["Basic secret", "Basic secret"]
            assert await sent("/port") == ["Basic secret", None]
            assert await sent("/host") == ["Basic secret", None]
            other.handler = back
            assert await sent("/port") == ["Basic secret", None, None]
        finally:
            await client.close()


async def test_a_signed_redirect_is_followed_as_written(site: Site, client: HttpClient) -> None:
    signed = "/a%2Fb/m%20x?X-Signature=a%2Bb%3D&e=~&d=%7E*'"

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/model.onnx":
            return web.Response(status=302, headers={"Location": signed})
        return web.Response(body=b"there")

    site.handler = handler
    assert await whole(client, site.url()) == b"there"
    assert site.requests[-1].raw_path == signed


async def test_connections_are_kept_for_their_host_only(site: Site) -> None:
    site.handler = giving(b"x")
    names = Names({"files.example": [["127.0.0.1"]], "other.example": [["127.0.0.1"]]})
    client = client_of(names)
    try:
        for _ in range(3):
            await whole(client, site.url(host="files.example"))
        assert names.asked == ["files.example"]
        await whole(client, site.url(host="other.example"))
        assert names.asked == ["files.example", "other.example"]
        site.handler = giving(b"x", Connection="close")
        for _ in range(3):
            await whole(client, site.url(host="files.example"))
        assert names.asked == ["files.example", "other.example", "files.example", "files.example"]
    finally:
        await client.close()


async def test_cookies_are_not_kept(site: Site) -> None:
    site.handler = giving(b"x", **{"Set-Cookie": "a=b"})
    client = client_of(Names({"files.example": [["127.0.0.1"]]}))
    try:
        for _ in range(2):
            await whole(client, site.url(host="files.example"))
    finally:
        await client.close()
    assert "Cookie" not in site.requests[-1].headers


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "xn--\u00e9\u00e9.example", "a..example"])
async def test_hosts_that_are_no_names(client: HttpClient, host: str) -> None:
    with pytest.raises((StoreError, TransientError)) as caught:
        await whole(client, f"http://{host}/m")
    assert not isinstance(caught.value, StoreError) or caught.value.reason is Reason.INVALID_SPEC


async def test_a_private_authority_has_to_be_named(tmp_path: Path) -> None:
    async with serving_tls(tmp_path) as site:
        site.handler = giving(b"x")
        stranger = client_of()
        try:
            with pytest.raises(StoreError) as caught:
                await whole(stranger, site.url("/?token=secret"))
        finally:
            await stranger.close()
        assert caught.value.reason is Reason.SOURCE_UNREACHABLE
        assert "certificate of 127.0.0.1 is not valid (unable to get local issuer" in caught.value.message
        assert "ca.crt" in caught.value.message
        assert "credentialsSecretRef" in caught.value.message
        friend = client_of(ca_crt=site.authority)
        try:
            assert await whole(friend, site.url()) == b"x"
        finally:
            await friend.close()


async def test_a_private_authority_adds_to_the_systems(tmp_path: Path) -> None:
    async with serving_tls(tmp_path) as site:
        counts = [len(client._trust().get_ca_certs()) for client in (client_of(), client_of(ca_crt=site.authority))]
    assert counts[1] == counts[0] + 1


async def test_a_certificate_for_another_host(tmp_path: Path) -> None:
    async with serving_tls(tmp_path, hosts=("files.example",)) as site:
        client = client_of(ca_crt=site.authority)
        try:
            with pytest.raises(StoreError, match="IP address mismatch"):
                await whole(client, site.url())
        finally:
            await client.close()


async def test_a_server_without_tls(site: Site, client: HttpClient) -> None:
    with pytest.raises(TransientError, match="does not speak TLS"):
        await whole(client, f"https://127.0.0.1:{site.port}/")


@pytest.mark.parametrize("authority", ["", "secret", "s\u00e9cret", "-----BEGIN CERTIFICATE-----\nsecret"])
async def test_an_authority_that_is_none(authority: str) -> None:
    client = client_of(ca_crt=authority)
    with pytest.raises(StoreError, match=r"ca\.crt .* is not a certificate") as caught:
        await whole(client, "http://127.0.0.1:9/")
    assert "cret" not in caught.value.message.replace("Secret", "")
