"""The order in which a gateway goes, and that it takes nobody's word for it but the API server's."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from conch.gateway.envoy.admin import EnvoyAwayError
from conch.gateway.leaving import Departure, Leaving, LeavingTimes, is_ending
from tests.support.virtual_time import run_virtually, virtual_now

TIMES = LeavingTimes(unlisted_seconds=60, drain_seconds=100, idle_seconds=5)


@dataclass
class World:
    """Envoy, its clients and the API server; each until a moment in seconds."""

    is_pod_deleted: bool = True
    listed_until: float = 0
    active_until: float = 0
    unknown_until: float = 0
    away_until: float = 0
    failed_at: list[float] = field(default_factory=list)
    questions: int = 0

    async def is_deleted(self) -> bool:
        self.questions += 1
        await asyncio.sleep(0.01)
        return self.is_pod_deleted

    def listed(self) -> int | None:
        if virtual_now() < self.unknown_until:
            return None
        return 3 if virtual_now() < self.listed_until else 0

    async def stats(self, _pattern: str) -> dict[str, int | str]:
        if virtual_now() < self.away_until:
            raise EnvoyAwayError("no answer")
        is_active = virtual_now() < self.active_until
        return {
            "http.ns.a.downstream_rq_total": int(virtual_now() * 10) if is_active else 1_000_000,
            "http.ns.a.downstream_rq_active": int(is_active),
        }

    async def fail_health_check(self) -> None:
        if virtual_now() < self.away_until:
            raise EnvoyAwayError("no answer")
        self.failed_at.append(virtual_now())

    def leaving(self) -> Leaving:
        return Leaving(self, is_deleted=self.is_deleted, listed=self.listed, times=TIMES, clock=virtual_now)


def _leave(world: World) -> tuple[Departure, float]:
    async def main() -> tuple[Departure, float]:
        return await world.leaving().leave(), virtual_now()

    return run_virtually(main)


def test_whoever_asks_while_the_pod_is_not_deleted_changes_nothing() -> None:
    world = World(is_pod_deleted=False)

    async def main() -> None:
        leaving = world.leaving()
        assert await leaving.leave() is Departure.NOT_DELETED
        assert not leaving.has_begun

    run_virtually(main)
    assert world.failed_at == []


def test_connections_are_ended_only_when_no_client_is_sent_here_any_more() -> None:
    world = World(listed_until=7)
    departure, at = _leave(world)
    assert departure is Departure.SAFE
    assert world.failed_at == [pytest.approx(7, abs=0.5)]
    assert at == pytest.approx(7 + TIMES.idle_seconds, abs=1), "proxies hear of it later"


def test_as_long_as_it_is_not_known_whether_it_is_listed_it_counts_as_listed() -> None:
    world = World(unknown_until=20)
    departure, _ = _leave(world)
    assert departure is Departure.SAFE
    assert world.failed_at == [pytest.approx(20, abs=0.5)]
    world = World(unknown_until=1e9)
    assert _leave(world)[0] is Departure.SAFE
    assert world.failed_at == [pytest.approx(TIMES.unlisted_seconds, abs=0.5)]


@pytest.mark.parametrize(
    ("pod", "ending"),
    [
        ({"metadata": {}}, False),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, True),
        ({"metadata": {}, "status": {"phase": "Running"}}, False),
        ({"metadata": {}, "status": {"phase": "Failed"}}, True),
        ({"metadata": {}, "status": {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}}, True),
        ({"metadata": {}, "status": {"conditions": [{"type": "DisruptionTarget", "status": "False"}]}}, False),
        ({"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}, False),
    ],
)
def test_a_pod_is_about_to_end_also_when_its_node_or_an_eviction_ends_it(pod: dict[str, Any], ending: bool) -> None:
    assert is_ending(pod) is ending


def test_a_slice_that_names_it_for_ever_does_not_keep_it() -> None:
    world = World(listed_until=1e9)
    departure, at = _leave(world)
    assert departure is Departure.SAFE
    assert at == pytest.approx(TIMES.unlisted_seconds + TIMES.idle_seconds, abs=1)


def test_what_is_in_flight_is_waited_for_but_not_for_ever() -> None:
    departure, at = _leave(World(active_until=40))
    assert departure is Departure.SAFE
    assert at == pytest.approx(40 + TIMES.idle_seconds, abs=1)
    departure, at = _leave(World(active_until=1e9))
    assert departure is Departure.LATE
    assert at == pytest.approx(TIMES.drain_seconds, abs=1)


def test_an_envoy_that_does_not_answer_is_asked_again() -> None:
    world = World(away_until=3)
    departure, at = _leave(world)
    assert departure is Departure.SAFE
    assert at == pytest.approx(3 + TIMES.idle_seconds, abs=1)
    assert len(world.failed_at) == 1


def test_it_leaves_once_however_often_it_is_asked() -> None:
    world = World(listed_until=5)

    async def main() -> None:
        leaving = world.leaving()
        first, second = asyncio.create_task(leaving.leave()), asyncio.create_task(leaving.leave())
        await asyncio.sleep(1)
        assert leaving.has_begun
        # One who asks goes away.
        first.cancel()
        assert await second is await leaving.leave() is Departure.SAFE
        assert world.questions == 1

    run_virtually(main)
    assert len(world.failed_at) == 1
