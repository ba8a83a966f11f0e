"""The waits of the e2e tests for a version: in vain, and told so, once it was given up."""

import json
import subprocess
from typing import Any, cast

import pytest

from tests.e2e.conftest import Namespace
from tests.e2e.versioned_model import Model
from tests.support.model_store import ModelStore


class FakeNamespace:
    """One object, as the test says that it is."""

    name = "e2e-1"

    def __init__(self) -> None:
        self.status: dict[str, Any] | None = None
        self.cluster = self

    def kubectl(self, *words: str) -> subprocess.CompletedProcess[str]:
        there = "" if self.status is None else json.dumps({"status": self.status})
        return subprocess.CompletedProcess(words, 0, stdout=there)

    def mdep(self, _name: str) -> dict[str, Any]:
        return {"status": self.status}

    def deploy(self, *_: Any, **__: Any) -> None:
        """Nothing happens by itself."""


class FakeStore:
    """Keeps nothing."""

    def put(self, path: str, _content: bytes) -> str:
        return path


def _status(version: int, *, rollout: str = "w2", cause: str | None = None, rejected: str = "") -> dict[str, Any]:
    return {
        "stable": {"version": version},
        "traffic": [{"weight": 100}],
        "rollout": {"id": rollout, "cause": cause, "message": "no such backend"},
        "rejected": [{"revision": "r", "at": "2026", "cause": rejected, "message": "no such backend"}] * bool(rejected),
    }


def _model() -> tuple[FakeNamespace, Model]:
    namespace = FakeNamespace()
    return namespace, Model(cast(Namespace, namespace), cast(ModelStore, FakeStore()))


@pytest.mark.parametrize(
    "status",
    [_status(1, cause="CandidateFailed"), _status(1, rejected="GoldenSetFailed")],
    ids=["on its way back", "rejected"],
)
def test_a_version_that_was_given_up_is_not_waited_for(status: dict[str, Any]) -> None:
    namespace, model = _model()
    model.deploy(2, b"")
    namespace.status = status
    with pytest.raises(AssertionError, match=r"in vain for: version 2; the version was given up: .*: no such backend"):
        model.wait_stable(2)
    with pytest.raises(AssertionError, match=r"in vain for: weights \(75, 25\); the version was given up"):
        model.wait_step(75, 25)


@pytest.mark.parametrize("status", [_status(2, cause="Aborted"), _status(2, rejected="Superseded")])
def test_what_a_test_did_itself_is_no_failure(status: dict[str, Any]) -> None:
    namespace, model = _model()
    model.deploy(2, b"")
    namespace.status = status
    model.wait_stable(2)
    assert model._given_up() == ""


def test_what_became_of_the_version_before_says_nothing_of_the_next() -> None:
    namespace, model = _model()
    namespace.status = _status(1, cause="CandidateFailed", rejected="CandidateFailed")
    model.deploy(3, b"")
    assert model._given_up() == ""
    namespace.status = _status(1, rollout="w3", cause="AnalysisFailed", rejected="CandidateFailed")
    assert model._given_up() == "the version was given up: AnalysisFailed: no such backend"
