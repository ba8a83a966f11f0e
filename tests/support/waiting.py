"""Waits for conditions; the tests never sleep for a guess."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.2


def _nothing() -> str:
    return ""


def until(look: Callable[[], T | None], what: str, *, seconds: float = 120, unless: Callable[[], str] = _nothing) -> T:
    """The first truthy answer of `look`; fails with `what` and the last answer or error when the time is over.

    And at once when `unless` says, in words, why it cannot come any more.
    """
    end = time.monotonic() + seconds
    last: object = None
    while True:
        try:
            if answer := look():
                return answer
            last = answer
        except Exception as error:  # a cluster that is being broken on purpose answers with errors
            last = error
        try:
            in_vain = unless()
        except Exception:  # as above: then it is not known
            in_vain = ""
        if in_vain:
            raise AssertionError(f"waited in vain for: {what}; {in_vain}; last: {last!r}")
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:.0f} s for: {what}; last: {last!r}")
        time.sleep(_POLL_SECONDS)
