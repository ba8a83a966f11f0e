"""Tells readers for which objects requests are held, so that somebody brings a server up."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final

from conch.api.gateway_report import Wake
from conch.gateway.routed import ObjectKey

GROWTH_SECONDS: Final = 0.5
"""How often at most a reader is told another number of the same object."""
LIFE_SECONDS: Final = 5.0
"""After so long without news a reader gets a sign of life; the operator gives a silent stream up after 15 s."""


class Wakes:
    """Any number of readers, each at its own pace: what a slow one misses are numbers that are out of date."""

    def __init__(self, held: Callable[[], Mapping[ObjectKey, int]], *, clock: Callable[[], float]) -> None:
        self._held = held
        self._clock = clock
        self._readers: set[asyncio.Event] = set()

    def changed(self) -> None:
        """Another request is held."""
        for news in self._readers:
            news.set()

    async def follow(self) -> AsyncGenerator[Wake, None]:
        """Everything that is held now, then what is new, for ever; close it when done (`aclosing`)."""
        news = asyncio.Event()
        self._readers.add(news)
        told: dict[ObjectKey, tuple[int, float]] = {}
        try:
            while True:
                news.clear()
                now = self._clock()
                held = self._held()
                told = {key: each for key, each in told.items() if key in held or now - each[1] < GROWTH_SECONDS}
                changed = [key for key, number in held.items() if key not in told or told[key][0] != number]
                due = [key for key in changed if key not in told or now - told[key][1] >= GROWTH_SECONDS]
                for key in due:
                    told[key] = (held[key], now)
                    yield Wake(object="/".join(key), held=held[key])
                if not due and not await _set_within(news, GROWTH_SECONDS if changed else LIFE_SECONDS) and not changed:
                    yield Wake()
        finally:
            self._readers.discard(news)


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
