"""Keeps a long-running part alive: whatever ends it, it is started again after a jittered back-off."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

_log = structlog.get_logger(__name__)

_FIRST_SECONDS = 0.5
_LIMIT_SECONDS = 20.0
_HEALTHY_SECONDS = 60.0


async def supervise(name: str, part: Callable[[], Awaitable[None]], *, clock: Callable[[], float]) -> None:
    """Run `part` for ever, until cancelled. A part that ran well for a minute starts again without a long wait."""
    seconds = _FIRST_SECONDS
    while True:
        started = clock()
        try:
            await part()
            _log.warning("part ended", part=name)
        except Exception as error:  # the purpose of a supervisor
            _log.warning("part failed", part=name, error=repr(error))
        if clock() - started > _HEALTHY_SECONDS:
            seconds = _FIRST_SECONDS
        await asyncio.sleep(seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        seconds = min(2 * seconds, _LIMIT_SECONDS)
