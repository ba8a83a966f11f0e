"""A file behind a URL: what is known before it is read; and no way to an address that the policy does not allow."""

import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from conch.api.reasons import Reason
from conch.api.source import HttpSource, parse_source_uri
from conch.api.source_policy import SourcePolicy
from conch.store.addresses import check_address
from conch.store.credentials import Credentials
from conch.store.errors import StoreError, without_query
from conch.store.remote import ChangedError, Listing, Surroundings, TransientError
from conch.store.sources.https import HttpsRemote
from tests.support.http_site import Handler, Names, Site, giving, giving_parts, read, redirecting, serving

LOCAL = SourcePolicy(http_hosts=("*",), private_hosts=("127.0.0.1", "files.example"))


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving() as made:
        yield made


def remote_of(
    url: str, policy: SourcePolicy = LOCAL, names: Names | None = None, credentials: dict[str, str] | None = None
) -> HttpsRemote:
    source = parse_source_uri(url)
    assert isinstance(source, HttpSource)
    return HttpsRemote(
        source,
        Surroundings(
            shown=without_query(url), policy=policy, resolver=names, credentials=Credentials(credentials or {})
        ),
    )


async def listed(url: str, **kw: Any) -> Listing:
    remote = remote_of(url, **kw)
    try:
        return await remote.list()
    finally:
        await remote.close()


async def fetched(url: str, **kw: Any) -> bytes:
    remote = remote_of(url, **kw)
    try:
        (file,) = (await remote.list()).files
        return await read(remote, file)
    finally:
        await remote.close()


async def failure(url: str, **kw: Any) -> StoreError:
    with pytest.raises(StoreError) as caught:
        await fetched(url, **kw)
    assert "secret" not in caught.value.message
    return caught.value


async def passing_failure(url: str, **kw: Any) -> str:
    with pytest.raises(TransientError) as caught:
        await fetched(url, **kw)
    assert "secret" not in str(caught.value)
    return str(caught.value)


async def test_what_is_known_before_reading(site: Site) -> None:
    site.handler = giving_parts(b"w" * 5000)
    listing = await listed(site.url("/models/a%20model.onnx?X-Signature=secret"))
    (file,) = listing.files
    assert (file.path, file.size, file.version) == ("a model.onnx", 5000, '"v1"')
    assert (listing.resolved, listing.folder) == ('"v1"', False)


