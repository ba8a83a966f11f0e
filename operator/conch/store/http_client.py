"""HTTP for every store that speaks it: only to where the policy allows, credentials only to whom they belong."""

import asyncio
import base64
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http.client import responses
from typing import Final, NoReturn
from urllib.parse import urljoin

import aiohttp
import yarl

from conch.api.reasons import Reason
from conch.api.source import HttpSource, SourceUriError, parse_source_uri
from conch.store.addresses import PolicyResolver, check_literal
from conch.store.credentials import CA_CERTIFICATE
from conch.store.errors import StoreError
from conch.store.remote import ChangedError, Chunk, RemoteFile, Surroundings, TransientError

REDIRECTS_MOST: Final = 5
SILENCE_SECONDS: Final = 4.0
"""Without a connection or a byte for so long an attempt has failed: a person sees why within five seconds."""
METADATA_SECONDS: Final = 30.0
"""How long a server may take for a whole listing or manifest, even one that sends a byte now and then."""

_BUFFER_BYTES: Final = 1 << 20
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_TRANSIENT: Final = (408, 425, 429, 500, 502, 503, 504)
_WELL_FORMED: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*)?")
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")

Opened = AbstractAsyncContextManager[aiohttp.ClientResponse]
Get = Callable[[Mapping[str, str]], Opened]
"""Asks one server for one thing with the headers given: how a remote hands its own way of asking to `read_part`."""


