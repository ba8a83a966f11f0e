"""`spec.autoscaling` as users write it, and `status.autoscaling` as another version of Conch may have written it."""

from typing import Any

import pytest

from conch.api.autoscaling import (
    Autoscaling,
    AutoscalingStatus,
    PolicySelect,
    PolicyType,
    ScalingDecision,
    ScalingReason,
    TargetMetric,
)
from conch.api.model_deployment import InvalidSpec, parse_spec, parse_status
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import ModelDeploymentStatus
from conch.core.revision import revision_of
from conch.core.scaling.settings import Metric, scaling_settings

MODEL: dict[str, Any] = {"version": 3, "source": {"uri": "https://models.example/a.onnx"}}
OBJECTIVE = {"maxReplicas": 8, "objective": {"latencyMs": 200}}


def _asked(wire: dict[str, Any]) -> Autoscaling:
    spec = parse_spec({"model": MODEL, "autoscaling": wire})
    assert isinstance(spec, ModelDeploymentSpec), spec
    assert spec.autoscaling is not None
    return spec.autoscaling


def test_what_is_not_given_has_a_default() -> None:
    asked = _asked(OBJECTIVE)
    assert asked.effective_min_replicas == 1
    assert asked.effective_idle_seconds is None
    assert not asked.paused
    settings = scaling_settings(asked)
    assert (settings.metric, settings.value, settings.percentile) == (Metric.LATENCY, 200, 95)
    assert (settings.minimum, settings.maximum, settings.behavior) == (1, 8, None)
    assert settings.late_share == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("wire", "idle_seconds"),
    [
        ({"minReplicas": 0}, 300),
        ({"minReplicas": 0, "scaleToZero": {}}, 300),
        ({"minReplicas": 0, "scaleToZero": {"idleSeconds": 30}}, 30),
        ({"minReplicas": 1}, None),
        ({}, None),
    ],
)
def test_only_a_minimum_of_zero_lets_the_last_server_go(wire: dict[str, Any], idle_seconds: int | None) -> None:
    settings = scaling_settings(_asked({**OBJECTIVE, **wire}))
    assert settings.idle_seconds == idle_seconds
    assert settings.least == 1, "as long as somebody asks"


@pytest.mark.parametrize("metric", TargetMetric)
def test_a_target_is_read_as_it_is(metric: TargetMetric) -> None:
    settings = scaling_settings(_asked({"maxReplicas": 8, "target": {"metric": metric, "value": 2.5}}))
    assert (settings.metric.value, settings.value) == (metric.value, 2.5)


def test_behavior_has_the_words_of_the_horizontal_pod_autoscaler() -> None:
    policy = {"type": "Percent", "value": 100, "periodSeconds": 15}
    down = {"stabilizationWindowSeconds": 300, "selectPolicy": "Disabled"}
    behavior = _asked({**OBJECTIVE, "behavior": {"scaleUp": {"policies": [policy]}, "scaleDown": down}}).behavior
    assert behavior is not None
    assert behavior.scale_up is not None
    assert behavior.scale_up.select_policy is PolicySelect.MAX
    assert [(each.type, each.value, each.period_seconds) for each in behavior.scale_up.policies] == [
        (PolicyType.PERCENT, 100, 15)
    ]
    assert behavior.scale_down is not None
    assert behavior.scale_down.select_policy is PolicySelect.DISABLED
    assert behavior.scale_down.stabilization_window_seconds == 300


@pytest.mark.parametrize(
    ("wire", "path"),
    [
        ({}, "autoscaling.maxReplicas"),
        ({**OBJECTIVE, "maxReplicas": 0}, "autoscaling.maxReplicas"),
        ({**OBJECTIVE, "objective": {"latencyMs": 0}}, "autoscaling.objective.latencyMs"),
        ({**OBJECTIVE, "objective": {"latencyMs": 5, "percentile": 100}}, "autoscaling.objective.percentile"),
        ({"maxReplicas": 8, "target": {"metric": "Cpu", "value": 1}}, "autoscaling.target.metric"),
        ({"maxReplicas": 8, "target": {"metric": "Concurrency", "value": 0}}, "autoscaling.target.value"),
        ({**OBJECTIVE, "scaleToZero": {"idleSeconds": 9}}, "autoscaling.scaleToZero.idleSeconds"),
    ],
)
def test_what_cannot_be_read_is_named(wire: dict[str, Any], path: str) -> None:
    spec = parse_spec({"model": MODEL, "autoscaling": wire})
    assert isinstance(spec, InvalidSpec)
    assert f"spec.{path}: " in spec.message


def test_neither_objective_nor_target_is_said_as_what_is_missing() -> None:
    with pytest.raises(ValueError, match="either objective or target"):
        scaling_settings(_asked({"maxReplicas": 8}))


def test_how_many_servers_there_are_is_no_part_of_what_they_are() -> None:
    specs = [parse_spec({"model": MODEL, **each}) for each in ({}, {"replicas": 3}, {"autoscaling": OBJECTIVE})]
    assert len({revision_of(spec) for spec in specs if isinstance(spec, ModelDeploymentSpec)}) == 1


def test_what_was_decided_survives_being_written_and_read() -> None:
    decision = ScalingDecision(at="2026-01-01T00:00:00Z", before=1, after=4, reason=ScalingReason.SURGE, message="more")
    autoscaling = AutoscalingStatus(
        reason=ScalingReason.STABILISING, demand=12.5, observed_at="2026-01-01T00:00:00Z", decisions=(decision,)
    )
    status = ModelDeploymentStatus(desired_replicas=4, autoscaling=autoscaling)
    assert parse_status(status.to_wire()) == status


def test_a_reason_of_a_newer_version_costs_what_was_known_of_the_load_and_nothing_else() -> None:
    wire = ModelDeploymentStatus(
        desired_replicas=4, autoscaling=AutoscalingStatus(reason=ScalingReason.LOAD, observed_at="2026-01-01T00:00:00Z")
    ).to_wire()
    wire["autoscaling"]["reason"] = "OfTomorrow"
    status = parse_status(wire)
    assert (status.desired_replicas, status.autoscaling) == (4, None)
