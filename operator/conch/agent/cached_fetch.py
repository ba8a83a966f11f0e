"""Brings a model into the model cache, or finds it there: one pod fetches, the others wait and use what it fetched.

Whatever goes wrong with the cache is a CacheError, and the pod then fetches onto its own volume. What goes wrong with
the source is a StoreError, with the cache as without it.
"""

import asyncio
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp.abc import AbstractResolver

from conch.api.agent_report import CacheOutcome
from conch.api.reasons import Reason
from conch.store import Fetched, Request, StorageError, StoreError, fetch_all, in_thread
from conch.store.cache import (
    RENEWAL_SECONDS,
    Cached,
    CacheError,
    DamagedError,
    FetchState,
    Filling,
    ModelCache,
    answered,
)
from conch.store.threads import Checkpoint

_LOOK_SECONDS: Final = 1.0
SILENCE_SECONDS: Final = 600.0
"""For so long a pod waits for another one that fetches the same model and gets no byte; it may be unpacking."""
_LEAVING_SECONDS: Final = 10.0
_TOO_LARGE: Final = "the model takes more than the room that was made for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """A model in the cache, and how it came there."""

    fetched: Fetched
    outcome: CacheOutcome
    message: str = ""


class CachedFetch:
    """One agent's way to the cache."""

    def __init__(self, cache: ModelCache, resolver: AbstractResolver | None = None) -> None:
        self._cache = cache
        self._resolver = resolver
        self._left_behind: set[asyncio.Task[Fetched | None]] = set()

    async def bring(self, request: Request, *, digest: str | None, source_key: str, folder: Path) -> Brought | None:
        """Make `folder`/tree of links to the model's files in the cache; None: the source is what `request.known` says.

        With a `digest` that one is wanted, wherever it came from; else what the source, which `source_key` stands for,
        has now. Raises CacheError, StoreError.
        """
        await answered(lambda _checkpoint: self._cache.prepare())
        tree, message = folder / "tree", ""
        if digest:
            try:
                if (hit := await self._link(request, digest, tree)) is not None:
                    return _hit(request, hit)
            except DamagedError as error:
                message = f"{error}; they were fetched anew"
                await in_thread(lambda _checkpoint: shutil.rmtree(tree, ignore_errors=True))
        filling = await self._begin(request, digest, source_key)
        keeps_partial = True
        try:
            if digest and (hit := await self._link(request, digest, tree)) is not None:
                return _hit(request, hit)
            brought = await self._fill(request, filling, digest, tree)
        except StoreError as error:
            keeps_partial = not _is_of_the_place(error)
            if keeps_partial:
                raise
            said = f"its file system says: {error.said}" if isinstance(error, StorageError) else _TOO_LARGE
            raise CacheError(said) from error
        except CacheError:
            keeps_partial = False
            raise
        finally:
            await self._close(filling, keeps_partial=keeps_partial)
        return replace(brought, message=message) if brought else None

    async def _link(self, request: Request, digest: str, tree: Path) -> Cached | None:
        progress = request.progress
        progress.bytes = progress.files = 0
        return await answered(
            lambda checkpoint: self._cache.link(digest, tree, progress, checkpoint),
            moved=lambda: (progress.bytes, progress.files),
        )

    async def _begin(self, request: Request, digest: str | None, source_key: str) -> Filling:
        """Wait for the right to fetch, as long as the one who has it gets on."""
        clock, progress = asyncio.get_running_loop().time, request.progress
        seen, since = FetchState(), clock()
        while True:
            filling = await answered(lambda _checkpoint: self._cache.begin(digest, source_key))
            if filling is not None:
                progress.bytes, progress.total_bytes = 0, None
                return filling
            state = await answered(lambda _checkpoint: self._cache.state(digest, source_key)) or seen
            if state != seen:
                seen, since = state, clock()
                progress.bytes, progress.total_bytes = state.bytes, state.total_bytes
            elif clock() - since >= SILENCE_SECONDS:
                raise CacheError(f"another pod fetches this model and has got no byte for {SILENCE_SECONDS:.0f} s")
            await asyncio.sleep(_LOOK_SECONDS)

    async def _fill(self, request: Request, filling: Filling, digest: str | None, tree: Path) -> Brought | None:
        before = filling.before
        hint = before if digest is None and not request.known and before.digest and before.resolved else None
        asked = replace(
            request,
            known=hint.resolved if hint else request.known,
            admit=lambda listing, beside_bytes: self._cache.make_room(filling, listing, beside_bytes),
        )
        fetched = await self._watched(asked, filling)
        if fetched is None and hint is not None:
            # The source still is what another pod found there.
            if (linked := await self._link(request, hint.digest, tree)) is not None:
                return _hit(request, linked, resolved=hint.resolved)
            fetched = await self._watched(replace(asked, known=""), filling)
        if fetched is None:
            return None
        whole = fetched
        cached = await answered(lambda _checkpoint: filling.put(whole, tree))
        if cached is None:
            # Another source has the same files.
            cached = await self._link(request, whole.digest, tree)
        if cached is None:
            raise CacheError(f"its files of {whole.digest} were taken away at once")
        return Brought(fetched=replace(whole, fingerprint=cached.fingerprint), outcome=CacheOutcome.FILLED)

    async def _watched(self, request: Request, filling: Filling) -> Fetched | None:
        """Fetch, and show how far that is; what hangs in the cache's file system is left behind."""
        work = fetch_all(request, filling.partial, filling.folder, resolver=self._resolver)
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=_LOOK_SECONDS))[0]:
                await answered(lambda _checkpoint: filling.show(request.progress))
            return task.result()
        except OSError as error:
            raise CacheError(f"its file system says: {error.strerror or error}") from error
        except CacheError:
            task.cancel()
            if not (await asyncio.wait({task}, timeout=_LEAVING_SECONDS))[0]:
                self._left_behind.add(task)
                task.add_done_callback(self._left_behind.discard)
            raise
        finally:
            if not task.done() and task not in self._left_behind:
                task.cancel()
                await asyncio.wait({task})

    async def _close(self, filling: Filling, *, keeps_partial: bool) -> None:
        try:
            await answered(lambda _checkpoint: filling.close(keeps_partial=keeps_partial))
        except CacheError:
            filling.abandon()

    async def use(self, digests: frozenset[str]) -> None:
        """Go on using what an earlier life of this agent linked to; what cannot be is found out before it is loaded."""
        for digest in digests:
            with suppress(CacheError):
                await answered(partial(self._use, digest))

    def _use(self, digest: str, _checkpoint: Checkpoint) -> bool:
        return self._cache.use(digest)

    def is_in_use(self, digest: str) -> bool:
        """Whether an entry is there, and nobody may take it away any more; blocks."""
        try:
            return self._cache.use(digest)
        except (CacheError, OSError):
            return False

    def leave_all_but(self, digests: frozenset[str]) -> None:
        """Let others take away what is not among these."""
        self._cache.leave_all_but(digests)

    async def keep_renewing(self) -> None:
        """Show that what is in use still is, until cancelled."""
        while True:
            await asyncio.sleep(RENEWAL_SECONDS)
            with suppress(CacheError):
                await answered(lambda _checkpoint: self._cache.renew())


def _is_of_the_place(error: StoreError) -> bool:
    """Whether it may be otherwise on the pod's own volume."""
    return isinstance(error, StorageError) or error.reason is Reason.SOURCE_TOO_LARGE


def _hit(request: Request, cached: Cached, *, resolved: str | None = None) -> Brought:
    fetched = Fetched(
        digest=cached.digest,
        resolved=request.pinned if resolved is None else resolved,
        bytes=cached.bytes,
        fingerprint=cached.fingerprint,
    )
    return Brought(fetched=fetched, outcome=CacheOutcome.HIT)
