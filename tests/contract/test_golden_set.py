"""The agent replays a model's golden set on the real Triton, and tells Triton's own counters."""

import base64
import json
import signal
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from conch.api.agent_report import AgentPhase, AgentReport, GoldenOutcome, GoldenReport
from conch.api.inference_counts import InferenceCounts
from conch.api.model import ModelConfig, ModelSource
from tests.contract.conftest import FileServer, Pod
from tests.contract.models import CONFIG, Floats, classifier, scores_of, written
from tests.contract.test_infer import CONFIG as BOTH_CONFIG
from tests.contract.test_infer import TEXTS
from tests.contract.test_infer import model as both
from tests.support.archives import tar_gz

pytestmark = pytest.mark.contract

X: Floats = np.linspace(-2, 2, 20, dtype=np.float32).reshape(5, 4)


def golden(seed: int = 0, **conch: Any) -> dict[str, Any]:
    """What the classifier of this seed answers, by onnxruntime itself: in all five samples, one by one."""
    data = [{"x": {"content": x.tolist(), "shape": [4]}} for x in X]
    scores = [scores_of(classifier(seed), x[None])[0] for x in X]
    answers = [{"scores": {"content": each.tolist(), "shape": [3]}} for each in scores]
    return {"data": data, "validation_data": answers, "conch": conch}


def archive(golden_set: Any, config: str = CONFIG, graph: bytes | None = None) -> bytes:
    """A model directory with its golden set; None leaves the file out, bytes are its content."""
    content = {"config.pbtxt": config.encode(), "1/model.onnx": classifier() if graph is None else graph}
    if golden_set is not None:
        content["golden.json"] = golden_set if isinstance(golden_set, bytes) else json.dumps(golden_set).encode()
    return tar_gz(content)


async def replayed(pod: Pod, revision: str = "r1") -> tuple[AgentReport, GoldenReport]:
    """The report once the revision serves and its golden set was replayed."""

    def settled(report: AgentReport) -> bool:
        return report.revision == revision and report.phase is AgentPhase.READY and report.golden is not None

    report = await pod.agent.until(settled)
    assert report.golden is not None
    return report, report.golden


async def counted(pod: Pod, requests: int) -> InferenceCounts:
    report = await pod.agent.until(lambda each: each.inference is not None and each.inference.requests == requests)
    assert report.inference is not None
    return report.inference


def replays(pod: Pod) -> int:
    return sum(event.get("event") == "golden_set" for event in pod.agent.events())


def infer(pod: Pod, columns: int = 4) -> None:
    client = triton_grpc.InferenceServerClient(f"127.0.0.1:{pod.triton.grpc}")
    try:
        tensor = triton_grpc.InferInput("x", [1, columns], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, columns), np.float32))
        client.infer("classifier", [tensor])
    finally:
        client.close()


async def test_it_passes_and_is_replayed_after_every_restart(pod: Pod, files: FileServer) -> None:
    files.files["/m.tar.gz"] = tar_gz({"net.onnx": classifier(), "golden.json": json.dumps(golden()).encode()})
    pod.agent.assign(files.assignment("/m.tar.gz", config=ModelConfig(max_batch_size=2)))
    await pod.start()
    passed = GoldenReport(outcome=GoldenOutcome.PASSED, samples=5)
    assert (await replayed(pod))[1] == passed
    assert (pod.agent.volume / "repository" / "classifier" / "golden.json").is_file()
    # Five samples alone, and four of them in batches of two.
    first = await counted(pod, 7)
    assert first.failures == 0
    for _ in range(3):
        infer(pod)
    second = await counted(pod, 10)
    assert second.epoch == first.epoch
    assert second.queue_seconds >= first.queue_seconds > 0

    pod.agent.stop(signal.SIGKILL)
    pod.agent.start(pod.triton)
    assert (await replayed(pod))[1] == passed
    third = await counted(pod, 17)
    assert third.epoch != first.epoch, "another agent cannot know that Triton did not start anew"

    pod.triton.stop(signal.SIGKILL)
    away = await pod.agent.until(lambda report: report.phase is not AgentPhase.READY)
    assert (away.golden, away.inference) == (None, None)
    pod.triton.start()
    assert (await replayed(pod))[1] == passed
    fourth = await counted(pod, 7)
    assert fourth.epoch not in (first.epoch, third.epoch)
    assert replays(pod) == 3


async def test_wrong_answers_are_named_and_the_model_serves_on(pod: Pod, files: FileServer) -> None:
    wrong = golden()
    wrong["validation_data"][3]["scores"]["content"][1] += 0.25
    files.files |= {
        "/wrong.tar.gz": archive(wrong),
        "/within.tar.gz": archive(wrong | {"conch": {"tolerances": {"scores": {"atol": 0.3, "rtol": 0}}}}),
    }
    pod.agent.assign(files.assignment("/wrong.tar.gz"))
    await pod.start()
    report, told = await replayed(pod)
    assert (report.phase, report.reason) == (AgentPhase.READY, None)
    assert (told.outcome, told.samples, told.mismatches) == (GoldenOutcome.FAILED, 5, 1)
    assert told.message.startswith("1 of 5 samples differ; sample 3: scores[1] is 0.")
    assert "off by 0.25, allowed 0.00" in told.message
    infer(pod)

    pod.agent.assign(files.assignment("/within.tar.gz", revision="r2"))
    assert (await replayed(pod, "r2"))[1] == GoldenReport(outcome=GoldenOutcome.PASSED, samples=5)


