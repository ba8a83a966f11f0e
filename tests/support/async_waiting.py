"""Waits for conditions of what runs in the same event loop; the tests never sleep for a guess."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

_WAIT_SECONDS: Final = 60
T = TypeVar("T")


async def until(what: str, ask: Callable[[], Awaitable[T | None]], seconds: float = _WAIT_SECONDS) -> T:
    """The first answer that is neither None nor False; fails with what was waited for."""
    end = time.monotonic() + seconds
    while True:
        answer = await ask()
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        await asyncio.sleep(0.02)