class HttpClient:
    """One source's connections. Its errors begin with the source as people may see it, never with another URL.

    `carrier` says that HTTP carries another kind of source, which the policy's list of schemes has let pass.
    """

    def __init__(self, surroundings: Surroundings, *, carrier: bool = False) -> None:
        self._surroundings = surroundings
        policy = surroundings.policy
        self._policy = policy.model_copy(update={"schemes": ("https", "http")}) if carrier else policy
        self._opened: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def get(
        self, url: str, headers: Mapping[str, str] | None = None, authorization: str | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a GET, whatever its status, after its redirects, each checked like the first address.

        `authorization` goes to the URL's own origin only. Raises StoreError for what is not allowed or makes no sense,
        TransientError for what another attempt may cure, also while the answer is read.
        """
        session = self._session()
        try:
            hop = self._hop(url)
            address = self._checked(hop)
            for _ in range(REDIRECTS_MOST + 1):
                sent = {**(headers or {}), **({"Authorization": authorization} if authorization else {})}
                async with session.get(address, headers=sent, allow_redirects=False) as response:
                    if response.status not in _REDIRECTS:
                        yield response
                        return
                    hop = self._next_hop(hop, response)
                before, address = address, self._checked(hop)
                if address.origin() != before.origin():
                    authorization = None
        except aiohttp.ClientConnectorCertificateError as error:
            raise self._certificate_error(error) from error
        except (aiohttp.InvalidURL, UnicodeError) as error:
            raise self.error(Reason.INVALID_SPEC, "this is not a valid URL") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise TransientError(_words(error)) from error
        raise self.error(Reason.SOURCE_UNREACHABLE, f"it redirects more than {REDIRECTS_MOST} times")

    async def read_part(
        self, get: Get, file: RemoteFile, start: int, end: int | None, *, etag: str = ""
    ) -> AsyncGenerator[Chunk, None]:
        """The bytes [start, end) of a file, as `Remote.read` gives them; `etag` is that of its listing, if strong."""
        stop = file.size if end is None else end
        if stop is not None and start >= stop:
            return
        headers = {}
        if start or stop != file.size:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
            if etag:
                headers["If-Range"] = etag
        async with get(headers) as response:
            self._check_part(response, file, start, etag)
            position = start
            async for chunk in response.content.iter_any():
                left = None if stop is None else stop - position
                if left == 0:
                    break
                part = chunk[:left]
                position += len(part)
                yield part
            if stop is not None and position < stop:
                raise TransientError(f"the transfer ended after {position} of {file.size or stop} bytes")

    async def read_whole(self, response: aiohttp.ClientResponse, most_bytes: int, what: str) -> bytes:
        """All of a small answer; raises StoreError if `what` is larger, TransientError if it takes too long."""
        self._check_encoding(response, ("identity",))
        content = bytearray()
        async with asyncio.timeout(METADATA_SECONDS):
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > most_bytes:
                    raise self.error(
                        Reason.SOURCE_TOO_LARGE, f"{what} is larger than {most_bytes} bytes; this is not a usable model"
                    )
        return bytes(content)

    def refuse_status(self, status: int) -> NoReturn:
        """Raise what an answer's status means where there is nothing to read."""
        # Not the phrase that it sent: that may repeat the request.
        answered = f"the server answered {status} {responses.get(status, '')}".rstrip()
        if status in _TRANSIENT:
            raise TransientError(answered)
        if status in (404, 410):
            raise self.error(Reason.SOURCE_NOT_FOUND, f"there is nothing (HTTP {status}); check the URI")
        if status in (401, 403, 407):
            raise self.error(
                Reason.SOURCE_ACCESS_DENIED,
                f"access is denied (HTTP {status}); check permissions, and that the Secret in "
                "model.source.credentialsSecretRef is the right one or, if the URL is signed, that it has not expired",
            )
        raise self.error(Reason.SOURCE_UNREACHABLE, f"{answered}; check the URI")

    def error(self, reason: Reason, message: str) -> StoreError:
        """A failure of this source."""
        return StoreError(reason, f"{self._surroundings.shown}: {message}")

    async def close(self) -> None:
        """End all connections."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            # A connection is used again only for the host that it was checked for. How many there are is the
            # transfer's decision; waiting here for a free one would look like a server that does not answer.
            connector = aiohttp.TCPConnector(
                resolver=PolicyResolver(self._policy, self._surroundings.resolver),
                use_dns_cache=False,
                limit=0,
                ssl=self._trust(),
            )
            self._opened = aiohttp.ClientSession(
                connector=connector,
                headers={"Accept-Encoding": "identity", "User-Agent": "conch-agent"},
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=SILENCE_SECONDS, sock_connect=SILENCE_SECONDS, sock_read=SILENCE_SECONDS
                ),
                read_bufsize=_BUFFER_BYTES,
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._opened

    def _trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if (authority := self._surroundings.credentials.get(CA_CERTIFICATE)) is not None:
            try:
                context.load_verify_locations(cadata=authority)
            except (ssl.SSLError, ValueError, TypeError) as error:
                raise self.error(
                    Reason.SOURCE_UNREACHABLE,
                    f"{CA_CERTIFICATE} in the Secret of model.source.credentialsSecretRef is not a certificate in PEM "
                    "form; correct or remove it",
                ) from error
        return context

    def _hop(self, url: str) -> HttpSource:
        try:
            source = parse_source_uri(url)
        except SourceUriError as error:
            raise self.error(Reason.INVALID_SPEC, str(error)) from error
        if not isinstance(source, HttpSource):
            raise self.error(Reason.INVALID_SPEC, f"{source.scheme}:// is not http")
        return source

    def _next_hop(self, hop: HttpSource, response: aiohttp.ClientResponse) -> HttpSource:
        location = response.headers.get("Location")
        if not location:
            raise self.error(Reason.SOURCE_UNREACHABLE, f"{hop.host} redirects without saying where to")
        try:
            # Joined as text: quoting the target anew would break its signature.
            target = parse_source_uri(urljoin(hop.url, location))
        except ValueError as error:
            raise self.error(
                Reason.SOURCE_NOT_ALLOWED, f"{hop.host} redirects to an address that is not usable"
            ) from error
        if not isinstance(target, HttpSource):
            raise self.error(Reason.SOURCE_NOT_ALLOWED, f"{hop.host} redirects to something that is not http")
        return target

    def _checked(self, hop: HttpSource) -> yarl.URL:
        if refusal := self._policy.refusal(hop):
            raise self.error(Reason.SOURCE_NOT_ALLOWED, refusal)
        try:
            address = yarl.URL(hop.url, encoded=bool(_WELL_FORMED.fullmatch(hop.url)))
        except ValueError as error:
            raise self.error(Reason.INVALID_SPEC, "this is not a valid URL") from error
        if hop.host.isascii() and address.raw_host != hop.host.lower():
            # Two parsers that read different hosts from one URL are how an allow-list is passed by.
            raise self.error(Reason.SOURCE_NOT_ALLOWED, "its host is not clear; write the URL plainly")
        check_literal(self._policy, hop.host)
        return address

    def _check_part(self, response: aiohttp.ClientResponse, file: RemoteFile, start: int, etag: str) -> None:
        if response.status in (412, 416):
            raise self._changed()
        if response.status not in (200, 206):
            self.refuse_status(response.status)
        total = response.content_length if response.status == 200 else total_bytes(response, start)
        if file.size is not None and total is not None and total != file.size:
            raise self._changed()
        if etag and response.headers.get("ETag", etag) != etag:
            raise self._changed()
        if start and response.status == 200:
            raise TransientError("the server answered with the whole file instead of the part asked for")
        # A file that is compressed itself may be labelled so; it arrives as it is.
        self._check_encoding(response, ("identity", "gzip", "x-gzip"))

    def _check_encoding(self, response: aiohttp.ClientResponse, accepted: tuple[str, ...]) -> None:
        if response.headers.get("Content-Encoding", "identity") not in accepted:
            raise self.error(Reason.SOURCE_UNREACHABLE, "the server sends it in an encoding that was not asked for")

    def _changed(self) -> ChangedError:
        return ChangedError(f"{self._surroundings.shown}: the file is not the same any more as when it was listed")

    def _certificate_error(self, error: aiohttp.ClientConnectorCertificateError) -> StoreError:
        cause = error.certificate_error
        words = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else str(cause)
        return self.error(
            Reason.SOURCE_UNREACHABLE,
            f"the certificate of {error.host} is not valid ({words}); to trust a private certificate authority, put it "
            f"as {CA_CERTIFICATE} into the Secret of model.source.credentialsSecretRef",
        )


def total_bytes(response: aiohttp.ClientResponse, start: int) -> int | None:
    """The whole file's size by the answer to a range that begins at `start`; raises TransientError if it is another."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not match or int(match[1]) != start:
        raise TransientError("the server answered with another part of the file than asked for")
    return None if match[2] == "*" else int(match[2])


def basic(username: str, password: str) -> str:
    """The Authorization header of a name and a password."""
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


def bearer(surroundings: Surroundings, entry: str) -> str | None:
    """The Authorization header with the Secret's entry, if it has that; raises StoreError if that is no token."""
    token = surroundings.credentials.get(entry)
    if token is None:
        return None
    if not _TOKEN.fullmatch(token):
        raise StoreError(
            Reason.SOURCE_ACCESS_DENIED,
            f"{surroundings.shown}: {entry} in the Secret of model.source.credentialsSecretRef is not a token: it is "
            "empty, or has spaces or line breaks in it",
        )
    return f"Bearer {token}"


def username_and_password(surroundings: Surroundings) -> tuple[str, str] | None:
    """The Secret's entries of these names, if it has them; raises StoreError if it has only one of both."""
    username, password = (surroundings.credentials.get(entry) for entry in ("username", "password"))
    if username is None and password is None:
        return None
    if username is None or password is None:
        missing = "username" if username is None else "password"
        raise StoreError(
            Reason.SOURCE_ACCESS_DENIED,
            f"{surroundings.shown}: the Secret of model.source.credentialsSecretRef has no entry {missing}; add it",
        )
    return username, password


def _words(error: Exception) -> str:
    """An error in words without addresses that may carry a query string."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host} does not resolve"
        case aiohttp.ClientConnectorSSLError():
            return f"{error.host}:{error.port} does not speak TLS as expected"
        case aiohttp.ClientConnectorError():
            return f"no connection to {error.host}:{error.port} ({error.os_error.strerror or 'refused'})"
        case TimeoutError():
            return "the server did not answer in time"
        case aiohttp.ClientPayloadError():
            return "the transfer broke off"
        case aiohttp.ServerDisconnectedError():
            return "the server closed the connection"
        case _:
            return f"the server did not speak HTTP as expected ({type(error).__name__})"
