"""The whole stage on real graphs: what is tried, what is kept, what is left out, what stops it."""

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from conch.packaging.errors import PackagingError
from conch.packaging.graph.clean import to_bytes
from conch.packaging.graph.session import Runner
from conch.packaging.optimise import optimise as stage
from conch.packaging.optimise.latency import Latency
from conch.packaging.optimise.optimise import optimise
from conch.packaging.optimise.variants import Choice, Variant
from conch.packaging.request import HeldOut, Optimise
from conch.packaging.tensors import Tensors
from tests.unit import optimise_graphs as graphs

GRAPH = graphs.classifier()
DATA = graphs.held_out()
INPUTS = {"x": graphs.normal(1, 8, graphs.FEATURES)}
INT8 = Optimise(int8=True)


class Told:
    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, words: str) -> None:
        self.stages.append(words)

    def advance(self, done: int, total: int) -> None:
        assert 0 < done <= total


@pytest.fixture
def latencies(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Microseconds by name; what is not in it takes 100. No test here depends on this machine's speed."""
    found: dict[str, float] = {}

    def measured(runners: Mapping[str, Runner], inputs: Tensors, **_: Any) -> dict[str, Latency]:
        assert inputs is INPUTS
        return {name: Latency(one_us=found.get(name, 100), most_us=10 * found.get(name, 100)) for name in runners}

    monkeypatch.setattr(stage, "measure_latencies", measured)
    return found


def run(
    wishes: Optimise,
    *,
    graph: ModelProto = GRAPH,
    held_out: HeldOut | None = DATA,
    calibration: Tensors | None = None,
    **others: Any,
) -> tuple[Choice, tuple[Variant, ...]]:
    given: dict[str, Any] = {"inputs": INPUTS, "most_batch": 32} | others
    return optimise(graph, wishes=wishes, held_out=held_out, calibration=calibration, **given)


def names(variants: tuple[Variant, ...]) -> list[str]:
    return [each.name for each in variants]


@pytest.mark.usefixtures("latencies")
def test_nothing_asked_for() -> None:
    told = Told()
    choice, variants = run(Optimise(), progress=told)
    assert names(variants) == ["fp32"]
    assert choice.kept is variants[0]
    assert choice.reasons == {}
    (only,) = variants
    assert only.graph is GRAPH
    assert only.bytes == len(to_bytes(GRAPH))
    assert only.score is not None
    assert only.score.value > 0.8
    assert only.parity is None
    assert only.batch_deviation is not None
    assert only.batch_deviation < 1e-6
    assert told.stages == ["make and score fp32", "measure latency", "compare answers alone and in batches"]


@pytest.mark.usefixtures("latencies")
def test_nothing_asked_for_needs_no_data() -> None:
    choice, _ = run(Optimise(), held_out=None)
    assert choice.kept.score is None


def test_int8_is_kept_where_it_gains(latencies: dict[str, float]) -> None:
    latencies["int8 (static)"] = 50
    choice, variants = run(INT8)
    assert names(variants) == ["fp32", "int8 (dynamic)", "int8 (static)"]
    assert choice.kept.name == "int8 (static)"
    assert choice.reasons.keys() == {"fp32", "int8 (dynamic)"}
    fp32, dynamic, static = variants
    assert fp32.score is not None
    for each in (dynamic, static):
        assert each.bytes < fp32.bytes
        assert each.score is not None
        assert abs(each.score.value - fp32.score.value) < 0.02
        assert each.parity is not None
        assert 0 < each.parity.largest < 0.2
    assert dynamic.batch_deviation is not None
    assert static.batch_deviation is not None
    assert static.batch_deviation < 1e-6 < dynamic.batch_deviation


@pytest.mark.usefixtures("latencies")
def test_int8_that_gains_nothing_is_not_kept() -> None:
    choice, _ = run(INT8)
    assert choice.kept.name == "fp32"
    assert all(words.startswith("1.00 x as fast, less than 1.05 x") for words in choice.reasons.values())


def test_int8_that_loses_is_not_kept(latencies: dict[str, float]) -> None:
    latencies["int8 (static)"] = 10
    # Calibrated on what never occurs: nearly all activations are cut off.
    choice, variants = run(INT8, calibration={"x": DATA.inputs["x"] * 1e-3})
    assert choice.kept.name == "fp32"
    assert variants[2].score is not None
    assert "a drop of" in choice.reasons["int8 (static)"]
    assert f"-> {variants[2].score.value:.4f}" in choice.reasons["int8 (static)"]


@pytest.mark.parametrize("wishes", [INT8, Optimise(fp16=True), Optimise(prune=0.5)])
def test_without_held_out_data_everything_is_refused(wishes: Optimise) -> None:
    with pytest.raises(PackagingError, match=r"--optimise needs held-out data .*nobody measured is not kept"):
        run(wishes, held_out=None, calibration=INPUTS, pruned=GRAPH)


def test_pruning_of_a_finished_graph_is_refused() -> None:
    with pytest.raises(PackagingError, match="prune works on a torch module"):
        run(Optimise(prune=0.5))


def test_calibration_data_that_does_not_fit_stops_before_anything_is_measured(latencies: dict[str, float]) -> None:
    del latencies
    told = Told()
    with pytest.raises(PackagingError, match=r"'x' does not fit the graph: expected .*, found float32\[8,3\]"):
        run(INT8, calibration={"x": INPUTS["x"][:, :3]}, progress=told)
    assert told.stages == []


@pytest.mark.parametrize(
    ("wishes", "given", "expected"),
    [
        (INT8, None, DATA.inputs["x"]),
        (INT8, INPUTS, INPUTS["x"]),
    ],
    ids=["held-out", "given"],
)
@pytest.mark.usefixtures("latencies")
def test_what_calibrates(
    wishes: Optimise, given: Tensors | None, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensors] = []

    def static(graph: ModelProto, calibration: Tensors) -> ModelProto:
        seen.append(calibration)
        return graph

    monkeypatch.setattr(stage, "static_int8", static)
    run(wishes, calibration=given)
    (calibration,) = seen
    assert np.array_equal(calibration["x"], expected)


@pytest.mark.usefixtures("latencies")
def test_what_cannot_be_made_is_left_out_with_its_reason() -> None:
    once, _ = run(INT8)
    quantised = next(each for each in run(INT8)[1] if each.name == "int8 (static)").graph
    assert once.kept.name == "fp32"
    choice, variants = run(Optimise(int8=True, fp16=True), graph=quantised)
    assert "fp32" in names(variants)
    assert "int8 (static)" not in names(variants)
    for name in ("int8 (dynamic)", "int8 (static)"):
        assert choice.reasons[name].startswith("the graph is quantised already")


@pytest.mark.usefixtures("latencies")
def test_a_variant_that_gives_no_numbers_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: ModelProto) -> ModelProto:
        copy = ModelProto()
        copy.CopyFrom(graph)
        for weight in copy.graph.initializer:
            if weight.name == "b2":
                weight.CopyFrom(numpy_helper.from_array(np.full(graphs.CLASSES, np.nan, np.float32), "b2"))
        return copy

    monkeypatch.setattr(stage, "dynamic_int8", broken)
    choice, variants = run(INT8)
    assert names(variants) == ["fp32", "int8 (static)"]
    assert choice.reasons["int8 (dynamic)"] == (
        "the output 'logits' is NaN for 256 of 256 held-out samples, the first is sample 0"
    )


