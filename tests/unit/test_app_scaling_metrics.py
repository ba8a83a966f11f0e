"""What Prometheus is told of autoscaled objects."""

from typing import Any, Final, cast

from prometheus_client import CollectorRegistry

from conch.api.autoscaling import AutoscalingStatus, ScalingReason
from conch.api.model_deployment import ModelDeployment
from conch.app.cluster_view import ClusterView
from conch.app.scaling_metrics import ScalingMetrics
from conch.core.scaling.view import ScalingView
from conch.kube.client import KubeClient

OBJECT: Final = {"namespace": "team", "name": "fraud"}
TOLD: Final = AutoscalingStatus(
    reason=ScalingReason.LOAD, demand=80, capacity_per_replica=40, late_percent=2, observed_at="2026-01-01T00:00:00Z"
)
DECIDED: Final = ScalingView(
    desired=5,
    reason=ScalingReason.SURGE,
    message="more comes",
    demand=180.0,
    capacity_per_replica=41.0,
    late_percent=6.5,
    cold_start_seconds=31.0,
)


class Scene:
    """What is scraped while the operator knows one object."""

    def __init__(
        self,
        *,
        autoscaling: dict[str, Any] | None = None,
        told: AutoscalingStatus | None = None,
        decided: ScalingView | None = None,
        **spec: Any,
    ) -> None:
        view = ClusterView(
            cast(KubeClient, None), on_change=lambda _: None, namespace="conch-system", gateway_ports=range(1, 9)
        )
        asked = {"autoscaling": autoscaling} if autoscaling else {}
        status = {"desiredReplicas": 3, **({"autoscaling": told.to_wire()} if told else {})}
        view.put_model_deployment(
            {
                "metadata": {**OBJECT, "uid": "u", "resourceVersion": "1"},
                "spec": {"model": {"version": 1, "source": {"uri": "https://m/m.onnx"}}, **asked, **spec},
                "status": status,
            }
        )
        self.asked_for: list[str] = []

        def scaling(owner: ModelDeployment) -> ScalingView | None:
            self.asked_for.append(owner.name)
            return decided

        self.registry = CollectorRegistry(auto_describe=True)
        self.registry.register(ScalingMetrics(view, scaling))

    def value(self, metric: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"conch_autoscaling_{metric}", {**OBJECT, **labels})

    def figures(self) -> tuple[float | None, ...]:
        names = ("desired_replicas", "demand", "capacity_per_replica", "late_percent", "cold_start_seconds")
        return tuple(self.value(name) for name in names)

    def samples(self) -> list[str]:
        return [sample.name for family in self.registry.collect() for sample in family.samples]


ASKED: Final = {"minReplicas": 0, "maxReplicas": 9, "objective": {"latencyMs": 200}}


def test_what_was_decided_is_told_as_it_is_now() -> None:
    scene = Scene(autoscaling=ASKED, told=TOLD, decided=DECIDED)
    assert scene.figures() == (5, 180, 41, 6.5, 31)
    assert (scene.value("min_replicas"), scene.value("max_replicas")) == (0, 9)
    assert scene.value("reason", reason="Surge") == 1
    assert scene.value("reason", reason="Load") is None


def test_before_a_leader_has_looked_the_status_tells() -> None:
    scene = Scene(autoscaling=ASKED, told=TOLD)
    assert scene.figures() == (3, 80, 40, 2, None)
    assert scene.value("reason", reason="Load") == 1


def test_what_is_not_known_is_not_told_as_zero() -> None:
    scene = Scene(autoscaling=ASKED)
    assert scene.figures() == (None,) * 5
    assert scene.samples() == ["conch_autoscaling_min_replicas", "conch_autoscaling_max_replicas"]


def test_nothing_is_told_of_objects_that_are_not_autoscaled() -> None:
    for scene in (Scene(replicas=3), Scene(autoscaling=ASKED, suspend=True, told=TOLD, decided=DECIDED)):
        assert scene.samples() == []
        assert scene.asked_for == []
