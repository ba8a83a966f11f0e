"""A pod's model is changed in place on the real Triton: never both revisions' answers mixed up, never none for long."""

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np
import pytest
import tritonclient.grpc.aio as triton_grpc

from conch.api.agent_report import AgentPhase, AgentReport, ChangeReport, GoldenOutcome
from conch.api.assignment import Assignment, Change
from conch.api.reasons import Reason
from conch.triton.client import TritonClient
from tests.contract.conftest import FileServer, Pod
from tests.contract.models import CONFIG, classifier, scores_of
from tests.contract.processes import ADMIN_KEY, POD_NAME
from tests.contract.test_agent_contract import infer_grpc, loads
from tests.contract.test_agent_ensembles import repository
from tests.contract.test_golden_set import X, archive, golden
from tests.support.archives import tar_gz
from tests.support.async_waiting import until

pytestmark = pytest.mark.contract

ANSWERS = {seed: scores_of(classifier(seed), X) for seed in range(3)}


def seed_of(scores: Any) -> int:
    """Which of the classifiers has answered."""
    for seed, expected in ANSWERS.items():
        if np.allclose(scores, expected, rtol=1e-4):
            return seed
    raise AssertionError(f"none of the models answers so: {scores}")


def served(pod: Pod) -> int:
    return seed_of(infer_grpc(pod))


@dataclass(slots=True)
class InPlace:
    """A change from r0 to r1 as the operator writes it into the pod's assignment."""

    pod: Pod
    old: Assignment
    new: Assignment
    beside: bool = False
    id: str = "c1"

    def assign(self, turn: int = 0, pods: tuple[str, ...] = ()) -> None:
        change = Change(id=self.id, assignment=self.new, turn=turn, pods=pods, beside=self.beside)
        self.pod.agent.assign(self.old.model_copy(update={"change": change}))

    async def order(self, turn: int, revision: str) -> None:
        assert await self.pod.agent.turn(self.id, turn, revision) == 204

    async def prepared(self) -> ChangeReport:
        """Once all is ready for the pod's turn."""

        def is_ready(report: AgentReport) -> bool:
            return report.change is not None and report.change.phase is AgentPhase.READY

        report = await self.pod.agent.until(is_ready)
        assert report.phase is AgentPhase.READY
        assert report.change is not None
        return report.change

    async def serves(self, revision: str) -> AgentReport:
        """Once this revision serves, and its golden set was replayed."""

        def is_there(report: AgentReport) -> bool:
            return report.revision == revision and report.phase is AgentPhase.READY and report.golden is not None

        return await self.pod.agent.until(is_there)


def change(pod: Pod, files: FileServer, *, beside: bool = False, version: int = 1, **new: Any) -> InPlace:
    """From the classifier of seed 0 to that of seed 1, or to what `new` says."""
    files.files["/0.tar.gz"] = archive(golden(0), graph=classifier(0))
    content = new.pop("content", None) or archive(golden(1), graph=classifier(1))
    files.files["/1.tar.gz"] = content
    return InPlace(
        pod=pod,
        old=files.assignment("/0.tar.gz", revision="r0"),
        new=files.assignment("/1.tar.gz", revision="r1", version=version, **new),
        beside=beside,
    )


@dataclass(slots=True)
class Clients:
    """Ask all the time, over both protocols."""

    answers: Counter[int] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    rounds: Counter[str] = field(default_factory=Counter)
    """Requests that were answered, by protocol."""

    async def ask_grpc(self, pod: Pod) -> None:
        async with triton_grpc.InferenceServerClient(f"127.0.0.1:{pod.triton.grpc}") as client:
            tensor = triton_grpc.InferInput("x", list(X.shape), "FP32")
            tensor.set_data_from_numpy(X)
            while True:
                try:
                    self.answers[seed_of((await client.infer("classifier", [tensor])).as_numpy("scores"))] += 1
                    self.rounds["gRPC"] += 1
                except Exception as error:
                    self.errors.append(f"gRPC: {error}")

    async def ask_http(self, pod: Pod) -> None:
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": X.shape, "data": X.flatten().tolist()}]}
        url = f"http://127.0.0.1:{pod.triton.http}/v2/models/classifier/infer"
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.post(url, json=body) as response:
                        answer = await response.json()
                        assert response.status == 200, answer
                        scores = np.asarray(answer["outputs"][0]["data"], dtype=np.float32).reshape(5, 3)
                        self.answers[seed_of(scores)] += 1
                        self.rounds["HTTP"] += 1
                except Exception as error:
                    self.errors.append(f"HTTP: {error}")


