"""Who has the traffic: a new revision takes it through a rollout, and only when it is proven; what fails is not tried
again by itself."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conch.api import names
from conch.api.agent_report import AgentPhase, AgentReport, GoldenOutcome, GoldenReport
from conch.api.model_deployment import ModelDeployment, parse_spec
from conch.api.rollout import (
    CommandStatus,
    Pause,
    RejectedRevision,
    RollbackCause,
    RolloutPhase,
    RolloutStatus,
    Step,
    Strategy,
)
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import ModelDeploymentStatus, ServedRevision, TrafficShare
from conch.core.observed import Observed
from conch.core.observed_pod import ObservedPod
from conch.core.policy import InstallationPolicy
from conch.core.rollout.commands import Obeyed
from conch.core.rollout.phases import UNDER_WAY
from conch.core.rollout.verified import ready_pods
from conch.core.succession import Succession, succeed

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
DIGEST = "sha256:" + "ab" * 32
OLD = ServedRevision(revision="old", version=1, workload="w1", digest=DIGEST, loaded=True)
NEW = ServedRevision(revision="new", version=2, workload="w2")
PROVEN = NEW.model_copy(update={"digest": DIGEST, "loaded": True})
NO_GOLDEN_SET = GoldenReport(outcome=GoldenOutcome.ABSENT)
POLICY = InstallationPolicy(triton_image="triton:1", agent_image="conch:1")
LOST_SECONDS = int(POLICY.stable_lost_patience.total_seconds())


def _pods(served: ServedRevision, count: int = 1, **fields: Any) -> tuple[ObservedPod, ...]:
    """Pods of this revision that are proven to serve it."""
    report = AgentReport(
        phase=AgentPhase.READY,
        revision=served.revision,
        digest=DIGEST,
        replays_golden_set=True,
        golden=NO_GOLDEN_SET,
    )
    at = "2026-01-01T11:00:00Z"
    good = ObservedPod(name="", uid="", workload=served.workload, ready=True, report=report, created=at)
    return tuple(replace(good, name=str(n), uid=f"{served.workload}-{n}", **fields) for n in range(count))


def _rollout(phase: RolloutPhase = RolloutPhase.PROVISIONING, **fields: Any) -> RolloutStatus:
    """From OLD to NEW, without steps, begun now."""
    common: dict[str, Any] = {
        "id": "w2",
        "revision": "new",
        "from_revision": "old",
        "strategy": Strategy.SURGE,
        "strategy_reason": "Auto: new pods beside the old ones, as long as there is room for them",
        "phase": phase,
        "stable_replicas": 1,
        "candidate_replicas": 1,
        "deadline": "2026-01-01T12:10:00Z",
        "started_at": "2026-01-01T12:00:00Z",
    }
    return RolloutStatus(**{**common, **fields})


ROLLOUT = _rollout()
BAKED = _rollout(RolloutPhase.BAKING, weight=100, ready=1, observed_since="2026-01-01T11:00:00Z", deadline=None)
REJECTED = RejectedRevision(revision="new", cause=RollbackCause.ABORTED, at="2026-01-01T11:00:00Z")


def _succeed(
    *pods: ObservedPod,
    wanted: str = "new",
    stable: ServedRevision | None = OLD,
    candidate: ServedRevision | None = NEW,
    rollout: RolloutStatus | None = ROLLOUT,
    rejected: tuple[RejectedRevision, ...] = (),
    command: CommandStatus | None = None,
    created: int = 2,
    traffic: tuple[TrafficShare, ...] = (),
    past: tuple[str, ...] = (),
    rolled_back_to: str | None = None,
    now: datetime = NOW,
    rollout_policy: dict[str, Any] | None = None,
    **spec: Any,
) -> Succession:
    read = parse_spec(
        {
            "model": {"version": 2, "source": {"uri": "https://models.example/a.onnx"}},
            # Nobody counts requests: what is proven is proven by its pods.
            "gateway": {"mode": "Direct"},
            "rollout": rollout_policy or {},
            **spec,
        }
    )
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
        status=ModelDeploymentStatus(
            stable=stable, candidate=candidate, workloads_created=created, traffic=traffic, past=past
        ),
    )
    return succeed(
        owner,
        read,
        wanted,
        Obeyed(rollout=rollout, rejected=rejected, rolled_back_to=rolled_back_to, command=command),
        Observed(pods=pods),
        acknowledged=True,
        policy=POLICY,
        now=now,
    )


def _goes_on(*pods: ObservedPod, seconds: int = 60, **fields: Any) -> Succession:
    """What comes of it within a while, each second from what was written the second before."""
    succession = _succeed(*pods, **fields)
    for second in range(1, seconds):
        fields |= {
            "stable": succession.stable,
            "candidate": succession.candidate,
            "rollout": succession.rollout,
            "rejected": succession.rejected,
            "created": succession.workloads_created,
            "past": succession.past,
            "now": NOW + timedelta(seconds=second),
        }
        succession = _succeed(*pods, **fields)
    return succession


def _phase(succession: Succession) -> RolloutPhase:
    assert succession.rollout is not None
    return succession.rollout.phase


# The first revision.


def test_the_first_revision_gets_a_workload_and_the_service() -> None:
    first = _succeed(stable=None, candidate=None, rollout=None, created=0)
    assert first.stable is None
    assert first.candidate == ServedRevision(revision="new", version=2, workload=names.workload_id("uid", 1))
    assert first.workloads_created == 1
    assert first.serving == first.candidate
    assert (first.rollout, first.under_way) == (None, None)


def test_the_first_revision_serves_as_soon_as_all_of_its_pods_are_proven() -> None:
    def first(*pods: ObservedPod) -> Succession:
        return _succeed(*pods, stable=None, rollout=None, replicas=2)

    assert first() == Succession(stable=None, candidate=NEW, workloads_created=2, proven=False)
    assert first(*_pods(NEW, 1)) == Succession(stable=None, candidate=PROVEN, workloads_created=2)
    assert first(*_pods(NEW, 2)) == Succession(stable=PROVEN, candidate=None, workloads_created=2)


def test_nothing_is_sent_to_a_first_revision_of_which_no_pod_is_proven() -> None:
    unproven = _succeed(*_pods(NEW, report=None), stable=None, rollout=None)
    assert unproven.candidate is not None
    assert not unproven.is_due(unproven.candidate)
    proven = _succeed(*_pods(NEW, 1), stable=None, rollout=None, replicas=2)
    assert proven.candidate is not None
    assert (proven.is_due(proven.candidate), proven.weight_of(proven.candidate)) == (True, 100)


def test_a_first_revision_that_serves_somewhat_is_kept_until_the_next_is_proven() -> None:
    traffic = (TrafficShare(revision="new", workload="w2", weight=100),)
    third = _succeed(*_pods(NEW), wanted="third", stable=None, rollout=None, replicas=2, traffic=traffic)
    assert third.stable == NEW
    assert third.candidate is not None
    assert third.candidate.workload == names.workload_id("uid", 3)
    assert third.rollout is not None
    assert (third.rollout.revision, third.rollout.from_revision, third.rollout.stable_replicas) == ("third", "new", 2)


@pytest.mark.parametrize(
    ("pods", "traffic"),
    [
        (_pods(NEW, ready=False), (TrafficShare(revision="new", workload="w2", weight=100),)),
        ((), (TrafficShare(revision="new", workload="w2", weight=100),)),
        # Ready, and never verified: its golden set may say that it is not to serve.
        (_pods(NEW), ()),
        (_pods(NEW), (TrafficShare(revision="old", workload="w1", weight=100),)),
    ],
    ids=["its pods are not ready", "it has no pods", "it never had traffic", "another had"],
)
def test_a_first_revision_that_does_not_serve_is_given_up_for_the_next(
    pods: tuple[ObservedPod, ...], traffic: tuple[TrafficShare, ...]
) -> None:
    third = _succeed(*pods, wanted="third", stable=None, rollout=None, replicas=2, traffic=traffic)
    assert (third.stable, third.rollout) == (None, None)
    assert third.candidate is not None
    assert (third.candidate.revision, third.workloads_created) == ("third", 3)


def test_a_first_revision_that_was_given_up_is_not_started_again_while_there_is_another() -> None:
    """Such as after an operator that forgot the stable revision of an object without replicas."""
    given_up = RejectedRevision(revision="third", cause=RollbackCause.ABORTED, at="2026-01-01T11:00:00Z")
    kept = _succeed(*_pods(NEW, ready=False), wanted="third", stable=None, rollout=None, rejected=(given_up,))
    assert (kept.stable, kept.workloads_created) == (None, 2)
    assert kept.candidate is not None
    assert kept.candidate.revision == "new"
    traffic = (TrafficShare(revision="new", workload="w2", weight=100),)
    serves = _succeed(
        *_pods(NEW), wanted="third", stable=None, rollout=None, rejected=(given_up,), traffic=traffic, replicas=2
    )
    assert (serves.stable, serves.candidate, serves.rollout) == (None, PROVEN, None)
    proven = _succeed(*_pods(NEW), wanted="third", stable=None, rollout=None, rejected=(given_up,))
    assert (proven.stable, proven.candidate) == (PROVEN, None)
    alone = _succeed(wanted="third", stable=None, candidate=None, rollout=None, rejected=(given_up,))
    assert alone.candidate is not None
    assert alone.candidate.revision == "third", "there is nothing else"


# A rollout.


def test_a_new_revision_gets_a_workload_of_its_own_beside_the_one_that_serves() -> None:
    begun = _succeed(candidate=None, rollout=None, created=1)
    assert begun.stable == begun.serving == OLD
    assert begun.candidate is not None
    assert begun.candidate.workload == names.workload_id("uid", 2)
    id_ = begun.candidate.workload
    assert begun.rollout == begun.under_way == _rollout(id=id_, candidate_replicas=0)
    assert (begun.weight_of(OLD), begun.replicas_of(OLD, 1)) == (100, 1)
    assert (begun.weight_of(begun.candidate), begun.replicas_of(begun.candidate, 1)) == (0, 0)
    assert not begun.is_due(begun.candidate)


def test_a_revision_that_is_being_brought_up_keeps_its_workload() -> None:
    assert _succeed(*_pods(OLD)) == Succession(stable=OLD, candidate=NEW, workloads_created=2, rollout=ROLLOUT)


def test_a_proven_revision_gets_the_traffic_and_is_not_the_stable_one_before_the_rollout_says_so() -> None:
    proven = _succeed(*_pods(OLD), *_pods(NEW))
    assert (proven.stable, proven.candidate) == (OLD, PROVEN)
    assert (_phase(proven), proven.weight_of(PROVEN), proven.weight_of(OLD)) == (RolloutPhase.SHIFTING, 100, 0)
    assert proven.serving == PROVEN
    assert proven.is_due(PROVEN)
    assert proven.replicas_of(OLD, 1) == 1, "kept warm"


def test_a_revision_takes_over_with_the_digest_its_agents_report() -> None:
    over = _succeed(*_pods(OLD), *_pods(NEW), rollout=BAKED)
    assert (over.stable, over.candidate, over.under_way) == (PROVEN, None, None)
    assert (_phase(over), over.weight_of(PROVEN), over.replicas_of(PROVEN, 1)) == (RolloutPhase.DRAINING, 100, 1)
    assert over.past == ("old",)


def test_a_revision_takes_over_in_its_time() -> None:
    pods = (*_pods(OLD), *_pods(NEW))
    assert _goes_on(*pods, seconds=30).stable == OLD
    over = _goes_on(*pods, seconds=40)
    assert (over.stable, over.workloads, _phase(over)) == (PROVEN, (PROVEN,), RolloutPhase.DONE)


def test_most_requests_go_to_who_has_more_than_half_of_them() -> None:
    half, more = (
        _rollout(RolloutPhase.SHIFTING, weight=weight, steps=(Step(weight=weight),), paused=True, ready=1)
        for weight in (50, 51)
    )
    pods = (*_pods(OLD), *_pods(NEW))
    assert _succeed(*pods, rollout=half).serving == OLD
    assert _succeed(*pods, rollout=more).serving == PROVEN


def test_all_the_wanted_pods_must_be_proven() -> None:
    asked: dict[str, Any] = {"stable_replicas": 3, "candidate_replicas": 3}
    two = _goes_on(*_pods(OLD, 3), *_pods(NEW, 2), rollout=_rollout(**asked), replicas=3)
    assert (two.stable, two.weight_of(PROVEN)) == (OLD, 0)
    three = _goes_on(*_pods(OLD, 3), *_pods(NEW, 3), rollout=_rollout(**asked), replicas=3)
    assert three.stable == PROVEN


@pytest.mark.parametrize(
    "fields",
    [
        {"report": None},
        {"ready": False},
        {"deleting": True},
        {"workload": "w1"},
        {"report": AgentReport(phase=AgentPhase.READY, revision="old", replays_golden_set=True, golden=NO_GOLDEN_SET)},
        {"report": AgentReport(phase=AgentPhase.LOADING, revision="new")},
        {"report": AgentReport(phase=AgentPhase.FAILED, revision="new")},
        {"report": AgentReport(phase=AgentPhase.READY, revision="new", replays_golden_set=True)},
        {
            "report": AgentReport(
                phase=AgentPhase.READY,
                revision="new",
                replays_golden_set=True,
                golden=GoldenReport(outcome=GoldenOutcome.ERROR),
            )
        },
        {
            "report": AgentReport(
                phase=AgentPhase.READY,
                revision="new",
                replays_golden_set=True,
                golden=GoldenReport(outcome=GoldenOutcome.FAILED),
            )
        },
    ],
    ids=[
        "unasked",
        "not ready",
        "leaving",
        "of another workload",
        "serving the old",
        "still loading",
        "failed",
        "replaying its golden set",
        "golden set not replayed",
        "answering otherwise",
    ],
)
def test_a_pod_that_is_not_proven_promotes_nothing(fields: dict[str, Any]) -> None:
    unproven = _goes_on(*_pods(OLD), *_pods(NEW, **fields))
    assert unproven.stable == OLD
    assert unproven.weight_of(OLD) == 100
    assert unproven.serving == OLD
    first = _succeed(*_pods(NEW, **fields), stable=None, rollout=None)
    assert (first.stable, first.proven) == (None, False)


def test_an_older_operators_candidate_gets_a_rollout_and_keeps_its_workload() -> None:
    begun = _succeed(rollout=None)
    assert (begun.candidate, begun.workloads_created) == (NEW, 2)
    assert begun.rollout == _rollout(candidate_replicas=0)


# A change of mind.


def test_going_back_mid_way_gives_up_the_new_workload_and_keeps_the_old() -> None:
    back = _succeed(*_pods(OLD), *_pods(NEW), wanted="old")
    assert back.rollout is not None
    assert (back.rollout.phase, back.rollout.cause) == (RolloutPhase.HALTED, RollbackCause.REVERTED)
    assert (back.stable, back.candidate, back.workloads_created) == (OLD, None, 2)
    assert back.workloads == (OLD,)
    assert back.rejected == (), "it has not failed"


def test_going_back_takes_the_traffic_back_before_the_new_workload_is_given_up() -> None:
    shifted = _rollout(RolloutPhase.SHIFTING, weight=100, ready=1)
    back = _succeed(*_pods(OLD), *_pods(NEW), wanted="old", rollout=shifted)
    assert (back.stable, back.candidate, back.weight_of(NEW)) == (OLD, NEW, 0)
    assert _phase(back) is RolloutPhase.ROLLING_BACK
    lost = _succeed(*_pods(NEW), wanted="old", rollout=shifted)
    assert (lost.candidate, lost.weight_of(NEW)) == (NEW, 100), "nobody else could answer"


def test_trying_again_after_going_back_never_uses_the_old_id() -> None:
    again = _succeed(candidate=None, rollout=_rollout(RolloutPhase.HALTED, cause=RollbackCause.REVERTED))
    assert again.candidate is not None
    assert again.candidate.workload == names.workload_id("uid", 3)
    assert again.workloads_created == 3
    assert again.rollout is not None
    assert (again.rollout.id, again.rollout.phase) == (again.candidate.workload, RolloutPhase.PROVISIONING)


def test_a_third_revision_mid_way_replaces_the_second() -> None:
    halted = _succeed(*_pods(OLD), *_pods(NEW), wanted="third")
    assert halted.rollout is not None
    assert (halted.rollout.phase, halted.rollout.cause) == (RolloutPhase.HALTED, RollbackCause.SUPERSEDED)
    assert (halted.stable, halted.candidate, halted.rejected) == (OLD, None, ())
    third = _goes_on(*_pods(OLD), *_pods(NEW), wanted="third", seconds=2)
    assert third.stable == OLD
    assert third.candidate is not None
    assert (third.candidate.revision, third.workloads_created) == ("third", 3)
    assert _phase(third) in UNDER_WAY


def test_what_serves_alone_stays_until_a_third_revision_takes_over() -> None:
    shifted = _rollout(RolloutPhase.SHIFTING, weight=50, ready=1)
    pods = (*_pods(OLD, ready=False), *_pods(NEW))
    back = _goes_on(*pods, wanted="third", rollout=shifted, seconds=LOST_SECONDS)
    assert (back.stable, back.candidate, _phase(back)) == (OLD, NEW, RolloutPhase.ROLLING_BACK)
    over = _goes_on(*pods, wanted="third", rollout=shifted, seconds=LOST_SECONDS + 1)
    assert (over.stable, over.candidate, _phase(over)) == (NEW, None, RolloutPhase.DRAINING)
    assert (over.weight_of(NEW), over.past, over.rejected) == (100, ("old",), ())
    third = _goes_on(*pods, wanted="third", rollout=shifted, seconds=LOST_SECONDS + 2)
    assert third.rollout is not None
    assert (third.stable, third.rollout.revision, third.rollout.from_revision) == (NEW, "third", "new")
    # Who asks for the lost revision itself waits for it.
    reverted = _goes_on(*pods, wanted="old", rollout=shifted, seconds=2 * LOST_SECONDS)
    assert (reverted.stable, _phase(reverted)) == (OLD, RolloutPhase.ROLLING_BACK)


# What was stable before.


def test_only_what_was_stable_is_remembered_as_such() -> None:
    """Not what has failed, and not what was given up for the stable revision or for a third."""
    past = ("older",)
    assert _succeed(*_pods(OLD), *_pods(NEW), past=past).past == past, "under way"
    assert _succeed(*_pods(OLD), *_pods(NEW), wanted="old", past=past).past == past
    superseded = _goes_on(*_pods(OLD), *_pods(NEW), wanted="third", past=past, seconds=5)
    assert (superseded.candidate and superseded.candidate.revision, superseded.past) == ("third", past)
    failing = _rollout(RolloutPhase.SHIFTING, weight=0)
    failed = _succeed(*_pods(OLD), *_pods(NEW, ready=False, report=FAILED_POD), rollout=failing, past=past)
    assert ([each.revision for each in failed.rejected], failed.past) == (["new"], past)
    first = _succeed(*_pods(NEW, ready=False), wanted="third", stable=None, rollout=None)
    assert (first.candidate and first.candidate.revision, first.past) == ("third", ()), "it never served"


def test_who_is_stable_again_is_remembered_once() -> None:
    over = _succeed(*_pods(OLD), *_pods(NEW), rollout=BAKED, past=("new", "old", "older"))
    assert over.past == ("old", "new", "older")
    suspended = _succeed(suspend=True, candidate=None, rollout=None, past=("older",))
    assert suspended.past == ("older",), "it is the stable one until another has proven itself"


# What has failed.

FAILED_POD = AgentReport(phase=AgentPhase.FAILED, revision="new", message="no such backend")


def test_a_revision_that_fails_is_rejected_with_why() -> None:
    shifted = _rollout(RolloutPhase.SHIFTING, weight=0)
    failed = _succeed(*_pods(OLD), *_pods(NEW, ready=False, report=FAILED_POD), rollout=shifted)
    message = "ModelLoadFailed: no such backend (1 of 1 pods; tried again with back-off)"
    assert (failed.stable, failed.candidate, _phase(failed)) == (OLD, None, RolloutPhase.HALTED)
    assert failed.rejected == (
        RejectedRevision(
            revision="new", cause=RollbackCause.CANDIDATE_FAILED, message=message, at="2026-01-01T12:00:00Z"
        ),
    )


LONG = "no such backend " * 128
"""As long as an agent's message may be: 2048 characters."""


