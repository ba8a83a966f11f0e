"""What gateways say reaches the objects that it concerns; what they do not say is not made up."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web

from conch.api import gateway_pod
from conch.api.gateway_report import COUNTED_AT_HEADER, GatewayReport, ObjectTraffic, Wake, WorkloadTraffic
from conch.app.gateway_reports import GatewayReports
from conch.core.observed import ObservedGateway
from conch.kube.reflector import ObjectKey
from tests.cluster.ports import free_port

KEY = ("team", "sentiment")


class Gateway:
    """A gateway's port, with whatever the test has it say."""

    def __init__(self) -> None:
        self.report: GatewayReport | str = GatewayReport(gateway="g1", epoch="1", version="1")
        self.streams: list[asyncio.Queue[str]] = []
        """One per connection that asked for wakes."""
        self.tokens: list[str] = []
        self.polls = 0

    async def serve(self, port: int) -> web.AppRunner:
        application = web.Application()
        application.add_routes([web.get("/report", self._report), web.get("/wakes", self._wakes)])
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        return runner

    async def _report(self, request: web.Request) -> web.Response:
        self.polls += 1
        self.tokens.append(request.headers["Authorization"])
        said = self.report
        if isinstance(said, str):
            return web.json_response(text=said)
        headers = {} if said.counted_at_seconds is None else {COUNTED_AT_HEADER: repr(said.counted_at_seconds)}
        return web.json_response(text=said.model_dump_json(by_alias=True), headers=headers)

    async def _wakes(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        lines: asyncio.Queue[str] = asyncio.Queue()
        self.streams.append(lines)
        while True:
            await response.write((await lines.get() + "\n").encode())


class Scene:
    """The operator's side, and what it was told about."""

    def __init__(self) -> None:
        self.gateway = Gateway()
        self.changed: list[ObjectKey] = []
        self.woken: list[ObjectKey] = []
        self.held_when_woken: list[int] = []
        """What was known then to be held for it."""
        self.arrivals: list[tuple[ObjectKey, float]] = []
        self.now = 0.0
        self.pods = [ObservedGateway(name="g1", address="127.0.0.1", ready=True)]
        self.reports = GatewayReports(
            lambda: self.pods,
            token=lambda: "secret",
            on_change=self.changed.append,
            on_wake=self._woken,
            on_arrivals=lambda key, per_second: self.arrivals.append((key, per_second)),
            clock=lambda: self.now,
        )

    def _woken(self, key: ObjectKey) -> None:
        self.woken.append(key)
        (gateway,) = self.reports.seen(key)
        self.held_when_woken.append(gateway.traffic.held if gateway.heard and gateway.traffic else 0)

    def say(self, epoch: str = "1", counted_at: float | None = None, **traffic: Any) -> None:
        objects = {"/".join(KEY): ObjectTraffic(**traffic)}
        self.gateway.report = GatewayReport(
            gateway="g1", epoch=epoch, version="1", objects=objects, counted_at_seconds=counted_at
        )

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                # Its own clock stands still unless a test moves it, so each poll follows at once.
                self.now += 0.05
                await asyncio.sleep(0.01)

    async def polled(self) -> None:
        """Wait until the gateway was asked once more, and what it said is taken in."""
        seen = self.gateway.polls
        await self.until(lambda: self.gateway.polls > seen)
        told = self.reports.told_at("g1")
        await self.until(lambda: self.reports.told_at("g1") > told)


async def _with(test: Callable[[Scene], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr(gateway_pod, "REPORT_PORT", port)
    scene = Scene()
    runner = await scene.gateway.serve(port)
    task = asyncio.create_task(scene.reports.run())
    try:
        await test(scene)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runner.cleanup()


async def test_what_a_gateway_says_is_seen_with_its_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(scene: Scene) -> None:
        (before,) = scene.reports.seen(KEY)
        assert (before.heard, before.traffic) == (False, None)
        scene.say(generation="g1", in_flight=3)
        await scene.until(lambda: scene.reports.seen(KEY)[0].traffic is not None)
        (seen,) = scene.reports.seen(KEY)
        assert seen.heard
        assert seen.traffic is not None
        assert (seen.traffic.generation, seen.traffic.in_flight) == ("g1", 3)
        assert scene.reports.seen(("team", "other"))[0].traffic is None
        assert set(scene.gateway.tokens) == {"Bearer secret"}

    await _with(test, monkeypatch)


async def test_only_what_is_worth_a_plan_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(scene: Scene) -> None:
        scene.say(generation="g1", workloads={"w1": WorkloadTraffic(in_flight=2, arrivals=7)})
        await scene.until(lambda: scene.changed == [KEY])
        scene.say(generation="g1", workloads={"w1": WorkloadTraffic(in_flight=9, arrivals=90)})
        await scene.polled()
        assert scene.changed == [KEY], "more requests are no news"
        scene.say(generation="g1", workloads={"w1": WorkloadTraffic(in_flight=0, arrivals=90)})
        await scene.until(lambda: scene.changed == [KEY] * 2)
        scene.say(generation="g2", workloads={"w1": WorkloadTraffic(in_flight=0, arrivals=90)})
        await scene.until(lambda: scene.changed == [KEY] * 3)

    await _with(test, monkeypatch)


async def test_a_gateway_that_falls_silent_keeps_its_last_word_and_counts_as_unheard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(scene: Scene) -> None:
        scene.say(generation="g1")
        await scene.until(lambda: scene.reports.seen(KEY)[0].heard)
        scene.changed.clear()
        scene.gateway.report = "nonsense"
        await scene.until(lambda: not scene.reports.seen(KEY)[0].heard)
        (seen,) = scene.reports.seen(KEY)
        assert seen.traffic is not None
        await scene.until(lambda: KEY in scene.changed)

    await _with(test, monkeypatch)


async def test_a_gateway_that_is_gone_is_forgotten_and_its_objects_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(scene: Scene) -> None:
        scene.say(generation="g1")
        await scene.until(lambda: scene.reports.seen(KEY)[0].heard)
        scene.changed.clear()
        scene.pods.clear()
        await scene.until(lambda: scene.changed == [KEY])
        scene.pods.append(ObservedGateway(name="g1", address="", ready=False))
        assert scene.reports.seen(KEY)[0].traffic is None

    await _with(test, monkeypatch)


async def test_a_held_request_wakes_its_object_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(scene: Scene) -> None:
        await scene.until(lambda: len(scene.gateway.streams) == 1)
        (first,) = scene.gateway.streams
        first.put_nowait(Wake().model_dump_json(by_alias=True))
        first.put_nowait(Wake(object="team/sentiment", held=1).model_dump_json(by_alias=True))
        await scene.until(lambda: scene.woken == [KEY])
        first.put_nowait("nonsense")
        await scene.until(lambda: len(scene.gateway.streams) == 2)
        scene.gateway.streams[1].put_nowait(json.dumps({"object": "team/other", "held": 2}))
        await scene.until(lambda: scene.woken == [KEY, ("team", "other")])

    await _with(test, monkeypatch)


async def test_who_is_woken_knows_at_once_how_many_requests_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(scene: Scene) -> None:
        scene.say(generation="g1", arrivals=4)
        await scene.until(lambda: scene.reports.seen(KEY)[0].traffic is not None and len(scene.gateway.streams) == 1)
        (stream,) = scene.gateway.streams
        stream.put_nowait(Wake(object="/".join(KEY), held=7).model_dump_json(by_alias=True))
        await scene.until(lambda: scene.held_when_woken == [7])
        # What it said before the wake, once more: nothing is held any more.
        await scene.until(lambda: scene.reports.seen(KEY)[0].traffic == ObjectTraffic(generation="g1", arrivals=4))
        stream.put_nowait(Wake(object="team/new", held=2).model_dump_json(by_alias=True))
        await scene.until(lambda: scene.held_when_woken == [7, 2])

    await _with(test, monkeypatch)


async def test_a_request_that_is_held_before_the_first_report_counts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(scene: Scene) -> None:
        scene.gateway.report = "nonsense"
        await scene.until(lambda: len(scene.gateway.streams) == 1)
        assert not scene.reports.seen(KEY)[0].heard
        assert scene.reports.told_at("g1") == float("-inf")
        scene.say(generation="g1", held=2)
        scene.gateway.streams[0].put_nowait(Wake(object="/".join(KEY), held=3).model_dump_json(by_alias=True))
        await scene.until(lambda: scene.held_when_woken == [3])
        assert scene.reports.told_at("g1") > 0

    await _with(test, monkeypatch)


async def test_what_comes_is_told_per_second_and_only_of_counters_that_went_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(scene: Scene) -> None:
        scene.say(arrivals=1000)
        await scene.until(lambda: scene.reports.seen(KEY)[0].heard)
        told_at = scene.reports.told_at("g1")
        assert scene.arrivals == [], "it may have counted them for long"
        scene.say(arrivals=1040)
        await scene.until(lambda: bool(scene.arrivals))
        [(key, per_second)] = scene.arrivals
        assert key == KEY
        assert 40 / (scene.now - told_at) <= per_second <= 40 / 0.5
        scene.say(epoch="2", arrivals=1050)
        await scene.polled()
        scene.say(epoch="2", arrivals=3)
        await scene.polled()
        assert len(scene.arrivals) == 1

    await _with(test, monkeypatch)


async def test_a_new_leader_knows_when_all_gateways_were_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(scene: Scene) -> None:
        await scene.until(scene.reports.all_asked.is_set)
        assert scene.gateway.polls

    await _with(test, monkeypatch)


async def test_where_there_is_no_gateway_nobody_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(scene: Scene) -> None:
        scene.pods.clear()
        await scene.until(scene.reports.all_asked.is_set)

    await _with(test, monkeypatch)


async def test_a_rate_is_of_the_gateways_time_however_long_its_word_was_on_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(scene: Scene) -> None:
        counted = [scene.reports.counted_at("g1")]
        for counted_at, arrivals in ((5000.0, 10), (5002.0, 50), (5012.0, 50)):
            scene.say(counted_at=counted_at, arrivals=arrivals)
            await scene.polled()
            counted.append(scene.reports.counted_at("g1"))
            assert scene.reports.told_at("g1") == pytest.approx(scene.now, abs=0.3)
        assert counted[0] == float("-inf")
        assert [later - sooner for sooner, later in pairwise(counted[1:])] == [2.0, 10.0]
        assert scene.arrivals == [(KEY, 20.0)]

        # Another Envoy, perhaps on another machine: its clock is another one.
        for epoch, counted_at in (("2", 3.0), ("3", float("nan"))):
            before = scene.now
            scene.say(epoch=epoch, counted_at=counted_at, arrivals=0)
            await scene.polled()
            assert before <= scene.reports.counted_at("g1") <= scene.now

    await _with(test, monkeypatch)
