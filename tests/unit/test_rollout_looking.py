"""What the machine is shown: which pods count, whether there is room, and what the checks say."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from conch.api.agent_report import AgentPhase, AgentReport, GoldenOutcome, GoldenReport
from conch.api.analysis import GoldenSetPolicy
from conch.api.gateway import GatewayMode
from conch.api.inference_counts import InferenceCounts
from conch.api.model_deployment import parse_spec
from conch.api.reasons import Reason
from conch.api.rollout import CheckResult, RolloutPhase, RolloutStatus, Step, Strategy
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import ServedRevision
from conch.core.analysis.judgement import Verdict
from conch.core.analysis.samples import Samples
from conch.core.observed import Observed, ObservedGateway, ObservedWindow
from conch.core.observed_child import ChildId, ChildKind, ObservedChild, ObservedDeployment
from conch.core.observed_pod import ObservedPod
from conch.core.policy import InstallationPolicy
from conch.core.rollout.capacity import Fleet
from conch.core.rollout.looking import look
from conch.core.rollout.sight import Sight
from conch.core.rollout.verified import golden_error, golden_failure, verified_pods

NOW: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
POLICY: Final = InstallationPolicy(triton_image="triton:1", agent_image="conch:1", surge_patience=timedelta(seconds=60))
STABLE: Final = ServedRevision(revision="old", version=1, workload="w1")
CANDIDATE: Final = ServedRevision(revision="new", version=2, workload="w2")
HEARD: Final = ObservedGateway(name="g1", address="10.1.0.1", ready=True, heard=True)
OBSERVED_SINCE: Final = "2026-01-01T11:59:00Z"
WINDOW: Final = "w2/Shifting/0"


def golden(outcome: GoldenOutcome = GoldenOutcome.ABSENT, **fields: Any) -> GoldenReport:
    return GoldenReport(outcome=outcome, **fields)


def a_pod(served: ServedRevision = CANDIDATE, name: str = "p0", **fields: Any) -> ObservedPod:
    """One that is ready and says that it serves the revision, without a golden set."""
    report = AgentReport(phase=AgentPhase.READY, revision=served.revision, replays_golden_set=True, golden=golden())
    good = ObservedPod(name=name, uid=name, workload=served.workload, ready=True, scheduled=True, report=report)
    return replace(good, **fields)


def saying(told: GoldenReport | None, name: str = "p0", *, replays: bool = True) -> ObservedPod:
    report = AgentReport(phase=AgentPhase.READY, revision="new", replays_golden_set=replays, golden=told)
    return a_pod(name=name, report=report)


def waiting(message: str, seconds: int = 60, *, created: bool = True) -> ObservedPod:
    """A pod that has found no node for so long."""
    at = (NOW - timedelta(seconds=seconds)).isoformat() if created else ""
    return ObservedPod(name="p9", uid="p9", workload="w2", unschedulable_message=message, created=at)


def a_deployment(*, replicas: int, error: str) -> dict[ChildId, ObservedChild]:
    id_ = ChildId(kind=ChildKind.DEPLOYMENT, name="sentiment-w2")
    deployment = ObservedDeployment(
        mounts_cache=False,
        id=id_,
        uid="d",
        resource_version="1",
        controller=None,
        owned_hash="",
        workload="w2",
        replicas=replicas,
        creation_error=error,
    )
    return {id_: deployment}


def window(candidate: Samples | None = None, stable: Samples | None = None, name: str = WINDOW) -> ObservedWindow:
    samples = {"w2": candidate, "w1": stable}
    return ObservedWindow(name=name, samples={workload: seen for workload, seen in samples.items() if seen})


def see(
    *pods: ObservedPod,
    rollout: dict[str, Any] | None = None,
    analysis: list[dict[str, Any]] | None = None,
    gateways: tuple[ObservedGateway, ...] = (HEARD,),
    seen: ObservedWindow | None = None,
    children: dict[ChildId, ObservedChild] | None = None,
    wanted: str = "new",
    listed: frozenset[str] = frozenset(),
    **spec: Any,
) -> Sight:
    """Look at a rollout whose first step's share is observed."""
    read = parse_spec(
        {
            "model": {"version": 2, "source": {"uri": "https://models.example/a.onnx"}},
            "rollout": {} if analysis is None else {"analysis": analysis},
            **spec,
        }
    )
    assert isinstance(read, ModelDeploymentSpec), read
    common: dict[str, Any] = {
        "id": "w2",
        "revision": "new",
        "from_revision": "old",
        "strategy": Strategy.SURGE,
        "phase": RolloutPhase.SHIFTING,
        "observed_since": OBSERVED_SINCE,
        "started_at": "2026-01-01T11:58:00Z",
    }
    return look(
        RolloutStatus(**{**common, **(rollout or {})}),
        spec=read,
        stable=STABLE,
        candidate=CANDIDATE,
        wanted=wanted,
        listed={CANDIDATE.workload: listed, STABLE.workload: listed},
        observed=Observed(pods=pods, gateways=gateways, window=seen, children=children or {}),
        acknowledged=True,
        misfit="",
        through_gateways=read.gateway.mode is not GatewayMode.DIRECT,
        policy=POLICY,
        now=NOW,
    )