@pytest.mark.parametrize(
    ("pod", "rollout", "cause"),
    [
        (
            {"report": AgentReport(phase=AgentPhase.FAILED, revision="new", message=LONG)},
            _rollout(RolloutPhase.SHIFTING, weight=0),
            RollbackCause.CANDIDATE_FAILED,
        ),
        (
            {
                "report": AgentReport(
                    phase=AgentPhase.READY,
                    revision="new",
                    replays_golden_set=True,
                    golden=GoldenReport(outcome=GoldenOutcome.FAILED, message=LONG),
                )
            },
            ROLLOUT,
            RollbackCause.GOLDEN_SET_FAILED,
        ),
        (
            {
                "report": AgentReport(
                    phase=AgentPhase.READY,
                    revision="new",
                    replays_golden_set=True,
                    golden=GoldenReport(outcome=GoldenOutcome.ERROR, message=LONG),
                )
            },
            _rollout(deadline="2026-01-01T12:00:00Z"),
            RollbackCause.CANDIDATE_FAILED,
        ),
        (
            {"report": None, "scheduled": False, "unschedulable_message": LONG * 9},
            _rollout(strategy=Strategy.RECREATE, stable_replicas=0, deadline="2026-01-01T12:00:00Z"),
            RollbackCause.DEADLINE_EXCEEDED,
        ),
    ],
    ids=["an agent fails", "other answers", "no golden set", "no room"],
)
def test_whatever_others_say_of_a_failure_fits_into_a_status(
    pod: dict[str, Any], rollout: RolloutStatus, cause: RollbackCause
) -> None:
    """One that does not is refused as a whole, and the rollout with it."""
    assert len(LONG) == 2048
    stable = () if rollout.strategy is Strategy.RECREATE else _pods(OLD)
    failed = _goes_on(*stable, *_pods(NEW, **{"ready": False, **pod}), rollout=rollout, seconds=2)
    if rollout.strategy is Strategy.RECREATE:
        assert failed.rollout is not None
        failed = _goes_on(*_pods(OLD), rollout=failed.rollout, seconds=3)
    (rejected,) = failed.rejected
    assert rejected.cause is cause
    assert 1400 < len(rejected.message) <= 2048
    status = ModelDeploymentStatus(
        stable=failed.stable, rollout=failed.rollout, rejected=failed.rejected, workloads_created=2
    )
    assert ModelDeploymentStatus.model_validate(status.to_wire()) == status


