"""What is said of a new revision on its way: for every state of a rollout its reason, and the words that help."""

from dataclasses import replace
from typing import Any, Final

import pytest

from conch.api.agent_report import AgentPhase, GoldenOutcome, GoldenReport
from conch.api.reasons import Reason
from conch.api.rollout import (
    CheckResult,
    Pause,
    RejectedRevision,
    RollbackCause,
    RolloutPhase,
    RolloutStatus,
    Step,
    Strategy,
)
from conch.api.status import ServedRevision
from conch.core.analysis.judgement import Verdict
from conch.core.finding import Finding, Severity
from conch.core.observed_pod import ObservedContainer
from conch.core.rollout.phases import FAILURES
from conch.core.succession import Succession
from tests.unit.test_core_findings import SERVICE, WANTED, a_pod, expect, find, reporting

STABLE: Final = ServedRevision(revision="r0", version=3, workload="w0")
SERVES: Final = replace(reporting(AgentPhase.READY), ready=True)
MODEL: Final = {"model": {"version": 1, "source": {"uri": "https://models.example/a.onnx"}}}
ANALYSED: Final = {**MODEL, "rollout": {"analysis": [{"latency": {"percentile": 95, "maxMilliseconds": 50}}]}}
STEPS: Final = (Step(weight=10, pause=Pause.UNTIL_PROMOTED), Step(weight=50))
AT: Final = "2026-01-01T00:00:00Z"


def rolling(phase: RolloutPhase = RolloutPhase.SHIFTING, **fields: Any) -> Succession:
    """From r0 to r1, which has the first step's 10 %."""
    common: dict[str, Any] = {
        "id": "w1",
        "revision": "r1",
        "from_revision": "r0",
        "strategy": Strategy.SURGE,
        "steps": STEPS,
        "phase": phase,
        "weight": 10,
        "stable_replicas": 1,
        "candidate_replicas": 1,
        "started_at": AT,
    }
    rollout = RolloutStatus(**{**common, **fields})
    return Succession(stable=STABLE, candidate=WANTED, workloads_created=2, rollout=rollout)


def rejecting(cause: RollbackCause, message: str = "9 % failed", **fields: Any) -> Succession:
    """Back at r0; the spec still asks for r1."""
    halted = rolling(RolloutPhase.HALTED, cause=cause, weight=0).rollout
    rejected = (RejectedRevision(revision="r1", cause=cause, message=message, at=AT),)
    common: dict[str, Any] = {
        "stable": STABLE,
        "candidate": None,
        "workloads_created": 2,
        "rollout": halted,
        "rejected": rejected,
    }
    return Succession(**{**common, **fields})


def find_in(succession: Succession, *pods: Any, **fields: Any) -> Finding | None:
    return find(*(pods or (SERVES,)), succession=succession, **fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "10 % of the requests go to revision r1 (Surge, step 1 of 2), on the way to 10 %."),
        ({"step": 1}, "10 % of the requests go to revision r1 (Surge, step 2 of 2), on the way to 50 %."),
        ({"step": 1, "observed_since": AT}, "10 % of the requests go to revision r1 (Surge, step 2 of 2)."),
        ({"step": 2}, "10 % of the requests go to revision r1 (Surge, shifting), on the way to 100 %."),
        (
            {"step": 2, "phase": RolloutPhase.BAKING, "weight": 100, "observed_since": AT},
            "100 % of the requests go to revision r1 (Surge, baking).",
        ),
        (
            {"steps": (), "strategy": Strategy.REPLACE, "phase": RolloutPhase.VERIFYING, "weight": 0},
            "0 % of the requests go to revision r1 (Replace, verifying), on the way to 100 %.",
        ),
    ],
)
def test_a_rollout_says_how_far_it_is(fields: dict[str, Any], words: str) -> None:
    finding = find_in(rolling(**fields))
    expect(finding, Severity.PROGRESSING, Reason.ROLLING_OUT)
    assert finding is not None
    assert (finding.message, finding.check) == (words, "the_rollout_is_over")


@pytest.mark.parametrize(
    ("by_spec", "by_command", "hint"),
    [
        (False, True, "Paused; resume: conch resume sentiment"),
        (True, False, "Paused; to go on, set spec.rollout.paused to false."),
        # One thing after the other: the command alone would do nothing.
        (True, True, "Paused; to go on, set spec.rollout.paused to false."),
    ],
)
def test_a_paused_rollout_says_how_it_is_resumed(by_spec: bool, by_command: bool, hint: str) -> None:
    paused = rolling(paused=by_command, observed_since=AT)
    finding = find_in(paused, spec={**MODEL, "rollout": {"paused": by_spec}})
    expect(finding, Severity.PROGRESSING, Reason.ROLLOUT_PAUSED)
    assert finding is not None
    assert finding.message == f"10 % of the requests go to revision r1 (Surge, step 1 of 2). {hint}"


