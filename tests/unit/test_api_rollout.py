"""`spec.rollout` as it is read: bounds, defaults, and what a rollout in `status` survives."""

from typing import Any

import pytest
from pydantic import ValidationError

from conch.api.analysis import Check
from conch.api.model_deployment import InvalidSpec, parse_spec, parse_status
from conch.api.rollout import Pause, Rollout, RolloutPhase, RolloutStatus, Step, Strategy
from conch.api.spec import ModelDeploymentSpec

MODEL: dict[str, Any] = {"version": 1, "source": {"uri": "https://models.example/a.onnx"}}


def read(**rollout: Any) -> ModelDeploymentSpec | InvalidSpec:
    return parse_spec({"model": MODEL, "rollout": rollout})


def test_defaults() -> None:
    spec = parse_spec({"model": MODEL})
    assert isinstance(spec, ModelDeploymentSpec)
    rollout = spec.rollout
    assert (rollout.strategy, rollout.steps, rollout.analysis, rollout.paused) == (Strategy.AUTO, (), None, False)
    assert (
        rollout.effective_progress_deadline_seconds,
        rollout.effective_keep_warm_seconds,
        rollout.effective_revision_history_limit,
    ) == (600, 30, 5)


def test_zero_is_not_the_default() -> None:
    rollout = Rollout(keep_warm_seconds=0, revision_history_limit=0)
    assert (rollout.effective_keep_warm_seconds, rollout.effective_revision_history_limit) == (0, 0)


def test_everything_can_be_given() -> None:
    spec = read(
        strategy="Surge",
        steps=[{"weight": 5, "pauseSeconds": 60}, {"weight": 50, "pause": "UntilPromoted"}, {"weight": 50}],
        analysis=[
            {"successRate": {"minimumPercent": 99.5}, "minimumSamples": 500},
            {"latency": {"percentile": 95, "maxRatioToStable": 1.5}},
            {"queueTime": {"maxMilliseconds": 20}},
            {"goldenSet": {}},
        ],
        progressDeadlineSeconds=1200,
        keepWarmSeconds=300,
        revisionHistoryLimit=2,
        paused=True,
    )
    assert isinstance(spec, ModelDeploymentSpec), spec
    assert spec.rollout.steps == (
        Step(weight=5, pause_seconds=60),
        Step(weight=50, pause=Pause.UNTIL_PROMOTED),
        Step(weight=50),
    )
    assert [check.name for check in spec.rollout.analysis or ()] == [
        "successRate",
        "latency p95 relative",
        "queueTime",
        "goldenSet",
    ]
    assert ModelDeploymentSpec.model_validate(spec.to_wire()) == spec


@pytest.mark.parametrize(
    ("field", "least", "most"),
    [
        ("progressDeadlineSeconds", 1, 604_800),
        ("keepWarmSeconds", 0, 604_800),
        ("revisionHistoryLimit", 0, 50),
    ],
)
def test_numbers_are_bounded(field: str, least: int, most: int) -> None:
    for good in (least, most):
        assert isinstance(read(**{field: good}), ModelDeploymentSpec)
    for bad in (least - 1, most + 1):
        refused = read(**{field: bad})
        assert isinstance(refused, InvalidSpec)
        assert f"spec.rollout.{field}" in refused.message


@pytest.mark.parametrize(
    "step",
    [
        {"weight": 0},
        {"weight": 100},
        {"weight": 10, "pauseSeconds": -1},
        {"weight": 10, "pauseSeconds": 604_801},
        {"weight": 10, "pause": "ForEver"},
        {"weight": 10, "more": 1},
        {"pauseSeconds": 10},
        {"weight": 10.5},
    ],
)
def test_a_step_that_makes_no_sense_is_refused(step: dict[str, Any]) -> None:
    refused = read(steps=[step])
    assert isinstance(refused, InvalidSpec)
    assert "spec.rollout.steps.0" in refused.message


