"""Waits for conditions; nothing here sleeps longer than one short look at the condition."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from tests.cluster.errors import ClusterError

_LOOK_EVERY_SECONDS = 0.1
_pause = threading.Event()


def until(
    condition: Callable[[], bool],
    *,
    what: str,
    timeout_seconds: float,
    todo: str = "Read the logs in .cluster/logs, then run `down` and `up`.",
    alive: Callable[[], None] = lambda: None,
    every_seconds: float = _LOOK_EVERY_SECONDS,
) -> None:
    """Returns when `condition` holds; raises when it does not in time, or what `alive` raises before that."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        alive()
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} did not happen within {timeout_seconds:.0f} s.", todo=todo)
        _pause.wait(every_seconds)


def answers(url: str, *, context: ssl.SSLContext | None = None) -> bool:
    """Whether a GET is answered with 200. Never through a proxy that the environment names."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        return False