@pytest.mark.parametrize(("back_to", "kept"), [("new", None), ("older", "older")])
def test_a_rollback_to_a_revision_that_fails_is_over(back_to: str, kept: str | None) -> None:
    """Then the spec's own is not held back for its sake any more than that it is rejected itself."""
    shifted = _rollout(RolloutPhase.SHIFTING, weight=0)
    pods = (*_pods(OLD), *_pods(NEW, ready=False, report=FAILED_POD))
    failed = _succeed(*pods, rollout=shifted, rolled_back_to=back_to)
    assert (_phase(failed), failed.rolled_back_to) == (RolloutPhase.HALTED, kept)
    under_way = _succeed(*_pods(OLD), rolled_back_to=back_to)
    assert under_way.rolled_back_to == back_to


def test_the_same_spec_does_not_start_a_rejected_revision_again() -> None:
    halted = _rollout(RolloutPhase.HALTED, cause=RollbackCause.ABORTED)
    same = _goes_on(*_pods(OLD), candidate=None, rollout=halted, rejected=(REJECTED,))
    assert same == Succession(stable=OLD, candidate=None, workloads_created=2, rollout=halted, rejected=(REJECTED,))
    other = _succeed(*_pods(OLD), wanted="other", candidate=None, rollout=halted, rejected=(REJECTED,))
    assert other.candidate is not None
    assert (other.candidate.revision, other.rejected) == ("other", (REJECTED,))