@pytest.mark.parametrize(
    ("handler", "size", "resolved"),
    [
        (giving(b"w" * 5000, ETag='"v1"'), 5000, '"v1"'),
        (giving(b"w" * 50, **{"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}), 50, "Mon, 01 Jan 2024 00:00:00 GMT"),
        (giving_parts(b"w" * 50, etag='W/"weak"'), 50, 'W/"weak"'),
        (giving_parts(b""), 0, '"v1"'),
    ],
)
async def test_what_cannot_be_read_in_parts_has_no_version(
    site: Site, handler: Handler, size: int, resolved: str
) -> None:
    site.handler = handler
    listing = await listed(site.url())
    (file,) = listing.files
    assert (file.size, listing.resolved) == (size, resolved)
    assert file.version == ""


async def test_a_size_that_nobody_tells(site: Site) -> None:
    async def chunked(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for _ in range(10):
            await response.write(b"x" * 1000)
        return response

    site.handler = chunked
    (file,) = (await listed(site.url())).files
    assert (file.size, file.version) == (None, "")
    assert await fetched(site.url()) == b"x" * 10_000


async def test_the_listing_does_not_read_the_file(site: Site) -> None:
    written = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse(headers={"Content-Length": str(1 << 40)})
        await response.prepare(request)
        while True:
            await response.write(b"x" * (1 << 20))
            written += 1 << 20

    site.handler = endless
    (file,) = (await listed(site.url())).files
    assert file.size == 1 << 40
    assert written < 64 << 20


async def test_bytes_and_no_compression(site: Site) -> None:
    site.handler = giving(b"w" * 5000)
    assert await fetched(site.url()) == b"w" * 5000
    assert [request.headers["Accept-Encoding"] for request in site.requests] == ["identity"] * 2


async def test_a_part_belongs_to_what_was_listed(site: Site) -> None:
    body = bytes(range(256)) * 40
    site.handler = giving_parts(body)
    remote = remote_of(site.url())
    try:
        (file,) = (await remote.list()).files
        assert await read(remote, file, 4000, 9000) == body[4000:9000]
        assert site.requests[-1].headers["Range"] == "bytes=4000-8999"
        assert site.requests[-1].headers["If-Range"] == '"v1"'
        site.handler = giving_parts(body, etag='"v2"')
        for start in (0, 4000):
            with pytest.raises(ChangedError):
                await read(remote, file, start, 9000)
    finally:
        await remote.close()


async def test_a_signed_url_is_sent_as_written(site: Site) -> None:
    site.handler = giving(b"x")
    await fetched(site.url("/a%2Fb/m%20x.onnx?X-Signature=a%2Bb%3D&e=~"))
    assert {request.raw_path for request in site.requests} == {"/a%2Fb/m%20x.onnx?X-Signature=a%2Bb%3D&e=~"}


@pytest.mark.parametrize("path", ["", "/", "/models/", "/..", "/a%00b", "/a%0Ab", "/a%5Cb", "/%FF"])
async def test_a_url_must_end_in_a_usable_name(site: Site, path: str) -> None:
    site.handler = giving(b"x")
    error = await failure(site.url(path + "?token=secret"))
    assert (error.reason, "usable file name" in error.message) == (Reason.INVALID_MODEL, True)


@pytest.mark.parametrize(
    ("credentials", "sent"),
    [
        ({}, None),
        ({"ca.crt.old": "x"}, None),
        ({"username": "ann", "password": "pä:ss"}, "Basic YW5uOnDDpDpzcw=="),
        ({"token": "t0ken"}, "Bearer t0ken"),
    ],
)
async def test_credentials(site: Site, credentials: dict[str, str], sent: str | None) -> None:
    site.handler = giving(b"x")
    await fetched(site.url(), credentials=credentials)
    assert [request.headers.get("Authorization") for request in site.requests] == [sent] * 2


@pytest.mark.parametrize(
    ("credentials", "words"),
    [
        ({"username": "secret"}, "no entry password"),
        ({"password": "secret"}, "no entry username"),
        ({"token": "a secret"}, "token"),
        ({"token": "secret\nX: y"}, "token"),
    ],
)
async def test_credentials_that_make_no_sense(site: Site, credentials: dict[str, str], words: str) -> None:
    site.handler = giving(b"x")
    error = await failure(site.url(), credentials=credentials)
    assert (error.reason, words in error.message) == (Reason.SOURCE_ACCESS_DENIED, True)
    assert not site.requests


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, Reason.SOURCE_NOT_FOUND),
        (410, Reason.SOURCE_NOT_FOUND),
        (401, Reason.SOURCE_ACCESS_DENIED),
        (403, Reason.SOURCE_ACCESS_DENIED),
        (418, Reason.SOURCE_UNREACHABLE),
        (599, Reason.SOURCE_UNREACHABLE),
    ],
)
async def test_statuses_in_the_apis_words(site: Site, status: int, reason: Reason) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=status, reason="secret")

    site.handler = handler
    error = await failure(site.url("/m.onnx?token=secret"))
    assert (error.reason, "/m.onnx" in error.message, str(status) in error.message) == (reason, True, True)
    assert ("credentialsSecretRef" in error.message) == (reason is Reason.SOURCE_ACCESS_DENIED)
    assert len(site.requests) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_statuses_that_another_attempt_may_cure(site: Site, status: int) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=status)

    site.handler = handler
    assert f"the server answered {status} " in await passing_failure(site.url("/m.onnx?token=secret"))


async def test_nobody_listens_and_no_such_name() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        words = await passing_failure(f"http://127.0.0.1:{unused.getsockname()[1]}/m.onnx?t=secret")
    assert "no connection to 127.0.0.1:" in words
    words = await passing_failure("http://nowhere.example/m.onnx?t=secret", names=Names({}))
    assert words == "the name nowhere.example does not resolve"


