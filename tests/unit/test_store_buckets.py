"""Buckets, by the real client against a small server: what is listed, what is asked, and what errors mean."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from conch.api.reasons import Reason
from conch.api.source import BucketSource, parse_source_uri
from conch.api.source_policy import SourcePolicy
from conch.store.credentials import Credentials
from conch.store.errors import StoreError
from conch.store.remote import ChangedError, Listing, RemoteFile, Surroundings, TransientError
from conch.store.sources import buckets
from conch.store.sources.buckets import BucketRemote
from conch.store.threads import in_thread
from tests.support.http_site import giving, serving_tls

AMBIENT = {
    "AWS_ACCESS_KEY_ID": "AMBIENT",
    "AWS_SECRET_ACCESS_KEY": "ambient",
    "AWS_SESSION_TOKEN": "AMBIENT",
    "AZURE_STORAGE_ACCOUNT_KEY": "QU1CSUVOVA==",
    "AZURE_STORAGE_SAS_TOKEN": "sig=AMBIENT",
    "AZURE_CLIENT_ID": "AMBIENT",
    "AZURE_TENANT_ID": "AMBIENT",
    "AZURE_FEDERATED_TOKEN_FILE": "/etc/hostname",
    "GOOGLE_APPLICATION_CREDENTIALS": "/etc/hostname",
}


@dataclass
class Bucket:
    """The part of S3 that a reader needs. A key may end in a slash."""

    content: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    requests: list[web.Request] = field(default_factory=list)
    refusal: Callable[[web.Request], web.Response | None] = lambda _request: None
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if (refused := self.refusal(request)) is not None:
            return refused
        if "list-type" in request.query:
            return self._list(request.query.get("prefix", ""))
        key = request.path.removeprefix("/bucket/")
        if key not in self.content:
            return web.Response(status=404, text=xml("NoSuchKey", "The specified key does not exist."))
        etag, content = self.etag(key), self.content[key]
        if request.headers.get("If-Match", etag) != etag:
            return web.Response(status=412, text=xml("PreconditionFailed", "At least one of them did not hold"))
        headers = {"ETag": etag, "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
        asked = request.headers.get("Range", "").removeprefix("bytes=")
        if not asked:
            return web.Response(body=content, headers=headers)
        first, _, last = asked.partition("-")
        part = content[int(first) : int(last) + 1 if last else None]
        headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        return web.Response(status=206, body=part, headers=headers)

    def etag(self, key: str) -> str:
        return self.etags.get(key, '"v1"')

    def _list(self, prefix: str) -> web.Response:
        entries = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>{self.etag(key)}</ETag><Size>{len(content)}</Size></Contents>"
            for key, content in self.content.items()
            if key.startswith(prefix)
        )
        return web.Response(text=f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>")


def xml(code: str, message: str) -> str:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message><HostId>h</HostId></Error>'


def refusing(status: int, text: str = "", **headers: str) -> Callable[[web.Request], web.Response]:
    return lambda _request: web.Response(status=status, text=text, headers=headers)


@pytest.fixture
async def bucket() -> AsyncIterator[Bucket]:
    made = Bucket()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", made.answer)
    server = TestServer(application, host="127.0.0.1")
    await server.start_server()
    try:
        made.port = server.port or 0
        yield made
    finally:
        accepted = server.runner.server if server.runner else None
        await server.close()
        # A client in another thread may have connected in the very moment in which this was closed.
        await asyncio.sleep(0.01)
        for connection in accepted.connections if accepted else ():
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)


URIS = {"s3": "s3://bucket/m", "gs": "gs://bucket/m", "az": "az://account/bucket/m"}


def remote_of(
    endpoint: str | None, scheme: str = "s3", credentials: dict[str, str] | None = None, **kw: Any
) -> BucketRemote:
    source = parse_source_uri(URIS[scheme], endpoint=endpoint)
    assert isinstance(source, BucketSource)
    policy = kw.pop("policy", SourcePolicy())
    return BucketRemote(
        source, Surroundings(shown=URIS[scheme], policy=policy, credentials=Credentials(credentials or {}), **kw)
    )


async def failure(remote: BucketRemote) -> StoreError | TransientError:
    try:
        await remote.list()
    except (StoreError, TransientError) as error:
        raised = error
    else:
        pytest.fail("nothing was raised")
    message = str(raised)
    assert not [word for word in ("hidden", "sig=", "Signature=", "prefix=", "?", "\n", "<") if word in message]
    return raised


async def read(remote: BucketRemote, file: RemoteFile, start: int, end: int | None) -> bytes:
    return await in_thread(lambda _checkpoint: b"".join(bytes(chunk) for chunk in remote.read(file, start, end)))


def paths(listing: Listing) -> dict[str, int | None]:
    return {file.path: file.size for file in listing.files}


async def test_a_folder(bucket: Bucket) -> None:
    bucket.content = {"m/a": b"12345", "m/1/b": b"123", "mx/c": b"1", "m2": b"1"}
    listing = await remote_of(bucket.endpoint).list()
    assert (paths(listing), listing.folder) == ({"a": 5, "1/b": 3}, True)
    assert {file.version for file in listing.files} == {'"v1"'}
    before = listing.resolved
    assert (await remote_of(bucket.endpoint).list()).resolved == before
    bucket.etags["m/a"] = '"v2"'
    assert (await remote_of(bucket.endpoint).list()).resolved != before


async def test_folders_of_clients_that_have_folders(bucket: Bucket) -> None:
    """The S3 console makes an empty object for each, with a slash at its end."""
    bucket.content = {"m/": b"", "m/1/": b"", "m/1/a": b"12345", "m/empty": b"", "m/empty2": b""}
    assert paths(await remote_of(bucket.endpoint).list()) == {"1/a": 5, "empty": 0, "empty2": 0}
    bucket.content = {"m/": b""}
    assert paths(await remote_of(bucket.endpoint).list()) == {}


async def test_a_single_object(bucket: Bucket) -> None:
    bucket.content = {"m": b"12345", "mx": b"1"}
    listing = await remote_of(bucket.endpoint).list()
    assert (paths(listing), listing.folder, listing.resolved) == ({"m": 5}, False, 'etag "v1"')


async def test_nothing(bucket: Bucket) -> None:
    error = await failure(remote_of(bucket.endpoint))
    assert isinstance(error, StoreError)
    assert (error.reason, "none below" in error.message) == (Reason.SOURCE_NOT_FOUND, True)


async def test_a_key_with_an_empty_part(bucket: Bucket) -> None:
    bucket.content = {"m//a": b"1"}
    error = await failure(remote_of(bucket.endpoint))
    assert isinstance(error, StoreError)
    assert error.reason is Reason.INVALID_MODEL


async def test_reading_is_pinned_to_what_was_listed(bucket: Bucket) -> None:
    bucket.content = {"m/a": bytes(range(256)) * 40}
    remote = remote_of(bucket.endpoint)
    (file,) = (await remote.list()).files
    assert await read(remote, file, 100, 9000) == bucket.content["m/a"][100:9000]
    asked = bucket.requests[-1].headers
    assert (asked["Range"], asked["If-Match"]) == ("bytes=100-8999", '"v1"')
    assert await read(remote, file, 100, None) == bucket.content["m/a"][100:]
    bucket.etags["m/a"] = '"v2"'
    for start in (0, 100):
        with pytest.raises(ChangedError):
            await read(remote, file, start, 9000)
    bucket.content = {}
    with pytest.raises(ChangedError):
        await read(remote, file, 0, 9000)


async def test_an_empty_object_is_not_asked_for(bucket: Bucket) -> None:
    bucket.content = {"m/a": b""}
    remote = remote_of(bucket.endpoint)
    (file,) = (await remote.list()).files
    bucket.requests.clear()
    assert await read(remote, file, 0, 0) == b""
    assert not bucket.requests


GCS_401 = (
    "<?xml version='1.0'?><Error><Code>AuthenticationRequired</Code>"
    "<Message>Authentication\nrequired.</Message></Error>"
)
AZURE_403 = (
    "\ufeff<?xml version='1.0'?><Error><Code>AuthenticationFailed</Code><Message>Server failed to authenticate the "
    "request.\nRequestId:1\nTime:2024</Message><AuthenticationErrorDetail>sig=hidden</AuthenticationErrorDetail></Error>"
)


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
@pytest.mark.parametrize(
    ("status", "text", "reason", "words"),
    [
        (403, xml("AccessDenied", "Access Denied."), Reason.SOURCE_ACCESS_DENIED, "(AccessDenied: Access Denied)"),
        (403, "", Reason.SOURCE_ACCESS_DENIED, "HTTP 403"),
        (401, GCS_401, Reason.SOURCE_ACCESS_DENIED, "Authentication required"),
        (403, AZURE_403, Reason.SOURCE_ACCESS_DENIED, "AuthenticationFailed"),
        (400, xml("ExpiredToken", "The token has expired"), Reason.SOURCE_ACCESS_DENIED, "ExpiredToken"),
        (404, xml("NoSuchBucket", "There is none"), Reason.SOURCE_NOT_FOUND, "the bucket bucket does not exist"),
        (404, xml("ContainerNotFound", "There is none"), Reason.SOURCE_NOT_FOUND, "the bucket bucket does not exist"),
        (404, "", Reason.SOURCE_NOT_FOUND, "HTTP 404"),
        (301, xml("PermanentRedirect", "Use the other"), Reason.SOURCE_UNREACHABLE, "check endpoint and region"),
        (400, "", Reason.SOURCE_UNREACHABLE, "HTTP 400"),
        (503, xml("SlowDown", "Please"), None, "SlowDown: Please"),
        (500, "", None, "HTTP 500"),
        (429, "", None, "HTTP 429"),
    ],
)
async def test_errors_in_the_apis_words(
    bucket: Bucket, scheme: str, status: int, text: str, reason: Reason | None, words: str
) -> None:
    bucket.refusal = refusing(status, text)
    credentials = {
        "s3": {"AWS_ACCESS_KEY_ID": "hidden", "AWS_SECRET_ACCESS_KEY": "hidden"},
        "gs": {},
        "az": {"AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=hidden"},
    }[scheme]
    error = await failure(remote_of(bucket.endpoint, scheme, credentials))
    assert getattr(error, "reason", None) is reason
    assert words in str(error)
    assert len(bucket.requests) <= 2, "a look at the object, and the listing that says more"


def listing(text: str) -> Callable[[web.Request], web.Response | None]:
    """Says this instead of a listing, and nothing of objects."""
    return lambda request: web.Response(text=text) if "list-type" in request.query else None


@pytest.mark.parametrize("text", ["garbage", "<ListBucketResult><Contents><Key>"])
async def test_an_answer_that_is_no_listing(bucket: Bucket, text: str) -> None:
    bucket.refusal = listing(text)
    assert "127.0.0.1" in str(await failure(remote_of(bucket.endpoint)))


async def test_an_object_that_may_be_read_but_not_listed(bucket: Bucket) -> None:
    bucket.content["m"] = b"weights"
    bucket.refusal = lambda request: web.Response(status=403) if "list-type" in request.query else None
    found = await remote_of(bucket.endpoint).list()
    assert ([file.path for file in found.files], found.folder) == (["m"], False)


async def test_a_listing_without_an_end(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "LISTING_SECONDS", 0.2)
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>"
    bucket.refusal = listing(f"<ListBucketResult>{more}</ListBucketResult>")
    async with asyncio.timeout(5):
        error = await failure(remote_of(bucket.endpoint))
    assert (type(error), "to an end" in str(error)) == (TransientError, True)


async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = await failure(remote_of(f"http://127.0.0.1:{unused.getsockname()[1]}"))
    assert (type(error), str(error)) == (TransientError, "the connection to 127.0.0.1 failed")


async def test_a_private_authority(tmp_path: Path) -> None:
    async with serving_tls(tmp_path) as site:
        site.handler = giving(
            b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>",
            **{"ETag": '"v1"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"},
        )
        endpoint = f"https://127.0.0.1:{site.port}"
        error = await failure(remote_of(endpoint))
        assert isinstance(error, StoreError)
        assert (error.reason, "certificate" in error.message, "ca.crt" in error.message) == (
            *(Reason.SOURCE_UNREACHABLE, True, True),
        )
        assert not site.requests
        await remote_of(endpoint, credentials={"ca.crt": site.authority}).list()
        assert site.requests


async def test_the_connection_breaks_in_the_middle(bucket: Bucket) -> None:
    bucket.content = {"m/a": b"x" * 5000}
    remote = remote_of(bucket.endpoint)
    (file,) = (await remote.list()).files

    def shortened(_request: web.Request) -> web.Response:
        headers = {
            "ETag": '"v1"',
            "Content-Range": "bytes 0-4999/5000",
            "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT",
        }
        response = web.Response(status=206, body=b"x" * 5000, headers=headers)
        response.headers["Content-Length"] = "6000"
        response.force_close()
        return response

    bucket.refusal = shortened
    with pytest.raises((TransientError, StoreError)):
        await read(remote, file, 0, 5000)


CREDENTIALS: list[tuple[str, dict[str, str], str]] = [
    ("s3", {}, ""),
    ("s3", {"ca.crt": ""}, ""),
    ("s3", {"AWS_ACCESS_KEY_ID": "OWN", "AWS_SECRET_ACCESS_KEY": "s"}, "Credential=OWN/"),
    ("s3", {"AWS_WEB_IDENTITY_TOKEN_FILE": "/etc/hostname"}, ""),
    ("gs", {}, ""),
    ("gs", {"GOOGLE_APPLICATION_CREDENTIALS": "/etc/hostname"}, ""),
    ("az", {}, ""),
    ("az", {"AZURE_STORAGE_SAS_TOKEN": "sig=OWN"}, "sig=OWN"),
    ("az", {"AZURE_STORAGE_ACCOUNT_KEY": "T1dO"}, "SharedKey account:"),
    ("az", {"AZURE_FEDERATED_TOKEN_FILE": "/etc/hostname"}, ""),
]


@pytest.mark.parametrize(("scheme", "credentials", "sent"), CREDENTIALS)
async def test_only_the_secrets_credentials_go_to_an_endpoint_that_was_named(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, scheme: str, credentials: dict[str, str], sent: str
) -> None:
    bucket.refusal = refusing(403)
    remotes = [remote_of(bucket.endpoint, scheme, credentials)]
    for name, value in AMBIENT.items():
        monkeypatch.setenv(name, value)
    remotes.append(remote_of(bucket.endpoint, scheme, credentials, policy=SourcePolicy(cloud_metadata=True)))
    for remote in remotes:
        await failure_with_secrets(remote)
    requests = [f"{request.headers.get('Authorization', '')} {request.raw_path}" for request in bucket.requests]
    assert len(requests) == 4, "of each, the object and the listing"
    if scheme != "az" or "ACCOUNT_KEY" not in str(credentials):
        assert not [request for request in requests if "AMBIENT" in request]
    assert all(sent in request for request in requests)
    assert all(
        ("Authorization" in request.headers) == (bool(sent) and "sig=" not in sent) for request in bucket.requests
    )
    assert not [request for request in bucket.requests if "x-amz-security-token" in request.headers]


async def failure_with_secrets(remote: BucketRemote) -> None:
    with pytest.raises(StoreError) as caught:
        await remote.list()
    assert caught.value.reason is Reason.SOURCE_ACCESS_DENIED
    assert not [word for word in ("OWN", "AMBIENT", "sig=") if word in caught.value.message]


async def test_the_environment_is_as_before(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AMBIENT")
    remote_of(bucket.endpoint)
    assert Credentials.of_environment()["AWS_ACCESS_KEY_ID"] == "AMBIENT"


async def test_the_environment_is_for_the_providers_own_endpoint(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Secret's keys come before it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AMBIENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    bucket.refusal = refusing(403)
    for credentials in ({}, {"AWS_ACCESS_KEY_ID": "OWN", "AWS_SECRET_ACCESS_KEY": "s"}):
        remote = remote_of(None, "s3", credentials)
        config = remote._store.config  # a provider's own endpoint cannot be asked here
        assert config.get("access_key_id", "AMBIENT") == credentials.get("AWS_ACCESS_KEY_ID", "AMBIENT")
        assert "skip_signature" not in config
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert remote_of(None, "s3")._store.config["skip_signature"]
    with_identity = remote_of(None, "s3", policy=SourcePolicy(cloud_metadata=True))
    assert "skip_signature" not in with_identity._store.config


@pytest.mark.parametrize(
    ("scheme", "credentials"),
    [
        ("gs", {"GOOGLE_SERVICE_ACCOUNT_KEY": "hidden"}),
        ("az", {"AZURE_STORAGE_ACCOUNT_KEY": "hidden!"}),
        ("s3", {"ca.crt": "hidden"}),
    ],
)
def test_credentials_that_are_none(scheme: str, credentials: dict[str, str]) -> None:
    with pytest.raises(StoreError) as caught:
        remote_of("https://store.example", scheme, credentials)
    assert caught.value.reason is Reason.SOURCE_ACCESS_DENIED
    assert "hidden" not in caught.value.message