def test_an_aborted_first_try_again_is_noted_once() -> None:
    aborting = _rollout(RolloutPhase.ROLLING_BACK, cause=RollbackCause.ABORTED, message="by command")
    failed = _succeed(*_pods(OLD), rollout=aborting, rejected=(REJECTED,))
    assert [(each.revision, each.at) for each in failed.rejected] == [("new", "2026-01-01T12:00:00Z")]


def test_what_became_of_the_last_command_is_kept() -> None:
    told = CommandStatus(nonce="n", command="pause", accepted=True)
    assert _succeed(*_pods(OLD), command=told).command == told
    assert _succeed(*_pods(OLD), wanted="old", candidate=None, rollout=None, command=told).command == told
    assert _succeed(stable=None, rollout=None, command=told).command == told


@pytest.mark.parametrize(("weight", "phase"), [(0, RolloutPhase.DRAINING), (100, RolloutPhase.DONE)])
def test_a_rollout_is_done_when_nothing_drains_any_more(weight: int, phase: RolloutPhase) -> None:
    traffic = (TrafficShare(revision="old", workload="w1", weight=weight),)
    draining = _rollout(RolloutPhase.DRAINING, weight=100)
    over = _succeed(
        *_pods(NEW), stable=PROVEN, candidate=None, rollout=draining, traffic=traffic, now=NOW + timedelta(hours=1)
    )
    assert (over.stable, over.rollout) == (PROVEN, draining.model_copy(update={"phase": phase}))


