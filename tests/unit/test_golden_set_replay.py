"""A golden set replayed by the agent: what is asked of Triton, what comes of its answers, and of its silence."""

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conch.agent import golden_check
from conch.agent.fetcher import Fetcher
from conch.agent.golden_check import GoldenCheck
from conch.agent.settings import AgentSettings
from conch.agent.state import Golden
from conch.agent.volume import Record, Volume
from conch.agent.wanted import Wanted
from conch.api.agent_report import GoldenOutcome, GoldenReport
from conch.api.assignment import Assignment, Pin
from conch.api.model import ModelSource
from conch.store import Progress
from conch.store.in_place import fingerprint
from conch.triton.client import TritonClient
from conch.triton.errors import TritonRefusedError, TritonUnavailableError
from conch.triton.tensors import ModelSignature, Tensor, TensorSignature

PIN = Pin(digest=f"sha256:{'a' * 64}")
WANTED = Wanted.of(
    Assignment(revision="r1", name="mlp", version=1, source=ModelSource(uri="https://h.example/m.zip"), pin=PIN)
)
PASSED = GoldenReport(outcome=GoldenOutcome.PASSED, samples=3)


def model(**changes: Any) -> ModelSignature:
    rows = {name: TensorSignature(name=name, datatype="FP32", shape=(-1,)) for name in ("x", "y")}
    fields: dict[str, Any] = {"inputs": {"x": rows["x"]}, "outputs": {"y": rows["y"]}, "max_batch_size": 8}
    return ModelSignature(**(fields | changes))


