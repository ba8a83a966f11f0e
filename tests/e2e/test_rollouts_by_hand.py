"""What people do to a rollout that is under way, with real Triton and Envoy: waiting, promoting, editing, reverting."""

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Namespace
from tests.e2e.versioned_model import NAME, Model, lost, seconds_between
from tests.load import Protocol
from tests.support import versions
from tests.support.gateways import lossless_load
from tests.support.inference import digits, infer
from tests.support.model_store import ModelStore
from tests.support.waiting import until

pytestmark = [pytest.mark.group("loads"), pytest.mark.timeout(600)]

HALF = [{"weight": 50, "pause": "UntilPromoted"}]
A_DAY_SECONDS = 86_400


@pytest.fixture
def model(namespace: Namespace, store: ModelStore) -> Model:
    """Not deployed yet."""
    return Model(namespace, store)


def test_too_few_requests_promote_nothing_but_a_person_or_more_of_them_do(
    namespace: Namespace, model: Model, tmp_path: Path
) -> None:
    model.begin()
    check = {"successRate": {"minimumPercent": 99}, "minimumSamples": 40}
    model.deploy(2, versions.MODEL, steps=[{"weight": 50, "pauseSeconds": 1}], analysis=[check])
    message = model.wait_for_reason("Analysing")
    assert "40 are needed" in message
    _ask(namespace, times=20)
    told = until(lambda: _told(model, "Inconclusive"), "some samples, and too few")
    assert 0 < told["samples"] < 40
    rollout = model.status["rollout"]
    assert (rollout["phase"], rollout.get("step", 0), model.weights) == ("Shifting", 0, [50, 50])
    assert seconds_between(rollout["observedSince"], rollout["checkedAt"]) > 5, "the step's own time is long over"
    model.conch("promote")
    model.wait_phase("Baking")
    # There it is judged anew, and the old pods stay until that is decided.
    until(lambda: _told(model, "Inconclusive", samples=0), "a window of its own")
    assert model.status["stable"]["version"] == 1
    assert len(model.pods("stable")) == 2
    with lossless_load(namespace.address(NAME), NAME, tmp_path, rate_per_second=60, duration_seconds=580) as load:
        model.wait_served(2)
        result = load.stop()
    assert lost(result) == ""


def _ask(namespace: Namespace, *, times: int) -> None:
    for _ in range(times):
        infer(f"{namespace.address(NAME)}:8000", NAME, digits()[0].pixels[None], protocol="http")


def _told(model: Model, verdict: str, *, samples: int | None = None) -> dict[str, Any] | None:
    """What the success rate says once it has this verdict, and so many samples; or any."""
    told = model.checks.get("successRate", {})
    enough = told.get("samples", 0) > 0 if samples is None else told.get("samples", 0) == samples
    return told if told.get("verdict") == verdict and enough else None


def test_the_spec_is_taken_back_and_edited_half_way(namespace: Namespace, model: Model, tmp_path: Path) -> None:
    model.begin()
    pods = model.pods("stable")
    with lossless_load(namespace.address(NAME), NAME, tmp_path, rate_per_second=40, duration_seconds=580) as load:
        load.mark("taken back")
        model.deploy(2, versions.MODEL, steps=HALF)
        model.wait_until_promoted()
        model.deploy(1, versions.MODEL, steps=HALF)
        namespace.wait_ready(NAME, replicas=2)
        assert "candidate" not in model.status
        assert model.weights == [100]
        assert (model.status["rollout"]["phase"], model.status["rollout"]["cause"]) == ("Halted", "Reverted")
        assert model.rejected == [], "nothing was wrong with it"
        assert model.pods("stable") == pods

        load.mark("edited")
        model.deploy(2, versions.MODEL, steps=HALF)
        model.wait_until_promoted()
        before = _position(model)
        model.edit(replicas=3, keepWarmSeconds=A_DAY_SECONDS)
        until(lambda: len(model.pods("stable")) == 3 and len(model.pods("candidate")) == 2, "half of three is two")
        namespace.wait_reason(NAME, "AwaitingPromotion")
        assert _position(model) == before
        assert pods.items() < model.pods("stable").items()
        model.conch("promote")
        model.wait_phase("Baking")
        assert model.weights == [100]
        assert (model.status["stable"]["version"], len(model.pods("stable"))) == (1, 3), "kept warm, as edited"
        serving = model.pods("candidate")
        model.edit(keepWarmSeconds=0)
        model.wait_served(2)
        assert model.pods("stable") == serving
        assert model.status["workloadsCreated"] == 3
        result = load.stop()
    assert lost(result) == ""


def _position(model: Model) -> tuple[str, str, int]:
    """Where the rollout is."""
    rollout = model.status["rollout"]
    return rollout["id"], rollout["phase"], rollout.get("step", 0)


def test_without_gateways_a_rollback_by_command_loses_nothing_either(
    namespace: Namespace, store: ModelStore, tmp_path: Path
) -> None:
    model = Model(namespace, store, gateway={"mode": "Direct"})
    model.begin()
    first = model.status["stable"]["revision"]
    with lossless_load(
        *(namespace.address(NAME), NAME, tmp_path),
        rate_per_second=20,
        duration_seconds=580,
        protocols=(Protocol.HTTP, Protocol.GRPC),
    ) as load:
        model.deploy(2, versions.MODEL)
        model.wait_served(2)
        load.mark("rolled back")
        model.conch("rollback")
        model.wait_stable(1)
        assert "retry" in namespace.wait_reason(NAME, "RolloutAborted")
        result = load.stop()
    assert model.status["stable"]["revision"] == first
    assert model.rejected == ["Aborted"]
    assert "gateway" not in model.status
    assert len(model.pods("stable")) == 2
    assert lost(result) == ""
