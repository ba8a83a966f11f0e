"""How a gateway goes without losing a request: first no new clients, then no new requests, then nothing unfinished.

What Envoy does (tried on 1.40, started with `--drain-strategy immediate`): once its health check fails, every answer
ends its connection (`connection: close` over HTTP/1.1, GOAWAY over HTTP/2), and whoever still connects is served once.
So clients that are at work move on with their next answer. Connections on which nothing happens stay; nothing tells
their clients, and Envoy's own draining of listeners does not either: they end with the process.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, Protocol

import structlog

from conch.gateway.envoy.admin import EnvoyAwayError

_log = structlog.get_logger(__name__)

_LOOK_SECONDS: Final = 0.25
STATS: Final = r"^http\.[^.]+\.[^.]+\.downstream_rq_(total|active)$"


class Admin(Protocol):
    """What is asked of Envoy's administration."""

    async def stats(self, pattern: str) -> dict[str, int | str]:
        """Values by names."""

    async def fail_health_check(self) -> None:
        """End every connection with its next answer."""


class Departure(Enum):
    """How a request to leave ended."""

    SAFE = auto()
    """Nothing is lost by stopping Envoy now."""
    LATE = auto()
    """The time is over, and requests are still in flight."""
    NOT_DELETED = auto()
    """Whoever asked is not the kubelet: the pod is not about to be removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeavingTimes:
    """Seconds."""

    unlisted_seconds: float
    """How long to wait until no public slice names this gateway."""
    drain_seconds: float
    """How long to wait after that for what is in flight."""
    idle_seconds: float
    """For so long after it is unlisted no request may have come or be unfinished. Not shorter than the kube-proxies
    need to hear of it: they take changes in batches of a second and more, and until then new clients are sent here."""


def is_ending(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is about to be ended: deleted, evicted, preempted, or failed (as nodes do that shut down)."""
    status = pod.get("status") or {}
    is_disrupted = any(
        each.get("type") == "DisruptionTarget" and each.get("status") == "True"
        for each in status.get("conditions") or ()
    )
    return "deletionTimestamp" in pod["metadata"] or status.get("phase") == "Failed" or is_disrupted


class Leaving:
    """One departure, however often it is asked for."""

    def __init__(
        self,
        admin: Admin,
        *,
        is_deleted: Callable[[], Awaitable[bool]],
        listed: Callable[[], int | None],
        times: LeavingTimes,
        clock: Callable[[], float],
    ) -> None:
        """`is_deleted`: whether the pod is about to end. `listed`: how many public slices name this gateway; None while
        that is not known.
        """
        self._admin = admin
        self._is_deleted = is_deleted
        self._listed = listed
        self._times = times
        self._clock = clock
        self._question: asyncio.Task[bool] | None = None
        self._departure: asyncio.Task[Departure] | None = None

    @property
    def has_begun(self) -> bool:
        """From then on this gateway is not ready."""
        return self._departure is not None

    async def leave(self) -> Departure:
        """Returns when Envoy may be stopped.

        Anybody who reaches the port may ask, so it is done only if the API server says that the pod is about to end.
        """
        if self._departure is None and not await self._ask():
            return Departure.NOT_DELETED
        # Two may have asked at the same time.
        if self._departure is None:
            self._departure = asyncio.create_task(self._depart())
        # Whoever asks and goes away must not end it for the others.
        return await asyncio.shield(self._departure)

    async def _ask(self) -> bool:
        """One question for all who come meanwhile: a flood of them must not reach the API server."""
        if self._question is None or self._question.done():
            self._question = asyncio.ensure_future(self._is_deleted())
        return await asyncio.shield(self._question)

    async def _depart(self) -> Departure:
        started = self._clock()
        _log.info("leaving", listed=self._listed())
        # Not known is no reason to believe that nobody is sent here.
        while self._listed() != 0:
            if self._clock() - started >= self._times.unlisted_seconds:
                _log.warning("still listed, but time is over", listed=self._listed())
                break
            await asyncio.sleep(_LOOK_SECONDS)
        departure = await self._drain()
        _log.info("left", outcome=departure.name.lower(), seconds=round(self._clock() - started, 3))
        return departure

    async def _drain(self) -> Departure:
        started = quiet_since = self._clock()
        total_before, told = -1, False
        while self._clock() - started < self._times.drain_seconds:
            try:
                if not told:
                    await self._admin.fail_health_check()
                    told = True
                stats = await self._admin.stats(STATS)
            except EnvoyAwayError as error:
                _log.info("Envoy does not answer while this gateway leaves", error=str(error))
            else:
                total, active = _sum(stats, ".downstream_rq_total"), _sum(stats, ".downstream_rq_active")
                if active or total != total_before:
                    total_before, quiet_since = total, self._clock()
                elif self._clock() - quiet_since >= self._times.idle_seconds:
                    return Departure.SAFE
            await asyncio.sleep(_LOOK_SECONDS)
        return Departure.LATE


def _sum(stats: dict[str, int | str], end: str) -> int:
    return sum(int(value) for name, value in stats.items() if name.endswith(end))
