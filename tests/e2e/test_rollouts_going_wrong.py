"""Rollouts in which something breaks, with real Triton and Envoy: the candidate, the stable revision, the operators."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.client import Cluster
from tests.e2e.conftest import Namespace
from tests.e2e.operators import AFTER_KILL_SECONDS, kill_operators
from tests.e2e.versioned_model import NAME, Model, lost, seconds_between
from tests.support import versions
from tests.support.gateways import lossless_load
from tests.support.installation import VALUES
from tests.support.model_store import ModelStore
from tests.support.waiting import until

# Beyond what all waits of a test take on a busy machine, so that they tell what did not come.
pytestmark = pytest.mark.timeout(600)

LOST_PATIENCE_SECONDS: int = yaml.safe_load(VALUES.read_text())["modelPods"]["stableLostPatienceSeconds"]
STEPS = [{"weight": 25, "pauseSeconds": 2}, {"weight": 50, "pause": "UntilPromoted"}]


@pytest.fixture
def model(namespace: Namespace, store: ModelStore) -> Model:
    """Not deployed yet."""
    return Model(namespace, store)


@pytest.mark.alone
def test_a_slow_and_a_crashing_version_go_back_by_themselves_and_touch_nothing(
    namespace: Namespace, model: Model, tmp_path: Path
) -> None:
    model.begin()
    pods = model.pods("stable")
    with lossless_load(namespace.address(NAME), NAME, tmp_path, rate_per_second=40, duration_seconds=580) as load:
        load.mark("slow")
        compared = {"latency": {"percentile": 90, "maxRatioToStable": 2}, "minimumSamples": 30}
        slow = [{"weight": 25, "pauseSeconds": 600}]
        model.deploy(2, versions.slow(2, delay_seconds=0.06), steps=slow, analysis=[compared])
        model.wait_back("AnalysisFailed")
        message = namespace.wait_reason(NAME, "AnalysisFailed")
        told = model.checks["latency p90 relative"]
        assert told["verdict"] == "Fail"
        assert told["value"] > told["limit"]
        assert told["samples"] >= 10
        assert told["message"] in message

        load.mark("applied again")
        created = model.status["workloadsCreated"]
        model.edit(revisionHistoryLimit=6)
        namespace.wait_reason(NAME, "AnalysisFailed")
        assert "candidate" not in model.status
        assert model.status["workloadsCreated"] == created

        load.mark("crashing")
        model.deploy(3, versions.crashing(3), progressDeadlineSeconds=40)
        model.wait_back("CandidateFailed")
        assert "Stub" in namespace.wait_reason(NAME, "CandidateFailed"), "in Triton's own words"
        assert model.pods("stable") == pods
        assert [_restarts(pod) for pod in namespace.pods(NAME)] == [0, 0]
        assert namespace.condition(NAME, "Available")["status"] == "True"
        result = load.stop()
    assert model.rejected == ["AnalysisFailed", "CandidateFailed"]
    assert lost(result) == ""


def _restarts(pod: dict[str, Any]) -> int:
    status = pod["status"]
    return sum(each["restartCount"] for each in (*status["initContainerStatuses"], *status["containerStatuses"]))


@pytest.mark.alone
@pytest.mark.timeout(900)
def test_operators_die_again_and_again_and_then_the_stable_revision_does(
    namespace: Namespace, model: Model, cluster: Cluster, tmp_path: Path
) -> None:
    model.begin()
    with lossless_load(namespace.address(NAME), NAME, tmp_path, rate_per_second=30, duration_seconds=880) as load:
        load.mark("killed at its start")
        # Long enough to be seen by who asks now and then.
        model.deploy(2, versions.MODEL, steps=[{"weight": 25, "pauseSeconds": 15}, STEPS[1]])
        id_ = until(
            lambda: model.status.get("candidate", {}).get("workload"), "its first pods", seconds=AFTER_KILL_SECONDS
        )
        kill_operators(cluster)
        load.mark("killed at a step")
        model.wait_step(75, 25)
        kill_operators(cluster)
        load.mark("killed on the way to all of it")
        model.wait_until_promoted()
        assert (model.status["rollout"]["id"], model.status["rollout"]["step"]) == (id_, 1)
        model.conch("promote")
        kill_operators(cluster)
        model.wait_served(2)
        load.mark("killed on the way back")
        model.deploy(3, versions.MODEL, steps=STEPS)
        model.wait_until_promoted()
        model.conch("abort")
        kill_operators(cluster)
        model.wait_back("Aborted")
        assert model.status["workloadsCreated"] == 3, "none was brought up twice"

        load.mark("stable lost")
        model.deploy(4, versions.MODEL, steps=STEPS)
        model.wait_until_promoted()
        model.spoil(2)
        namespace.cluster.kubectl("delete", "pod", *model.pods("stable"), "-n", namespace.name, "--wait=false")
        since = until(
            lambda: model.status["rollout"].get("stableLostSince"),
            "no pod of it to be ready",
            seconds=AFTER_KILL_SECONDS,
        )
        kill_operators(cluster)
        counted = _counted_until_it_takes_over(model, 4)
        assert counted == {since}, "not anew by another operator"
        assert seconds_between(since, model.status["rollout"]["finishedAt"]) >= LOST_PATIENCE_SECONDS
        model.wait_served(4)
        result = load.stop()
    assert lost(result) == ""


def _counted_until_it_takes_over(model: Model, version: int) -> set[str]:
    """Since when the stable revision has been lost, by all that was said until a version took its place."""
    told = set()

    def taken_over() -> bool:
        status = model.status
        if since := status["rollout"].get("stableLostSince"):
            told.add(since)
        return bool(status["stable"]["version"] == version)

    # What the candidate lacks of its pods comes after another leader and the patience.
    until(taken_over, "the candidate to take over", seconds=LOST_PATIENCE_SECONDS + AFTER_KILL_SECONDS)
    return told
