"""Download one file over https (or http where the policy allows it), resumed after an interruption."""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver

from conch.api.reasons import Reason
from conch.api.source import HttpSource, SourcePolicy, SourceUriError, parse_source_uri
from conch.store.addresses import PolicyResolver, check_literal
from conch.store.errors import StoreError, storage_error, without_query
from conch.store.threads import CHUNK_BYTES

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and the total, when known."""

REDIRECTS_MOST: Final = 5
ATTEMPTS_WITHOUT_PROGRESS: Final = 3
PATIENCE_SECONDS: Final = 4.0
"""Without a byte for so long a person is told why; the agent tries again anyhow."""
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_TRANSIENT: Final = (408, 425, 429, 500, 502, 503, 504)
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=30)
_WELL_FORMED: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*)?")
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """What to fetch, to where, within which bounds."""

    source: HttpSource
    destination: Path
    policy: SourcePolicy
    limit_bytes: int
    progress: Progress = lambda _done, _total: None

    @property
    def shown(self) -> str:
        """The URI for people."""
        return without_query(self.source.url)


class _TransientError(Exception):
    """Worth another attempt at once."""


async def download(
    wanted: Download,
    *,
    resolver: AbstractResolver | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Stream the file to `destination`; raises StoreError. Never uses a proxy of the environment."""
    # No keep-alive: a connection belongs to the one host it was checked for.
    connector = aiohttp.TCPConnector(
        resolver=PolicyResolver(wanted.policy, resolver), use_dns_cache=False, force_close=True, limit=4
    )
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=_TIMEOUT,
        trust_env=False,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        with wanted.destination.open("wb") as out:
            transfer = _Transfer(wanted, session, out)
            clock = asyncio.get_running_loop().time
            failures, moved_at = 0, clock()
            while True:
                before = transfer.done
                try:
                    return await transfer.attempt()
                except _TransientError as error:
                    if transfer.done > before:
                        failures, moved_at = 0, clock()
                    failures += 1
                    if failures >= ATTEMPTS_WITHOUT_PROGRESS or clock() - moved_at >= PATIENCE_SECONDS:
                        raise StoreError(
                            Reason.SOURCE_UNREACHABLE,
                            f"{wanted.shown} cannot be fetched: {error}; check the address and the network, "
                            "it is tried again",
                        ) from error
                await sleep(random.uniform(0.1, 0.3) * 2**failures)  # noqa: S311 - jitter


