"""Requests that wait: in order, bounded, let go at the pace of the servers, and answered in the end."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conch.api.gateway import Gateway
from conch.api.gateway import Hold as HoldSpec
from conch.api.gateway_report import Wake
from conch.gateway.envoy.admin import EnvoyAwayError
from conch.gateway.envoy.naming import Protocol
from conch.gateway.hold import (
    HELD_MOST,
    HELD_MOST_OF_ONE,
    WINDOW_REQUESTS,
    GoOn,
    Hold,
    Refusal,
    Verdict,
    allowance,
    places,
)
from conch.gateway.routed import ObjectKey, RoutedObject, RoutedShare, Snapshot
from conch.gateway.traffic import Sent
from conch.gateway.wakes import GROWTH_SECONDS, LIFE_SECONDS, Wakes
from tests.support.virtual_time import run_virtually, virtual_now

DISPATCH_SECONDS = 0.002
"""What Envoy needs until a request that was let go is in its count."""
ROUTED = RoutedObject(
    namespace="ns",
    name="a",
    uid="u",
    created="2026",
    port=10_000,
    generation="g",
    gateway=Gateway(hold=HoldSpec(seconds=60, max_requests=1000)),
    shares=(RoutedShare(workload="w1", weight=100),),
    desired_replicas=1,
)
A, B = ("ns", "a"), ("ns", "b")


class Stage:
    """A hold, with an Envoy and servers that take their time."""

    def __init__(self, *objects: RoutedObject, gateways: int = 1) -> None:
        objects = objects or (ROUTED,)
        self.snapshot = Snapshot(
            objects={each.key: each for each in objects}, gateways={each.key: gateways for each in objects}
        )
        self.ready: dict[ObjectKey, int] = {}
        self.inference_seconds = 0.5
        self.active: dict[ObjectKey, int] = {}
        self.sent: dict[ObjectKey, int] = {}
        self.with_servers: dict[ObjectKey, int] = {}
        self.most: dict[ObjectKey, int] = {}
        self.order: list[int] = []
        self.polls = 0
        self.away = False
        self.hold = Hold(snapshot=self._snapshot, routes=self, sent=self._sent, clock=virtual_now)

    def _snapshot(self) -> Snapshot:
        return self.snapshot

    def servers(self, key: ObjectKey) -> int:
        return self.ready.get(key, 0)

    def serving(self, key: ObjectKey) -> tuple[tuple[str, int], ...]:
        return (("w1", 100),) if self.servers(key) else ()

    async def _sent(self, keys: Iterable[ObjectKey]) -> Mapping[ObjectKey, Sent]:
        self.polls += 1
        await asyncio.sleep(0.001)
        if self.away:
            raise EnvoyAwayError("it starts")
        return {key: Sent(unfinished=self.active.get(key, 0), total=self.sent.get(key, 0)) for key in keys}

    def put_servers(self, key: ObjectKey, number: int) -> None:
        self.ready[key] = number
        self.hold.changed()

    async def request(self, key: ObjectKey = A, number: int = 0, protocol: Protocol = Protocol.HTTP) -> Verdict:
        """A request from its arrival to its whole answer."""
        verdict = await self.hold.check(key, protocol)
        if isinstance(verdict, GoOn):
            self.order.append(number)
            self.with_servers[key] = self.with_servers.get(key, 0) + 1
            self.most[key] = max(self.most.get(key, 0), self.with_servers[key])
            await asyncio.sleep(DISPATCH_SECONDS)
            await self.infer(key)
            self.with_servers[key] -= 1
        return verdict

    async def infer(self, key: ObjectKey = A) -> None:
        """From the moment when Envoy sends it; newcomers do not ask the hold."""
        self.active[key] = self.active.get(key, 0) + 1
        self.sent[key] = self.sent.get(key, 0) + 1
        await asyncio.sleep(self.inference_seconds)
        self.active[key] -= 1

    async def __aenter__(self) -> "Stage":
        self._run = asyncio.create_task(self.hold.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._run.cancel()
        await asyncio.wait({self._run})


def _with(gateway: Gateway, **changes: int) -> RoutedObject:
    return replace(ROUTED, gateway=gateway, **changes)  # type: ignore[arg-type]  # any field of it


def _refusal(verdict: Verdict) -> Refusal:
    assert isinstance(verdict, Refusal)
    return verdict


async def _settle() -> None:
    await asyncio.sleep(0.5)


def test_a_request_goes_on_at_once_where_there_are_servers() -> None:
    async def main() -> None:
        stage = Stage()
        stage.ready[A] = 1
        assert await stage.hold.check(A, Protocol.GRPC) == GoOn(cluster="ns/w1/grpc")
        assert await stage.hold.check(A, Protocol.HTTP) == GoOn(cluster="ns/w1/http")
        assert stage.polls == 0

    run_virtually(main)


def test_held_requests_go_on_in_the_order_in_which_they_came() -> None:
    async def main() -> None:
        async with Stage() as stage:
            requests = [asyncio.create_task(stage.request(number=number)) for number in range(100)]
            await _settle()
            assert stage.hold.held() == {A: 100}
            assert stage.polls == 0
            stage.put_servers(A, 1)
            await asyncio.sleep(0.01)
            # One that comes now goes behind those that wait.
            late = asyncio.create_task(stage.request(number=100))
            assert all(isinstance(verdict, GoOn) for verdict in await asyncio.gather(*requests, late))
            assert stage.order == list(range(101))
            assert stage.most[A] == WINDOW_REQUESTS
            assert stage.hold.held() == {}
            polls = stage.polls
            await asyncio.sleep(10)
            assert stage.polls == polls

    run_virtually(main)


def test_more_than_may_wait_are_refused_at_once_and_the_gateways_share_the_bound() -> None:
    async def main() -> None:
        limited = _with(Gateway(hold=HoldSpec(seconds=60, max_requests=5)))
        async with Stage(limited, gateways=2) as stage:
            waiting = [asyncio.create_task(stage.request()) for _ in range(3)]
            await _settle()
            now = virtual_now()
            refused = _refusal(await stage.request())
            assert virtual_now() == now
            assert (refused.status, refused.grpc_status) == (429, 8)
            assert stage.hold.refused(A) == 1
            stage.put_servers(A, 1)
            assert all(isinstance(verdict, GoOn) for verdict in await asyncio.gather(*waiting))

    run_virtually(main)


def test_a_client_that_goes_away_gives_its_place_back() -> None:
    async def main() -> None:
        async with Stage(_with(Gateway(hold=HoldSpec(seconds=60, max_requests=1)))) as stage:
            impatient = asyncio.create_task(stage.request())
            await _settle()
            assert _refusal(await stage.request()).status == 429
            impatient.cancel()
            await asyncio.wait({impatient})
            assert stage.hold.held() == {}
            patient = asyncio.create_task(stage.request())
            await _settle()
            assert stage.hold.held() == {A: 1}
            stage.put_servers(A, 1)
            assert isinstance(await patient, GoOn)

    run_virtually(main)


def test_at_the_deadline_a_request_is_refused_with_503() -> None:
    async def main() -> None:
        async with Stage() as stage:
            refused = _refusal(await stage.request())
            assert virtual_now() == pytest.approx(60)
            assert (refused.status, refused.grpc_status) == (503, 14)
            assert "60 s" in refused.message
            assert stage.hold.held() == {}

    run_virtually(main)


@pytest.mark.parametrize(
    ("object_", "words"),
    [
        (_with(Gateway(), desired_replicas=0), "no replicas"),
        (_with(Gateway(hold=HoldSpec(seconds=0))), "not held"),
        (_with(Gateway(hold=HoldSpec(seconds=0)), desired_replicas=0, wakes=True), "not held"),
    ],
)
def test_nothing_is_held_where_waiting_is_of_no_use(object_: RoutedObject, words: str) -> None:
    async def main() -> None:
        async with Stage(object_) as stage:
            refused = _refusal(await stage.request())
            assert virtual_now() == 0
            assert (refused.status, refused.grpc_status) == (503, 14)
            assert words in refused.message
            assert _refusal(await stage.request(B)).status == 503

    run_virtually(main)


def test_those_that_wait_are_answered_when_nobody_comes_any_more() -> None:
    async def main() -> None:
        async with Stage(ROUTED, replace(ROUTED, name="b")) as stage:
            of_a, of_b = asyncio.create_task(stage.request(A)), asyncio.create_task(stage.request(B))
            await _settle()
            stage.snapshot = Snapshot(objects={A: replace(ROUTED, desired_replicas=0)})
            stage.hold.changed()
            assert "no replicas" in _refusal(await of_a).message
            assert "removed" in _refusal(await of_b).message
            assert virtual_now() == pytest.approx(0.5)

    run_virtually(main)


def test_a_model_that_a_request_wakes_has_its_requests_held_while_it_has_no_replicas() -> None:
    async def main() -> None:
        asleep = replace(ROUTED, desired_replicas=0, wakes=True)
        async with Stage(asleep) as stage:
            waiting = [asyncio.create_task(stage.request(number=number)) for number in range(3)]
            await _settle()
            assert stage.hold.held() == {A: 3}
            stage.snapshot = Snapshot(objects={A: replace(asleep, desired_replicas=1)})
            stage.hold.changed()
            await asyncio.sleep(20)
            stage.put_servers(A, 1)
            assert all(isinstance(verdict, GoOn) for verdict in await asyncio.gather(*waiting))
            assert stage.order == [0, 1, 2]

    run_virtually(main)


def test_suspending_a_model_that_sleeps_ends_the_wait_for_it() -> None:
    async def main() -> None:
        asleep = replace(ROUTED, desired_replicas=0, wakes=True)
        async with Stage(asleep) as stage:
            waiting = asyncio.create_task(stage.request())
            await _settle()
            stage.snapshot = Snapshot(objects={A: replace(asleep, wakes=False)})
            stage.hold.changed()
            assert "no replicas" in _refusal(await waiting).message
            assert virtual_now() == pytest.approx(0.5)

    run_virtually(main)


def test_objects_do_not_wait_for_each_other() -> None:
    async def main() -> None:
        async with Stage(ROUTED, replace(ROUTED, name="b")) as stage:
            of_a = [asyncio.create_task(stage.request(A)) for _ in range(1000)]
            of_b = asyncio.create_task(stage.request(B))
            await _settle()
            assert _refusal(await stage.request(A)).status == 429
            stage.put_servers(B, 1)
            assert isinstance(await of_b, GoOn)
            assert stage.hold.held() == {A: 1000}
            for request in of_a:
                request.cancel()
            await asyncio.wait(of_a)

    run_virtually(main)


def test_those_that_wait_go_on_also_while_newcomers_take_all_the_room() -> None:
    async def main() -> None:
        async with Stage() as stage:
            held = [asyncio.create_task(stage.request()) for _ in range(40)]
            await _settle()
            newcomers: list[asyncio.Task[None]] = []

            async def load() -> None:
                # Twice what fits into the window, for ever.
                while True:
                    newcomers.append(asyncio.create_task(stage.infer()))
                    await asyncio.sleep(stage.inference_seconds / WINDOW_REQUESTS / 2)

            loading = asyncio.create_task(load())
            await asyncio.sleep(1)
            stage.put_servers(A, 1)
            verdicts = await asyncio.gather(*held)
            assert all(isinstance(verdict, GoOn) for verdict in verdicts)
            assert virtual_now() < 10, "not at the deadline of 60 s"
            loading.cancel()
            await asyncio.wait({loading, *newcomers})

    run_virtually(main)


def test_a_gateway_holds_no_more_than_it_can_and_one_object_never_takes_all_of_it() -> None:
    async def main() -> None:
        greedy = _with(Gateway(hold=HoldSpec(seconds=60, max_requests=100_000)))
        async with Stage(greedy, replace(greedy, name="b"), replace(greedy, name="c")) as stage:
            waiting = [asyncio.create_task(stage.request(A)) for _ in range(HELD_MOST_OF_ONE)]
            await asyncio.sleep(0)
            assert _refusal(await stage.request(A)).status == 429
            waiting += [asyncio.create_task(stage.request(B)) for _ in range(HELD_MOST - HELD_MOST_OF_ONE)]
            await asyncio.sleep(0)
            assert sum(stage.hold.held().values()) == HELD_MOST
            assert _refusal(await stage.request(("ns", "c"))).status == 429
            for request in waiting:
                request.cancel()
            await asyncio.wait(waiting)

    run_virtually(main)


def test_an_envoy_that_is_away_is_asked_again() -> None:
    async def main() -> None:
        async with Stage() as stage:
            request = asyncio.create_task(stage.request())
            stage.away = True
            stage.put_servers(A, 1)
            await _settle()
            assert not request.done()
            stage.away = False
            assert isinstance(await request, GoOn)

    run_virtually(main)


@settings(deadline=None, max_examples=40)
@given(
    requests=st.integers(1, 120),
    servers=st.integers(1, 3),
    gateways=st.integers(1, 3),
    desired=st.integers(1, 3),
    most=st.none() | st.integers(1, 40),
    inference_seconds=st.sampled_from([0.0, 0.003, 0.03, 0.4]),
)
def test_never_more_than_the_window_is_unfinished_and_all_are_answered(
    requests: int, servers: int, gateways: int, desired: int, most: int | None, inference_seconds: float
) -> None:
    object_ = _with(
        Gateway(max_in_flight=most, hold=HoldSpec(seconds=3600, max_requests=1000)), desired_replicas=desired
    )

    async def main() -> None:
        async with Stage(object_, gateways=gateways) as stage:
            stage.inference_seconds = inference_seconds
            waiting = [asyncio.create_task(stage.request(number=number)) for number in range(requests)]
            await _settle()
            stage.put_servers(A, servers)
            assert all(isinstance(verdict, GoOn) for verdict in await asyncio.gather(*waiting))
            limit = allowance(object_, servers=servers, gateways=gateways)
            assert stage.most[A] <= limit
            if most is not None:
                # What Envoy itself lets through.
                assert limit <= -(-most // gateways)

    run_virtually(main)


def test_the_share_of_a_bound_is_rounded_up() -> None:
    object_ = _with(Gateway(max_in_flight=10, hold=HoldSpec(max_requests=10)), desired_replicas=3)
    assert [places(object_, gateways) for gateways in (0, 1, 3)] == [10, 10, 4]
    assert [allowance(object_, servers=servers, gateways=1) for servers in (1, 2, 3, 9)] == [4, 7, 10, 10]
    assert allowance(ROUTED, servers=2, gateways=1) == 2 * WINDOW_REQUESTS


def test_a_reader_is_woken_at_once_and_of_growth_now_and_then() -> None:
    async def main() -> None:
        held = {A: 1}
        wakes = Wakes(lambda: held, clock=virtual_now)
        told: list[tuple[float, str, int]] = []

        def tell(wake: Wake) -> None:
            told.append((round(virtual_now(), 2), wake.object, wake.held))

        async def read() -> None:
            async for wake in wakes.follow():
                tell(wake)

        reader = asyncio.create_task(read())
        await asyncio.sleep(0.1)
        held[A] = 2
        wakes.changed()
        await asyncio.sleep(0.1)
        held |= {A: 3, B: 1}
        wakes.changed()
        await asyncio.sleep(0.1 + GROWTH_SECONDS)
        assert told == [(0.0, "ns/a", 1), (0.2, "ns/b", 1), (pytest.approx(0.5, abs=0.21), "ns/a", 3)]
        await asyncio.sleep(LIFE_SECONDS)
        assert told[-1][1:] == ("", 0)
        reader.cancel()
        await asyncio.wait({reader})

    run_virtually(main)
