"""Which pods get nothing yet, by what they say of their golden set and by what status says of them."""

from typing import Any, Final

import pytest

from conch.api.agent_report import AgentPhase, AgentReport, GoldenOutcome, GoldenReport
from conch.api.analysis import GoldenSetPolicy
from conch.api.status import ModelDeploymentStatus, ServedRevision, TrafficShare
from conch.core.held_back import held_back
from conch.core.observed import Observed
from conch.core.observed_pod import ObservedPod
from conch.core.succession import Succession

STABLE: Final = ServedRevision(revision="old", version=1, workload="w1")
CANDIDATE: Final = ServedRevision(revision="new", version=2, workload="w2")
IF_PRESENT, REQUIRED, IGNORED = GoldenSetPolicy.IF_PRESENT, GoldenSetPolicy.REQUIRED, GoldenSetPolicy.IGNORED


def pod(
    name: str, says: str | None, served: ServedRevision = STABLE, *, ready: bool = True, **fields: Any
) -> ObservedPod:
    """`says` is an outcome, "Replaying" or "Loading"; None for an agent that was not heard."""
    report = None
    if says is not None:
        outcome = GoldenOutcome(says) if says in set(GoldenOutcome) else None
        report = AgentReport(
            phase=AgentPhase.LOADING if says == "Loading" else AgentPhase.READY,
            revision=served.revision,
            replays_golden_set=True,
            golden=GoldenReport(outcome=outcome) if outcome else None,
        )
    return ObservedPod(name=name, uid=name, workload=served.workload, ready=ready, report=report, **fields)


GOOD: Final = pod("good", "Passed")


def held(
    *pods: ObservedPod,
    listed: tuple[str, ...] = (),
    golden: GoldenSetPolicy | None = IF_PRESENT,
    stable: ServedRevision | None = STABLE,
    candidate: ServedRevision | None = None,
    shares: bool = True,
) -> set[str]:
    both = [served for served in (stable, candidate) if served]
    traffic = tuple(
        TrafficShare(revision=served.revision, workload=served.workload, weight=50, draining=listed) for served in both
    )
    status = ModelDeploymentStatus(traffic=traffic if shares else ())
    succession = Succession(stable=stable, candidate=candidate, workloads_created=2)
    found = held_back(status, succession, Observed(pods=pods), golden)
    return {name for names in found.values() for name in names}


# What the pod's agent says, whether it is ready, whether it is listed | whether it is held back beside one that is good
PODS: Final = (
    ("Passed", True, False, False),
    ("Passed", True, True, False),
    ("Passed", False, False, False),
    ("Absent", True, True, False),
    # It starts: it is listed before the kubelet calls it ready, for then a gateway sends to it.
    ("Loading", False, False, True),
    (None, False, False, True),
    ("Replaying", False, False, True),
    # Who had nothing until now has nothing until it is verified; who had something keeps it.
    ("Replaying", True, True, True),
    ("Replaying", True, False, False),
    ("Loading", True, True, True),
    ("Loading", True, False, False),
    ("Error", True, True, True),
    ("Error", True, False, False),
    (None, True, True, True),
    (None, True, False, False),
    # Who answers otherwise gets nothing more.
    ("Failed", True, False, True),
    ("Failed", True, True, True),
)


@pytest.mark.parametrize(("says", "ready", "is_listed", "is_held"), PODS)
def test_a_pod_beside_one_that_serves(says: str | None, ready: bool, is_listed: bool, is_held: bool) -> None:
    listed = ("p",) if is_listed else ()
    expected = {"p"} if is_held else set()
    assert held(GOOD, pod("p", says, ready=ready), listed=listed) == expected
    assert held(GOOD, pod("p", says, CANDIDATE, ready=ready), listed=listed, candidate=CANDIDATE) == expected
    assert held(GOOD, pod("p", says, ready=ready), listed=listed, golden=IGNORED) == set()


@pytest.mark.parametrize("says", ["Replaying", None, "Error"])
def test_pods_of_a_workload_that_had_no_share_yet_have_had_nothing(says: str | None) -> None:
    assert held(pod("p", "Passed"), pod("q", says), stable=None, candidate=CANDIDATE, shares=False) == set()
    of_new = (pod("p", "Passed", CANDIDATE), pod("q", says, CANDIDATE))
    assert held(*of_new, stable=None, candidate=CANDIDATE, shares=False) == {"q"}
    assert held(GOOD, pod("q", says), shares=False) == set(), "what is proven has served before"


def test_of_a_proven_revision_a_missing_golden_set_says_nothing_and_of_a_candidate_it_does() -> None:
    assert held(GOOD, pod("p", "Absent"), golden=REQUIRED) == set()
    assert held(GOOD, pod("p", "Absent", CANDIDATE), golden=REQUIRED, candidate=CANDIDATE) == {"p"}


@pytest.mark.parametrize("why", [{"agent_unreachable": True}, {"key_refused": True}])
def test_who_cannot_be_asked_is_trusted_once_its_revision_is_proven(why: dict[str, Any]) -> None:
    assert held(GOOD, pod("p", None, **why), listed=("p",)) == set()
    assert held(GOOD, pod("p", None, CANDIDATE, **why), listed=("p",), candidate=CANDIDATE) == {"p"}


def test_somebody_is_always_left() -> None:
    waiting, failed = pod("p", "Replaying"), pod("q", "Failed")
    assert held(waiting, failed, listed=("p", "q")) == set()
    assert held(waiting, pod("q", None, ready=False), listed=("p", "q")) == set(), "one that is to start helps nobody"
    of_new = (pod("p", "Replaying", CANDIDATE), pod("q", "Failed", CANDIDATE))
    assert held(GOOD, *of_new, listed=("p", "q"), candidate=CANDIDATE) == {"p", "q"}, "the other revision serves"
    assert held(*of_new, listed=("p", "q"), candidate=CANDIDATE) == {"q"}, "but not who was found to be wrong"


def test_while_the_spec_cannot_be_read_nobody_is_added() -> None:
    pods = (GOOD, pod("p", "Replaying"), pod("q", "Failed"), pod("r", "Loading", ready=False))
    assert held(*pods, golden=None) == set()
    assert held(*pods, golden=None, listed=("p", "q", "r")) == {"p", "q", "r"}