ANY = SourcePolicy(http_hosts=("*",))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:169.254.169.254]",
     "0.0.0.0", "[fd00::1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "100.64.0.1", "224.0.0.1", "[fe80::1]"],  # noqa: S104 - an address that must be refused
)  # fmt: skip
async def test_literal_addresses_that_are_not_public(host: str) -> None:
    assert (await failure(f"http://{host}/m.onnx", policy=ANY)).reason is Reason.SOURCE_NOT_ALLOWED


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "localhost"])
async def test_other_spellings_of_loopback(host: str) -> None:
    with pytest.raises((StoreError, TransientError)) as caught:
        await fetched(f"http://{host}:9/m.onnx", policy=ANY)
    reason = caught.value.reason if isinstance(caught.value, StoreError) else None
    assert reason in (Reason.SOURCE_NOT_ALLOWED, Reason.INVALID_SPEC) or "does not resolve" in str(caught.value)


@pytest.mark.parametrize(
    "answer", [["10.1.2.3"], ["::ffff:10.1.2.3"], ["93.184.216.34", "127.0.0.1"], ["fe80::1%eth0"]]
)
async def test_names_with_an_address_that_is_not_public(answer: list[str]) -> None:
    error = await failure("http://model.example/m.onnx", policy=ANY, names=Names({"model.example": [answer]}))
    assert (error.reason, "privateHosts" in error.message) == (Reason.SOURCE_NOT_ALLOWED, True)


async def test_the_checked_address_is_the_dialled_one(site: Site) -> None:
    """Rebinding: each connection asks once and dials that answer; a second answer is never looked at unchecked."""
    site.handler = giving(b"x")
    names = Names({"files.example": [["127.0.0.1"], ["169.254.169.254"]]})
    assert await fetched(site.url(host="files.example"), names=names) == b"x"
    assert names.asked == ["files.example"]
    names = Names({"evil.example": [["93.184.216.34"], ["127.0.0.1"]]})
    source = SourcePolicy(http_hosts=("*",), private_hosts=("files.example",))
    site.handler = redirecting(site.url(host="evil.example"))
    names.answers["files.example"] = [["127.0.0.1"]]
    names.answers["evil.example"].pop(0)
    assert (
        await failure(site.url(host="files.example"), policy=source, names=names)
    ).reason is Reason.SOURCE_NOT_ALLOWED


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/latest/meta-data/", "//169.254.169.254/x", "http://[::ffff:169.254.169.254]/", "http://10.0.0.1/x",
     "ftp://files.example/x", "file:///etc/passwd", "pvc://claim/x", "http://user:secret@files.example/x", "http://blocked.example/x"],
)  # fmt: skip
async def test_redirects_are_checked_like_the_first_hop(site: Site, location: str) -> None:
    policy = SourcePolicy(
        allowed_hosts=("127.0.0.1", "169.254.*", "10.*", "*:*", "files.example"),
        http_hosts=("*",),
        private_hosts=("127.0.0.1",),
    )
    site.handler = redirecting(location)
    assert (await failure(site.url(), policy=policy)).reason is Reason.SOURCE_NOT_ALLOWED


async def test_a_redirect_to_a_scheme_that_is_not_accepted(site: Site) -> None:
    policy = SourcePolicy(schemes=("http",), http_hosts=("*",), private_hosts=("127.0.0.1",))
    site.handler = redirecting("https://127.0.0.1:9/x")
    assert (await failure(site.url(), policy=policy)).reason is Reason.SOURCE_NOT_ALLOWED


async def test_redirects_are_followed_within_the_policy_and_end(site: Site) -> None:
    async def handler(request: web.Request) -> web.Response:
        step = int(request.query.get("n", "0"))
        if request.path == "/good" and step == 3:
            return web.Response(body=b"there")
        return web.Response(status=307, headers={"Location": f"{request.path}?n={step + 1}"})

    site.handler = handler
    assert await fetched(site.url("/good")) == b"there"
    assert "redirects more than" in (await failure(site.url("/loop"))).message


async def test_a_proxy_of_the_environment_is_not_used(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    site.handler = giving(b"x")
    assert await fetched(site.url()) == b"x"


def test_private_hosts_may_be_private_and_nothing_else() -> None:
    policy = SourcePolicy(private_hosts=("minio.models.svc",))
    check_address(policy, "minio.models.svc", "10.0.0.9")
    check_address(policy, "public.example", "93.184.216.34")
    with pytest.raises(StoreError):
        check_address(policy, "public.example", "10.0.0.9")