# Pods.


def test_each_revisions_pods_are_counted() -> None:
    leaving = a_pod(STABLE, "s3", deleting=True)
    over = a_pod(STABLE, "s4", phase="Failed", ready=False)
    stable = (a_pod(STABLE, "s1"), a_pod(STABLE, "s2", report=None), leaving, over)
    candidate = (a_pod(name="c1"), a_pod(name="c2", report=None), a_pod(name="c3", ready=False))
    sight = see(*stable, *candidate, replicas=5)
    assert sight.fleet == Fleet(stable_ready=2, stable_left=3, candidate_ready=1, candidate_left=3)
    assert (sight.candidate_started, sight.replicas) == (2, 5)


POLICIES: Final = (GoldenSetPolicy.REQUIRED, GoldenSetPolicy.IF_PRESENT, GoldenSetPolicy.IGNORED)

# What a pod says of its golden set | by policy: whether it is verified, it speaks against the revision, it is no use
NO: Final = (False, False, False)
GOLDEN_SETS: Final = (
    (golden(GoldenOutcome.PASSED), (True, True, True), NO, NO),
    (golden(GoldenOutcome.FAILED), (False, False, True), (True, True, False), NO),
    (golden(GoldenOutcome.ABSENT), (False, True, True), (True, False, False), NO),
    (golden(GoldenOutcome.ERROR), (False, False, True), NO, (True, True, False)),
    (None, (False, False, True), NO, NO),
)


@pytest.mark.parametrize(("told", "verified", "failed", "useless"), GOLDEN_SETS)
@pytest.mark.parametrize("column", range(3), ids=POLICIES)
def test_golden_sets(
    told: GoldenReport | None,
    verified: tuple[bool, ...],
    failed: tuple[bool, ...],
    useless: tuple[bool, ...],
    column: int,
) -> None:
    policy, pods = POLICIES[column], (saying(told),)
    assert bool(verified_pods(CANDIDATE, Observed(pods=pods), policy)) is verified[column]
    assert bool(golden_failure(pods, policy)) is failed[column]
    assert bool(golden_error(pods, policy)) is useless[column]


@pytest.mark.parametrize(("policy", "verified"), list(zip(POLICIES, (False, True, True), strict=True)))
def test_an_agent_that_replays_no_golden_set_is_held_to_one_only_where_it_is_required(
    policy: GoldenSetPolicy, verified: bool
) -> None:
    """An older one, in a pod that an operator upgrade has left alone."""
    pods = (saying(None, replays=False),)
    assert bool(verified_pods(CANDIDATE, Observed(pods=pods), policy)) is verified
    sight = see(*pods, analysis=[{"goldenSet": {"policy": policy.value}}])
    assert (sight.fleet.candidate_ready, sight.golden_failure) == (int(verified), "")


def test_a_report_of_an_older_agent_replays_no_golden_set() -> None:
    assert not AgentReport.model_validate({"phase": "Ready", "revision": "new"}).replays_golden_set


