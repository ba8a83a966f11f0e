"""What every store is to the transfer: a listing of files, and a way to read any part of one."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from aiohttp.abc import AbstractResolver

from conch.api.source_policy import SourcePolicy
from conch.store.credentials import Credentials

Chunk = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """One file of an artefact, as its store lists it."""

    path: str
    """Where it belongs below the artefact's folder: relative, with slashes."""
    key: str
    """What the store calls it."""
    size: int | None
    """Bytes; None where only reading it tells. Such a file is read in one go."""
    version: str = ""
    """What tells whether the store still has the same bytes under this key: ETag, version id, blob digest."""
    sha256: str | None = None
    """Hex digest that the store or the artefact's manifest declares; other bytes are refused."""
    unpack: bool = False
    """Whether it is a tar whose content belongs below the artefact's folder in its place."""


RESOLVED_MOST: Final = 256
"""Characters of what a name stood for that are kept of a store's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a source's name stands for now."""

    files: tuple[RemoteFile, ...]
    resolved: str
    """In the store's words, for people and for fetching the very same again: a commit, a manifest digest, an ETag."""
    folder: bool
    """Whether the files make up a folder; otherwise there is one file, which may be an archive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a remote is given beside its source."""

    shown: str
    """The source's URI as people may see it: without a query string."""
    policy: SourcePolicy
    credentials: Credentials = field(default_factory=Credentials)
    pinned: str = ""
    """A listing's `resolved` of before: where the store can give the very same again (a commit, a manifest digest),
    that is what is listed, whatever the name stands for now."""
    resolver: AbstractResolver | None = None
    """Resolves names in place of the system's resolver (tests)."""
    proxy_url: str | None = None
    """Proxy for clients that cannot be given a resolver: it checks every address before it dials."""


class TransientError(Exception):
    """Reading failed in a way that another attempt may cure; the message is for people, without addresses' queries."""


class ChangedError(Exception):
    """The store has other bytes under a key than when it was listed: list anew."""


class Remote(Protocol):
    """One source in one store, with its credentials and its connections."""

    async def list(self) -> Listing:
        """What is there now; raises StoreError with the reason, or TransientError."""
        ...

    def read(self, file: RemoteFile, start: int, end: int | None) -> Iterator[Chunk]:
        """The bytes [start, end) of a file in chunks of at most a few MiB; `end` None reads to the end.

        Blocks: it is iterated in a worker's thread. Raises TransientError, ChangedError or StoreError. Closing the
        iterator early ends the request.
        """
        ...

    async def close(self) -> None:
        """End all connections."""
        ...


class AsyncRemote(Protocol):
    """The same, by a client that lives in the event loop."""

    async def list(self) -> Listing:
        """As Remote's."""
        ...

    def read(self, file: RemoteFile, start: int, end: int | None) -> AsyncGenerator[Chunk, None]:
        """As Remote's, iterated in the event loop."""
        ...

    async def close(self) -> None:
        """As Remote's."""
        ...


class Bridged:
    """An AsyncRemote as a Remote: workers' threads wait for what the event loop reads."""

    def __init__(self, remote: AsyncRemote) -> None:
        self._remote = remote
        self._loop = asyncio.get_running_loop()

    async def list(self) -> Listing:
        """As Remote's."""
        return await self._remote.list()

    def read(self, file: RemoteFile, start: int, end: int | None) -> Iterator[Chunk]:
        """As Remote's."""
        chunks = self._remote.read(file, start, end)

        async def following() -> Chunk | None:
            return await anext(chunks, None)

        try:
            while (chunk := asyncio.run_coroutine_threadsafe(following(), self._loop).result()) is not None:
                yield chunk
        finally:
            asyncio.run_coroutine_threadsafe(chunks.aclose(), self._loop).result()

    async def close(self) -> None:
        """As Remote's."""
        await self._remote.close()