class _Transfer:
    """One download over all its attempts: what is on disk and which version of the file it belongs to."""

    def __init__(self, wanted: Download, session: aiohttp.ClientSession, out: BinaryIO) -> None:
        self.done = 0
        self._wanted = wanted
        self._session = session
        self._out = out
        self._validator: str | None = None

    async def attempt(self) -> None:
        """Follow redirects to the file and stream (the rest of) it."""
        source = self._wanted.source
        try:
            for _ in range(REDIRECTS_MOST + 1):
                self._check(source)
                async with self._session.get(_url(source), headers=self._headers(), allow_redirects=False) as response:
                    if response.status not in _REDIRECTS:
                        return await self._receive(response)
                    source = self._next_hop(source, response)
        except aiohttp.ClientConnectorCertificateError as error:
            raise self._error(
                Reason.SOURCE_UNREACHABLE, f"its certificate is not valid ({error.certificate_error})"
            ) from error
        except aiohttp.InvalidURL as error:
            raise self._error(Reason.INVALID_SPEC, "this is not a valid URL") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _TransientError(_words(error)) from error
        raise self._error(Reason.SOURCE_UNREACHABLE, f"it redirects more than {REDIRECTS_MOST} times")

    def _check(self, source: HttpSource) -> None:
        if refusal := self._wanted.policy.refusal(source):
            raise self._error(Reason.SOURCE_NOT_ALLOWED, refusal)
        if source.host.isascii() and _url(source).raw_host != source.host.lower():
            # Two parsers that read different hosts from one URL are how an allow-list is passed by.
            raise self._error(Reason.SOURCE_NOT_ALLOWED, "its host is not clear; write the URL plainly")
        check_literal(self._wanted.policy, source.host)

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity", "User-Agent": "conch-agent"}
        if self.done and self._validator:
            headers |= {"Range": f"bytes={self.done}-", "If-Range": self._validator}
        return headers

    def _next_hop(self, source: HttpSource, response: aiohttp.ClientResponse) -> HttpSource:
        location = response.headers.get("Location")
        if not location:
            raise self._error(Reason.SOURCE_UNREACHABLE, f"{source.host} redirects without saying where to")
        try:
            target = parse_source_uri(str(response.url.join(yarl.URL(location))))
        except (SourceUriError, ValueError) as error:
            raise self._error(
                Reason.SOURCE_NOT_ALLOWED, f"{source.host} redirects to an address that is not usable"
            ) from error
        if not isinstance(target, HttpSource):
            raise self._error(Reason.SOURCE_NOT_ALLOWED, f"{source.host} redirects to something that is not http")
        return target

    async def _receive(self, response: aiohttp.ClientResponse) -> None:
        status = response.status
        if status == 206:
            total = self._resumed_total(response)
        elif status == 200:
            await self._restart()
            self._validator = _strong_validator(response)
            total = response.content_length
        elif status == 416:
            await self._restart()
            self._validator = None
            raise _TransientError("the server refused to resume")
        else:
            self._refuse_status(status, response.reason)
        if response.headers.get("Content-Encoding", "identity") not in ("identity", "gzip", "x-gzip"):
            raise self._error(Reason.SOURCE_UNREACHABLE, "the server sends it in an encoding that was not asked for")
        if total is not None and total > self._wanted.limit_bytes:
            raise self._too_large(total)
        self._wanted.progress(self.done, total)
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            if self.done + len(chunk) > self._wanted.limit_bytes:
                raise self._too_large(None)
            try:
                await asyncio.to_thread(self._out.write, chunk)
            except OSError as error:
                raise storage_error(error, self._wanted.shown) from error
            self.done += len(chunk)
            self._wanted.progress(self.done, total)
        if total is not None and self.done != total:
            raise _TransientError(f"the transfer ended after {self.done} of {total} bytes")
        try:
            await asyncio.to_thread(self._out.flush)
        except OSError as error:
            raise storage_error(error, self._wanted.shown) from error

    def _resumed_total(self, response: aiohttp.ClientResponse) -> int | None:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not match or int(match[1]) != self.done:
            self._validator = None  # the next attempt asks for the whole file
            raise _TransientError("the server resumed at the wrong place")
        return None if match[2] == "*" else int(match[2])

    async def _restart(self) -> None:
        self._out.seek(0)
        self._out.truncate()
        self.done = 0

    def _refuse_status(self, status: int, words: str | None) -> None:
        if status in _TRANSIENT:
            raise _TransientError(f"the server answered {status} {words or ''}".rstrip())
        if status in (404, 410):
            raise self._error(Reason.SOURCE_NOT_FOUND, f"there is nothing (HTTP {status}); check the URI")
        if status in (401, 403, 407):
            raise self._error(
                Reason.SOURCE_ACCESS_DENIED,
                f"access is denied (HTTP {status}); check permissions, or that the URL has not expired",
            )
        raise self._error(Reason.SOURCE_UNREACHABLE, f"the server answered {status} {words or ''}; check the URI")

    def _error(self, reason: Reason, message: str) -> StoreError:
        return StoreError(reason, f"{self._wanted.shown}: {message}")

    def _too_large(self, total: int | None) -> StoreError:
        size = f"it has {total} bytes" if total is not None else "it has more bytes than allowed"
        return self._error(
            Reason.SOURCE_TOO_LARGE, f"{size}; at most {self._wanted.limit_bytes} fit on the pod's model volume"
        )


def _url(source: HttpSource) -> yarl.URL:
    """The URL exactly as written where it is well-formed: quoting it anew would break a signature."""
    return yarl.URL(source.url, encoded=bool(_WELL_FORMED.fullmatch(source.url)))


def _strong_validator(response: aiohttp.ClientResponse) -> str | None:
    """What proves that the rest belongs to the same file: a strong ETag, as RFC 9110 asks of If-Range."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else None


def _words(error: Exception) -> str:
    """An error in words without addresses that may carry a query string."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host} does not resolve"
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