def test_a_golden_set_that_cannot_be_replayed_names_the_pod() -> None:
    told = golden(GoldenOutcome.ERROR, message="sample 3 has no output SCORE")
    pods = (saying(golden(GoldenOutcome.PASSED), "p1"), saying(told, "p2"))
    assert golden_error(pods, GoldenSetPolicy.IF_PRESENT) == (
        "golden.json cannot be replayed on pod p2: sample 3 has no output SCORE"
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_a_pod_that_was_never_heard_is_not_verified(policy: GoldenSetPolicy) -> None:
    sight = see(a_pod(report=None), analysis=[{"goldenSet": {"policy": policy.value}}])
    assert (sight.fleet.candidate_ready, sight.candidate_started, sight.golden_failure) == (0, 1, "")


@pytest.mark.parametrize(
    ("ready_before", "pods", "counted"),
    [
        (2, [a_pod(name="a", report=None), a_pod(name="b", report=None)], 2),
        (2, [a_pod(name="a"), a_pod(name="b", report=None)], 2),
        (1, [a_pod(name="a", report=None), a_pod(name="b", report=None)], 1),
        (0, [a_pod(name="a"), a_pod(name="b", report=None)], 1),
        (2, [saying(None, "a"), saying(None, "b")], 2),
        (2, [a_pod(name="a", report=None, ready=False), a_pod(name="b")], 1),
        (2, [saying(golden(GoldenOutcome.FAILED), "a"), a_pod(name="b")], 1),
        (2, [saying(golden(GoldenOutcome.ERROR), "a"), a_pod(name="b")], 1),
        (2, [], 0),
        (0, [a_pod(name="a"), a_pod(name="b")], 2),
    ],
)
def test_pods_that_were_verified_stay_so_while_nobody_can_ask_them(
    ready_before: int, pods: list[ObservedPod], counted: int
) -> None:
    """After a start of the operator no agent was asked yet, after one of an agent its golden set is replayed anew."""
    assert see(*pods, rollout={"ready": ready_before}).fleet.candidate_ready == counted


def test_a_pod_that_had_nothing_yet_counts_only_once_it_is_verified() -> None:
    pods = (a_pod(name="a"), a_pod(name="b", report=None))
    held = frozenset({"b"})
    assert see(*pods, rollout={"ready": 2}).fleet.candidate_ready == 2
    assert see(*pods, rollout={"ready": 2}, listed=held).fleet.candidate_ready == 1
    assert see(a_pod(name="a"), a_pod(name="b"), rollout={"ready": 2}, listed=held).fleet.candidate_ready == 2
    stable = (a_pod(STABLE, "s1"), a_pod(STABLE, "s2", report=None))
    assert see(*stable).fleet.stable_ready == 2
    assert see(*stable, listed=frozenset({"s2"})).fleet.stable_ready == 1, "it cannot carry anything either"


def test_no_pod_counts_twice() -> None:
    ignored = [{"goldenSet": {"policy": "Ignored"}}]
    assert see(saying(None, "a"), saying(None, "b"), analysis=ignored, rollout={"ready": 4}).fleet.candidate_ready == 2


def test_what_a_golden_set_says_against_a_revision_names_the_pod() -> None:
    told = golden(GoldenOutcome.FAILED, samples=8, mismatches=3, message="3 of 8 samples differ")
    sight = see(saying(golden(GoldenOutcome.PASSED), "p1"), saying(told, "p2"))
    assert sight.golden_failure == "Pod p2 does not answer as golden.json records: 3 of 8 samples differ"
    absent = see(saying(golden(GoldenOutcome.ABSENT)), analysis=[{"goldenSet": {}}])
    assert absent.golden_failure == (
        "The model has no golden.json, and rollout.analysis requires one. Package it with one."
    )


def test_the_candidates_trouble_is_told_with_its_reason_and_the_stable_revisions_is_not() -> None:
    failed = AgentReport(phase=AgentPhase.FAILED, reason=Reason.INVALID_MODEL, message="no such backend")
    sight = see(a_pod(ready=False, report=failed))
    assert sight.trouble.startswith("InvalidModel: no such backend (1 of 1 pods")
    assert see(a_pod(STABLE, ready=False, report=failed), a_pod()).trouble == ""


@pytest.mark.parametrize(("attempts", "lasts"), [(3, False), (4, True)])
def test_trouble_that_may_pass_by_itself_is_told_and_does_not_last(attempts: int, lasts: bool) -> None:
    failed = AgentReport(phase=AgentPhase.FAILED, reason=Reason.SOURCE_UNREACHABLE, message="m", attempts=attempts)
    sight = see(a_pod(ready=False, report=failed, created=(NOW - timedelta(seconds=20)).isoformat()))
    assert (sight.trouble != "", sight.trouble_lasts) == (True, lasts)


def test_a_golden_set_that_cannot_be_replayed_stands_in_for_trouble_and_never_lasts() -> None:
    useless = saying(golden(GoldenOutcome.ERROR, message="no output SCORE"), "p2")
    sight = see(a_pod(), useless)
    assert sight.trouble == "golden.json cannot be replayed on pod p2: no output SCORE"
    assert (sight.trouble_lasts, sight.golden_failure) == (False, "")
    failed = AgentReport(phase=AgentPhase.FAILED, reason=Reason.INVALID_MODEL, message="no such backend")
    worse = see(useless, a_pod(name="p3", ready=False, report=failed))
    assert worse.trouble.startswith("InvalidModel: no such backend")
    assert see(useless, analysis=[{"goldenSet": {"policy": "Ignored"}}]).trouble == ""


def test_the_words_of_others_are_bounded() -> None:
    long = "x" * 2048
    failed = AgentReport(phase=AgentPhase.FAILED, reason=Reason.INVALID_MODEL, message=long)
    told = (
        see(a_pod(ready=False, report=failed)).trouble,
        see(saying(golden(GoldenOutcome.ERROR, message=long))).trouble,
        see(saying(golden(GoldenOutcome.FAILED, message=long))).golden_failure,
        see(waiting(long * 9)).no_room,
    )
    for words in told:
        assert (len(words), words[-2:]) == (1500, "x…")


@pytest.mark.parametrize(("wanted", "superseded"), [("new", False), ("old", False), ("third", True)])
def test_a_third_revision_supersedes_both(wanted: str, superseded: bool) -> None:
    assert see(a_pod(), wanted=wanted).superseded is superseded


# Room.

NO_GPU: Final = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
NO_NODE: Final = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
NO_CLAIM: Final = 'persistentvolumeclaim "models" not found'
NO_DEVICE: Final = "0/3 nodes are available: 3 cannot allocate all claims."


@pytest.mark.parametrize(
    ("pod", "no_room", "for_long"),
    [
        (waiting(NO_GPU, 60), NO_GPU.rstrip("."), True),
        (waiting(NO_GPU, 59), NO_GPU.rstrip("."), False),
        (waiting(NO_GPU, created=False), NO_GPU.rstrip("."), False),
        (waiting(NO_DEVICE, 60), NO_DEVICE.rstrip("."), True),
        # What the old pods hold of the queue would be free for it.
        (replace(waiting("Scheduling is blocked", 60), gated=True), "Scheduling is blocked", True),
        # The places of the old pods would not help.
        (waiting(NO_NODE, 9999), NO_NODE.rstrip("."), False),
        (waiting(NO_CLAIM, 9999), NO_CLAIM, False),
        (replace(waiting(NO_GPU), scheduled=True), "", False),
        (replace(waiting(NO_GPU), workload="w1"), "", False),
        (replace(waiting(NO_GPU), deleting=True), "", False),
        (a_pod(), "", False),
    ],
)
def test_no_room_by_the_schedulers_word(pod: ObservedPod, no_room: str, for_long: bool) -> None:
    sight = see(a_pod(name="p1"), pod)
    assert (sight.no_room, sight.no_room_for_long) == (no_room, for_long)


QUOTA: Final = 'pods "x" is forbidden: exceeded quota: team, requested: requests.nvidia.com/gpu=1'


BEGINS: Final = (RolloutPhase.PROVISIONING, RolloutPhase.VERIFYING)


@pytest.mark.parametrize("phase", [*BEGINS, RolloutPhase.SHIFTING, RolloutPhase.BAKING])
@pytest.mark.parametrize(
    ("replicas", "error", "started", "no_room", "for_long"),
    [
        (2, QUOTA, "2026-01-01T11:59:00Z", QUOTA, True),
        (2, QUOTA, "2026-01-01T11:59:01Z", QUOTA, False),
        (1, QUOTA, "2026-01-01T11:00:00Z", "", False),
        (2, "violates PodSecurity", "2026-01-01T11:00:00Z", "", False),
        (2, "", "2026-01-01T11:00:00Z", "", False),
    ],
)
def test_no_room_by_a_quota(
    replicas: int, error: str, started: str, no_room: str, for_long: bool, phase: RolloutPhase
) -> None:
    """Nobody tells since when: only at its first pods is that since the rollout began."""
    children = a_deployment(replicas=replicas, error=error)
    sight = see(a_pod(), children=children, rollout={"started_at": started, "phase": phase})
    assert (sight.no_room, sight.no_room_for_long) == (no_room, for_long and phase in BEGINS)


# Checks.

SUCCESS: Final = {"successRate": {"minimumPercent": 99}}
LATENCY: Final = {"latency": {"percentile": 95, "maxRatioToStable": 1.5}}
GOOD: Final = Samples(requests=400)
BAD: Final = Samples(requests=400, failures=100)


def verdicts(sight: Sight) -> dict[str, str]:
    return {check.name: check.verdict for check in sight.checks}


@pytest.mark.parametrize(
    ("samples", "verdict"), [(GOOD, Verdict.PASS), (BAD, Verdict.FAIL), (Samples(), Verdict.INCONCLUSIVE)]
)
def test_a_declared_check_says_what_it_says(samples: Samples, verdict: Verdict) -> None:
    sight = see(a_pod(), analysis=[SUCCESS], seen=window(samples, GOOD))
    assert (sight.verdict, verdicts(sight)) == (verdict, {"successRate": verdict})


def test_the_worst_of_several_checks_is_the_verdict() -> None:
    sight = see(a_pod(), analysis=[SUCCESS, LATENCY], seen=window(BAD))
    assert sight.verdict is Verdict.FAIL
    assert verdicts(sight) == {"successRate": Verdict.FAIL, "latency p95 relative": Verdict.INCONCLUSIVE}


@pytest.mark.parametrize(("weight", "verdict"), [(99, Verdict.INCONCLUSIVE), (100, Verdict.PASS)])
def test_what_has_all_of_the_traffic_is_compared_with_nothing_any_more(weight: int, verdict: Verdict) -> None:
    sight = see(a_pod(), analysis=[LATENCY], rollout={"weight": weight}, seen=window(GOOD))
    (check,) = sight.checks
    assert (sight.verdict, check.verdict, check.samples) == (verdict, verdict, 400 if weight == 100 else 0)
    assert ("not compared any more" in check.message) is (weight == 100)


def test_at_a_step_nothing_passes_a_comparison_without_being_compared() -> None:
    """One pod that takes the place of the only other has all of the traffic at the first step."""
    steps = (Step(weight=50),)
    replaced = {"weight": 100, "strategy": Strategy.REPLACE, "steps": steps}
    sight = see(a_pod(), analysis=[LATENCY], rollout=replaced, seen=window(GOOD))
    assert sight.verdict is Verdict.INCONCLUSIVE
    assert "too little to compare with" in sight.checks[0].message
    after = see(a_pod(), analysis=[LATENCY], rollout={**replaced, "step": 1}, seen=window(GOOD, name="w2/Shifting/1"))
    assert after.verdict is Verdict.PASS, "somebody has promoted it"


def test_with_more_steps_and_checks_each_needs_more_to_fail() -> None:
    bad = window(Samples(requests=200, failures=9))
    steps = tuple(Step(weight=weight) for weight in range(1, 21))
    assert see(a_pod(), analysis=[SUCCESS], seen=bad).verdict is Verdict.FAIL
    assert see(a_pod(), analysis=[SUCCESS], seen=bad, rollout={"steps": steps}).verdict is Verdict.INCONCLUSIVE
    many = [SUCCESS, *({"successRate": {"minimumPercent": 1 + each}} for each in range(9))]
    assert verdicts(see(a_pod(), analysis=many[:1], seen=bad))["successRate"] == Verdict.FAIL
    assert Verdict.FAIL not in [check.verdict for check in see(a_pod(), analysis=many, seen=bad).checks]


def test_what_has_all_of_the_traffic_is_still_held_to_what_needs_no_comparison() -> None:
    rollout = {"weight": 100, "phase": RolloutPhase.BAKING}
    seen = window(BAD, name="w2/Baking/0")
    sight = see(a_pod(), analysis=[SUCCESS, LATENCY], rollout=rollout, seen=seen)
    assert sight.verdict is Verdict.FAIL
    assert verdicts(sight) == {"successRate": Verdict.FAIL, "latency p95 relative": Verdict.PASS}
    absolute = {"latency": {"percentile": 95, "maxMilliseconds": 50}}
    assert see(a_pod(), analysis=[absolute], rollout=rollout, seen=seen).verdict is Verdict.INCONCLUSIVE


def test_a_check_is_told_in_numbers_that_survive_json() -> None:
    sight = see(a_pod(), analysis=[SUCCESS], seen=window(Samples(requests=700, failures=1)))
    (check,) = sight.checks
    assert check == CheckResult(
        name="successRate",
        verdict=Verdict.PASS,
        value=0.1429,
        limit=1.0,
        samples=700,
        message="0.143 % of 700 requests failed; at most 1 % may",
    )
    assert CheckResult.model_validate_json(check.model_dump_json()) == check


@pytest.mark.parametrize(
    ("samples", "verdict", "told"),
    [
        (GOOD, Verdict.PASS, Verdict.PASS),
        (BAD, Verdict.FAIL, Verdict.FAIL),
        (Samples(), Verdict.PASS, Verdict.INCONCLUSIVE),
    ],
)
def test_without_an_analysis_only_what_fails_counts(samples: Samples, verdict: Verdict, told: Verdict) -> None:
    sight = see(a_pod(), seen=window(samples))
    assert (sight.verdict, verdicts(sight)) == (verdict, {"successRate": told})


@pytest.mark.parametrize("policy", POLICIES)
def test_an_analysis_of_nothing_but_the_golden_set_keeps_the_default_check(policy: GoldenSetPolicy) -> None:
    analysis = [{"goldenSet": {"policy": policy.value}}]
    for samples, verdict in ((GOOD, Verdict.PASS), (BAD, Verdict.FAIL), (Samples(), Verdict.PASS)):
        sight = see(a_pod(), analysis=analysis, seen=window(samples))
        assert sight.verdict is verdict
        assert list(verdicts(sight)) == ["successRate"]


def test_an_empty_analysis_looks_at_nothing() -> None:
    sight = see(a_pod(), analysis=[], seen=window(BAD))
    assert (sight.verdict, sight.checks) == (Verdict.PASS, ())


@pytest.mark.parametrize("gateways", [(), (replace(HEARD, heard=False),)], ids=["none", "silent"])
def test_without_a_gateway_that_answers_nobody_can_tell(gateways: tuple[ObservedGateway, ...]) -> None:
    for analysis in ([SUCCESS], None):
        sight = see(a_pod(), analysis=analysis, gateways=gateways, seen=window(GOOD))
        assert sight.verdict is Verdict.ERROR
        (check,) = sight.checks
        assert (check.name, check.message) == ("traffic", "no gateway answers the operator")


BY_ROUTES: Final[dict[str, Any]] = {"mode": "GatewayAPI", "parentRefs": [{"name": "public"}]}


@pytest.mark.parametrize(
    ("analysis", "tells", "verdict"),
    [
        ([SUCCESS], False, Verdict.ERROR),
        (None, False, Verdict.ERROR),
        ([], False, Verdict.PASS),
        ([SUCCESS], True, Verdict.PASS),
        (None, True, Verdict.PASS),
    ],
)
def test_where_requests_come_by_routes_the_agents_tell(
    analysis: list[dict[str, Any]] | None, tells: bool, verdict: Verdict
) -> None:
    counts = InferenceCounts(epoch="e", requests=1, failures=0, queue_seconds=0) if tells else None
    telling = a_pod()
    assert telling.report
    telling = replace(telling, report=telling.report.model_copy(update={"inference": counts}))
    sight = see(telling, analysis=analysis, gateways=(), seen=window(GOOD), gateway=BY_ROUTES)
    assert sight.verdict is verdict
    if verdict is Verdict.ERROR:
        assert [check.message for check in sight.checks] == ["no agent of its pods tells what Triton counts"]


def test_one_gateway_that_answers_is_enough() -> None:
    sight = see(a_pod(), analysis=[SUCCESS], gateways=(replace(HEARD, heard=False), HEARD), seen=window(GOOD))
    assert sight.verdict is Verdict.PASS


@pytest.mark.parametrize("seen", [None, window(BAD, name="w2/Provisioning/0"), window(BAD, name="w2/Shifting/1")])
def test_what_was_seen_in_another_window_does_not_count(seen: ObservedWindow | None) -> None:
    sight = see(a_pod(), analysis=[SUCCESS], seen=seen)
    assert (sight.verdict, [check.samples for check in sight.checks]) == (Verdict.INCONCLUSIVE, [0])


@pytest.mark.parametrize(
    "rollout", [{"observed_since": None}, {"phase": RolloutPhase.ROLLING_BACK}], ids=["on the way", "going back"]
)
def test_before_a_share_is_observed_nothing_is_judged_and_what_was_said_stays(rollout: dict[str, Any]) -> None:
    before = (
        CheckResult(name="goldenSet", verdict=Verdict.FAIL),
        CheckResult(name="successRate", verdict=Verdict.PASS, samples=400),
    )
    sight = see(a_pod(), analysis=[SUCCESS], seen=window(BAD), rollout={"checks": before, **rollout})
    assert (sight.verdict, sight.checks) == (Verdict.INCONCLUSIVE, before[1:])


def test_in_mode_direct_nobody_counts() -> None:
    sight = see(
        saying(golden(GoldenOutcome.PASSED)),
        analysis=[SUCCESS],
        seen=window(BAD),
        gateways=(),
        gateway={"mode": "Direct"},
    )
    assert (sight.verdict, verdicts(sight)) == (Verdict.PASS, {"goldenSet": Verdict.PASS})


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ((GoldenOutcome.PASSED, GoldenOutcome.PASSED), Verdict.PASS),
        ((GoldenOutcome.PASSED, GoldenOutcome.FAILED), Verdict.FAIL),
        ((GoldenOutcome.PASSED, GoldenOutcome.ERROR), Verdict.ERROR),
        ((None, GoldenOutcome.PASSED), Verdict.PASS),
        ((GoldenOutcome.ABSENT,), None),
        ((None,), None),
    ],
)
def test_the_golden_set_is_told_by_the_pod_that_has_most_to_say(
    outcomes: tuple[GoldenOutcome | None, ...], verdict: Verdict | None
) -> None:
    pods = [
        saying(golden(outcome, samples=8, mismatches=2, message="m") if outcome else None, f"p{number}")
        for number, outcome in enumerate(outcomes)
    ]
    told = [check for check in see(*pods, seen=window(GOOD)).checks if check.name == "goldenSet"]
    if verdict is None:
        assert told == []
    else:
        assert told == [CheckResult(name="goldenSet", verdict=verdict, value=2, limit=0, samples=8, message="m")]


def test_a_golden_set_that_is_ignored_is_not_told() -> None:
    """Else a rollback for another cause would give its words."""
    failed = saying(golden(GoldenOutcome.FAILED))
    sight = see(failed, analysis=[SUCCESS, {"goldenSet": {"policy": "Ignored"}}], seen=window(BAD))
    assert (sight.golden_failure, verdicts(sight)) == ("", {"successRate": Verdict.FAIL})