@pytest.mark.usefixtures("latencies")
def test_a_model_that_gives_no_numbers_stops() -> None:
    graph = graphs.classifier()
    graph.graph.initializer[-1].CopyFrom(numpy_helper.from_array(np.full(graphs.CLASSES, np.nan, np.float32), "b2"))
    with pytest.raises(PackagingError, match="'logits' is NaN for 256 of 256"):
        run(INT8, graph=graph)


@pytest.mark.usefixtures("latencies")
def test_fp16_that_cannot_be_checked_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str | None:
        raise PackagingError("no types")

    monkeypatch.setattr(stage, "beyond_fp16", fail)
    choice, _ = run(Optimise(fp16=True))
    assert choice.reasons == {"fp16": "whether its numbers fit into FP16 cannot be told: no types"}


@pytest.mark.usefixtures("latencies")
def test_empty_calibration_data_is_not_replaced_in_silence() -> None:
    with pytest.raises(PackagingError, match="there is no calibration data"):
        run(INT8, calibration={})


@pytest.mark.usefixtures("latencies")
def test_no_room_stops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(PackagingError, match="needs room"):
        run(INT8)


@pytest.mark.usefixtures("latencies")
def test_numbers_that_fp16_does_not_hold_are_seen_though_the_cpu_calculates_right() -> None:
    graph = graphs.classifier()
    graph.graph.node[-1].output[0] = "small"
    for name, factor in (("up", 30_000.0), ("down", 1 / 30_000)):
        graph.graph.initializer.append(numpy_helper.from_array(np.array([factor], np.float32), name))
    graph.graph.node.extend(
        [
            helper.make_node("Mul", ["small", "up"], ["large"], name="large"),
            helper.make_node("Mul", ["large", "up"], ["larger"], name="larger"),
            helper.make_node("Mul", ["larger", "down"], ["less"], name="less"),
            helper.make_node("Mul", ["less", "down"], ["logits"], name="logits"),
        ]
    )
    choice, variants = run(Optimise(fp16=True), graph=graph)
    assert names(variants) == ["fp32"]
    assert re.match(
        r"the tensor 'larger' reaches [\d,]+ on held-out data, and FP16 ends at 65,504", choice.reasons["fp16"]
    )