def test_a_step_until_promoted_says_how_it_is_promoted() -> None:
    words = ("10 % of the requests", "step 1 of 2", "waits for somebody", "conch promote sentiment")
    expect(find_in(rolling(observed_since=AT)), Severity.PROGRESSING, Reason.AWAITING_PROMOTION, *words)
    promoted = find_in(rolling(observed_since=AT, promoted=1))
    expect(promoted, Severity.PROGRESSING, Reason.ROLLING_OUT)


@pytest.mark.parametrize("verdict", [Verdict.INCONCLUSIVE, Verdict.ERROR])
def test_a_check_that_is_not_sure_says_what_it_lacks(verdict: Verdict) -> None:
    checks = (
        CheckResult(name="successRate", verdict=Verdict.PASS, message="fine"),
        CheckResult(name="latency p95 absolute", verdict=verdict, message="too few samples yet, 100 are needed"),
    )
    finding = find_in(rolling(step=1, observed_since=AT, checks=checks), spec=ANALYSED)
    words = ("10 % of the requests", "latency p95 absolute: too few samples yet, 100 are needed")
    expect(finding, Severity.PROGRESSING, Reason.ANALYSING, *words)
    before = find_in(rolling(step=1, checks=checks), spec=ANALYSED)
    expect(before, Severity.PROGRESSING, Reason.ROLLING_OUT)


@pytest.mark.parametrize("rollout", [{}, {"analysis": None}], ids=["absent", "null"])
def test_where_no_analysis_is_declared_nothing_waits_for_its_samples(rollout: dict[str, Any]) -> None:
    checks = (CheckResult(name="successRate", verdict=Verdict.INCONCLUSIVE, message="too few samples yet"),)
    finding = find_in(rolling(step=1, observed_since=AT, checks=checks), spec={**MODEL, "rollout": rollout})
    expect(finding, Severity.PROGRESSING, Reason.ROLLING_OUT)
    assert finding is not None
    assert "samples" not in finding.message


def test_a_way_back_says_why_and_how_much_is_left() -> None:
    back = rolling(RolloutPhase.ROLLING_BACK, cause=RollbackCause.ANALYSIS_FAILED, message="9 % failed", weight=25)
    words = ("Revision r1 is rolled back", "AnalysisFailed: 9 % failed", "25 % of the requests")
    finding = find_in(back, a_pod(containers=(ObservedContainer(name="triton", waiting_reason="CrashLoopBackOff"),)))
    expect(finding, Severity.PROGRESSING, Reason.ROLLING_BACK, *words)
    assert finding is not None
    assert finding.check == "the_way_back_is_over"


REASONS: Final = {
    RollbackCause.CANDIDATE_FAILED: Reason.CANDIDATE_FAILED,
    RollbackCause.DEADLINE_EXCEEDED: Reason.PROGRESS_DEADLINE_EXCEEDED,
    RollbackCause.GOLDEN_SET_FAILED: Reason.GOLDEN_SET_FAILED,
    RollbackCause.ANALYSIS_FAILED: Reason.ANALYSIS_FAILED,
    RollbackCause.SHADOW_DISAGREED: Reason.SHADOW_DISAGREED,
    RollbackCause.ABORTED: Reason.ROLLOUT_ABORTED,
}


@pytest.mark.parametrize("cause", sorted(FAILURES))
def test_a_rejected_revision_says_why_what_serves_and_what_can_be_done(cause: RollbackCause) -> None:
    finding = find_in(rejecting(cause))
    expect(finding, Severity.STALLED, REASONS[cause])
    assert finding is not None
    assert finding.message == (
        "Revision r1 was rolled back: 9 % failed. Version 3 (revision r0) serves. "
        "Apply another spec, or have it tried again: conch retry sentiment"
    )
    assert finding.check == "revision_is_not_rejected"


def test_a_cause_that_is_a_sentence_already_gets_no_second_full_stop() -> None:
    finding = find_in(rejecting(RollbackCause.GOLDEN_SET_FAILED, "Package it with one. "))
    assert finding is not None
    assert "Package it with one. Version 3" in finding.message


@pytest.mark.parametrize(
    "succession",
    [
        rejecting(RollbackCause.ABORTED, stable=WANTED),
        rejecting(RollbackCause.ABORTED, rejected=()),
        replace(rolling(), rejected=rejecting(RollbackCause.ABORTED).rejected),
        Succession(
            stable=None, candidate=WANTED, workloads_created=1, rejected=rejecting(RollbackCause.ABORTED).rejected
        ),
    ],
    ids=["it serves", "another was rejected", "it is tried again", "there is nothing else"],
)
def test_what_was_rejected_once_and_is_not_in_the_way_is_no_news(succession: Succession) -> None:
    finding = find_in(succession)
    assert finding is None or finding.check != "revision_is_not_rejected"


def answering(outcome: GoldenOutcome, **fields: Any) -> Any:
    golden = GoldenReport(outcome=outcome, message="sample 3 differs", **fields)
    return replace(reporting(AgentPhase.READY, golden=golden), ready=True)


