"""HTTP that sends: to one server, with bodies from disk that can be sent again."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http.client import responses
from typing import Final, NoReturn, TypeVar

import aiohttp
import yarl

from conch.api.reasons import Reason
from conch.store.credentials import CA_CERTIFICATE
from conch.store.errors import StoreError
from conch.store.push.environment import ADVICE
from conch.store.push.settings import PushSettings
from conch.store.remote import TransientError

ATTEMPTS: Final = 5
CONNECT_SECONDS: Final = 10.0
SILENCE_SECONDS: Final = 600.0
"""A server may take its time to put what it got where it belongs, without a byte."""
_TRANSIENT: Final = (408, 425, 429, 500, 502, 503, 504)
_Result = TypeVar("_Result")

Body = Callable[[], AsyncIterator[bytes]]
"""Gives the bytes from the beginning each time it is called."""


class UploadClient:
    """One push's connections. Its errors begin with the target as people may see it."""

    def __init__(self, scheme: str, settings: PushSettings) -> None:
        self._scheme = scheme
        self._shown = settings.shown
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._trust(settings), limit=0),
            headers={"User-Agent": "conch"},
            timeout=aiohttp.ClientTimeout(
                total=None, connect=CONNECT_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        authorization: str | None = None,
        body: Body | bytes | None = None,
        size: int = 0,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, whatever its status; redirects are followed only where nothing is sent.

        Raises StoreError, or TransientError for what another attempt may cure.
        """
        sent = dict(headers or {})
        if authorization:
            sent["Authorization"] = authorization
        if callable(body):
            # Else aiohttp would send it in chunks, which many stores refuse.
            sent["Content-Length"] = str(size)
        try:
            async with self._session.request(
                method,
                yarl.URL(url, encoded=True),
                headers=sent,
                data=body() if callable(body) else body,
                allow_redirects=method in ("GET", "HEAD"),
            ) as response:
                yield response
        except aiohttp.ClientConnectorCertificateError as error:
            raise self.error(
                Reason.SOURCE_UNREACHABLE,
                f"the certificate of {error.host} is not valid; to trust a private authority, name its certificate "
                "with --ca-certificate",
            ) from error
        except aiohttp.InvalidURL as error:
            raise self.error(Reason.INVALID_SPEC, "this is not a valid URL") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise TransientError(_words(error)) from error

    async def patiently(self, attempt: Callable[[], Awaitable[_Result]]) -> _Result:
        """Try again what may pass; raises StoreError when it does not."""
        for failures in range(1, ATTEMPTS + 1):
            try:
                return await attempt()
            except TransientError as error:
                if failures == ATTEMPTS:
                    raise self.error(
                        Reason.SOURCE_UNREACHABLE, f"{error}; check the address and the network, then push again"
                    ) from error
            await asyncio.sleep(0.25 * 2**failures)
        raise AssertionError("unreachable")

    def refuse(self, status: int, said: str = "") -> NoReturn:
        """Raise what a status means that is no success; `said` is what the server gave as its reason."""
        answered = f"HTTP {status} {responses.get(status, '')}".rstrip() + (f": {said}" if said else "")
        if status in _TRANSIENT:
            raise TransientError(f"the server answered {answered}")
        if status in (401, 403, 407):
            raise self.error(
                Reason.SOURCE_ACCESS_DENIED,
                f"access is denied ({answered}); {ADVICE[self._scheme]}. It must allow to write",
            )
        if status in (404, 410):
            raise self.error(Reason.SOURCE_NOT_FOUND, f"there is no such place ({answered}); check the URI")
        if status in (405, 501):
            raise self.error(
                Reason.SOURCE_UNREACHABLE,
                f"the server takes no uploads of this kind ({answered}); upload with the server's own tool, then run "
                "conch digest with the URI",
            )
        if 300 <= status < 400:
            raise self.error(
                Reason.SOURCE_UNREACHABLE, f"the server wants it at another address ({answered}); push to that one"
            )
        raise self.error(Reason.SOURCE_UNREACHABLE, f"the server refuses it ({answered}); check the URI")

    def error(self, reason: Reason, message: str) -> StoreError:
        """A failure of this push."""
        return StoreError(reason, f"{self._shown}: {message}")

    async def close(self) -> None:
        """End all connections."""
        await self._session.close()

    def _trust(self, settings: PushSettings) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if authority := settings.credentials.get(CA_CERTIFICATE):
            try:
                context.load_verify_locations(cadata=authority)
            except (ssl.SSLError, ValueError) as error:
                raise self.error(
                    Reason.INVALID_SPEC, "what --ca-certificate names is not a certificate in PEM form; correct it"
                ) from error
        return context


def _words(error: Exception) -> str:
    """An error in words without addresses that may carry a query string."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host} does not resolve"
        case aiohttp.ClientConnectorError():
            return f"no connection to {error.host}:{error.port} ({error.os_error.strerror or 'refused'})"
        case TimeoutError():
            return "the server did not answer in time"
        case _:
            return f"the connection broke off ({type(error).__name__})"