def test_fp16_is_kept_when_asked(latencies: dict[str, float]) -> None:
    latencies["fp16"] = 900
    choice, variants = run(Optimise(fp16=True))
    assert names(variants) == ["fp32", "fp16"]
    assert choice.kept.name == "fp16"
    assert "on a GPU" in choice.why


def test_pruned_graphs_are_quantised_too(latencies: dict[str, float]) -> None:
    latencies.update({"pruned": 40, "pruned, int8 (static)": 60})
    smaller = graphs.classifier()
    choice, variants = run(Optimise(int8=True, prune=0.5), pruned=smaller)
    assert names(variants) == [
        "fp32",
        "pruned",
        "int8 (dynamic)",
        "int8 (static)",
        "pruned, int8 (dynamic)",
        "pruned, int8 (static)",
    ]
    assert choice.kept.name == "pruned"
    assert choice.kept.graph is smaller
    assert [each.origin for each in variants[4:]] == ["pruned", "pruned"]


def test_held_out_data_that_does_not_fit_stops() -> None:
    with pytest.raises(PackagingError, match="tensor 'x' has 3 samples: expected 256"):
        run(INT8, held_out=replace(DATA, inputs={"x": DATA.inputs["x"][:3]}))


def ticking() -> Callable[[], int]:
    """A clock that goes on by a millisecond each time somebody looks."""
    now = iter(range(0, 10**12, 10**6))
    return lambda: next(now)


def test_without_a_batch_axis() -> None:
    graph = graphs.classifier(batch=1)
    choice, variants = optimise(
        graph,
        wishes=INT8,
        held_out=DATA,
        calibration=None,
        inputs={"x": DATA.inputs["x"][:1]},
        most_batch=0,
        clock=ticking(),
    )
    assert names(variants) == ["fp32", "int8 (dynamic)", "int8 (static)"]
    assert {each.batch_deviation for each in variants} == {0.0}
    # By that clock every run takes as long as every other.
    assert {each.latency for each in variants} == {Latency(one_us=1000, most_us=1000)}
    assert choice.kept.name == "fp32"


def test_one_sample_is_too_few_to_tell() -> None:
    _, (only,) = optimise(
        GRAPH,
        wishes=Optimise(),
        held_out=None,
        calibration=None,
        inputs={"x": INPUTS["x"][:1]},
        most_batch=32,
        clock=ticking(),
    )
    assert only.batch_deviation is None