# Without pods.


def test_a_suspended_object_keeps_its_revision_and_workload() -> None:
    assert _succeed(wanted="old", candidate=None, rollout=None, suspend=True) == Succession(
        stable=OLD, candidate=None, workloads_created=2
    )


def test_a_rollout_of_a_suspended_object_waits() -> None:
    suspended = _goes_on(suspend=True)
    assert (suspended.stable, suspended.candidate) == (OLD, NEW)
    assert suspended.rollout == ROLLOUT.model_copy(update={"deadline": None, "stable_served": False})
    assert [suspended.replicas_of(served, 0) for served in suspended.workloads] == [0, 0]
    assert [suspended.replicas_of(served, 1) for served in suspended.workloads] == [1, 1], "as before, once resumed"


def test_a_resumed_object_is_not_taken_over_while_its_stable_pods_start() -> None:
    shifted = _rollout(RolloutPhase.SHIFTING, weight=10, steps=(Step(weight=10, pause=Pause.UNTIL_PROMOTED),), ready=1)
    suspended = _succeed(rollout=shifted, suspend=True)
    assert suspended.rollout is not None
    starting = _goes_on(*_pods(OLD, ready=False), *_pods(NEW), rollout=suspended.rollout, seconds=2 * LOST_SECONDS)
    assert starting.rollout is not None
    assert (starting.stable, starting.rollout.step, starting.weight_of(PROVEN)) == (OLD, 0, 10)
    # Where they were ready before, the same is a loss.
    lost = _goes_on(*_pods(OLD, ready=False), *_pods(NEW), rollout=shifted, seconds=LOST_SECONDS + 2)
    assert lost.weight_of(PROVEN) == 100