def double(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (Tensor(name="y", datatype="FP32", array=inputs[0].array * 2),)


class StubTriton(TritonClient):
    """A Triton whose one model answers as `answer` does."""

    def __init__(
        self, signature: ModelSignature | None = None, answer: Callable[[Sequence[Tensor]], tuple[Tensor, ...]] = double
    ) -> None:
        self.model = signature or model()
        self.answer = answer
        self.asked: list[tuple[int, ...]] = []

    async def signature(self, name: str, version: int) -> ModelSignature:
        assert (name, version) == ("mlp", 1)
        return self.model

    async def infer(
        self, name: str, version: int, inputs: Sequence[Tensor], outputs: Iterable[str], *, timeout_seconds: float
    ) -> tuple[Tensor, ...]:
        assert (name, version, list(outputs)) == ("mlp", 1, ["y"])
        assert timeout_seconds > 0
        self.asked.append(inputs[0].shape)
        return self.answer(inputs)


def golden(*samples: tuple[list[float], list[float]], **more: Any) -> bytes:
    data = [{"x": {"content": x, "shape": [len(x)]}} for x, _ in samples]
    validation = [{"y": {"content": y, "shape": [len(y)]}} for _, y in samples]
    return json.dumps({"data": data, "validation_data": validation} | more).encode()


RIGHT = (([1.0, 2.0], [2.0, 4.0]), ([3.0, 4.0], [6.0, 8.0]), ([5.0], [10.0]))


class Bench:
    """A volume with a fetched model, a check of it, and a clock that tests move."""

    def __init__(self, folder: Path, triton: StubTriton, content: bytes | None = golden(*RIGHT)) -> None:
        self.now = 0.0
        self.volume = Volume(folder, boot="1")
        self.volume.prepare()
        self.content = content
        self.keep()
        settings = AgentSettings(admin_key="key", model_folder=folder)
        self.check = GoldenCheck(
            self.volume,
            Fetcher(settings, self.volume, lambda _wanted: Progress()),
            triton,
            lambda: self.now,
        )

    def keep(self, digest: str = PIN.digest, claim: Path | None = None) -> None:
        """Put the files into the place of fetched ones; with `claim`, as links to there."""
        with self.volume.scratch() as folder:
            place = claim or folder / "tree"
            (place / "1").mkdir(parents=True)
            (place / "1" / "model.onnx").write_bytes(b"graph")
            if self.content is not None:
                (place / "golden.json").write_bytes(self.content)
            mark = ""
            if claim:
                (folder / "tree" / "1").mkdir(parents=True)
                for name in ("golden.json", "1/model.onnx"):
                    (folder / "tree" / name).symlink_to(claim / name)
                mark = fingerprint(folder / "tree")
            self.volume.keep_fetched(WANTED.fetch_key, folder, Record(digest=digest, bytes=1, fingerprint=mark))

    async def run(self) -> GoldenReport | None:
        await self.check.run(WANTED)
        return self.check.known.report


async def test_each_sample_alone_and_those_of_one_shape_together(tmp_path: Path) -> None:
    triton = StubTriton()
    bench = Bench(tmp_path, triton)
    assert await bench.run() == PASSED
    assert triton.asked == [(1, 2), (1, 2), (1, 1), (2, 2)]
    assert bench.check.known == Golden(report=PASSED, due_at=None)


async def test_no_batch_is_larger_than_the_model_takes_and_none_is_of_one(tmp_path: Path) -> None:
    triton = StubTriton(model(max_batch_size=2))
    bench = Bench(tmp_path, triton, golden(*[([float(n)], [2.0 * n]) for n in range(5)]))
    assert await bench.run() == PASSED.model_copy(update={"samples": 5})
    assert triton.asked == [(1, 1)] * 5 + [(2, 1)] * 2


async def test_a_model_without_a_batch_axis_gets_each_sample_as_it_is(tmp_path: Path) -> None:
    triton = StubTriton(model(max_batch_size=0))
    assert await Bench(tmp_path, triton).run() == PASSED
    assert triton.asked == [(2,), (2,), (1,)]


async def test_an_answer_that_depends_on_its_neighbours_fails_and_is_named(tmp_path: Path) -> None:
    def answer(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        (right,) = double(inputs)
        array = right.array + (np.float32(0.5) if len(right.array) > 1 else np.float32(0))
        return (Tensor(name="y", datatype="FP32", array=array),)

    report = await Bench(tmp_path, StubTriton(answer=answer)).run()
    assert report is not None
    assert (report.outcome, report.samples, report.mismatches) == (GoldenOutcome.FAILED, 3, 2)
    assert report.message.startswith(
        "2 of 3 samples differ; sample 0 in a batch of 2: y[0] is 2.5, expected 2: off by 0.5, allowed 0.0021; 2 of 2"
    )


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 2), np.float32), "y has the shape [3, 2], which is no batch of 1"),
        (np.zeros((), np.float32), "y has the shape [], which is no batch of 1"),
        (np.zeros((1, 7), np.float32), "y is FP32 [7], expected FP32 [2]"),
    ],
)
async def test_an_answer_of_another_shape_fails(tmp_path: Path, array: Any, words: str) -> None:
    triton = StubTriton(answer=lambda _inputs: (Tensor(name="y", datatype="FP32", array=array),))
    report = await Bench(tmp_path, triton).run()
    assert report is not None
    assert (report.outcome, report.mismatches) == (GoldenOutcome.FAILED, 3)
    assert words in report.message