@asynccontextmanager
async def clients(pod: Pod) -> AsyncIterator[Clients]:
    asking = Clients()
    tasks = [asyncio.ensure_future(ask(pod)) for ask in (asking.ask_grpc, asking.ask_http)]
    try:
        yield asking
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def steps(pod: Pod) -> list[str]:
    """What the agent has done, over all its lives; a step of a preparation begins with a dash."""
    events = (event for event in pod.agent.events() if event.get("event") == "step" and not event["cancelled"])
    return [f"-{event['step']}" if event["preparing"] else event["step"] for event in events]


async def test_turns_change_the_model_to_and_fro_from_files_that_stay(pod: Pod, files: FileServer) -> None:
    changing = change(pod, files)
    pod.agent.assign(changing.old)
    await pod.start()
    first = await changing.serves("r0")
    changing.assign()
    assert (first.changes_in_place, first.changed) == (True, 0)
    prepared = await changing.prepared()
    assert (prepared.revision, prepared.golden, prepared.refused) == ("r1", None, "")
    assert (prepared.pin is not None, prepared.digest) == (True, prepared.pin.digest if prepared.pin else "")
    assert served(pod) == 0

    for turn, revision in enumerate(("r1", "r0", "r1"), start=1):
        await changing.order(turn, revision)
        report = await changing.serves(revision)
        assert report.golden is not None
        assert (report.golden.outcome, report.changed) == (GoldenOutcome.PASSED, turn)
        assert served(pod) == int(revision[1])
        assert (report.change is None) is (revision == "r1")
    assert (files.requests["/0.tar.gz"], files.requests["/1.tar.gz"]) == (1, 1)
    epochs = report.inference and report.inference.epoch
    assert first.inference is None or first.inference.epoch != epochs

    # Promoted: what serves is the assignment's own now.
    before = loads(pod)
    pod.agent.assign(changing.new)

    async def tidy() -> bool | None:
        return len(list((pod.agent.volume / "fetched").iterdir())) == 1 or None

    await until("the old files to be gone", tidy)
    report = await changing.serves("r1")
    assert (loads(pod), served(pod), report.changed, report.change) == (before, 1, 3, None)


@pytest.mark.parametrize("version", [1, 2])
async def test_beside_no_request_is_lost(pod: Pod, files: FileServer, version: int) -> None:
    content = archive(golden(1), graph=classifier(1))
    if version == 2:
        content = tar_gz(
            {
                "config.pbtxt": CONFIG.encode(),
                "2/model.onnx": classifier(1),
                "golden.json": json.dumps(golden(1)).encode(),
            }
        )
    changing = change(pod, files, beside=True, version=version, content=content)
    pod.agent.assign(changing.old)
    await pod.start()
    await changing.serves("r0")
    async with clients(pod) as asking:
        changing.assign()
        prepared = await changing.prepared()
        assert prepared.golden is not None
        assert (prepared.golden.outcome, prepared.golden.samples) == (GoldenOutcome.PASSED, 5)
        assert set(asking.answers) == {0}
        assert not (pod.agent.volume / "repository" / "classifier.next").exists()
        await changing.order(1, "r1")
        await changing.serves("r1")
        await until("answers of the new one", lambda: _as_awaitable(asking.answers[1] >= 20))
        # Each client's request that was on its way when it turned, and one of after that, are answered by then.
        rounds = asking.rounds.copy()
        await until(
            "a whole round of each client",
            lambda: _as_awaitable(all(asking.rounds[each] >= rounds[each] + 2 for each in ("gRPC", "HTTP"))),
        )
        asking.answers.clear()
        await until("further ones", lambda: _as_awaitable(asking.answers[1] >= 20))
        assert set(asking.answers) == {1}
        await changing.order(2, "r0")
        await changing.serves("r0")
        await changing.order(3, "r1")
        report = await changing.serves("r1")
    assert asking.errors == []
    assert report.changed == 3
    assert "MakeWay" not in steps(pod)
    done = steps(pod)
    assert done.index("-Replay") < len(done) - 1 - done[::-1].index("Load")


