"""Keeps a projection of one resource in memory: list, then watch, for ever.

A relist replaces the whole content, so nothing that vanished meanwhile stays behind. Only the projection of an object
is kept; the object itself is garbage as soon as it was read.
"""

import asyncio
import random
from collections.abc import Callable, ItemsView, Mapping
from typing import Any, Generic, TypeVar

import structlog

from conch.kube.client import KubeClient
from conch.kube.errors import ApiError, ApiUnavailableError
from conch.kube.resources import Resource

Projection = TypeVar("Projection")
ObjectKey = tuple[str, str]
"""(namespace, name); the namespace is empty for what has none."""

_RETRY_FIRST_SECONDS = 0.5
_RETRY_LIMIT_SECONDS = 20.0
_REMOVED_REMEMBERED = 1024

_log = structlog.get_logger(__name__)


class _BackOff:
    """How long to wait after a fault, ever longer until something worked."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._seconds = _RETRY_FIRST_SECONDS

    @property
    def is_fresh(self) -> bool:
        """Whether nothing has failed since something worked."""
        return self._seconds == _RETRY_FIRST_SECONDS

    def grow(self) -> float:
        """Seconds to wait now, with jitter; twice as many the next time."""
        seconds = random.uniform(0.5, 1.0) * self._seconds  # noqa: S311 - jitter
        self._seconds = min(2 * self._seconds, _RETRY_LIMIT_SECONDS)
        return seconds


class Reflector(Generic[Projection]):
    """The live objects of a resource that carry a label, projected by `project`.

    `on_change(key, before, after)` is called for every object that appears, changes or goes; it must not block.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        *,
        project: Callable[[Mapping[str, Any]], Projection],
        on_change: Callable[[ObjectKey, Projection | None, Projection | None], None],
        label_selector: str = "",
    ) -> None:
        self._client = client
        self._resource = resource
        self._project = project
        self._on_change = on_change
        self._label_selector = label_selector
        self._objects: dict[ObjectKey, Projection] = {}
        self._versions: dict[ObjectKey, int] = {}
        self._removed: dict[ObjectKey, int] = {}
        """At which version the last objects went, so that a late answer does not raise the dead."""
        self.synced = asyncio.Event()

    def get(self, key: ObjectKey) -> Projection | None:
        """The projection of one object."""
        return self._objects.get(key)

    def items(self) -> ItemsView[ObjectKey, Projection]:
        """All projections by their keys; changes with them, so not to be walked over an await."""
        return self._objects.items()

    def put(self, live: Mapping[str, Any]) -> None:
        """Take in what the API server answered to a write of ours, unless the watch already knows better."""
        key = _key(live)
        if _version(live) > max(self._versions.get(key, 0), self._removed.get(key, 0)):
            self._set(key, live)

    def clear(self) -> None:
        """Forget everything: the API server no longer knows this resource. Not while it runs."""
        self.synced.clear()
        for gone in tuple(self._objects):
            self._remove(gone)
        self._removed.clear()

    async def run(self) -> None:
        """Reflect until cancelled. Faults of any kind are waited out with jittered back-off."""
        # A list that works says nothing of the watch, nor do lists that failed before it.
        listing, watching = _BackOff(), _BackOff()
        resource_version: str | None = None
        while True:
            back_off = watching
            try:
                if resource_version is None:
                    back_off = listing
                    resource_version = await self._relist()
                    listing.reset()
                    back_off = watching
                async for kind, live in self._client.watch(
                    self._resource, resource_version=resource_version, label_selector=self._label_selector
                ):
                    resource_version = live["metadata"]["resourceVersion"]
                    watching.reset()
                    self._ingest(kind, live)
                watching.reset()
                # The server ends a watch every few minutes; at once again and again would be a fault of its own.
                await asyncio.sleep(random.uniform(0, _RETRY_FIRST_SECONDS))  # noqa: S311 - jitter
                continue
            except ApiError as error:
                resource_version = None
                if error.expired and back_off.is_fresh:
                    back_off.grow()
                    continue
                _log.warning("watch refused", resource=self._resource.plural, error=str(error))
            except ApiUnavailableError as error:
                _log.info("watch interrupted", resource=self._resource.plural, error=str(error))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                resource_version = None
                _log.warning("watch unreadable", resource=self._resource.plural, error=repr(error))
            await asyncio.sleep(back_off.grow())

    async def _relist(self) -> str:
        version, alive = "", set[ObjectKey]()
        async for page in self._client.pages(self._resource, label_selector=self._label_selector):
            version = str(page["metadata"]["resourceVersion"])
            for item in page.get("items") or ():
                alive.add(_key(item))
                self._set(_key(item), item)
        for gone in self._objects.keys() - alive:
            self._remove(gone)
        self._removed.clear()
        self.synced.set()
        return version

    def _ingest(self, kind: str, live: Mapping[str, Any]) -> None:
        match kind:
            case "ADDED" | "MODIFIED":
                # The watch repeats every write of ours, and may be behind what it was answered with.
                if _version(live) > self._versions.get(_key(live), 0):
                    self._set(_key(live), live)
            case "DELETED":
                if _version(live) >= self._versions.get(_key(live), 0):
                    self._removed[_key(live)] = _version(live)
                    if len(self._removed) > _REMOVED_REMEMBERED:
                        del self._removed[next(iter(self._removed))]
                    self._remove(_key(live))

    def _set(self, key: ObjectKey, live: Mapping[str, Any]) -> None:
        try:
            after = self._project(live)
        except Exception as error:  # one object that nobody foresaw must not hide all the others
            _log.error("object unreadable", resource=self._resource.plural, key="/".join(key), error=repr(error))
            return
        before = self._objects.get(key)
        self._objects[key] = after
        self._versions[key] = _version(live)
        if after != before:
            self._on_change(key, before, after)

    def _remove(self, key: ObjectKey) -> None:
        before = self._objects.pop(key, None)
        self._versions.pop(key, None)
        if before is not None:
            self._on_change(key, before, None)


def _key(live: Mapping[str, Any]) -> ObjectKey:
    metadata = live["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _version(live: Mapping[str, Any]) -> int:
    return int(live["metadata"]["resourceVersion"])
