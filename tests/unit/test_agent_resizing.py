"""Giving a loaded model its instances: what is asked of Triton, and what is said when that does not come about."""

from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf import json_format

from conch.agent.fetcher import Fetcher
from conch.agent.resizing import Resizer
from conch.agent.state import Resizing
from conch.agent.volume import Record, Volume
from conch.agent.wanted import Wanted
from conch.api.assignment import Assignment
from conch.api.model import ModelConfig, ModelSource
from conch.triton.client import TritonClient
from conch.triton.config_pbtxt import format_config, parse_config, served_config
from conch.triton.errors import TritonRefusedError, TritonUnavailableError
from conch.triton.instances import instance_groups
from conch.triton.layout import CONFIG

PLAIN = 'backend: "onnxruntime" instance_group { count: 2 kind: KIND_CPU }'
DIGEST = f"sha256:{'a' * 64}"


def wanted(instances: int | None) -> Wanted:
    source = ModelSource(uri="https://h.example/m.onnx", digest=DIGEST)
    return Wanted.of(Assignment(revision="r1", name="mlp", version=1, source=source, instances=instances))


class FakeTriton:
    """Runs what it was given last, or fails as the test says: one outcome for each load."""

    def __init__(self, *outcomes: Exception | None) -> None:
        self.outcomes = list(outcomes)
        self.given: list[list[int] | None] = []
        """The counts of each load's configuration; None for a load of what lies in the repository."""
        self.running: Any = parse_config(PLAIN)
        self.deaf = False
        self.timeouts: set[float] = set()

    async def load(self, name: str, *, timeout_seconds: float, config: str | None = None) -> None:
        assert name == "mlp"
        self.timeouts.add(timeout_seconds)
        given = None if config is None else json_format.Parse(config, type(self.running)())
        self.given.append(None if given is None else [group.count for group in given.instance_group])
        if self.outcomes and (outcome := self.outcomes.pop(0)) is not None:
            raise outcome
        if given is not None and not self.deaf:
            self.running = given

    async def config(self, name: str, version: int | None) -> Any:
        assert (name, version) == ("mlp", 1)
        return self.running


class Scene:
    """A volume with a laid out model."""

    def __init__(self, folder: Path, triton: FakeTriton, *, config: str = PLAIN, layout: str = "") -> None:
        self.volume = Volume(folder)
        self.volume.prepare()
        self.triton = triton
        self.now = 100.0
        self.unchanged = True
        key = wanted(None).layout_key
        served = served_config(parse_config(config), ModelConfig(), name="mlp", version=1, layout=layout or key)
        with self.volume.scratch() as scratch:
            (scratch / "mlp").mkdir()
            (scratch / "mlp" / CONFIG).write_text(format_config(served))
            self.volume.keep_layout(layout or key, scratch, ["mlp"])
        with self.volume.scratch() as scratch:
            tree = scratch / "fetched"
            tree.mkdir()
            self.volume.keep_fetched(wanted(None).fetch_key, tree, Record(digest=DIGEST, bytes=1))
        self.resizer = Resizer(
            self.volume,
            cast(Fetcher, self),
            cast(TritonClient, triton),
            lambda: self.now,
            timeout_seconds=77,
        )

    def is_unchanged(self, _wanted: Wanted, record: Record) -> bool:
        assert record.digest == DIGEST
        return self.unchanged

    async def run(self, instances: int | None) -> Resizing:
        await self.resizer.run(wanted(instances))
        return self.resizer.known


async def test_the_number_is_changed_and_taken_back(tmp_path: Path) -> None:
    scene = Scene(tmp_path, FakeTriton())
    assert await scene.run(3) == Resizing()
    running = instance_groups(scene.triton.running)
    assert running is not None
    assert (running.counts, running.overridden) == ((3,), True)
    assert await scene.run(None) == Resizing()
    assert (scene.triton.given, scene.triton.timeouts) == ([[3], [2]], {77})
    running = instance_groups(scene.triton.running)
    assert running is not None
    assert not running.overridden


