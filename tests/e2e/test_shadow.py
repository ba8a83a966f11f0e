"""Copies of real requests on the whole cluster: what a new version would answer is known before any client sees it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.conftest import Namespace
from tests.e2e.versioned_model import NAME, Model, lost
from tests.support import versions
from tests.support.gateways import lossless_load
from tests.support.model_store import ModelStore
from tests.support.waiting import until

SHADOW: Final = {"percent": 50, "minSamples": 60}
WRONG: Final = versions.failing(2, each=10**9)
"""Answers each request, and every drawing alike."""

pytestmark = pytest.mark.group("loads")


@pytest.fixture
def model(namespace: Namespace, store: ModelStore) -> Model:
    """Not deployed yet."""
    return Model(namespace, store)


def watched(model: Model, holds: Callable[[dict[str, Any]], bool], what: str) -> list[tuple[str, list[int]]]:
    """Phases and weights as they follow each other, until a status is as it should be."""
    seen: list[tuple[str, list[int]]] = []

    def look() -> bool:
        status = model.status
        weights = [share["weight"] for share in status["traffic"] if share["weight"]]
        here = (status.get("rollout", {}).get("phase", ""), weights)
        if not seen or seen[-1] != here:
            seen.append(here)
        return holds(status)

    until(look, what, seconds=180)
    return seen


def test_a_wrong_version_is_given_up_before_any_client_sees_it(
    namespace: Namespace, model: Model, tmp_path: Path
) -> None:
    model.begin()
    with lossless_load(namespace.address(NAME), NAME, tmp_path, rate_per_second=40, duration_seconds=300) as load:
        model.deploy(2, WRONG, steps=[{"weight": 50}], shadow=SHADOW)
        seen = watched(model, lambda status: bool(status.get("rejected")), "the wrong version to be given up")
        model.wait_back("ShadowDisagreed")
        result = load.stop()
    assert {tuple(weights) for _, weights in seen} == {(100,)}, "it had no traffic at any time"
    assert lost(result) == ""
    message = namespace.wait_reason(NAME, "ShadowDisagreed")
    assert "probabilities" in message, "which output"
    shadow = model.status["rollout"]["shadow"]
    assert shadow["disagreed"] == shadow["compared"] > 0
    assert "values differ" in shadow["example"]
    told = model.conch("rollout", "status")
    assert "Copied requests" in told
    assert namespace.condition(NAME, "Available")["status"] == "True"


def test_a_good_version_passes_and_is_promoted(namespace: Namespace, model: Model, tmp_path: Path) -> None:
    model.begin()
    with lossless_load(namespace.address(NAME), NAME, tmp_path, rate_per_second=40, duration_seconds=300) as load:
        model.deploy(2, versions.MODEL, steps=[{"weight": 50, "pauseSeconds": 15}], shadow=SHADOW)
        seen = watched(model, lambda status: status["stable"]["version"] == 2, "version 2")
        model.wait_served(2)
        result = load.stop()
    phases = [phase for phase, _ in seen]
    assert phases.index("Shadowing") < phases.index("Shifting")
    assert lost(result) == ""
    shadow = model.status["rollout"]["shadow"]
    assert shadow["compared"] >= SHADOW["minSamples"]
    assert (shadow["disagreed"], shadow["failed"]) == (0, 0)
    assert shadow["candidateP90Ms"] > 0


def test_a_version_that_hangs_on_requests_touches_no_client(namespace: Namespace, model: Model, tmp_path: Path) -> None:
    """It is ready, and answers nothing within the time-out."""
    model.begin()
    with lossless_load(
        namespace.address(NAME), NAME, tmp_path, rate_per_second=40, duration_seconds=300, timeout_seconds=20
    ) as load:
        model.deploy(2, versions.slow(2, delay_seconds=100), shadow={"percent": 100, "minSamples": 20})
        seen = watched(model, lambda status: bool(status.get("rejected")), "the hanging version to be given up")
        model.wait_back("ShadowDisagreed")
        result = load.stop()
    assert {tuple(weights) for _, weights in seen} == {(100,)}
    assert lost(result) == ""
    assert "no answer within" in model.status["rollout"]["shadow"]["example"]
