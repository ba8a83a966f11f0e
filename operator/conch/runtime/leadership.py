"""Leader election over one record with compare-and-swap.

The clock of the other side is never trusted: a foreign record counts as alive until it has not changed for its whole
duration as seen from here. A leader that could not renew stops leading before anybody else may take over, so two
operators never write at the same time; `leads()` is asked before every write.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

import structlog

_log = structlog.get_logger(__name__)

DURATION_SECONDS = 10
RENEW_DEADLINE_SECONDS = 7.0
RETRY_SECONDS = 2.0
_AFTER_FAULT_SECONDS = 0.5
_CLOCK_MARGIN_SECONDS = 0.5
_RELEASE_SECONDS = 1.0


class Record(Protocol):
    """What is known of the Lease."""

    @property
    def holder(self) -> str: ...
    @property
    def transitions(self) -> int: ...
    @property
    def version(self) -> str | None: ...


class RecordStore(Protocol):
    """Where the Lease is kept. `write` fails when the record changed since `version`."""

    async def read(self) -> Record: ...
    async def write(self, *, holder: str, transitions: int, version: str | None, now: datetime) -> Record: ...


class NotLeadingError(Exception):
    """A write was about to happen after the Lease was lost."""


class Leadership:
    """Takes part in the election of one leader."""

    def __init__(self, store: RecordStore, *, identity: str, clock: Callable[[], float]) -> None:
        self._store = store
        self._identity = identity
        self._clock = clock
        self._leads_until = float("-inf")
        self._seen: Record | None = None
        self._seen_at = float("-inf")
        """When that version was first seen. Never before it was written, so its holder's duration had begun."""
        self._may_differ = False
        """Whether a write of ours had no answer, so that the record may be another one than was seen."""

    def leads(self) -> bool:
        """Whether this process may write now."""
        return self._clock() < self._leads_until

    def check(self) -> float:
        """The fence before a write: how many seconds it may take at most, so that it is over before the Lease is.

        Raises NotLeadingError when this process does not lead.
        """
        left = self._leads_until - self._clock()
        if left <= 0:
            raise NotLeadingError("the Lease is not held")
        return left + DURATION_SECONDS - RENEW_DEADLINE_SECONDS - _CLOCK_MARGIN_SECONDS

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Take part until cancelled; runs `lead` while leading and cancels it when the Lease is lost.

        When cancelled, the work is stopped first and the Lease given back after: the next leader starts at once.
        """
        work: asyncio.Task[None] | None = None
        try:
            while True:
                answered = await self._step()
                if self.leads() and work is None:
                    _log.info("leading", identity=self._identity)
                    work = asyncio.ensure_future(lead())
                if work is not None and (work.done() or not self.leads()):
                    await _end(work)
                    work = None
                    _log.warning("no longer leading", identity=self._identity)
                wait = (RETRY_SECONDS if answered else _AFTER_FAULT_SECONDS) * random.uniform(0.8, 1.0)  # noqa: S311 - jitter
                if work is None:
                    await asyncio.sleep(wait)
                else:
                    # Not a moment longer than the Lease is ours, and no longer than the work lasts.
                    await asyncio.wait({work}, timeout=min(wait, max(0.0, self._leads_until - self._clock())))
        finally:
            if work is not None:
                await _end(work)
            await self._release()

    async def _step(self) -> bool:
        """Try once to hold the Lease, or look at who does; whether the store answered."""
        asked_at = self._clock()
        try:
            async with asyncio.timeout(RETRY_SECONDS):
                await self._try_hold(asked_at)
        except Exception as error:  # any fault of the store has the same answer: try again until the deadline
            _log.info("lease not renewed", error=str(error) or type(error).__name__)
            return False
        return True

    async def _try_hold(self, asked_at: float) -> None:
        if self._seen is not None and self.leads() and not self._may_differ:
            record = self._seen
        else:
            record = await self._store.read()
            if self._seen is None or record.version != self._seen.version:
                self._seen, self._seen_at = record, self._clock()
            self._may_differ = False
        mine = record.holder == self._identity
        if not mine and record.holder and asked_at - self._seen_at < DURATION_SECONDS:
            self._leads_until = float("-inf")
            return
        try:
            self._seen = await self._store.write(
                holder=self._identity,
                transitions=record.transitions + (0 if mine else 1),
                version=record.version,
                now=datetime.now(UTC),
            )
        except BaseException:
            # The record may have changed under us; look again next time instead of guessing. What has not changed has
            # been seen for as long as before: who died does not live on because others cannot write.
            self._may_differ = True
            raise
        self._seen_at = self._clock()
        # Counted from before the call: that is when the Lease's duration may have begun.
        self._leads_until = asked_at + RENEW_DEADLINE_SECONDS

    async def _release(self) -> None:
        """Give the Lease back if it is ours; a fault only means that it runs out by itself.

        It is read anew each time: a renewal that the cancellation cut off may be written, or still be on its way.
        """
        self._leads_until = float("-inf")
        with suppress(TimeoutError):
            async with asyncio.timeout(_RELEASE_SECONDS):
                while True:
                    if await self._released():
                        return
                    await asyncio.sleep(_RELEASE_SECONDS / 20)

    async def _released(self) -> bool:
        try:
            record = await self._store.read()
            if record.holder == self._identity:
                await self._store.write(
                    holder="", transitions=record.transitions, version=record.version, now=datetime.now(UTC)
                )
        except Exception as error:  # any fault of the store has the same answer: try again until the deadline
            _log.info("lease not given back", error=str(error) or type(error).__name__)
            return False
        return True


async def _end(work: asyncio.Task[None]) -> None:
    """Stop the work; a fault that ended it is told, and leading goes on with the next round."""
    work.cancel()
    # Not `await work`: that would swallow a cancellation of ours together with the work's.
    await asyncio.wait({work})
    if not work.cancelled() and (error := work.exception()) is not None:
        _log.error("the leader's work failed", error=repr(error), exc_info=error)