def test_a_way_back_of_a_suspended_object_is_over_and_what_failed_stays_rejected() -> None:
    back = _rollout(
        RolloutPhase.ROLLING_BACK, weight=100, ready=1, cause=RollbackCause.ANALYSIS_FAILED, message="9 % failed"
    )
    over = _succeed(rollout=back, suspend=True)
    assert (over.stable, over.candidate, _phase(over)) == (OLD, None, RolloutPhase.HALTED)
    assert [(each.revision, each.cause) for each in over.rejected] == [("new", RollbackCause.ANALYSIS_FAILED)]
    assert over.weight_of(OLD) == 100


@pytest.mark.parametrize("spec", [{"suspend": True}, {"replicas": 0}])
def test_a_new_revision_of_an_object_without_pods_rests_beside_the_proven_one(spec: dict[str, Any]) -> None:
    succession = _goes_on(**spec, candidate=None, rollout=None, created=1)
    assert succession.stable == OLD
    assert succession.candidate is not None
    assert (succession.candidate.revision, _phase(succession)) == ("new", RolloutPhase.PROVISIONING)
    assert succession.rollout is not None
    assert succession.rollout.deadline is None, "nothing is waited for"
    assert [succession.replicas_of(served, 0) for served in succession.workloads] == [0, 0]


