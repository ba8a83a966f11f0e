"""The agent's HTTP server and its reports."""

import asyncio
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from conch.agent import reporting
from conch.agent.server import make_application
from conch.agent.settings import AgentSettings
from conch.agent.state import Failure, Golden, Resizing
from conch.agent.step_kinds import Fetch, Idle, Load, Replay, Resize, Step
from conch.agent.volume import Record
from conch.agent.wanted import Wanted
from conch.api import names
from conch.api.agent_orders import PinOrder, TurnOrder
from conch.api.agent_report import AgentPhase, AgentReport, GoldenOutcome, GoldenReport
from conch.api.assignment import Assignment, Pin
from conch.api.inference_counts import InferenceCounts
from conch.api.model import ModelSource
from conch.api.reasons import Reason
from conch.triton.instances import InstanceGroups
from conch.triton.metrics import TritonMetrics

WANTED = Wanted.of(Assignment(revision="r1", name="mlp", version=1, source=ModelSource(uri="https://h.example/m.onnx")))
REPORT = AgentReport(phase=AgentPhase.READY, revision="r1")
PIN = Pin(digest=f"sha256:{'a' * 64}", resolved="etag 1")


async def at_once() -> str:
    return "nothing is open"


class Taker:
    """Takes orders for two revisions of one change."""

    def __init__(self, error: OSError | None = None) -> None:
        self.pins: list[PinOrder] = []
        self.turns: list[TurnOrder] = []
        self.error = error

    def take_pin(self, order: PinOrder, /) -> str:
        if order.revision not in ("r1", "r2"):
            return "this pod is assigned revision r1 and r2"
        self.pins.append(order)
        return ""

    async def take_turn(self, order: TurnOrder, /) -> str:
        if self.error:
            raise self.error
        if order.change != "c1":
            return "this pod's assignment brings the change c1"
        self.turns.append(order)
        return ""


def pin_order(revision: str, *, key: str = "key", resolved: str = PIN.resolved) -> PinOrder:
    return PinOrder(revision=revision, pin=PIN, code=names.pin_code(key, revision, PIN.digest, resolved))


@pytest.mark.parametrize(
    ("order", "status"),
    [
        (pin_order("r1"), 204),
        (pin_order("r2"), 204),
        (pin_order("r1", key="other"), 401),
        (pin_order("r1", resolved="etag 2"), 401),
        (pin_order("r3"), 409),
        (PinOrder(revision="r1", pin=PIN, code=names.status_key("key")), 401),
    ],
)
async def test_a_pin_is_taken_only_from_who_has_the_admin_key(tmp_path: Path, order: PinOrder, status: int) -> None:
    taker = Taker()
    settings = AgentSettings(admin_key="key", model_folder=tmp_path)
    async with TestClient(TestServer(make_application(settings, lambda: REPORT, taker, at_once))) as client:
        response = await client.put("/pin", data=order.model_dump_json(by_alias=True))
        assert response.status == status
        assert (await client.put("/pin", data=b"nonsense")).status == 400
    assert taker.pins == ([order] if status == 204 else [])


def turn_order(change: str = "c1", turn: int = 3, revision: str = "r2", pod: str = "p1") -> TurnOrder:
    code = names.turn_code("key", pod, change, turn, revision)
    return TurnOrder(change=change, turn=turn, revision=revision, code=code)


@pytest.mark.parametrize(
    ("order", "status"),
    [
        (turn_order(), 204),
        (turn_order(turn=4), 204),
        (turn_order(change="c2"), 409),
        (turn_order(pod="p2"), 401),
        (turn_order().model_copy(update={"turn": 4}), 401),
        (turn_order().model_copy(update={"revision": "r1"}), 401),
        (turn_order().model_copy(update={"change": "c2"}), 401),
        (turn_order().model_copy(update={"code": names.status_key("key")}), 401),
        (turn_order().model_copy(update={"code": "é"}), 401),
    ],
)
async def test_a_turn_is_taken_only_from_who_has_the_admin_key(tmp_path: Path, order: TurnOrder, status: int) -> None:
    taker = Taker()
    settings = AgentSettings(admin_key="key", pod_name="p1", model_folder=tmp_path)
    async with TestClient(TestServer(make_application(settings, lambda: REPORT, taker, at_once))) as client:
        response = await client.put("/turn", data=order.model_dump_json(by_alias=True))
        assert response.status == status
        assert (await client.put("/turn", data=b"{}")).status == 400
    assert taker.turns == ([order] if status == 204 else [])


async def test_a_turn_that_cannot_be_kept_is_not_taken(tmp_path: Path) -> None:
    settings = AgentSettings(admin_key="key", pod_name="p1", model_folder=tmp_path)
    taker = Taker(OSError(28, "No space left on device"))
    async with TestClient(TestServer(make_application(settings, lambda: REPORT, taker, at_once))) as client:
        response = await client.put("/turn", data=turn_order().model_dump_json(by_alias=True))
        assert (response.status, "No space left" in await response.text()) == (503, True)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer ", 401),
        ("Bearer wrong", 401),
        ("key", 401),
        ("bearer key", 401),
        (f"Bearer {names.status_key('key')}", 200),
        ("Bearer key", 401),
    ],
)
async def test_status_needs_exactly_the_key(tmp_path: Path, header: str | None, status: int) -> None:
    settings = AgentSettings(admin_key="key", model_folder=tmp_path)
    async with TestClient(TestServer(make_application(settings, lambda: REPORT, Taker(), at_once))) as client:
        response = await client.get("/status", headers={} if header is None else {"Authorization": header})
        assert response.status == status
        if status == 200:
            assert AgentReport.model_validate_json(await response.text()) == REPORT