async def test_a_sample_that_triton_refuses_fails(tmp_path: Path) -> None:
    def answer(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        if inputs[0].shape == (1, 1):
            raise TritonRefusedError("unexpected shape for input 'x'")
        return double(inputs)

    report = await Bench(tmp_path, StubTriton(answer=answer)).run()
    assert report is not None
    assert (report.outcome, report.mismatches) == (GoldenOutcome.FAILED, 1)
    assert "sample 2: Triton does not answer it: unexpected shape for input 'x'" in report.message


def busy(_inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    raise TritonUnavailableError("Exceeds maximum queue size")


async def test_a_busy_triton_is_asked_again_later_and_at_last_that_is_said(tmp_path: Path) -> None:
    triton = StubTriton(answer=busy)
    bench = Bench(tmp_path, triton)
    pauses = []
    for attempt in range(1, golden_check.ATTEMPTS):
        assert await bench.run() is None
        assert bench.check.known.attempts == attempt
        assert bench.check.known.due_at is not None
        pauses.append(bench.check.known.due_at - bench.now)
        bench.now = bench.check.known.due_at
    assert all(0.75 * 2**n <= pause <= 2**n for n, pause in enumerate(pauses))
    report = await bench.run()
    assert report is not None
    assert (report.outcome, report.message) == (
        GoldenOutcome.ERROR,
        "Triton did not answer 6 times: Exceeds maximum queue size",
    )
    assert bench.check.known.due_at is not None
    triton.answer = double
    assert await bench.run() == PASSED


async def test_a_load_makes_what_was_shown_worthless(tmp_path: Path) -> None:
    bench = Bench(tmp_path, StubTriton())
    await bench.run()
    bench.check.forget()
    assert bench.check.known == Golden()


async def test_a_model_without_a_golden_set_is_asked_nothing(tmp_path: Path) -> None:
    triton = StubTriton(answer=busy)
    assert await Bench(tmp_path, triton, None).run() == GoldenReport(outcome=GoldenOutcome.ABSENT)
    assert triton.asked == []


@pytest.mark.parametrize(
    ("content", "signature", "words"),
    [
        (b"{", model(), "golden.json: it is no JSON"),
        (golden(([1], [2]), conch=[]), model(), "golden.json: conch is no object"),
        (golden(*RIGHT), model(one_answer=False), "golden.json: the model is decoupled or takes sequences"),
        (
            golden(*RIGHT),
            model(outputs={}),
            "golden.json: validation_data[0].y: the model has no such output; it has n",
        ),
    ],
)
async def test_what_cannot_be_replayed_is_an_error_that_says_why(
    tmp_path: Path, content: bytes, signature: ModelSignature, words: str
) -> None:
    bench = Bench(tmp_path, StubTriton(signature), content)
    report = await bench.run()
    assert report is not None
    assert report.outcome is GoldenOutcome.ERROR
    assert words in report.message
    assert bench.check.known.due_at is None


async def test_only_the_files_that_were_loaded_count(tmp_path: Path) -> None:
    bench = Bench(tmp_path, StubTriton())
    bench.keep(digest=f"sha256:{'b' * 64}")
    report = await bench.run()
    assert report is not None
    assert (report.outcome, report.message) == (
        GoldenOutcome.ERROR,
        "golden.json: the files of the model that is loaded are no longer on the volume",
    )


async def test_a_claims_set_is_read_where_it_lies_unless_it_was_written_to(tmp_path: Path) -> None:
    bench, claim = Bench(tmp_path / "volume", StubTriton()), tmp_path / "claim"
    bench.keep(claim=claim)
    assert await bench.run() == PASSED
    (claim / "golden.json").write_bytes(golden(([1], [9])))
    report = await bench.run()
    assert report is not None
    assert "written to since they were verified" in report.message


async def test_a_pipe_instead_of_the_file_ends_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, StubTriton())
    file = bench.volume.tree(WANTED.fetch_key) / "golden.json"
    file.unlink()
    os.mkfifo(file)
    report = await bench.run()
    assert report is not None
    assert report.message == "golden.json: it is no file"


async def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(golden_check, "_content", refuse)
    report = await Bench(tmp_path, StubTriton()).run()
    assert report is not None
    assert report.message == "golden.json cannot be read: Permission denied"


async def test_a_fault_of_the_agent_ends_in_a_report(tmp_path: Path) -> None:
    def broken(_inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        raise KeyError("x")

    bench = Bench(tmp_path, StubTriton(answer=broken))
    report = await bench.run()
    assert report is not None
    assert (report.outcome, bench.check.known.due_at) == (GoldenOutcome.ERROR, None)
    assert "the agent failed in an unexpected way: KeyError('x')" in report.message


async def test_a_model_that_takes_for_ever_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(StubTriton):
        async def infer(self, *_args: Any, **_more: Any) -> tuple[Tensor, ...]:
            await asyncio.sleep(60)
            return ()

    monkeypatch.setattr(golden_check, "REPLAY_SECONDS", 0.05)
    report = await Bench(tmp_path, Slow()).run()
    assert report is not None
    assert "did not answer its golden set within 0 s; make it smaller" in report.message


async def test_a_replay_that_is_cancelled_is_still_due(tmp_path: Path) -> None:
    class Hanging(StubTriton):
        async def infer(self, *_args: Any, **_more: Any) -> tuple[Tensor, ...]:
            await asyncio.sleep(60)
            return ()

    bench = Bench(tmp_path, Hanging())
    task = asyncio.ensure_future(bench.run())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.check.known == Golden()