def test_a_new_revision_that_fails_once_there_are_replicas_leads_back_to_the_proven_one() -> None:
    rollout = {"strategy": "Surge"}
    resting = _goes_on(suspend=True, candidate=None, rollout=None, created=1, rollout_policy=rollout)
    new = resting.candidate
    assert new is not None
    pods = _pods(new, ready=False, report=FAILED_POD)
    failed = _goes_on(*pods, *_pods(OLD), candidate=new, rollout=resting.rollout, seconds=700, rollout_policy=rollout)
    assert (failed.stable, [each.revision for each in failed.rejected]) == (OLD, ["new"])


def test_an_object_without_pods_promotes_nothing() -> None:
    assert _succeed(*_pods(NEW), stable=None, rollout=None, suspend=True).stable is None
    assert _succeed(*_pods(OLD), *_pods(NEW), rollout=BAKED, suspend=True).stable == OLD


# What serves.


def test_the_digest_of_what_serves_is_recorded_once_and_kept() -> None:
    unknown = OLD.model_copy(update={"digest": None})
    recorded = _succeed(*_pods(unknown), wanted="old", stable=unknown, candidate=None, rollout=None).stable
    assert recorded is not None
    assert recorded.digest == DIGEST
    other = AgentReport(phase=AgentPhase.READY, revision="old", digest="sha256:" + "cd" * 32)
    kept = _succeed(*_pods(OLD, report=other), wanted="old", candidate=None, rollout=None).stable
    assert kept is not None
    assert kept.digest == DIGEST


def test_the_files_of_a_revision_that_is_given_up_are_pinned_no_more() -> None:
    back = _succeed(
        *_pods(OLD), *_pods(NEW), wanted="old", rollout=_rollout(RolloutPhase.SHIFTING, weight=100, ready=1)
    )
    assert back.candidate == NEW


def test_what_serves_goes_on_serving_while_its_agents_have_not_been_asked() -> None:
    assert len(ready_pods(OLD, Observed(pods=_pods(OLD, 2, report=None)))) == 2


def test_a_pod_whose_agent_contradicts_does_not_serve() -> None:
    other = AgentReport(phase=AgentPhase.READY, revision="another")
    assert ready_pods(OLD, Observed(pods=_pods(OLD, report=other))) == ()
