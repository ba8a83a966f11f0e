"""Who has the traffic: a new revision takes it only when it is proven, and a change of mind costs nothing."""

from dataclasses import replace
from typing import Any

import pytest

from conch.api import names
from conch.api.assignment import AgentPhase, AgentReport
from conch.api.model_deployment import ModelDeployment, parse_spec
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import ModelDeploymentStatus, ServedRevision
from conch.core.observed import Observed, ObservedPod
from conch.core.succession import Succession, ready_pods, succeed

DIGEST = "sha256:" + "ab" * 32
OLD = ServedRevision(revision="old", version=1, workload="w1", digest=DIGEST, loaded=True)
NEW = ServedRevision(revision="new", version=2, workload="w2")


def _pods(served: ServedRevision, count: int = 1, **fields: Any) -> tuple[ObservedPod, ...]:
    """Pods of this revision that are proven to serve it."""
    report = AgentReport(phase=AgentPhase.READY, revision=served.revision, digest=DIGEST)
    good = ObservedPod(name="", uid="", workload=served.workload, ready=True, report=report)
    return tuple(replace(good, name=str(n), uid=f"{served.workload}-{n}", **fields) for n in range(count))


def _succeed(
    *pods: ObservedPod,
    wanted: str = "new",
    stable: ServedRevision | None = OLD,
    candidate: ServedRevision | None = NEW,
    created: int = 2,
    **spec: Any,
) -> Succession:
    read = parse_spec({"model": {"version": 2, "source": {"uri": "https://models.example/a.onnx"}}, **spec})
    assert isinstance(read, ModelDeploymentSpec)
    owner = ModelDeployment(
        namespace="default",
        name="sentiment",
        uid="uid",
        generation=2,
        resource_version="1",
        created="2026-01-01T00:00:00Z",
        deleting=False,
        spec=read,
        status=ModelDeploymentStatus(stable=stable, candidate=candidate, workloads_created=created),
    )
    return succeed(owner, read, wanted, Observed(pods=pods))


def test_the_first_revision_gets_a_workload_and_the_service() -> None:
    first = _succeed(stable=None, candidate=None, created=0)
    assert first.stable is None
    assert first.candidate == ServedRevision(revision="new", version=2, workload=names.workload_id("uid", 1))
    assert first.workloads_created == 1
    assert first.serving == first.candidate


def test_a_new_revision_gets_a_workload_of_its_own_beside_the_one_that_serves() -> None:
    begun = _succeed(candidate=None, created=1)
    assert begun.stable == begun.serving == OLD
    assert begun.candidate is not None
    assert begun.candidate.workload == names.workload_id("uid", 2)


def test_a_revision_that_is_being_brought_up_keeps_its_workload() -> None:
    assert _succeed() == Succession(stable=OLD, candidate=NEW, workloads_created=2)


def test_a_proven_revision_takes_over_with_the_digest_its_agents_report() -> None:
    proven = _succeed(*_pods(NEW))
    stable = NEW.model_copy(update={"digest": DIGEST, "loaded": True})
    assert proven == Succession(stable=stable, candidate=None, workloads_created=2)


def test_all_the_wanted_pods_must_be_proven() -> None:
    assert _succeed(*_pods(NEW, 2), replicas=3).stable == OLD
    promoted = _succeed(*_pods(NEW, 3), replicas=3).stable
    assert promoted is not None
    assert promoted.revision == "new"


@pytest.mark.parametrize(
    "fields",
    [
        {"report": None},
        {"ready": False},
        {"deleting": True},
        {"workload": "w1"},
        {"report": AgentReport(phase=AgentPhase.READY, revision="old")},
        {"report": AgentReport(phase=AgentPhase.LOADING, revision="new")},
        {"report": AgentReport(phase=AgentPhase.FAILED, revision="new")},
    ],
    ids=["unasked", "not ready", "leaving", "of another workload", "serving the old", "still loading", "failed"],
)
def test_a_pod_that_is_not_proven_promotes_nothing(fields: dict[str, Any]) -> None:
    assert _succeed(*_pods(NEW, **fields)).stable == OLD


def test_going_back_mid_way_gives_up_the_new_workload_and_keeps_the_old() -> None:
    back = _succeed(*_pods(OLD), wanted="old")
    assert back == Succession(stable=OLD, candidate=None, workloads_created=2)
    assert back.workloads == (OLD,)


def test_trying_again_after_going_back_never_uses_the_old_id() -> None:
    again = _succeed(candidate=None)
    assert again.candidate is not None
    assert again.candidate.workload == names.workload_id("uid", 3)
    assert again.workloads_created == 3


def test_a_third_revision_mid_way_replaces_the_second() -> None:
    third = _succeed(wanted="third")
    assert third.stable == OLD
    assert third.candidate is not None
    assert (third.candidate.revision, third.workloads_created) == ("third", 3)


def test_a_suspended_object_keeps_its_revision_and_workload() -> None:
    assert _succeed(wanted="old", candidate=None, suspend=True) == Succession(
        stable=OLD, candidate=None, workloads_created=2
    )


@pytest.mark.parametrize("spec", [{"suspend": True}, {"replicas": 0}])
def test_a_new_revision_of_an_object_without_pods_needs_no_old_one_beside_it(spec: dict[str, Any]) -> None:
    succession = _succeed(**spec)
    assert (succession.stable, succession.candidate) == (None, NEW)


def test_an_object_without_pods_promotes_nothing() -> None:
    assert _succeed(*_pods(NEW), suspend=True).stable is None


def test_the_digest_of_what_serves_is_recorded_once_and_kept() -> None:
    unknown = OLD.model_copy(update={"digest": None})
    recorded = _succeed(*_pods(unknown), wanted="old", stable=unknown).stable
    assert recorded is not None
    assert recorded.digest == DIGEST
    other = AgentReport(phase=AgentPhase.READY, revision="old", digest="sha256:" + "cd" * 32)
    kept = _succeed(*_pods(OLD, report=other), wanted="old").stable
    assert kept is not None
    assert kept.digest == DIGEST


def test_what_serves_goes_on_serving_while_its_agents_have_not_been_asked() -> None:
    assert len(ready_pods(OLD, Observed(pods=_pods(OLD, 2, report=None)))) == 2


def test_a_pod_whose_agent_contradicts_does_not_serve() -> None:
    other = AgentReport(phase=AgentPhase.READY, revision="another")
    assert ready_pods(OLD, Observed(pods=_pods(OLD, report=other))) == ()
