"""Kinds that a cluster need not know: looked for while they are wanted, reflected as long as they are there."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, cast

import pytest

from conch.app import optional_kinds
from conch.app.optional_kinds import OptionalKinds
from conch.app.projections import CHILD_RESOURCES
from conch.core.observed_child import ROUTE_KINDS, ChildKind
from conch.kube.client import KubeClient
from conch.kube.errors import ApiError, ApiUnavailableError
from conch.kube.reflector import Reflector
from conch.kube.resources import Resource
from tests.support.async_waiting import until

GONE: Final = ApiError(404, "", "the server could not find the requested resource", what="list")


class Cluster:
    """An API server that serves some kinds, and fails when told to."""

    def __init__(self) -> None:
        self.absent = {resource.plural for resource in (CHILD_RESOURCES[kind] for kind in ROUTE_KINDS)}
        self.fault: Exception | None = None
        self.lists = 0
        self.changes = 0
        self.wanted = True
        self.seen: list[tuple[Any, Any]] = []
        client = cast(KubeClient, self)
        self.reflectors: dict[ChildKind, Reflector[str]] = {
            kind: Reflector(
                client,
                CHILD_RESOURCES[kind],
                project=lambda live: str(live["metadata"]["name"]),
                on_change=lambda _, before, after: self.seen.append((before, after)),
            )
            for kind in ROUTE_KINDS
        }
        self.kinds = OptionalKinds(
            client,
            {kind: (CHILD_RESOURCES[kind], reflector) for kind, reflector in self.reflectors.items()},
            label_selector="a=b",
            is_wanted=lambda: self.wanted,
            on_change=self._changed,
        )

    def _changed(self) -> None:
        self.changes += 1

    async def pages(self, resource: Resource, **_: Any) -> AsyncIterator[dict[str, Any]]:
        self.lists += 1
        await asyncio.sleep(0)
        if self.fault:
            raise self.fault
        if resource.plural in self.absent:
            raise GONE
        metadata = {"name": "a", "namespace": "n", "resourceVersion": "5"}
        yield {"metadata": {"resourceVersion": "7"}, "items": [{"metadata": metadata}]}

    async def watch(self, *_: Any, **__: Any) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        await asyncio.Event().wait()
        yield "", {}


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional_kinds, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(optional_kinds, "_LOOK_AGAIN_SECONDS", 0.01)


@asynccontextmanager
async def running(cluster: Cluster) -> AsyncIterator[None]:
    task = asyncio.create_task(cluster.kinds.run())
    try:
        await cluster.kinds.looked.wait()
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _eventually(holds: Callable[[], bool]) -> None:
    async def met() -> bool:
        return holds()

    await until("the kinds to be as they should", met)


async def test_what_is_not_there_is_found_once_it_is_and_lost_once_it_goes() -> None:
    cluster = Cluster()
    async with running(cluster):
        assert cluster.kinds.absent_kinds == frozenset(ROUTE_KINDS)
        cluster.absent = {"grpcroutes"}
        await _eventually(lambda: cluster.kinds.absent_kinds == frozenset({ChildKind.GRPC_ROUTE}))
        cluster.absent = set()
        await _eventually(lambda: cluster.kinds.absent_kinds == frozenset())
        assert cluster.seen == [(None, "a"), (None, "a")]
        cluster.absent = {"httproutes", "grpcroutes"}
        await _eventually(lambda: cluster.kinds.absent_kinds == frozenset(ROUTE_KINDS))
        # What they held is gone with them.
        assert cluster.seen[2:] == [("a", None), ("a", None)]
        assert not any(reflector.synced.is_set() for reflector in cluster.reflectors.values())
    # A look may fall between the two kinds that go.
    assert cluster.changes in (4, 5)


async def test_nobody_asks_again_for_what_nobody_wants() -> None:
    cluster = Cluster()
    cluster.wanted = False
    async with running(cluster):
        asked = cluster.lists
        assert asked == len(ROUTE_KINDS)
        await asyncio.sleep(0.1)
        assert cluster.lists == asked
        cluster.wanted = True
        await _eventually(lambda: cluster.lists > asked)


@pytest.mark.parametrize(
    "fault", [ApiError(403, "Forbidden", "no", what="list"), ApiUnavailableError("no answer")], ids=["refused", "away"]
)
async def test_a_fault_says_neither_that_they_are_there_nor_that_they_are_not(fault: Exception) -> None:
    cluster = Cluster()
    cluster.fault = fault
    async with running(cluster):
        assert cluster.kinds.absent_kinds is None
        cluster.fault = None
        await _eventually(lambda: cluster.kinds.absent_kinds == frozenset(ROUTE_KINDS))
        cluster.fault = fault
        asked = cluster.lists
        await _eventually(lambda: cluster.lists > asked + 3)
        assert cluster.kinds.absent_kinds == frozenset(ROUTE_KINDS)