async def test_a_refusal_is_kept_in_tritons_words_until_it_is_forgotten(tmp_path: Path) -> None:
    scene = Scene(tmp_path, FakeTriton(TritonRefusedError("out of memory" + "x" * 5000)))
    known = await scene.run(3)
    assert known.refused.startswith("Triton does not run 'mlp' with 3 instances and serves on with 2: out of memoryx")
    assert (len(known.refused), known.due_at) == (1024, None)
    scene.resizer.forget()
    assert scene.resizer.known == Resizing()


async def test_a_triton_that_does_not_answer_is_asked_again_ever_later(tmp_path: Path) -> None:
    scene = Scene(tmp_path, FakeTriton(*[TritonUnavailableError("gone")] * 9))
    pauses = []
    for attempt in range(1, 10):
        known = await scene.run(3)
        assert (known.refused, known.attempts) == ("", attempt)
        assert known.due_at is not None
        pauses.append(known.due_at - scene.now)
    assert 0.75 <= pauses[0] <= 1
    assert 22 <= pauses[-1] <= 30
    assert await scene.run(3) == Resizing()


@pytest.mark.parametrize(
    ("fields", "changes", "words"),
    [
        ({"config": 'platform: "ensemble"'}, {}, "'mlp' is an ensemble, which has no instances of its own"),
        ({"layout": "another"}, {}, "the files of 'mlp' on the model volume are not those that are loaded"),
        ({}, {"unchanged": False}, "on the claim were written to after they were verified"),
    ],
)
async def test_what_must_not_be_changed_is_not_asked_of_triton(
    tmp_path: Path, fields: dict[str, str], changes: dict[str, bool], words: str
) -> None:
    scene = Scene(tmp_path, FakeTriton(), **fields)
    scene.unchanged = changes.get("unchanged", True)
    known = await scene.run(3)
    assert words in known.refused
    assert known.due_at is None
    assert scene.triton.given == []


async def test_a_model_that_is_no_longer_laid_out_is_left_as_it_is(tmp_path: Path) -> None:
    scene = Scene(tmp_path, FakeTriton())
    scene.volume.drop_layout(wanted(None).layout_key)
    assert "are not those that are loaded" in (await scene.run(3)).refused
    assert scene.triton.given == []


async def test_an_answer_that_is_not_true_is_told(tmp_path: Path) -> None:
    triton = FakeTriton()
    triton.deaf = True
    assert (await Scene(tmp_path, triton).run(3)).refused == "Triton took 3 instances for 'mlp', but runs 2"


async def test_whatever_goes_wrong_is_told_and_not_tried_for_ever(tmp_path: Path) -> None:
    known = await Scene(tmp_path, FakeTriton(ZeroDivisionError("why"))).run(3)
    assert known.refused == "the agent failed in an unexpected way: ZeroDivisionError('why')"
    assert known.due_at is None
    scene = Scene(tmp_path / "other", FakeTriton())
    (scene.volume.repository / "mlp" / CONFIG).write_text("this is none")
    assert "the configuration of 'mlp' cannot be read from the model volume" in (await scene.run(3)).refused


@pytest.mark.parametrize(
    ("config", "instances", "given"),
    [(PLAIN, None, [None]), (PLAIN, 3, [[3]]), ('platform: "ensemble"', 3, [None])],
)
async def test_a_load_has_the_number_at_once(
    tmp_path: Path, config: str, instances: int | None, given: list[list[int] | None]
) -> None:
    scene = Scene(tmp_path, FakeTriton(), config=config)
    await scene.run(9)
    scene.triton.given.clear()
    await scene.resizer.load(wanted(instances))
    assert (scene.triton.given, scene.resizer.known) == (given, Resizing())


async def test_a_load_that_is_refused_with_the_number_goes_on_without(tmp_path: Path) -> None:
    scene = Scene(tmp_path, FakeTriton(TritonRefusedError("out of memory")))
    await scene.resizer.load(wanted(3))
    known = scene.resizer.known
    assert known.refused == "Triton does not load 'mlp' with 3 instances, so it serves as configured: out of memory"
    assert (scene.triton.given, known.due_at) == ([[3], [2]], None)
    broken = Scene(tmp_path / "broken", FakeTriton(TritonRefusedError("one"), TritonRefusedError("two")))
    with pytest.raises(TritonRefusedError, match="two"):
        await broken.resizer.load(wanted(3))
    assert broken.resizer.known == Resizing()
