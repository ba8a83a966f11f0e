"""When an agent's turn comes: soon while a pod is on its way, now and then while it serves."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from conch.api.agent_report import AgentReport
from conch.api.model_deployment import InvalidSpec, parse_spec
from conch.api.rollout import RolloutPhase, RolloutStatus, Strategy
from conch.api.status import ModelDeploymentStatus
from conch.app.agent_reports import Answer
from conch.core.observed_pod import ObservedPod
from tests.unit.test_app_agent_reports import EXECUTED, FETCHING, KEY, OWNER, POD, READY, SERVING, Scene


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


QUEUE_TIME: dict[str, Any] = {"queueTime": {"maxMilliseconds": 5}}
SUCCESS: dict[str, Any] = {"successRate": {"minimumPercent": 99}}
GATEWAY_API: dict[str, Any] = {"mode": "GatewayAPI", "parentRefs": [{"name": "public"}]}
JUDGED: dict[str, Any] = {"analysis": [SUCCESS, QUEUE_TIME], "phase": RolloutPhase.SHIFTING, "is_open": True}


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 2),
        ({"phase": RolloutPhase.BAKING}, 2),
        ({"is_open": False}, 30),
        ({"analysis": [SUCCESS]}, 30),
        ({"analysis": []}, 30),
        ({"analysis": None}, 30),
        ({"phase": RolloutPhase.DRAINING}, 30),
        ({"phase": RolloutPhase.HALTED}, 30),
        ({"phase": None}, 30),
        ({"readable": False}, 30),
        ({"analysis": [SUCCESS], "gateway": GATEWAY_API}, 2),
        ({"analysis": None, "gateway": GATEWAY_API}, 2),
        ({"analysis": [], "gateway": GATEWAY_API}, 30),
        ({"analysis": [{"goldenSet": {}}], "gateway": GATEWAY_API}, 30),
        ({"analysis": [SUCCESS], "gateway": GATEWAY_API, "is_open": False}, 30),
    ],
    ids=[
        "judged by its queue",
        "baking",
        "no window",
        "by other checks",
        "by none",
        "by default",
        "over",
        "halted",
        "no rollout",
        "a spec that cannot be read",
        "by requests that only Triton counts",
        "by these by default",
        "by none of these",
        "by the golden set alone",
        "by these, no window",
    ],
)
def test_a_pod_that_serves_is_asked_often_only_while_what_triton_counts_is_judged(
    fields: dict[str, Any], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"readable": True, **JUDGED, **fields}
    declared = {} if said["analysis"] is None else {"analysis": said["analysis"]}
    given = {"model": MODEL, "rollout": declared, "gateway": said.get("gateway", {})}
    spec = parse_spec(given if said["readable"] else {"model": "none"})
    assert isinstance(spec, InvalidSpec) is not said["readable"], spec
    at = "2026-01-01T00:00:00Z"
    rollout = said["phase"] and RolloutStatus(
        id="w1",
        revision="r1",
        from_revision="r0",
        strategy=Strategy.SURGE,
        phase=said["phase"],
        observed_since=at if said["is_open"] else None,
        started_at=at,
    )
    scene = Scene(SERVING)
    owner = replace(OWNER, spec=spec, status=ModelDeploymentStatus(rollout=rollout))
    monkeypatch.setattr(scene, "model_deployment", lambda _: owner)
    scene.reports._answers[SERVING.uid] = Answer(report=READY)
    assert scene.reports._due_now() != [], "never asked yet"
    asked_at = scene.reports._asked_at[SERVING.uid]
    scene.clock.now = asked_at + seconds - 0.1
    assert scene.reports._due_now() == []
    scene.clock.now = asked_at + seconds + 0.1
    assert scene.reports._due_now() != []


MODEL: dict[str, Any] = {"version": 1, "source": {"uri": "https://models.example/a.onnx"}}
AUTOSCALING: dict[str, Any] = {"maxReplicas": 5, "objective": {"latencyMs": 100}}
OTHER = replace(SERVING, name="q", uid="other-uid")


@pytest.mark.parametrize(
    ("spec", "executed_by", "seconds"),
    [
        ({"autoscaling": AUTOSCALING}, None, 2),
        ({"autoscaling": AUTOSCALING}, SERVING, 10),
        ({"autoscaling": AUTOSCALING}, OTHER, 10),
        ({"autoscaling": AUTOSCALING}, replace(OTHER, workload="w2"), 2),
        ({"autoscaling": AUTOSCALING, "gateway": {"mode": "Direct"}}, SERVING, 2),
        ({"gateway": {"mode": "Direct"}}, None, 30),
        ({}, None, 30),
    ],
    ids=[
        "nothing executed",
        "executed",
        "executed by another pod",
        "executed by another workload",
        "past the gateways",
        "past the gateways, not scaled",
        "not scaled",
    ],
)
async def test_a_pod_that_serves_an_autoscaled_object_is_asked_more_often(
    spec: dict[str, Any], executed_by: ObservedPod | None, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = (SERVING, *([executed_by] if executed_by and executed_by.uid != SERVING.uid else []))
    scene = Scene(*here)
    parsed = parse_spec({"model": MODEL, **spec})
    assert not isinstance(parsed, InvalidSpec), parsed
    owner = replace(OWNER, spec=parsed)
    monkeypatch.setattr(scene, "model_deployment", lambda _: owner)

    async def ask(_session: object, observed: ObservedPod, _key: str) -> Answer:
        report = READY.model_copy(update={"inference": EXECUTED.model_copy(update={"models": ()})})
        told = executed_by is not None and observed.uid == executed_by.uid
        return Answer(report=READY.model_copy(update={"inference": EXECUTED}) if told else report)

    monkeypatch.setattr(scene.reports, "_ask", ask)
    await scene.ask()
    assert [observed.uid for _, observed in scene.reports._due_now()] == [], "they were just asked"
    asked_at = scene.reports._asked_at[SERVING.uid]
    scene.clock.now = asked_at + seconds - 0.1
    assert SERVING not in [observed for _, observed in scene.reports._due_now()]
    scene.clock.now = asked_at + seconds + 0.1
    assert SERVING in [observed for _, observed in scene.reports._due_now()]


async def test_a_model_that_nobody_asks_is_not_learnt_in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(SERVING)
    parsed = parse_spec({"model": MODEL, "autoscaling": AUTOSCALING})
    assert not isinstance(parsed, InvalidSpec), parsed
    monkeypatch.setattr(scene, "model_deployment", lambda _: replace(OWNER, spec=parsed))

    async def ask(_session: object, _observed: ObservedPod, _key: str) -> Answer:
        return Answer(report=READY)

    monkeypatch.setattr(scene.reports, "_ask", ask)
    await scene.ask()
    scene.used = False
    scene.clock.now += 2.5
    assert scene.reports._due_now() == []
    scene.used = True
    assert [observed for _, observed in scene.reports._due_now()] == [SERVING]


async def test_a_workload_is_unknown_again_once_the_pods_that_executed_are_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(SERVING)
    parsed = parse_spec({"model": MODEL, "autoscaling": AUTOSCALING})
    assert not isinstance(parsed, InvalidSpec), parsed
    monkeypatch.setattr(scene, "model_deployment", lambda _: replace(OWNER, spec=parsed))
    said = [READY.model_copy(update={"inference": EXECUTED}), READY]

    async def ask(_session: object, _observed: ObservedPod, _key: str) -> Answer:
        return Answer(report=said.pop(0))

    monkeypatch.setattr(scene.reports, "_ask", ask)
    await scene.ask()
    scene.here = (OTHER,)
    await scene.ask()
    scene.clock.now += 2.5
    assert [observed for _, observed in scene.reports._due_now()] == [OTHER]


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


@pytest.mark.parametrize(
    ("observed", "phase", "seconds"),
    [
        (POD, None, 30),
        (POD, RolloutPhase.HALTED, 30),
        (POD, RolloutPhase.VERIFYING, 4),
        (POD, RolloutPhase.SHIFTING, 4),
        (SERVING, None, 4),
    ],
)
def test_a_silent_agent_that_something_waits_for_is_asked_again_within_seconds(
    observed: ObservedPod, phase: RolloutPhase | None, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = phase and RolloutStatus(
        id="w1",
        revision="r1",
        from_revision="r0",
        strategy=Strategy.SURGE,
        phase=phase,
        started_at="2026-01-01T00:00:00Z",
    )
    scene = Scene(observed)
    owner = replace(OWNER, status=ModelDeploymentStatus(rollout=rollout))
    monkeypatch.setattr(scene, "model_deployment", lambda _: owner)
    scene.reports._silences[observed.uid] = 10
    assert scene.reports._due_now() != [], "never asked yet"
    asked_at = scene.reports._asked_at[observed.uid]
    scene.clock.now = asked_at + seconds - 0.1
    assert scene.reports._due_now() == []
    scene.clock.now = asked_at + seconds + 0.1
    assert scene.reports._due_now() != []


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
