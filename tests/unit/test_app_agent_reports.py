"""Asking agents: how often, with which key, and what each kind of answer means."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from conch.api import names, pod
from conch.api.agent_report import AgentPhase, AgentReport
from conch.api.inference_counts import BatchCounts, InferenceCounts, ModelCounts
from conch.api.reasons import Reason
from conch.app.agent_reports import AgentReports, Answer
from conch.app.cluster_view import ClusterView
from conch.core.observed_pod import ObservedPod
from conch.kube.reflector import ObjectKey
from tests.sim.world import UID, World

KEY = ("default", "sentiment")
OWNER = World(spec={"model": {"version": 1, "source": {"uri": "https://models.example/a.onnx"}}}).owner
POD = ObservedPod(name="p", uid="pod-uid", workload="w1", ip="127.0.0.1")
SERVING = replace(POD, ready=True)
READY = AgentReport(phase=AgentPhase.READY, revision="r1")
EXECUTED = InferenceCounts(
    epoch="e",
    requests=9,
    failures=0,
    queue_seconds=0.5,
    models=(
        ModelCounts(
            name="sentiment",
            max_batch=8,
            instances=1,
            decoupled=False,
            requests=9,
            queue_seconds=0.5,
            batches=(BatchCounts(size=4, executions=2, compute_seconds=0.25),),
        ),
    ),
)
FETCHING = AgentReport(phase=AgentPhase.FETCHING, revision="r1", fetched_bytes=1, total_bytes=10)


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """One object with pods, and an agent that answers what the test says."""

    def __init__(self, *pods: ObservedPod) -> None:
        self.here = pods
        self.clock = Clock()
        self.answer: tuple[int, Any] = (200, READY.to_wire())
        self.requests: list[web.Request] = []
        self.hold: asyncio.Event | None = None
        self.changed: list[ObjectKey] = []
        self.used = True
        self.reports = AgentReports(
            cast(ClusterView, self),
            installation_key=b"k",
            on_change=self.changed.append,
            is_used=lambda _: self.used,
            clock=self.clock,
        )

    def all_pods(self) -> Iterator[tuple[ObjectKey, ObservedPod]]:
        return ((KEY, observed) for observed in self.here)

    def model_deployment(self, key: ObjectKey) -> object:
        assert key == KEY
        return OWNER

    async def respond(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.hold:
            hold, self.hold = self.hold, None
            await hold.wait()
        status, body = self.answer
        if isinstance(body, list):
            response = web.StreamResponse()
            await response.prepare(request)
            for piece in body:
                await response.write(piece.encode())
                for _ in range(10):
                    await asyncio.sleep(0)
            return response
        return web.Response(status=status, text=body) if isinstance(body, str) else web.json_response(body)

    async def ask(self) -> Answer:
        """One round: everybody who is due is asked."""
        self.clock.now += 60
        async with aiohttp.ClientSession() as session:
            for key, observed in self.reports._due_now():
                await self.reports._poll(session, key, observed)
        return self.reports.answer(POD.uid)


@pytest.fixture
async def agent_of(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Awaitable[Scene]]]:
    """Makes scenes whose pods have an agent on loopback."""
    runners = []

    async def make(*pods: ObservedPod) -> Scene:
        scene = Scene(*pods)
        application = web.Application()
        application.add_routes([web.get("/status", scene.respond)])
        runner = web.AppRunner(application)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        monkeypatch.setattr(pod, "AGENT_PORT", runner.addresses[0][1])
        return scene

    yield make
    for runner in runners:
        await runner.cleanup()


Make = Callable[..., Awaitable[Scene]]


async def test_an_agent_is_asked_with_the_objects_own_key(agent_of: Make) -> None:
    scene = await agent_of(POD)
    assert (await scene.ask()).report == READY
    (request,) = scene.requests
    assert request.headers["Authorization"] == f"Bearer {names.status_key(names.admin_key(b'k', UID))}"


async def test_an_agent_that_does_not_know_the_key_says_so(agent_of: Make) -> None:
    scene = await agent_of(POD)
    scene.answer = (401, "")
    assert await scene.ask() == Answer(key_refused=True)
    assert scene.changed == [KEY]


@pytest.mark.parametrize(
    "answer",
    [(500, "broken"), (200, "<html>"), (200, "{}"), (200, '{"phase": "Alien"}'), (302, ""), (404, "")],
)
async def test_an_answer_that_is_no_report_counts_as_none(agent_of: Make, answer: tuple[int, str]) -> None:
    scene = await agent_of(POD)
    scene.answer = answer
    assert await scene.ask() == Answer()
    assert scene.changed == []


async def test_what_a_serving_pod_said_last_holds_while_it_cannot_be_asked(agent_of: Make) -> None:
    scene = await agent_of(SERVING)
    await scene.ask()
    scene.answer = (500, "")
    assert (await scene.ask()).report == READY


async def test_what_another_pod_said_last_holds_for_two_answers_that_are_lost_and_not_for_three(agent_of: Make) -> None:
    scene = await agent_of(POD)
    await scene.ask()
    scene.answer = (500, "")
    assert [(await scene.ask()).report for _ in range(3)] == [READY, READY, None]
    assert scene.changed == [KEY, KEY]


async def test_lost_answers_count_only_in_a_row(agent_of: Make) -> None:
    scene = await agent_of(POD)
    for status in (200, 500, 500, 200, 500, 500):
        scene.answer = (status, READY.to_wire() if status == 200 else "")
        assert (await scene.ask()).report == READY


async def test_an_answer_without_end_is_not_read_to_its_end(agent_of: Make) -> None:
    scene = await agent_of(POD)
    scene.answer = (200, " " * 100_000 + READY.model_dump_json())
    assert await scene.ask() == Answer()


async def test_an_answer_that_comes_in_pieces_is_put_together(agent_of: Make) -> None:
    scene = await agent_of(POD)
    long = AgentReport(phase=AgentPhase.FAILED, message="x" * 2048)
    text = long.model_dump_json()
    scene.answer = (200, [text[:100], text[100:1000], text[1000:]])
    assert (await scene.ask()).report == long


async def test_a_pod_that_does_not_answer_holds_no_other_up(agent_of: Make) -> None:
    scene = await agent_of(replace(POD, name="silent", uid="silent"), POD)
    heard = scene.hold = asyncio.Event()
    scene.reports._on_change = lambda _: heard.set()
    run = asyncio.ensure_future(scene.reports.run())
    async with asyncio.timeout(10):
        await heard.wait()
    run.cancel()
    await asyncio.wait({run})


async def test_a_report_is_told_once(agent_of: Make) -> None:
    scene = await agent_of(POD)
    await scene.ask()
    await scene.ask()
    assert scene.changed == [KEY]


async def test_progress_in_bytes_alone_is_kept_and_not_told(agent_of: Make) -> None:
    scene = await agent_of(POD)
    scene.answer = (200, FETCHING.to_wire())
    await scene.ask()
    further = FETCHING.model_copy(update={"fetched_bytes": 9})
    scene.answer = (200, further.to_wire())
    assert (await scene.ask()).report == further
    assert scene.changed == [KEY]


async def test_what_moves_all_the_time_while_a_pod_serves_is_kept_and_not_told(agent_of: Make) -> None:
    scene = await agent_of(SERVING)
    scene.answer = (200, READY.to_wire())
    await scene.ask()
    moved = READY.model_copy(update={"inference": EXECUTED, "gpu_memory_used_bytes": 5, "gpu_memory_total_bytes": 10})
    scene.answer = (200, moved.to_wire())
    assert (await scene.ask()).report == moved
    assert scene.changed == [KEY]
    changes: list[dict[str, Any]] = [{"instances": 2}, {"instances_refused": "no memory"}]
    for number, news in enumerate(changes):
        scene.answer = (200, moved.model_copy(update=news).to_wire())
        await scene.ask()
        assert scene.changed == [KEY] * (number + 2)


@pytest.mark.parametrize(
    "report",
    [
        AgentReport(phase=AgentPhase.LOADING, revision="r1", fetched_bytes=1, total_bytes=10),
        FETCHING.model_copy(update={"revision": "r2"}),
        FETCHING.model_copy(update={"reason": Reason.SOURCE_UNREACHABLE}),
        FETCHING.model_copy(update={"message": "slowly"}),
        FETCHING.model_copy(update={"total_bytes": 20}),
    ],
    ids=["phase", "revision", "reason", "message", "size"],
)
async def test_anything_else_that_is_new_is_told(agent_of: Make, report: AgentReport) -> None:
    scene = await agent_of(POD)
    scene.answer = (200, FETCHING.to_wire())
    await scene.ask()
    scene.answer = (200, report.to_wire())
    await scene.ask()
    assert scene.changed == [KEY, KEY]


@pytest.mark.parametrize("fields", [{"ip": ""}, {"deleting": True}, {"phase": "Failed"}, {"phase": "Succeeded"}])
async def test_a_pod_without_an_address_or_a_future_is_not_asked(agent_of: Make, fields: dict[str, Any]) -> None:
    scene = await agent_of(replace(POD, **fields))
    await scene.ask()
    assert scene.requests == []


async def test_what_was_said_before_this_leadership_is_forgotten(agent_of: Make) -> None:
    scene = await agent_of(SERVING)
    await scene.ask()
    scene.here = ()
    run = asyncio.ensure_future(scene.reports.run())
    await asyncio.sleep(0)
    assert scene.reports.answer(POD.uid) == Answer()
    run.cancel()
    await asyncio.wait({run})


async def test_an_agent_that_never_answers_is_unreachable_and_that_is_told(agent_of: Make) -> None:
    scene = await agent_of(SERVING)
    scene.answer = (500, "")
    assert [(await scene.ask()).unreachable for _ in range(3)] == [False, False, True]
    assert scene.changed == [KEY]


async def test_what_a_pod_said_is_forgotten_with_the_pod(agent_of: Make) -> None:
    scene = await agent_of(POD)
    await scene.ask()
    scene.here = ()
    assert await scene.ask() == Answer()
