"""Blocking work (hashing, unpacking, copying) in a thread that ends when its caller is cancelled."""

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

Result = TypeVar("Result")
CHUNK_BYTES = 1 << 18


class Interrupted(Exception):
    """Raised inside the thread once nobody waits for it any more."""


class Checkpoint(Protocol):
    """What blocking code calls between chunks; raises Interrupted when it should stop."""

    def __call__(self) -> None: ...


def never_interrupted() -> None:
    """The checkpoint of code that runs outside `in_thread`."""


async def in_thread(work: Callable[[Checkpoint], Result]) -> Result:
    """Run `work(checkpoint)` in a thread; cancelling waits until it has stopped, so that its files can be removed."""
    stop = threading.Event()

    def checkpoint() -> None:
        if stop.is_set():
            raise Interrupted

    task = asyncio.ensure_future(asyncio.to_thread(work, checkpoint))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen: nobody else will
        raise
