"""The edge: kopf watches the ModelDeployments and hands every event over. The only file that knows kopf.

kopf runs in a thread and an event loop of its own. It takes over the signal handlers of the main thread and, when it
ends, cancels every task of its loop that it does not know; and it ends on a 410 at connect, an ERROR event 500, a line
that is not JSON, or a 401. So it is kept where that harms nobody, and started again by the supervisor.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

import kopf

from conch.api import names

EventHandler = Callable[[str | None, Mapping[str, Any]], None]
"""Called with kopf's event type (None for what a list found) and the object, on the main loop."""

_STOP_SECONDS = 1.0


class Edge:
    """Runs kopf until cancelled or until kopf ends."""

    def __init__(self, *, on_event: EventHandler) -> None:
        self._on_event = on_event

    async def run(self) -> None:
        """One life of the edge; ends when kopf does, raising what it raised."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        stop = threading.Event()

        def hand_over(type_: str | None, body: Mapping[str, Any]) -> None:
            loop.call_soon_threadsafe(self._on_event, type_, body)

        def finish(error: Exception | None) -> None:
            if not ended.done():
                ended.set_exception(error) if error else ended.set_result(None)

        def live() -> None:
            error: Exception | None = None
            try:
                asyncio.run(
                    kopf.operator(
                        registry=_registry(hand_over),
                        settings=_settings(),
                        clusterwide=True,
                        standalone=True,
                        # Otherwise kopf asks for the user's name, and an image's uid (or OpenShift's) has none.
                        identity=names.LEASE,  # type: ignore[arg-type]  # a NewType that kopf does not publish
                        stop_flag=stop,
                    )
                )
            except BaseException as raised:  # handed to the supervisor; a thread has nobody else to tell
                error = RuntimeError(f"kopf ended: {raised!r}")
            if not loop.is_closed():
                loop.call_soon_threadsafe(finish, error)

        thread = threading.Thread(target=live, name="kopf", daemon=True)
        thread.start()
        try:
            await ended
        finally:
            stop.set()
            await asyncio.to_thread(thread.join, _STOP_SECONDS)


def _registry(hand_over: EventHandler) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)
    async def changed(type: str | None, body: kopf.Body, **_: Any) -> None:
        hand_over(type, dict(body))

    return registry


class _NoDiffBase(kopf.DiffBaseStorage):
    """Nothing is compared or stored: `on.event` needs none of it, and kopf would copy every object twice per event."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        """Leave the object as it is."""


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = _NoDiffBase()
    # Until then kopf keeps a task and the last body of every object that changed.
    settings.queueing.idle_timeout = 0.5
    settings.posting.enabled = False
    settings.scanning.disabled = True
    # By kopf's own limit a list on a connection that is dead blinds a new operator for five minutes.
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    # A watch lasts; these are its limits, and kopf opens one anew that was silent for 70 s, bookmarks included.
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.reconnect_backoff = 0.5
    return settings