@pytest.mark.parametrize(
    "check",
    [
        {"successRate": {"minimumPercent": 100}},
        {"successRate": {"minimumPercent": -0.1}},
        {"successRate": {}},
        {"latency": {"percentile": 0.5, "maxMilliseconds": 10}},
        {"latency": {"percentile": 99.95, "maxMilliseconds": 10}},
        {"latency": {"percentile": 95, "maxMilliseconds": 0}},
        {"latency": {"percentile": 95, "maxMilliseconds": 3_600_001}},
        {"latency": {"percentile": 95, "maxRatioToStable": 0.9}},
        {"latency": {"percentile": 95, "maxRatioToStable": 101}},
        {"queueTime": {"maxMilliseconds": 0}},
        {"goldenSet": {"policy": "Sometimes"}},
        {"successRate": {"minimumPercent": 99}, "minimumSamples": 0},
        {"successRate": {"minimumPercent": 99}, "minimumSamples": 1_000_001},
        {"unknown": {}},
    ],
)
def test_a_check_that_makes_no_sense_is_refused(check: dict[str, Any]) -> None:
    refused = read(analysis=[check])
    assert isinstance(refused, InvalidSpec)
    assert "spec.rollout.analysis.0" in refused.message


@pytest.mark.parametrize(
    ("field", "item", "most"), [("steps", {"weight": 10}, 20), ("analysis", {"goldenSet": {}}, 10)]
)
def test_lists_are_bounded(field: str, item: dict[str, Any], most: int) -> None:
    assert isinstance(read(**{field: [item] * most}), ModelDeploymentSpec)
    assert isinstance(read(**{field: [item] * (most + 1)}), InvalidSpec)


@pytest.mark.parametrize("field", ["strategy", "unknown"])
def test_what_is_unknown_is_refused(field: str) -> None:
    assert isinstance(read(**{field: "BlueGreen"}), InvalidSpec)


def test_checks_are_told_apart_by_their_names() -> None:
    wires: list[dict[str, Any]] = [
        {"latency": {"percentile": 99.9, "maxMilliseconds": 300}},
        {"latency": {"percentile": 50, "maxMilliseconds": 300}},
        {"latency": {"percentile": 50, "maxRatioToStable": 2}},
    ]
    names = [Check.model_validate(wire).name for wire in wires]
    assert names == ["latency p99.9 absolute", "latency p50 absolute", "latency p50 relative"]


def test_a_rollout_in_status_reads_back_as_it_was_written() -> None:
    rollout = RolloutStatus(
        id="w2",
        revision="new",
        from_revision="old",
        strategy=Strategy.REPLACE,
        steps=(Step(weight=10, pause=Pause.UNTIL_PROMOTED),),
        phase=RolloutPhase.SHIFTING,
        weight=33,
        started_at="2026-01-01T00:00:00Z",
    )
    assert parse_status({"rollout": rollout.to_wire()}).rollout == rollout


@pytest.mark.parametrize("field", ["weight", "step", "candidateReplicas"])
def test_numbers_in_status_are_bounded(field: str) -> None:
    good = {"id": "a", "revision": "b", "fromRevision": "c", "strategy": "Surge", "phase": "Done", "startedAt": "t"}
    assert RolloutStatus.model_validate(good)
    with pytest.raises(ValidationError):
        RolloutStatus.model_validate({**good, field: -1})


def test_a_shadow_has_defaults_and_bounds() -> None:
    spec = read(shadow={"percent": 10})
    assert isinstance(spec, ModelDeploymentSpec), spec
    shadow = spec.rollout.shadow
    assert shadow
    assert (shadow.effective_min_samples, shadow.effective_max_disagreement) == (100, 0)
    assert ModelDeploymentSpec.model_validate(spec.to_wire()) == spec
    everything = {
        "percent": 100,
        "minSamples": 1,
        "maxDisagreement": 99.9,
        "tolerance": {"absolute": 0, "relative": 0.5},
        "outputs": [{"output": "scores", "sameLabel": True}],
        "latency": {"percentile": 99, "maxMilliseconds": 300},
    }
    assert isinstance(read(shadow=everything), ModelDeploymentSpec)
    for wrong in (
        {},
        {"percent": 0},
        {"percent": 101},
        {"percent": 1, "minSamples": 0},
        {"percent": 1, "maxDisagreement": 100},
        {"percent": 1, "tolerance": {"absolute": -1}},
        {"percent": 1, "more": 1},
    ):
        assert isinstance(read(shadow=wrong), InvalidSpec), wrong
