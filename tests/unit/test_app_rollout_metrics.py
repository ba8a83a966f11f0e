"""What Prometheus is told of models and rollouts."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from conch.api.command import Command, Verb
from conch.api.model_deployment import parse_status
from conch.api.rollout import CommandStatus, RollbackCause, RolloutPhase
from conch.api.status import ModelDeploymentStatus
from conch.app.cluster_view import ClusterView
from conch.app.operator import Operator
from conch.app.rollout_metrics import RolloutMetrics, count_changes
from conch.kube.client import KubeClient
from conch.kube.errors import ApiError
from conch.settings import ImageSettings, OperatorSettings
from tests.conftest import Golden
from tests.sim.world import World
from tests.support.model_in_rollout import CANDIDATE, NAME, NAMESPACE, RETIRING, STABLE, model_in_rollout
from tests.unit.test_app_reconcile import SPEC
from tests.unit.test_app_reconcile import Scene as Reconciling

FILES = Path(__file__).parents[1] / "golden" / "metrics"
OBJECT = {"namespace": NAMESPACE, "name": NAME}


class Scene:
    """What is scraped while the operator knows these objects."""

    def __init__(self, *bodies: dict[str, Any]) -> None:
        self.view = ClusterView(
            cast(KubeClient, None), on_change=lambda _: None, namespace="conch-system", gateway_ports=range(1, 9)
        )
        for body in bodies:
            assert self.view.put_model_deployment(body)
        self.registry = CollectorRegistry(auto_describe=True)
        self.registry.register(RolloutMetrics(self.view))

    def value(self, metric: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(metric, {**OBJECT, **labels})

    def labels(self, metric: str) -> list[dict[str, str]]:
        return [
            sample.labels for family in self.registry.collect() for sample in family.samples if sample.name == metric
        ]


def test_all_that_is_told_of_a_model_in_a_rollout(golden: Golden) -> None:
    golden(FILES / "model_in_rollout.txt", generate_latest(Scene(model_in_rollout()).registry).decode())


def test_a_model_that_has_no_status_yet_is_not_ready_and_has_no_rollout() -> None:
    scene = Scene({key: value for key, value in model_in_rollout().items() if key != "status"})
    assert scene.value("conch_model_ready") == 0
    assert scene.value("conch_model_desired_replicas") == 0
    assert scene.labels("conch_model_reason") == scene.labels("conch_rollout_phase") == []
    assert scene.labels("conch_workload_info") == []


def test_what_changes_or_goes_leaves_nothing_behind() -> None:
    scene = Scene(model_in_rollout(), model_in_rollout("other"))
    scene.view.put_model_deployment(model_in_rollout(phase=RolloutPhase.BAKING, resource_version=2))
    scene.view.drop_model_deployment((NAMESPACE, "other"), "uid-of-other")
    assert scene.labels("conch_rollout_phase") == [{**OBJECT, "phase": "Baking"}]
    assert {labels["name"] for family in scene.registry.collect() for labels in (s.labels for s in family.samples)} == {
        NAME
    }


@pytest.mark.parametrize("phase", RolloutPhase)
def test_checks_are_told_while_they_judge_and_the_end_once_it_is_over(phase: RolloutPhase) -> None:
    scene = Scene(model_in_rollout(phase=phase))
    assert scene.value("conch_rollout_phase", phase=phase.value) == 1
    assert scene.value("conch_rollout_started_timestamp_seconds") == datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    ended = scene.value("conch_rollout_finished_timestamp_seconds")
    if phase in (RolloutPhase.DRAINING, RolloutPhase.DONE, RolloutPhase.HALTED):
        assert ended == datetime(2026, 1, 1, 1, tzinfo=UTC).timestamp()
        assert scene.labels("conch_rollout_check_verdict") == []
    else:
        assert ended is None
        assert len(scene.labels("conch_rollout_check_verdict")) == 4


def test_no_sample_is_told_twice_though_checks_may_share_a_name_and_a_revision_may_have_two_workloads() -> None:
    body = model_in_rollout()
    body["status"]["traffic"][2]["revision"] = "aaaa000007"
    samples = [sample for family in Scene(body).registry.collect() for sample in family.samples]
    series = {(sample.name, *sorted(sample.labels.items())) for sample in samples}
    assert len(series) == len(samples)
    assert {labels["check"] for labels in Scene(body).labels("conch_rollout_check_verdict")} == {
        "goldenSet",
        "successRate",
        "latency absolute",
        "latency absolute (2)",
    }


@pytest.mark.parametrize(
    ("name", "label"),
    [
        *((name, name) for name in ("goldenSet", "successRate", "queueTime", "traffic", "shadowAnswers")),
        ("latency p99.125 relative", "latency relative"),
        ("latency p1 absolute", "latency absolute"),
        ("latency p95 relative </script>", "other"),
        ("x" * 256, "other"),
    ],
)
def test_the_label_of_a_check_holds_nothing_that_its_author_chooses_freely(name: str, label: str) -> None:
    body = model_in_rollout()
    body["status"]["rollout"]["checks"] = [{"name": name, "verdict": "Pass", "samples": 1}]
    assert {labels["check"] for labels in Scene(body).labels("conch_rollout_check_verdict")} == {label}


def test_every_workload_that_a_gateway_counts_for_is_named() -> None:
    told = {
        each["workload"]: (each["role"], each["version"])
        for each in Scene(model_in_rollout()).labels("conch_workload_info")
    }
    assert told == {STABLE: ("stable", "7"), CANDIDATE: ("candidate", "8"), RETIRING: ("retiring", "")}


async def test_only_who_leads_tells_of_objects_and_only_while_it_leads() -> None:
    operator = Operator(
        cast(KubeClient, None),
        OperatorSettings(images=ImageSettings(triton="triton", agent="agent")),
        namespace="conch-system",
        identity="a",
        installation_key=b"k" * 32,
        gateway_token=lambda: "t",
    )
    operator._view.put_model_deployment(model_in_rollout())
    assert REGISTRY.get_sample_value("conch_model_ready", OBJECT) is None
    for _ in range(2):
        leads = asyncio.create_task(operator._lead())
        await asyncio.sleep(0)
        assert REGISTRY.get_sample_value("conch_model_ready", OBJECT) == 0
        leads.cancel()
        with suppress(asyncio.CancelledError):
            await leads
        assert REGISTRY.get_sample_value("conch_model_ready", OBJECT) is None


def _status(change: Callable[[dict[str, Any]], None] = lambda _: None) -> ModelDeploymentStatus:
    status: dict[str, Any] = model_in_rollout()["status"]
    change(status)
    return parse_status(status)


def _over(cause: RollbackCause | None) -> ModelDeploymentStatus:
    def end(status: dict[str, Any]) -> None:
        phase = RolloutPhase.HALTED if cause else RolloutPhase.DRAINING
        status["rollout"] |= {"phase": phase, "finishedAt": "2026-01-01T01:00:00Z"} | (
            {"cause": cause} if cause else {}
        )

    return _status(end)


def _rollouts(outcome: str, cause: str) -> float:
    value = REGISTRY.get_sample_value("conch_rollouts_total", {"outcome": outcome, "cause": cause})
    assert value is not None, "known before it ever happens"
    return value


@pytest.mark.parametrize("cause", [None, *RollbackCause])
def test_a_rollout_that_is_over_is_counted_once(cause: RollbackCause | None) -> None:
    labels = ("rolled_back", cause.value) if cause else ("done", "")
    before = _rollouts(*labels)
    under_way, over = _status(), _over(cause)
    count_changes(ModelDeploymentStatus(), under_way)
    assert _rollouts(*labels) == before
    count_changes(under_way, over)
    assert _rollouts(*labels) == before + 1
    done = over.model_copy(update={"rollout": over.rollout and over.rollout.model_copy(update={"phase": "Done"})})
    count_changes(over, done)
    count_changes(done, under_way)
    assert _rollouts(*labels) == before + 1


def _commands(verb: str, accepted: bool) -> float:
    labels = {"command": verb, "accepted": str(accepted).lower()}
    value = REGISTRY.get_sample_value("conch_commands_total", labels)
    assert value is not None, "known before it ever happens"
    return value


@pytest.mark.parametrize("accepted", [True, False])
def test_a_command_is_counted_once_by_its_nonce(accepted: bool) -> None:
    def value() -> float:
        return _commands("promote", accepted)

    first, second = (
        _status().model_copy(update={"command": CommandStatus(nonce=nonce, command="promote", accepted=accepted)})
        for nonce in ("1", "2")
    )
    before = value()
    count_changes(_status(), first)
    count_changes(first, first)
    assert value() == before + 1
    count_changes(first, second)
    assert value() == before + 2


async def test_what_happens_is_counted_with_the_write_of_the_status_that_tells_it() -> None:
    world = World(spec=SPEC)
    world.settle()
    world.serve()
    world.settle()
    world.command = Command(command=Verb.PAUSE, rollout="none-such", nonce="1")
    scene = Reconciling(world)
    before = _commands("pause", False)
    scene.fail["status"] = ApiError(409, "Conflict", "another version", what="apply")
    await scene.reconcile()
    assert _commands("pause", False) == before
    await scene.reconcile()
    assert _commands("pause", False) == before + 1