async def _as_awaitable(value: bool) -> bool:
    return value


async def test_a_wrong_version_is_found_beside_before_any_client_sees_it(pod: Pod, files: FileServer) -> None:
    wrong = archive(golden(2), graph=classifier(1))
    changing = change(pod, files, beside=True, content=wrong)
    changing.assign()
    await pod.start()
    await changing.serves("r0")
    async with clients(pod) as asking:
        prepared = await changing.prepared()
    assert prepared.golden is not None
    assert (prepared.golden.outcome, prepared.golden.mismatches) == (GoldenOutcome.FAILED, 5)
    assert (set(asking.answers), asking.errors, served(pod)) == ({0}, [], 0)
    assert ADMIN_KEY not in pod.agent.log.read_text()


async def test_a_version_that_cannot_be_loaded_beside_leaves_the_old_one_serving(pod: Pod, files: FileServer) -> None:
    changing = change(pod, files, beside=True, content=archive(golden(1), graph=b"this is no graph"))
    changing.assign()
    await pod.start()
    await changing.serves("r0")
    async with clients(pod) as asking:
        report = await pod.agent.until(_change_failed(attempts=2))
        assert report.phase is AgentPhase.READY
        assert report.change is not None
        assert report.change.reason is Reason.MODEL_LOAD_FAILED
        assert "INVALID_PROTOBUF" in report.change.message or "Protobuf" in report.change.message
        # Nevertheless told to serve it: that fails too, is said, and it is turned back.
        await changing.order(1, "r1")
        failed = await pod.agent.until(lambda report: report.revision == "r1" and report.phase is AgentPhase.FAILED)
        assert failed.reason is Reason.MODEL_LOAD_FAILED
        await changing.order(2, "r0")
        await changing.serves("r0")
    assert (set(asking.answers), asking.errors) == ({0}, [])
    # Triton was not told anything for that, and what it would load after a restart lies there again.
    assert await pod.agent.until(lambda report: report.phase is AgentPhase.READY and report.instances is not None)


def _change_failed(attempts: int) -> Callable[[AgentReport], bool]:
    def is_failed(report: AgentReport) -> bool:
        told = report.change
        return told is not None and told.phase is AgentPhase.FAILED and told.attempts >= attempts

    return is_failed


async def test_a_version_that_cannot_be_loaded_after_the_old_one_is_turned_back_from(
    pod: Pod, files: FileServer
) -> None:
    changing = change(pod, files, content=archive(golden(1), graph=b"this is no graph"))
    changing.assign()
    await pod.start()
    await changing.prepared()
    await changing.order(1, "r1")
    report = await pod.agent.until(lambda report: report.phase is AgentPhase.FAILED)
    assert (report.revision, report.reason) == ("r1", Reason.MODEL_LOAD_FAILED)
    await changing.order(2, "r0")
    await changing.serves("r0")
    assert (served(pod), files.requests["/0.tar.gz"]) == (0, 1)


@pytest.mark.parametrize("who", ["agent", "triton", "both"])
@pytest.mark.parametrize("beside", [False, True])
async def test_whatever_is_killed_ends_in_what_was_ordered(pod: Pod, files: FileServer, who: str, beside: bool) -> None:
    changing = change(pod, files, beside=beside)
    pod.agent.assign(changing.old)
    await pod.start()
    await changing.serves("r0")
    changing.assign()
    await changing.prepared()

    def kill() -> None:
        if who in ("agent", "both"):
            pod.agent.stop(signal.SIGKILL)
        if who in ("triton", "both"):
            pod.triton.stop(signal.SIGKILL)
            pod.triton.start()
        if who in ("agent", "both"):
            pod.agent.start(pod.triton)

    turn = 0
    for after in ("", "MakeWay", "LayOut", "Load"):
        if beside and after == "MakeWay":
            continue
        for revision in ("r1", "r0"):
            turn += 1
            before = steps(pod).count(after)
            await changing.order(turn, revision)
            if after:
                await until(f"the step {after}", lambda: _as_awaitable(steps(pod).count(after) > before))  # noqa: B023
            kill()
            # The mounted file still is the old one.
            await changing.serves(revision)
            assert served(pod) == int(revision[1]), (after, revision)
    assert (files.requests["/0.tar.gz"], files.requests["/1.tar.gz"]) == (1, 1)


