"""What is to be routed, from watches: ModelDeployments and EndpointSlices become snapshots.

While the API server is away, everything that is known stays.

Whoever may write EndpointSlices or Services in a namespace may bear our labels there, but reaches only the objects of
that namespace: everything is kept by namespace. The gateway's own address is left out, and so are those beyond
ENDPOINTS_MOST.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

import structlog

from conch.api import names
from conch.gateway.projections import (
    ObservedObject,
    PublicSlice,
    WorkloadSlice,
    parsed_address,
    project_object,
    project_slice,
)
from conch.gateway.routed import Endpoint, ObjectKey, RoutedObject, Snapshot
from conch.kube import resources
from conch.kube.client import KubeClient
from conch.kube.reflector import Reflector

_log = structlog.get_logger(__name__)

ENDPOINTS_MOST: Final = 1000
"""Of a workload. Each costs every gateway memory and health checks, and a namespace can have any number of pods."""
_SELECTOR: Final = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY},{names.LABEL_MODEL_DEPLOYMENT}"


class Watch:
    """Follows the cluster. `on_change()` is called when `snapshot()` has something new to say; it must not block."""

    def __init__(self, client: KubeClient, *, own_address: str, on_change: Callable[[], None]) -> None:
        self._own_address = own_address
        self._on_change = on_change
        self._objects: dict[ObjectKey, RoutedObject] = {}
        self._endpoints: dict[tuple[str, str], frozenset[Endpoint]] = {}
        self._gateways: dict[ObjectKey, int] = {}
        self._slices: dict[tuple[str, str], dict[str, WorkloadSlice]] = {}
        """(namespace, internal Service) -> its slices by their names."""
        self._homes: dict[tuple[str, str], str] = {}
        """(namespace, internal Service) -> the workload whose servers an object says it lists."""
        self._public: dict[ObjectKey, dict[str, PublicSlice]] = {}
        self._listed: set[ObjectKey] = set()
        self._too_many: set[tuple[str, str]] = set()
        """(namespace, home) of those with more than ENDPOINTS_MOST, which the log tells once."""
        self._snapshot: Snapshot | None = None
        self._model_deployments: Reflector[ObservedObject | None] = Reflector(
            client, resources.MODEL_DEPLOYMENTS, project=project_object, on_change=self.object_changed
        )
        self._endpoint_slices: Reflector[WorkloadSlice | PublicSlice | None] = Reflector(
            client,
            resources.ENDPOINT_SLICES,
            project=project_slice,
            on_change=self.slice_changed,
            label_selector=_SELECTOR,
        )

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._model_deployments.run())
            group.create_task(self._endpoint_slices.run())

    async def synced(self) -> None:
        """Wait until everything has been listed once."""
        await self._model_deployments.synced.wait()
        await self._endpoint_slices.synced.wait()

    def snapshot(self) -> Snapshot:
        """Everything as it is now; the same object as long as nothing changes."""
        if self._snapshot is None:
            # Copies of three flat dictionaries: with 500 objects some ten microseconds.
            self._snapshot = Snapshot(
                objects=MappingProxyType(dict(self._objects)),
                endpoints=MappingProxyType(dict(self._endpoints)),
                gateways=MappingProxyType(dict(self._gateways)),
            )
        return self._snapshot

    @property
    def listed(self) -> int:
        """How many public slices name this gateway, so that clients may still come."""
        return len(self._listed)

    def object_changed(self, key: ObjectKey, before: ObservedObject | None, after: ObservedObject | None) -> None:
        """An object appeared, changed or went."""
        del before
        known = self._objects.get(key)
        if after is None:
            routed = None
        elif not after.readable and known is not None and known.uid == after.routed.uid:
            # An edit that nobody can read must not throw the settings over that are in use.
            routed = replace(after.routed, gateway=known.gateway)
        else:
            routed = after.routed
        if routed == known:
            return
        if routed is None:
            del self._objects[key]
        else:
            self._objects[key] = routed
        self._homes_changed(key, known, routed)
        self._changed()

    def _homes_changed(self, key: ObjectKey, before: RoutedObject | None, after: RoutedObject | None) -> None:
        namespace, name = key
        old = {share.home for share in before.shares} if before else set()
        new = {share.home for share in after.shares} if after else set()
        for home in old - new:
            self._homes.pop((namespace, names.workload_service(name, home)), None)
            self._endpoints.pop((namespace, home), None)
            self._too_many.discard((namespace, home))
        for home in new - old:
            service = (namespace, names.workload_service(name, home))
            self._homes[service] = home
            self._gather(service)

    def slice_changed(
        self,
        key: tuple[str, str],
        before: WorkloadSlice | PublicSlice | None,
        after: WorkloadSlice | PublicSlice | None,
    ) -> None:
        """A slice appeared, changed (also into another's) or went."""
        namespace, slice_name = key
        services, objects = set(), set()
        for one, is_there in ((before, False), (after, True)):
            match one:
                case WorkloadSlice():
                    services.add((namespace, one.service))
                    _put(self._slices, (namespace, one.service), slice_name, one if is_there else None)
                case PublicSlice():
                    objects.add((namespace, one.name))
                    _put(self._public, (namespace, one.name), slice_name, one if is_there else None)
                case None:
                    pass
        changed = [self._gather(service) for service in services] + [self._count(object_) for object_ in objects]
        if any(changed):
            self._changed()

    def _gather(self, service: tuple[str, str]) -> bool:
        """Bring the endpoints of a Service up to date; whether they are others now."""
        home = self._homes.get(service)
        if home is None:
            # The slice may come before the status that names the workload; object_changed looks again.
            return False
        key = (service[0], home)
        ready = self._bounded(
            key, frozenset[Endpoint]().union(*(each.ready for each in self._slices.get(service, {}).values()))
        )
        if ready == self._endpoints.get(key, frozenset()):
            return False
        if ready:
            self._endpoints[key] = ready
        else:
            del self._endpoints[key]
        return True

    def _bounded(self, key: tuple[str, str], ready: frozenset[Endpoint]) -> frozenset[Endpoint]:
        """Without this gateway itself, which would send to itself for ever, and no more than ENDPOINTS_MOST."""
        own = parsed_address(self._own_address)
        others = frozenset(each for each in ready if parsed_address(each.address) != own)
        if len(others) <= ENDPOINTS_MOST:
            self._too_many.discard(key)
            return others
        if key not in self._too_many:
            self._too_many.add(key)
            _log.warning("more servers than a gateway sends to", workload="/".join(key), servers=len(others))
        return frozenset(sorted(others)[:ENDPOINTS_MOST])

    def _count(self, key: ObjectKey) -> bool:
        addresses = frozenset[str]().union(*(each.addresses for each in self._public.get(key, {}).values()))
        (self._listed.add if self._own_address in addresses else self._listed.discard)(key)
        if len(addresses) == self._gateways.get(key, 0):
            return False
        if addresses:
            self._gateways[key] = len(addresses)
        else:
            del self._gateways[key]
        return True

    def _changed(self) -> None:
        self._snapshot = None
        self._on_change()


_Kept = WorkloadSlice | PublicSlice


def _put(index: dict[tuple[str, str], dict[str, Any]], key: tuple[str, str], name: str, value: _Kept | None) -> None:
    if value is not None:
        index.setdefault(key, {})[name] = value
    elif key in index:
        index[key].pop(name, None)
        if not index[key]:
            del index[key]