async def test_healthz_waits_for_the_repository(tmp_path: Path) -> None:
    settings = AgentSettings(admin_key="key", model_folder=tmp_path)
    async with TestClient(TestServer(make_application(settings, lambda: REPORT, Taker(), at_once))) as client:
        assert (await client.get("/healthz")).status == 503
        (tmp_path / "repository").mkdir()
        assert (await client.get("/healthz")).status == 200
        assert (await client.get("/other")).status == 404


def test_settings_come_from_the_pod_and_hide_the_key() -> None:
    settings = AgentSettings.from_env({"CONCH_ADMIN_KEY": "s3cret"})
    assert (settings.port, str(settings.repository)) == (8080, "/var/lib/conch/repository")
    assert "s3cret" not in repr(settings)
    assert settings.triton_cpus is None
    assert AgentSettings.from_env({"CONCH_ADMIN_KEY": "k", "CONCH_TRITON_CPUS": "1.5"}).triton_cpus == Decimal("1.5")
    with pytest.raises(SystemExit, match="CONCH_ADMIN_KEY"):
        AgentSettings.from_env({})


FAILURE = Failure(stage=AgentPhase.LOADING, reason=Reason.MODEL_LOAD_FAILED, message="m" * 5000, attempts=1, retry_at=0)
NOTHING = {"fetched_bytes": 0, "total_bytes": None}
FETCHED = Record(digest=f"sha256:{'a' * 64}", bytes=9)
GOLDEN = GoldenReport(outcome=GoldenOutcome.FAILED, samples=3, mismatches=1, message="sample 0: ...")
COUNTS = InferenceCounts(epoch="e", requests=7, failures=1, queue_seconds=0.5)


def make_report(step: Step, **changes: Any) -> AgentReport:
    fields: dict[str, Any] = {"wanted": WANTED, "failure": None, "record": None, "fetched": NOTHING}
    fields |= {"golden": Golden(report=GOLDEN), "inference": COUNTS}
    return reporting.make_report(step=step, **fields | changes)


def test_a_failure_stays_visible_while_it_is_tried_again() -> None:
    for step in (Fetch(wanted=WANTED), Load(wanted=WANTED), Idle(phase=AgentPhase.FAILED)):
        report = make_report(step, failure=FAILURE, record=FETCHED)
        assert (report.phase, report.reason, report.revision) == (AgentPhase.FAILED, Reason.MODEL_LOAD_FAILED, "r1")
        assert (len(report.message), report.attempts) == (2048, 1)
        again = make_report(step, failure=replace(FAILURE, attempts=7), record=FETCHED)
        assert AgentReport.model_validate_json(again.model_dump_json(by_alias=True)).attempts == 7
    ready = make_report(Idle(phase=AgentPhase.READY), failure=FAILURE, record=FETCHED)
    assert (ready.phase, ready.reason, ready.message, ready.attempts) == (AgentPhase.READY, None, "", 0)
    assert (ready.digest, ready.fetched_bytes, ready.total_bytes) == (FETCHED.digest, 9, 9)


def test_progress_is_told() -> None:
    report = make_report(Fetch(wanted=WANTED), fetched={**NOTHING, "fetched_bytes": 5, "total_bytes": 10, "files": 2})
    assert (report.phase, report.fetched_bytes, report.total_bytes, report.files) == (AgentPhase.FETCHING, 5, 10, 2)
    report = make_report(Idle(phase=AgentPhase.STARTING), wanted=None)
    assert (report.phase, report.revision, report.total_bytes) == (AgentPhase.STARTING, "", None)


def test_what_is_said_of_a_served_model_is_said_as_long_as_it_serves() -> None:
    ready = make_report(Replay(wanted=WANTED))
    assert (ready.phase, ready.golden, ready.inference) == (AgentPhase.READY, GOLDEN, COUNTS)
    assert AgentReport.model_validate_json(ready.model_dump_json(by_alias=True, exclude_none=True)) == ready
    for step in (Load(wanted=WANTED), Idle(phase=AgentPhase.FAILED)):
        report = make_report(step)
        assert (report.golden, report.inference) == (None, None)


def test_how_many_instances_serve_and_why_not_as_many_as_assigned_is_told_while_they_serve() -> None:
    running = InstanceGroups(counts=(1, 4), overridden=False)
    memory = TritonMetrics(gpu_memory_used_bytes=3, gpu_memory_total_bytes=9)
    fields = {"running": running, "resizing": Resizing(refused="out of memory", due_at=None), "metrics": memory}
    for step in (Resize(wanted=WANTED), Idle(phase=AgentPhase.READY)):
        report = make_report(step, **fields)
        assert (report.phase, report.instances, report.instances_refused) == (AgentPhase.READY, 4, "out of memory")
        assert (report.gpu_memory_used_bytes, report.gpu_memory_total_bytes) == (3, 9)
    report = make_report(Load(wanted=WANTED), **fields)
    assert (report.instances, report.instances_refused, report.gpu_memory_used_bytes) == (None, "", None)
    assert make_report(Idle(phase=AgentPhase.READY)).instances is None


async def test_who_asks_to_leave_is_answered_when_that_is_safe(tmp_path: Path) -> None:
    safe = asyncio.Event()

    async def leave() -> str:
        await safe.wait()
        return "nothing is open"

    settings = AgentSettings(admin_key="key", model_folder=tmp_path)
    async with TestClient(TestServer(make_application(settings, lambda: REPORT, Taker(), leave))) as client:
        waits = asyncio.ensure_future(client.get("/leave"))
        assert (await client.get("/healthz")).status == 503, "others are answered meanwhile"
        assert not waits.done()
        safe.set()
        assert await (await waits).text() == "nothing is open\n"