@pytest.mark.parametrize(
    "succession", [rolling(RolloutPhase.VERIFYING), Succession(stable=None, candidate=WANTED, workloads_created=1)]
)
def test_a_model_that_answers_otherwise_than_recorded_is_named(succession: Succession) -> None:
    finding = find_in(succession, answering(GoldenOutcome.FAILED))
    words = ("sentiment-w1-0", "golden.json", "sample 3 differs")
    expect(finding, Severity.STALLED, Reason.GOLDEN_SET_FAILED, *words)
    assert finding is not None
    assert finding.check == "the_golden_set_passes"


@pytest.mark.parametrize("policy", ["Required", "IfPresent"])
def test_a_golden_set_that_cannot_be_replayed_is_not_called_a_model_that_fails(policy: str) -> None:
    spec = {**MODEL, "rollout": {"analysis": [{"goldenSet": {"policy": policy}}]}}
    for succession in (rolling(RolloutPhase.VERIFYING), Succession(stable=None, candidate=WANTED, workloads_created=1)):
        finding = find_in(succession, answering(GoldenOutcome.ERROR), spec=spec)
        words = ("golden.json cannot be replayed", "sentiment-w1-0", "sample 3 differs")
        expect(finding, Severity.STALLED, Reason.GOLDEN_SET_ERROR, *words)
        assert finding is not None
        assert finding.check == "the_golden_set_passes"


def test_a_model_that_answers_otherwise_comes_before_a_golden_set_that_cannot_be_replayed() -> None:
    error = answering(GoldenOutcome.ERROR)
    failed = replace(answering(GoldenOutcome.FAILED), name="sentiment-w1-1")
    finding = find_in(rolling(RolloutPhase.VERIFYING), error, failed)
    expect(finding, Severity.STALLED, Reason.GOLDEN_SET_FAILED, "sentiment-w1-1")


def test_a_golden_set_that_is_required_and_missing_says_what_to_do() -> None:
    spec = {**MODEL, "rollout": {"analysis": [{"goldenSet": {"policy": "Required"}}]}}
    finding = find_in(rolling(RolloutPhase.VERIFYING), answering(GoldenOutcome.ABSENT), spec=spec)
    expect(finding, Severity.STALLED, Reason.GOLDEN_SET_FAILED, "no golden.json", "Package it with one")


def test_a_golden_set_that_is_ignored_or_of_what_serves_already_is_no_news() -> None:
    spec = {**MODEL, "rollout": {"analysis": [{"goldenSet": {"policy": "Ignored"}}]}}
    serving = Succession(stable=WANTED, candidate=None, workloads_created=1)
    for outcome in (GoldenOutcome.FAILED, GoldenOutcome.ERROR):
        ignored = find_in(rolling(step=1), answering(outcome), spec=spec)
        expect(ignored, Severity.PROGRESSING, Reason.ROLLING_OUT)
        assert find_in(serving, answering(outcome)) is None


def test_a_rejected_revision_comes_before_what_is_in_the_way_of_the_one_that_serves() -> None:
    finding = find_in(rejecting(RollbackCause.ABORTED), unwritten=frozenset({SERVICE}))
    expect(finding, Severity.STALLED, Reason.ROLLOUT_ABORTED)


def test_pods_that_are_missing_come_before_the_state_of_the_rollout() -> None:
    finding = find_in(rolling(candidate_replicas=2, paused=True), SERVES, a_pod("other"), replicas=4)
    expect(finding, Severity.PROGRESSING, Reason.SCALING, "1 of 2 replicas serve")


def test_a_candidate_is_not_expected_to_have_all_of_its_pods_at_once() -> None:
    expect(find_in(rolling(candidate_replicas=1), SERVES, replicas=4), Severity.PROGRESSING, Reason.ROLLING_OUT)


@pytest.mark.parametrize(
    "succession",
    [
        rolling(),
        rolling(paused=True),
        rolling(observed_since=AT),
        rolling(RolloutPhase.BAKING, step=2, weight=100),
        rolling(RolloutPhase.ROLLING_BACK, cause=RollbackCause.ABORTED, message="by command"),
    ],
    ids=["on the way", "paused", "until promoted", "baking", "back"],
)
def test_nothing_is_said_of_a_rollout_without_pods(succession: Succession) -> None:
    """Suspended: nothing is on its way, and what is said is that nothing is to run."""
    rollout_checks = ("the_way_back_is_over", "the_rollout_is_over")
    running = find_in(succession)
    assert running is not None
    assert running.check in rollout_checks
    suspended = find_in(succession, replicas=0)
    assert suspended is None or suspended.check not in rollout_checks


def test_a_rollout_that_is_over_leaves_nothing_to_find() -> None:
    for phase in (RolloutPhase.DRAINING, RolloutPhase.DONE):
        over = replace(rolling(phase, weight=100), stable=WANTED, candidate=None)
        assert find_in(over) is None
