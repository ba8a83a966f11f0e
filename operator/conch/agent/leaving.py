"""When Triton may be told to end: the kubelet asks before it does (preStop), and waits for the answer.

Triton refuses new connections at SIGTERM and unloads its model, so whatever is open by then is lost: a stream that is
still used, a request on a kept connection. First every proxy has to learn that this pod leaves; then what is open is
waited for.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

_LOOK_SECONDS: Final = 0.2

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeavingTimes:
    """Seconds."""

    propagation_seconds: float
    """Until every proxy has learned that this pod leaves."""
    drain_seconds: float
    """What is open may take so long after that."""


class Leaving:
    """Waits until nobody uses this pod any more, or for as long as may be."""

    def __init__(
        self,
        *,
        connections: Callable[[], int],
        is_live: Callable[[], Awaitable[bool]],
        times: LeavingTimes,
        clock: Callable[[], float],
    ) -> None:
        self._connections = connections
        self._is_live = is_live
        self._times = times
        self._clock = clock

    async def wait(self) -> str:
        """Returns in words why Triton may end now."""
        await asyncio.sleep(self._times.propagation_seconds)
        end = self._clock() + self._times.drain_seconds
        while (open_now := self._connections()) > 0:
            if self._clock() >= end:
                _log.warning("leaves_with_open_connections", connections=open_now)
                return f"{open_now} connections are still open, and the time is over"
            if not await self._is_live():
                # A server that hangs finishes nothing: its restart must not wait for it.
                return "Triton does not answer"
            await asyncio.sleep(_LOOK_SECONDS)
        return "nothing is open"