async def test_no_set_one_that_cannot_be_read_and_one_that_the_model_cannot_replay(pod: Pod, files: FileServer) -> None:
    files.files |= {
        "/absent.tar.gz": archive(None),
        "/broken.tar.gz": archive(b'{"data": ['),
        "/sequence.tar.gz": archive(golden(), config=CONFIG.replace("dynamic_batching", "sequence_batching")),
    }
    pod.agent.assign(files.assignment("/absent.tar.gz"))
    await pod.start()
    assert (await replayed(pod))[1] == GoldenReport(outcome=GoldenOutcome.ABSENT)
    pod.agent.assign(files.assignment("/broken.tar.gz", revision="r2"))
    report, told = await replayed(pod, "r2")
    assert (report.phase, told.outcome) == (AgentPhase.READY, GoldenOutcome.ERROR)
    assert told.message.startswith("golden.json: it is no JSON: ")
    pod.agent.assign(files.assignment("/sequence.tar.gz", revision="r3"))
    _, told = await replayed(pod, "r3")
    assert told.outcome is GoldenOutcome.ERROR
    assert "takes sequences" in told.message


async def test_texts_and_halves_are_compared_each_in_its_way(pod: Pod, files: FileServer) -> None:
    def answers(x: Floats, texts: list[str]) -> dict[str, Any]:
        half = base64.b64encode((x * 2).astype(np.float16).tobytes()).decode()
        return {
            "doubled": {"content": (x * 2).tolist(), "shape": [4]},
            "half": {"content": {"b64": half}, "shape": [4]},
            "echo": {"content": texts, "shape": [len(texts)]},
        }

    rows = [(X[0], TEXTS), (X[1], TEXTS[::-1]), (X[2], ["one"])]
    right: dict[str, Any] = {
        "data": [{"x": x.tolist(), "texts": {"content": texts, "shape": [len(texts)]}} for x, texts in rows],
        "validation_data": [answers(x, texts) for x, texts in rows],
        "conch": {"tolerances": {"doubled": "label"}},
    }
    wrong = json.loads(json.dumps(right))
    wrong["validation_data"][1]["echo"]["content"][2] = "grusse"
    config = BOTH_CONFIG.replace("backend", 'name: "classifier" backend', 1)
    files.files |= {
        "/right.tar.gz": archive(right, config=config, graph=both()),
        "/wrong.tar.gz": archive(wrong, config=config, graph=both()),
    }
    pod.agent.assign(files.assignment("/right.tar.gz"))
    await pod.start()
    report, told = await replayed(pod)
    assert told == GoldenReport(outcome=GoldenOutcome.PASSED, samples=3)
    assert report.inference is not None
    pod.agent.assign(files.assignment("/wrong.tar.gz", revision="r2"))
    _, told = await replayed(pod, "r2")
    assert (told.outcome, told.mismatches) == (GoldenOutcome.FAILED, 1)
    assert "sample 1: echo[2] is 'gr\\xfc\\xdfe', expected 'grusse': must be equal; 1 of 3 values" in told.message


async def test_a_claims_set_and_the_failures_that_triton_counts(pod: Pod, files: FileServer) -> None:
    no_text = base64.b64encode(b"\x01\0\0\0\xff").decode()  # the stand-in's backend cannot execute that
    data = [{"x": [1, 2, 3, 4], "texts": ["a"]}, {"x": [1, 2, 3, 4], "texts": {"b64": no_text}}]
    golden_set = {"data": data, "validation_data": [{"doubled": [2, 4, 6, 8]}] * 2}
    model = pod.agent.claim / "classifier"
    written(model / "model.onnx", both())
    written(model / "golden.json", json.dumps(golden_set).encode())
    source = ModelSource(uri="pvc://models-claim/classifier")
    pod.agent.assign(files.assignment("/").model_copy(update={"source": source}))
    await pod.start()
    _, told = await replayed(pod)
    assert (told.outcome, told.samples, told.mismatches) == (GoldenOutcome.FAILED, 2, 2)
    assert told.message.startswith("2 of 2 samples differ; sample 1: Triton does not answer it: Failed to process the")
    assert "; sample 0 in a batch of 2: Triton does not answer it: " in told.message
    # Of three requests, the second sample alone and the batch with it.
    assert (await counted(pod, 1)).failures == 2


async def test_what_was_laid_out_but_not_loaded_is_not_what_is_replayed(pod: Pod, files: FileServer) -> None:
    files.files |= {
        "/good.tar.gz": archive(golden()),
        "/bad.tar.gz": archive(golden(seed=1), graph=b"this is no graph"),
    }
    pod.agent.assign(files.assignment("/good.tar.gz"))
    await pod.start()
    await replayed(pod)
    pod.agent.assign(files.assignment("/bad.tar.gz", revision="r2"))
    failed = await pod.agent.until_phase(AgentPhase.FAILED)
    assert (failed.golden, failed.inference) == (None, None)
    pod.agent.assign(files.assignment("/good.tar.gz", revision="r3"))
    assert (await replayed(pod, "r3"))[1] == GoldenReport(outcome=GoldenOutcome.PASSED, samples=5)
    loads = [event["event"] for event in pod.agent.events() if "Load" in (event.get("step") or "")]
    assert loads == ["step", "failed"], "Triton went on with the first files and was told nothing more"
