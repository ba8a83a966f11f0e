"""Work on a file system that may hang: a network file system whose server is away answers nothing, for ever."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from conch.store.threads import Checkpoint, Interrupted

_LOOK_SECONDS: Final = 1.0
_Result = TypeVar("_Result")


class NotAnsweredError(Exception):
    """A file system has not answered for so long that nobody waits any more."""

    def __init__(self, seconds: float, left_behind: "Future[Any]") -> None:
        super().__init__(f"its file system has not answered for {seconds:.0f} s")
        self.left_behind = left_behind
        """The work: done once the file system has answered after all."""


async def answered(
    work: Callable[[Checkpoint], _Result],
    *,
    moved: Callable[[], object] = lambda: None,
    patience_seconds: float,
) -> _Result:
    """Run `work(checkpoint)` in a thread; raises NotAnsweredError once `moved()` has stayed the same for so long.

    The thread cannot be ended, only left behind: it stops at its next checkpoint, should it ever come back, and keeps
    no process alive.
    """
    stop = threading.Event()
    outcome: Future[_Result] = Future()
    # From now on nothing but the thread settles it.
    outcome.set_running_or_notify_cancel()

    def checkpoint() -> None:
        if stop.is_set():
            raise Interrupted

    def run() -> None:
        try:
            outcome.set_result(work(checkpoint))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="files", daemon=True).start()
    done = asyncio.wrap_future(outcome)
    clock = asyncio.get_running_loop().time
    seen, since = moved(), clock()
    try:
        while not (await asyncio.wait({done}, timeout=min(_LOOK_SECONDS, patience_seconds)))[0]:
            if (now_seen := moved()) != seen:
                seen, since = now_seen, clock()
            elif clock() - since >= patience_seconds:
                raise NotAnsweredError(patience_seconds, outcome)
        return done.result()
    finally:
        stop.set()
        done.cancel()
