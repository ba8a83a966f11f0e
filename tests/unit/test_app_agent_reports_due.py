"""When an agent's turn comes: soon while a pod is on its way, now and then while it serves."""

import asyncio
from dataclasses import replace

import pytest

from conch.api.assignment import AgentReport
from conch.app.agent_reports import Answer
from conch.core.observed import ObservedPod
from tests.unit.test_app_agent_reports import FETCHING, KEY, OWNER, POD, READY, SERVING, Scene


def _due(scene: Scene, observed: ObservedPod, report: AgentReport | None, after: float) -> bool:
    """Whether a pod that was just asked, and said this, is asked again after so many seconds."""
    scene.reports._is_due(observed, scene.clock.now)
    scene.reports._answers[observed.uid] = Answer(report=report)
    scene.reports._is_due(observed, scene.clock.now + 40)
    return scene.reports._is_due(observed, scene.clock.now + 40 + after)


@pytest.mark.parametrize(
    ("observed", "report"),
    [(POD, None), (POD, FETCHING), (POD, READY), (SERVING, FETCHING), (SERVING, None)],
    ids=["unheard", "on its way", "loaded, not ready", "ready, loading", "ready, unheard"],
)
def test_a_pod_on_its_way_is_asked_every_second(observed: ObservedPod, report: AgentReport | None) -> None:
    assert not _due(Scene(observed), observed, report, 0.7)
    assert _due(Scene(observed), observed, report, 1.1)


def test_a_pod_that_serves_is_asked_about_every_half_minute() -> None:
    assert not _due(Scene(SERVING), SERVING, READY, 23)
    assert _due(Scene(SERVING), SERVING, READY, 31)


def test_a_pod_that_ceases_to_serve_is_asked_at_once() -> None:
    scene = Scene(SERVING)
    assert not _due(scene, SERVING, READY, 5)
    assert scene.reports._is_due(POD, scene.clock.now + 46)


def test_a_pod_is_asked_as_soon_as_it_is_there() -> None:
    scene = Scene(POD)
    assert scene.reports._is_due(POD, scene.clock.now)
    assert not scene.reports._is_due(POD, scene.clock.now + 0.5)


@pytest.mark.parametrize(("silences", "seconds"), [(1, 2), (3, 8), (10, 30)])
def test_an_agent_that_is_silent_is_asked_ever_more_rarely(silences: int, seconds: float) -> None:
    scene = Scene(POD)
    scene.reports._silences[POD.uid] = silences
    assert not _due(scene, POD, None, seconds * 0.75)
    assert _due(scene, POD, None, seconds + 0.1)


async def test_silent_agents_and_one_objects_many_hold_no_other_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    scene = Scene(POD)
    other = ("default", "other")
    crowd = [replace(POD, uid=f"silent-{number}") for number in range(1000)]
    monkeypatch.setattr(scene, "all_pods", lambda: [*((other, silent) for silent in crowd), (KEY, POD)])
    monkeypatch.setattr(scene, "model_deployment", lambda _: OWNER)

    async def ask(_session: object, observed: ObservedPod, _key: str) -> Answer:
        asked.append(observed.uid)
        if observed is not POD:
            await asyncio.Event().wait()
        return Answer(report=READY)

    monkeypatch.setattr(scene.reports, "_ask", ask)
    told = asyncio.Event()
    scene.reports._on_change = lambda _: told.set()
    run = asyncio.ensure_future(scene.reports.run())
    async with asyncio.timeout(10):
        await told.wait()
    run.cancel()
    await asyncio.wait({run})
    assert POD.uid in asked
    assert len(asked) < 20