@pytest.mark.parametrize("who", ["agent", "triton"])
async def test_killed_while_the_new_version_is_tried(pod: Pod, files: FileServer, who: str) -> None:
    changing = change(pod, files, beside=True)
    pod.agent.assign(changing.old)
    await pod.start()
    await changing.serves("r0")
    changing.assign()
    trial = pod.agent.volume / "repository" / "classifier.next"
    async with TritonClient(f"127.0.0.1:{pod.triton.grpc}", ADMIN_KEY) as triton:

        async def is_tried() -> bool:
            return any((entry.name, entry.state) == ("classifier.next", "LOADING") for entry in await triton.index())

        await until("the trial", is_tried)
    if who == "agent":
        pod.agent.stop(signal.SIGKILL)
        pod.agent.start(pod.triton)
    else:
        pod.triton.stop(signal.SIGKILL)
        failed = await pod.agent.until(_change_failed(attempts=1))
        assert failed.change is not None
        assert "Triton ended while the new version was loaded" in failed.change.message
        pod.triton.start()
        # What serves comes back at once, and what has ended it is tried later.
        back = await changing.serves("r0")
        assert (served(pod), back.change and back.change.phase) == (0, AgentPhase.FAILED)
    await changing.prepared()
    assert (served(pod), trial.exists()) == (0, False)
    async with TritonClient(f"127.0.0.1:{pod.triton.grpc}", ADMIN_KEY) as triton:
        index = {entry.name: entry.state for entry in await triton.index()}
    assert index == {"classifier": "READY"}


async def test_a_turn_is_as_long_as_triton_takes(pod: Pod, files: FileServer) -> None:
    """An order wakes the agent, which adds little to Triton's own unload and load."""
    changing = change(pod, files)
    pod.agent.assign(changing.old)
    await pod.start()
    await changing.serves("r0")
    changing.assign()
    await changing.prepared()
    added: list[float] = []
    for turn, revision in enumerate(("r1", "r0", "r1"), start=1):
        before = loads(pod)
        async with TritonClient(f"127.0.0.1:{pod.triton.grpc}", ADMIN_KEY) as triton:
            started = time.monotonic()
            await changing.order(turn, revision)
            left = await _until_left(pod, triton, started, before)
            await changing.serves(revision)
            took = time.monotonic() - started
        loaded = [event["seconds"] for event in pod.agent.events() if event.get("step") == "Load"][-1]
        print(f"\nturn {took:.2f} s: Triton unloads for {left:.2f} s and loads for {loaded:.2f} s")
        added.append(took - left - loaded)
    # No assignment says whose turn it is: without the orders none would ever come.
    assert min(added) < 5.0


async def _until_left(pod: Pod, triton: TritonClient, started: float, before: int) -> float:
    """Seconds until nothing is loaded or being unloaded any more, or the other one is loaded already."""

    async def is_gone() -> bool:
        return loads(pod) > before or not any(entry.state in ("READY", "UNLOADING") for entry in await triton.index())

    await until("the old model to be gone", is_gone)
    return time.monotonic() - started


async def test_an_ensemble_is_refused_beside_and_changed_after_the_other(pod: Pod, files: FileServer) -> None:
    changing = change(pod, files, beside=True, content=repository(1))
    changing.assign()
    await pod.start()
    await changing.serves("r0")
    report = await pod.agent.until(lambda report: report.change is not None and bool(report.change.refused))
    assert report.change is not None
    assert (report.phase, report.change.attempts) == (AgentPhase.READY, 0)
    assert "share the models' names" in report.change.refused
    assert (served(pod), loads(pod)) == (0, 1)
    changing.beside = False
    changing.assign()
    await changing.prepared()
    changing.assign(turn=1, pods=(POD_NAME,))
    await pod.agent.until(lambda report: report.revision == "r1" and report.phase is AgentPhase.READY)
    assert served(pod) == 1
    changing.assign(turn=2)
    await changing.serves("r0")
    assert served(pod) == 0
