"""Pods that change their model in place, with real Triton and Envoy: nothing is lost, no wrong version is served."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cluster.client import Cluster
from tests.e2e.conftest import Namespace
from tests.e2e.operators import AFTER_KILL_SECONDS, kill_operators
from tests.e2e.versioned_model import NAME, Model, lost
from tests.support import versions
from tests.support.gateways import lossless_load
from tests.support.inference import digits, infer
from tests.support.model_store import ModelStore
from tests.support.waiting import until

IN_PLACE: dict[str, Any] = {"strategy": "InPlace"}
CHECKS = [{"successRate": {"minimumPercent": 99}, "minimumSamples": 50}]


@pytest.fixture
def model(namespace: Namespace, store: ModelStore) -> Model:
    """Not deployed yet."""
    return Model(namespace, store)


@pytest.mark.group("loads")
@pytest.mark.timeout(600)
def test_versions_come_and_go_in_the_same_pods_and_no_request_is_lost(
    namespace: Namespace, model: Model, tmp_path: Path
) -> None:
    model.begin(versions.recorded(1))
    with lossless_load(namespace.address(NAME), NAME, tmp_path, rate_per_second=40, duration_seconds=560) as load:
        load.mark("two pods, one after the other")
        two = model.pods()
        model.deploy(2, versions.recorded(2), **IN_PLACE, steps=[{"weight": 50}], analysis=[*CHECKS, {"goldenSet": {}}])
        model.wait_served(2)
        assert model.status["rollout"]["strategy"] == "InPlace", model.status["rollout"]
        load.mark("and back")
        model.deploy(1, versions.recorded(1), **IN_PLACE)
        model.wait_served(1)
        assert model.pods() == two
        load.mark("one pod that answers all the time")
        model.edit(replicas=1)
        namespace.wait_ready(NAME, replicas=1)
        one = model.pods()
        for version in (2, 3):
            model.deploy(version, versions.recorded(version), **IN_PLACE)
            model.wait_served(version)
            assert model.status["rollout"]["strategy"] == "InPlace", model.status["rollout"]
        assert model.pods() == one
        load.mark("an aborted one")
        model.edit(replicas=2)
        namespace.wait_ready(NAME, replicas=2)
        two = model.pods()
        model.deploy(4, versions.recorded(4), **IN_PLACE, steps=[{"weight": 50, "pause": "UntilPromoted"}])
        model.wait_until_promoted()
        model.conch("abort")
        model.wait_back("Aborted")
        assert model.pods() == two
        result = load.stop()
    assert lost(result) == ""


def test_the_only_pod_finds_out_a_wrong_version_before_any_client_does(namespace: Namespace, store: ModelStore) -> None:
    model = Model(namespace, store, replicas=1)
    model.begin(versions.recorded(1))
    pods = model.pods()
    address = f"{namespace.address(NAME)}:8000"
    pixels = np.stack([digit.pixels for digit in digits()])

    def given_up() -> bool:
        # It would answer everything alike.
        assert np.ptp(infer(address, NAME, pixels, protocol="http")) > 0.5
        return model.rejected == ["GoldenSetFailed"]

    model.deploy(2, versions.not_as_recorded(2), **IN_PLACE)
    until(given_up, "the wrong version to be given up", seconds=120)
    model.wait_back("GoldenSetFailed")
    assert "probabilities" in namespace.wait_reason(NAME, "GoldenSetFailed")
    assert model.status["rollout"]["strategy"] == "InPlace"
    model.deploy(3, versions.recorded(3)[:-100], **IN_PLACE)
    model.wait_back("CandidateFailed")
    assert np.ptp(infer(address, NAME, pixels, protocol="http")) > 0.5
    assert model.pods() == pods


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_whatever_dies_in_the_middle_one_of_the_two_versions_serves(
    namespace: Namespace, store: ModelStore, cluster: Cluster
) -> None:
    model = Model(namespace, store, replicas=2)
    model.begin(versions.recorded(1))
    pods = model.pods()
    model.deploy(2, versions.recorded(2), **IN_PLACE, steps=[{"weight": 50, "pause": "UntilPromoted"}])
    until(lambda: model.status.get("rollout", {}).get("turned"), "the first pod's turn", seconds=120)
    for name in pods:
        for container in ("triton", "agent"):
            cluster.kill_container(name, container, namespace.name)
    kill_operators(cluster)
    model.wait_until_promoted()
    assert model.weights == [50, 50]
    model.conch("promote")
    until(lambda: len(model.status["rollout"]["turned"]) == 2, "the second pod's turn", seconds=AFTER_KILL_SECONDS)
    # Not the containers once more: who ends twice within a minute keeps crashing, and is given up for it.
    kill_operators(cluster)
    model.wait_served(2)
    namespace.wait_answers(NAME)
    assert model.pods() == pods
