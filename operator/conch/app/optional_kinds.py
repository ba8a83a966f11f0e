"""Kinds of children that a cluster need not know (the Gateway API's routes): they are reflected once it does.

The API server is asked once at a start, for routes that an earlier operator wrote, and from then on only while an
object wants such a kind; so whoever has no Gateway API pays a refused call or two for it. Whether a kind is there is
told by a list of it, for which the operator has the right anyway.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog

from conch.core.observed_child import ChildKind
from conch.kube.client import KubeClient
from conch.kube.errors import ApiError, ApiUnavailableError
from conch.kube.reflector import Reflector
from conch.kube.resources import Resource

_LOOK_SECONDS: Final = 5.0
"""While a kind is missing that an object wants."""
_LOOK_AGAIN_SECONDS: Final = 30.0
_SYNC_SECONDS: Final = 10.0

_log = structlog.get_logger(__name__)


class OptionalKinds:
    """Runs the reflectors of the kinds that the cluster knows; `on_change` is called when it knows others than before.

    `is_wanted` says whether an object needs any of them.
    """

    def __init__(
        self,
        client: KubeClient,
        reflectors: Mapping[ChildKind, tuple[Resource, Reflector[Any]]],
        *,
        label_selector: str,
        is_wanted: Callable[[], bool],
        on_change: Callable[[], None],
    ) -> None:
        self._client = client
        self._reflectors = reflectors
        self._label_selector = label_selector
        self._is_wanted = is_wanted
        self._on_change = on_change
        self._running: dict[ChildKind, asyncio.Task[None]] = {}
        self.absent_kinds: frozenset[ChildKind] | None = None
        """None: nobody could look yet."""
        self.looked = asyncio.Event()
        """Set once the API server was asked, whatever it said."""

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            while True:
                if self.absent_kinds is None or self._is_wanted():
                    await self._look()
                self.looked.set()
                await asyncio.sleep(_LOOK_AGAIN_SECONDS if self.absent_kinds == frozenset() else _LOOK_SECONDS)
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _look(self) -> None:
        absent = set()
        for kind, (resource, reflector) in self._reflectors.items():
            try:
                served = await self._is_served(resource)
                if served:
                    await self._reflect(kind, reflector)
            except (ApiError, ApiUnavailableError, TimeoutError) as error:
                # Neither there nor missing: what was known stays true until somebody can tell.
                _log.warning("routes of the Gateway API not listed", kind=str(kind), error=str(error) or "no answer")
                return
            if not served:
                absent.add(kind)
                await self._forget(kind, reflector)
        found = frozenset(absent)
        if found != self.absent_kinds:
            self.absent_kinds = found
            _log.info("kinds of the Gateway API looked up", absent=sorted(map(str, found)))
            self._on_change()

    async def _is_served(self, resource: Resource) -> bool:
        try:
            async for _ in self._client.pages(resource, label_selector=self._label_selector, metadata_only=True):
                break
        except ApiError as error:
            if error.not_found:
                return False
            raise
        return True

    async def _reflect(self, kind: ChildKind, reflector: Reflector[Any]) -> None:
        """Wait until it is known what there is of this kind. Raises TimeoutError."""
        if kind not in self._running or self._running[kind].done():
            self._running[kind] = asyncio.create_task(reflector.run())
        await asyncio.wait_for(reflector.synced.wait(), _SYNC_SECONDS)

    async def _forget(self, kind: ChildKind, reflector: Reflector[Any]) -> None:
        if (task := self._running.pop(kind, None)) is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
            reflector.clear()
