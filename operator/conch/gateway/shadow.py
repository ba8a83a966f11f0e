"""Copies of requests, sent to one server of each revision, whose answers are compared and counted.

No client waits for any of this, and none of it may take room from what clients wait for: everything is bounded, and
what is beyond a bound is dropped and counted.
"""

import asyncio
import random
import time
import uuid
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import structlog

from conch.api.gateway_report import LATENCY_BOUNDS_MILLISECONDS, ShadowTraffic
from conch.api.shadow import ShadowShare
from conch.api.types import bounded
from conch.gateway.envoy.naming import Protocol
from conch.gateway.routed import Endpoint, ObjectKey, RoutedObject, Snapshot
from conch.gateway.shadow_outcomes import Answered, Differs, Failed, Outcome, Same, TooLarge, Unreadable
from conch.gateway.shadow_senders import Copy, Senders

PAIRS_MOST: Final = 16
"""Of copies at a time. Each may be as large as BODY_BYTES_MOST, and be answered twice with ANSWER_BYTES_MOST."""
PAIRS_MOST_OF_ONE: Final = PAIRS_MOST // 2
"""Of one object's copies: a candidate that hangs leaves the others theirs."""
PAIRS_PER_SECOND: Final = 25.0
"""A small copy costs this process 1.5 ms of a core (gRPC 3 ms), and who is held waits for the same process."""
COMPARING_SECONDS: Final = 0.004
"""What comparing one may take. A megabyte of JSON takes ten times as much, and counts as so many: all together they
have a tenth of a core."""
BURST: Final = 10.0
BODY_BYTES_MOST: Final = 4 << 20
READ_SECONDS: Final = 10.0
"""A copy comes no faster than its client sends the request."""
ANSWER_SECONDS_MOST: Final = 30.0
_EXAMPLE_MOST: Final = 512
_SEQUENCE: Final = b"sequence_id"
"""A parameter of requests whose answer depends on those before: of HTTP in the JSON part, of gRPC a key of a map."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Counts:
    comparison: str
    epoch: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    compared: int = 0
    disagreed: int = 0
    failed: int = 0
    skipped: int = 0
    dropped: int = 0
    stable_latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_MILLISECONDS) + 1))
    candidate_latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_MILLISECONDS) + 1))
    example: str = ""

    def told(self) -> ShadowTraffic:
        return ShadowTraffic(
            epoch=self.epoch,
            comparison=self.comparison,
            compared=self.compared,
            disagreed=self.disagreed,
            failed=self.failed,
            skipped=self.skipped,
            dropped=self.dropped,
            stable_latency=tuple(self.stable_latency),
            candidate_latency=tuple(self.candidate_latency),
            example=self.example,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """Whom a copy is sent to, and where it is counted."""

    key: ObjectKey
    stable: Endpoint
    candidate: Endpoint
    share: ShadowShare
    counts: _Counts
    seconds: float
    """How long an answer may take."""


@dataclass(slots=True)
class _Pace:
    """So many per second, and a few at once."""

    clock: Callable[[], float]
    left: float = BURST
    at: float | None = None

    def allows(self) -> bool:
        now = self.clock()
        passed = 0.0 if self.at is None else now - self.at
        self.left, self.at = min(BURST, self.left + passed * PAIRS_PER_SECOND), now
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def charge(self, seconds: float) -> None:
        """For one that took longer than one may."""
        self.left -= max(0.0, seconds / COMPARING_SECONDS - 1)


class Shadow:
    """Takes copies; `close` ends what is still on its way."""

    def __init__(self, *, snapshot: Callable[[], Snapshot], senders: Senders, clock: Callable[[], float]) -> None:
        """`clock` is in seconds and only grows."""
        self._snapshot = snapshot
        self._senders = senders
        self._clock = clock
        self._pace = _Pace(clock)
        self._counts: dict[tuple[ObjectKey, str], _Counts] = {}
        self._busy: dict[ObjectKey, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # One thread: what is large is decoded and compared one after the other, and never in the way of the loop.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shadow")

    async def take(self, key: ObjectKey, copy: Copy, read: Callable[[], Awaitable[bytes | None]]) -> bool:
        """Read a copy's body and have it compared; False if there was no room for it, so that it was not read.

        `read` gives None for a body that is longer than BODY_BYTES_MOST.
        """
        pair = self._pair(key)
        if pair is None:
            return True
        if copy.is_encoded:
            pair.counts.skipped += 1
            return True
        if not self._has_room(key) or not self._pace.allows():
            pair.counts.dropped += 1
            return False
        self._busy[key] = self._busy.get(key, 0) + 1
        try:
            async with asyncio.timeout(READ_SECONDS):
                body = await read()
        except TimeoutError:
            body = None
        except BaseException:
            # Its client went away before the request was whole.
            self._leave(key)
            raise
        if body is None or _SEQUENCE in copy.head_of(body):
            pair.counts.skipped += 1
            self._leave(key)
            return True
        task = asyncio.create_task(self._ask(pair, copy, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def told(self, object_: RoutedObject) -> Mapping[str, ShadowTraffic]:
        """What was counted of an object, by the workload that gets copies."""
        return {
            share.workload: self._counts_of(object_.key, share.workload, share.shadow).told()
            for share in object_.shares
            if share.shadow
        }

    async def close(self) -> None:
        """End everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._senders.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def forget_gone(self) -> None:
        """What is no longer to be copied is not counted any more."""
        if not self._counts:
            return
        objects = self._snapshot().objects
        copied = {(key, share.workload) for key, each in objects.items() for share in each.shares if share.shadow}
        self._counts = {name: counts for name, counts in self._counts.items() if name in copied}

    def _pair(self, key: ObjectKey) -> _Pair | None:
        """None where nothing is to be copied, or nobody is there to be asked."""
        snapshot = self._snapshot()
        object_ = snapshot.objects.get(key)
        candidate = snapshot.shadowed(object_) if object_ else None
        if object_ is None or candidate is None or candidate.shadow is None:
            return None
        weighted = [share for share in object_.shares if share.weight > 0 and share is not candidate]
        servers = [server for share in weighted for server in snapshot.servers(object_, share)]
        if not servers:
            return None
        return _Pair(
            key=key,
            stable=random.choice(servers),  # noqa: S311 - balance, not a secret
            candidate=random.choice(snapshot.servers(object_, candidate)),  # noqa: S311 - which server is asked is no secret
            share=candidate.shadow,
            counts=self._counts_of(key, candidate.workload, candidate.shadow),
            seconds=min(object_.gateway.effective_timeout_seconds, ANSWER_SECONDS_MOST),
        )

    def _counts_of(self, key: ObjectKey, workload: str, share: ShadowShare) -> _Counts:
        counts = self._counts.get((key, workload))
        if counts is None or counts.comparison != share.comparison:
            counts = self._counts[key, workload] = _Counts(share.comparison)
        return counts

    def _has_room(self, key: ObjectKey) -> bool:
        return sum(self._busy.values()) < PAIRS_MOST and self._busy.get(key, 0) < PAIRS_MOST_OF_ONE

    def _leave(self, key: ObjectKey) -> None:
        self._busy[key] -= 1
        if not self._busy[key]:
            del self._busy[key]

    async def _ask(self, pair: _Pair, copy: Copy, body: bytes) -> None:
        try:
            stable, candidate = await asyncio.gather(
                self._senders.ask(pair.stable.address, copy, body, seconds=pair.seconds),
                self._senders.ask(pair.candidate.address, copy, body, seconds=pair.seconds),
            )
            await self._judge(pair, copy, stable, candidate)
        except Exception:
            # Whatever it is, it is ours and says nothing of the candidate.
            pair.counts.skipped += 1
            _log.exception("copy not compared", object="/".join(pair.key))
        finally:
            self._leave(pair.key)

    async def _judge(self, pair: _Pair, copy: Copy, stable: Outcome, candidate: Outcome) -> None:
        counts = pair.counts
        if not isinstance(stable, Answered):
            # A request that the stable revision does not answer either tells the two not apart.
            counts.skipped += 1
            return
        _count(counts.stable_latency, stable.milliseconds)
        if isinstance(candidate, Failed):
            counts.failed += 1
            counts.example = bounded(candidate.words, _EXAMPLE_MOST)
            return
        if isinstance(candidate, TooLarge):
            counts.compared += 1
            counts.disagreed += 1
            counts.example = "the new revision's answer is too large to be compared, and the old one's is not"
            return
        _count(counts.candidate_latency, candidate.milliseconds)
        loop = asyncio.get_running_loop()
        found, seconds = await loop.run_in_executor(
            self._thread, _compare, copy.protocol, stable, candidate, pair.share
        )
        self._pace.charge(seconds)
        if isinstance(found, Unreadable):
            counts.skipped += 1
            return
        counts.compared += 1
        if isinstance(found, Differs):
            counts.disagreed += 1
            counts.example = bounded(found.words, _EXAMPLE_MOST)


def _compare(
    protocol: Protocol, stable: Answered, candidate: Answered, share: ShadowShare
) -> tuple[Same | Differs | Unreadable, float]:
    """And the seconds of a core that it took."""
    # Imported by its first use, and in the thread: numpy and the stubs take time, and memory that a gateway which never
    # compares anything need not have.
    from conch.gateway.shadow_comparison import compare

    begun = time.thread_time()
    return compare(protocol, stable, candidate, share), time.thread_time() - begun


def _count(buckets: list[int], milliseconds: float) -> None:
    buckets[bisect_right(LATENCY_BOUNDS_MILLISECONDS, milliseconds)] += 1
