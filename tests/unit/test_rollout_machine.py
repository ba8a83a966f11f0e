"""The machine of a rollout as one table, and everything around it: pauses, promotions, times, strategies, losses."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from conch.api.rollout import (
    CheckResult,
    Pause,
    RollbackCause,
    Rollout,
    RolloutPhase,
    RolloutStatus,
    Step,
    Strategy,
)
from conch.api.shadow import Shadow
from conch.core.analysis.judgement import Verdict
from conch.core.rollout.capacity import Fleet
from conch.core.rollout.machine import (
    CHECKS_INTERVAL,
    WAY_BACK_PATIENCE,
    advance,
    begin,
    goal_of,
    is_waiting_for_promotion,
    roll_back,
    window_of,
)
from conch.core.rollout.phases import FAILURES, UNDER_WAY
from conch.core.rollout.sight import Sight

NOW: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
STEPS: Final = (Step(weight=25, pause_seconds=60), Step(weight=50, pause=Pause.UNTIL_PROMOTED))
POLICY: Final = Rollout(
    strategy=Strategy.SURGE, steps=STEPS, progress_deadline_seconds=600, keep_warm_seconds=30, analysis=()
)
FAILED: Final = CheckResult(name="successRate", verdict=Verdict.FAIL, message="9 % of 400 requests failed")
GOOD: Final = CheckResult(name="successRate", verdict=Verdict.PASS, samples=400)
LOST_SECONDS: Final = 120
STABLE_LOST_PATIENCE: Final = timedelta(seconds=LOST_SECONDS)


def at(seconds: float) -> str:
    """A time so many seconds from now."""
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def a_rollout(phase: RolloutPhase, split: str, **fields: Any) -> RolloutStatus:
    """Of four replicas; `split` as stable+candidate@weight."""
    replicas, weight = split.split("@")
    stable, candidate = replicas.split("+")
    common: dict[str, Any] = {
        "id": "w2",
        "revision": "new",
        "from_revision": "old",
        "strategy": Strategy.SURGE,
        "steps": STEPS,
        "phase": phase,
        "stable_replicas": int(stable),
        "candidate_replicas": int(candidate),
        "weight": int(weight),
        "ready": int(candidate) if int(weight) else 0,
        "started_at": at(-3600),
    }
    return RolloutStatus(**{**common, **fields})


def a_sight(rollout: RolloutStatus, *, ready: int | None = None, stable: int | None = None, **fields: Any) -> Sight:
    """All is well: each revision has the pods that it is to have, unless told how many of them are ready."""
    candidate_ready = rollout.candidate_replicas if ready is None else ready
    if rollout.phase is C and fields.get("policy", POLICY).shadow is None:
        # Nobody else is in it.
        fields["policy"] = fields.get("policy", POLICY).model_copy(update={"shadow": Shadow(percent=10)})
    fleet = Fleet(
        stable_ready=rollout.stable_replicas if stable is None else stable,
        stable_left=rollout.stable_replicas,
        candidate_ready=candidate_ready,
        candidate_left=rollout.candidate_replicas,
    )
    common: dict[str, Any] = {
        "policy": POLICY,
        "replicas": 4,
        "fleet": fleet,
        "candidate_started": candidate_ready,
        "acknowledged": True,
        "stable_lost_patience": STABLE_LOST_PATIENCE,
        "now": NOW,
    }
    return Sight(**{**common, **fields})


P, V, C, S, B, R = (
    RolloutPhase.PROVISIONING,
    RolloutPhase.VERIFYING,
    RolloutPhase.SHADOWING,
    RolloutPhase.SHIFTING,
    RolloutPhase.BAKING,
    RolloutPhase.ROLLING_BACK,
)

STARTS: Final = {
    "Provisioning": a_rollout(P, "4+1@0", deadline=at(1)),
    "Verifying": a_rollout(V, "4+1@0", deadline=at(1)),
    "Copies": a_rollout(C, "4+1@0", deadline=at(1)),
    "Shifting 0": a_rollout(S, "4+1@25", deadline=at(1)),
    "  - its pause not over": a_rollout(S, "4+1@25", observed_since=at(-59)),
    "  - its pause over": a_rollout(S, "4+1@25", observed_since=at(-60)),
    "Shifting 1": a_rollout(S, "4+2@50", step=1, deadline=at(1)),
    "  - until promoted": a_rollout(S, "4+2@50", step=1, observed_since=at(-9999)),
    "  - promoted": a_rollout(S, "4+2@50", step=1, observed_since=at(0), promoted=2),
    "Shifting all": a_rollout(S, "4+4@100", step=2, deadline=at(1)),
    "Baking": a_rollout(B, "4+4@100", step=2, observed_since=at(-29)),
    "  - long enough": a_rollout(B, "4+4@100", step=2, observed_since=at(-30)),
    "  - at once by promotion": a_rollout(B, "4+4@100", step=2, observed_since=at(0), promoted=3),
    "  - its pods were lost": a_rollout(B, "4+4@0", step=2, ready=4, observed_since=at(-30), deadline=at(1)),
    "RollingBack": a_rollout(R, "4+4@100", step=1, cause=RollbackCause.ABORTED),
    "  - all back": a_rollout(R, "4+4@0", step=1, cause=RollbackCause.ABORTED, deadline=at(9)),
}
EVENTS: Final[dict[str, dict[str, Any]]] = {
    "well": {},
    "no pod": {"ready": 0},
    "started": {"ready": 0, "candidate_started": 1},
    "unheard": {"acknowledged": False},
    "unsure": {"verdict": Verdict.INCONCLUSIVE},
    "blind": {"verdict": Verdict.ERROR},
    "bad": {"verdict": Verdict.FAIL, "checks": (GOOD, FAILED)},
    "golden": {"golden_failure": "other answers"},
    "trouble": {"ready": 0, "trouble": "CrashLooping: it crashes"},
    "late": {"ready": 0, "now": NOW + timedelta(seconds=1)},
    "no room": {"ready": 0, "now": NOW + timedelta(seconds=1), "no_room": "no GPU"},
    "paused": {"policy": POLICY.model_copy(update={"paused": True})},
    "suspended": {"replicas": 0},
}
TRANSITIONS: Final = """
                        | well | no pod | started | unheard | unsure | blind | bad        | golden   | trouble   | late   | no room | paused | suspended
Provisioning            | S0   | P      | V       | S0      | S0     | S0    | H analysis | H golden | P         | H late | P       | V      | P
Verifying               | S0   | V      | V       | S0      | S0     | S0    | H analysis | H golden | V         | H late | V       | V      | V
Copies                  | S0   | S0     | S0      | S0      | C      | C     | H shadow   | H golden | S0        | H late | S0      | C      | C
Shifting 0              | S0*  | S0     | S0      | S0      | S0*    | S0*   | R analysis | R golden | R trouble | R late | S0      | S0*    | S0
  - its pause not over  | S0*  | S0     | S0      | S0*     | S0*    | S0*   | R analysis | R golden | R trouble | S0     | S0      | S0*    | S0
  - its pause over      | S1   | S0     | S0      | S1      | S0*    | S0*   | R analysis | R golden | R trouble | S0     | S0      | S0*    | S0
Shifting 1              | S1*  | S1     | S1      | S1      | S1*    | S1*   | R analysis | R golden | R trouble | R late | S1      | S1*    | S1
  - until promoted      | S1*  | S1     | S1      | S1*     | S1*    | S1*   | R analysis | R golden | R trouble | S1     | S1      | S1*    | S1
  - promoted            | S2   | S1     | S1      | S2      | S2     | S2    | R analysis | R golden | R trouble | S1     | S1      | S1*    | S1
Shifting all            | B    | S2     | S2      | S2      | B      | B     | R analysis | R golden | R trouble | R late | S2      | B      | S2
Baking                  | B    | B      | B       | B       | B      | B     | R analysis | R golden | R trouble | B      | B       | B      | B
  - long enough         | D    | B      | B       | D       | B      | B     | R analysis | R golden | R trouble | B      | B       | B      | B
  - at once by promotion | D   | B      | B       | D       | D      | D     | R analysis | R golden | R trouble | B      | B       | B      | B
  - its pods were lost  | B    | B      | B       | B       | B      | B     | H analysis | H golden | H trouble | H late | B       | B      | B
RollingBack             | R    | R      | R       | R       | R      | R     | R          | R        | R         | R      | R       | R      | H
  - all back            | H    | H      | H       | R       | H      | H     | H          | H        | H         | H      | H       | H      | H
"""  # noqa: E501 - a table
"""P(rovisioning), V(erifying), C(opies: Shadowing), S(hifting) with its step, B(aking), D(raining), R(ollingBack),
H(alted); and the cause.

`*` means that the share of the step is observed at every gateway; what falls to none is observed anew. What has no
traffic is back at once.
"""
CAUSES: Final = {
    "analysis": RollbackCause.ANALYSIS_FAILED,
    "shadow": RollbackCause.SHADOW_DISAGREED,
    "golden": RollbackCause.GOLDEN_SET_FAILED,
    "trouble": RollbackCause.CANDIDATE_FAILED,
    "late": RollbackCause.DEADLINE_EXCEEDED,
}


def told(rollout: RolloutStatus) -> str:
    """As in the table."""
    shifting = rollout.phase is S
    letter = {RolloutPhase.HALTED: "H", C: "C"}.get(rollout.phase, rollout.phase.value[0])
    step = f"{rollout.step}{'*' if rollout.observed_since else ''}" if shifting else ""
    cause = next((f" {word}" for word, cause in CAUSES.items() if cause is rollout.cause), "")
    return f"{letter}{step}{cause}"


def rows() -> list[list[str]]:
    lines = TRANSITIONS.strip("\n").splitlines()
    return [[lines[0].split("|")[0].strip(), *(cell.strip() for cell in lines[0].split("|")[1:])]] + [
        [line.split("|")[0].rstrip(), *(cell.strip() for cell in line.split("|")[1:])] for line in lines[1:]
    ]


@pytest.mark.parametrize("row", rows()[1:], ids=lambda row: row[0].strip())
def test_transitions(row: list[str]) -> None:
    name, *cells = row
    start = STARTS[name]
    after = {event: told(advance(start, a_sight(start, **fields))) for event, fields in EVENTS.items()}
    assert after == dict(zip(rows()[0][1:], cells, strict=True))


def test_the_table_holds_every_start_and_every_event() -> None:
    header, *starts = rows()
    assert header[1:] == list(EVENTS)
    assert [row[0] for row in starts] == list(STARTS)
    assert {start.phase for start in STARTS.values()} == UNDER_WAY


def run(rollout: RolloutStatus, *, seconds: int = 1, **fields: Any) -> RolloutStatus:
    """Step once a second until it is over, with pods that do at once what is asked of them."""
    for second in range(seconds):
        if rollout.phase not in UNDER_WAY:
            break
        rollout = advance(rollout, a_sight(rollout, **{"now": NOW + timedelta(seconds=second), **fields}))
    return rollout


# Beginning.


def test_a_rollout_begins_with_everything_at_the_stable_revision() -> None:
    begun = begin(id_="w2", revision="new", from_revision="old", policy=POLICY, replicas=4, now=NOW)
    assert begun == a_rollout(
        P, "4+0@0", strategy_reason="as spec.rollout.strategy says", started_at=at(0), deadline=at(600)
    )


def test_auto_begins_as_a_surge_and_says_so() -> None:
    policy = POLICY.model_copy(update={"strategy": Strategy.AUTO})
    begun = begin(id_="w2", revision="new", from_revision="old", policy=policy, replicas=4, now=NOW)
    assert (begun.strategy, begun.steps) == (Strategy.SURGE, STEPS)
    assert begun.strategy_reason == "Auto: new pods beside the old ones, as long as there is room for them"


def test_who_recreates_has_no_steps() -> None:
    policy = POLICY.model_copy(update={"strategy": Strategy.RECREATE})
    assert begin(id_="w2", revision="new", from_revision="old", policy=policy, replicas=4, now=NOW).steps == ()


def test_a_later_edit_of_the_steps_is_for_the_next_rollout() -> None:
    policy = POLICY.model_copy(update={"steps": (Step(weight=90),)})
    after = advance(STARTS["Shifting 0"], a_sight(STARTS["Shifting 0"], policy=policy))
    assert (goal_of(after), after.steps) == (25, STEPS)


# The whole way.


def test_from_beginning_to_end() -> None:
    rollout = begin(id_="w2", revision="new", from_revision="old", policy=POLICY, replicas=4, now=NOW)
    seen: list[tuple[str, int]] = []
    for second in range(200):
        rollout = advance(rollout, a_sight(rollout, now=NOW + timedelta(seconds=second)))
        if is_waiting_for_promotion(rollout):
            rollout = rollout.model_copy(update={"promoted": rollout.step + 1})
        if not seen or seen[-1] != (told(rollout), rollout.weight):
            seen.append((told(rollout), rollout.weight))
        if rollout.phase is RolloutPhase.DRAINING:
            break
    assert seen == [
        ("P", 0),
        ("S0", 25),
        ("S0*", 25),
        ("S1", 25),
        ("S1", 50),
        ("S1*", 50),
        ("S2", 50),
        ("S2", 100),
        ("B", 100),
        ("D", 100),
    ]
    assert rollout.finished_at is not None


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.parametrize("event", EVENTS)
def test_a_step_taken_again_from_the_same_sight_changes_nothing_once_it_rests(name: str, event: str) -> None:
    """Every step that changes something gets further; and a status that was not written is made again as it was."""
    rollout = STARTS[name]
    sight = a_sight(rollout, **EVENTS[event])
    assert advance(rollout, sight) == advance(rollout, sight)
    for _ in range(12):
        after = advance(rollout, sight)
        if after == rollout or after.phase not in UNDER_WAY:
            return
        rollout = after
    raise AssertionError(f"it never rests: {rollout}")


# Pauses and promotions.


@pytest.mark.parametrize("by_command", [True, False])
@pytest.mark.parametrize("name", [name for name, start in STARTS.items() if start.phase is not R])
def test_a_pause_holds(name: str, by_command: bool) -> None:
    start = STARTS[name].model_copy(update={"paused": by_command, "promoted": 9})
    policy = POLICY.model_copy(update={"paused": not by_command})
    after = run(start, seconds=700, policy=policy)
    assert (after.step, after.weight, after.cause) == (start.step, start.weight, None)
    # Who has all traffic already keeps it, with the old pods warm beside it.
    further = {P: V, S: B if goal_of(start) == 100 else S}
    assert after.phase is further.get(start.phase, start.phase)
    assert (after.stable_replicas, after.finished_at) == (4, None)


def test_a_pause_lets_nothing_be_taken_from_the_stable_revision() -> None:
    start = a_rollout(V, "3+1@0", strategy=Strategy.REPLACE, paused=True)
    after = run(start, seconds=10)
    assert (after.stable_replicas, after.candidate_replicas, after.weight) == (3, 1, 0)
    recreate = a_rollout(P, "4+0@0", strategy=Strategy.RECREATE, steps=(), paused=True)
    assert run(recreate, seconds=10).stable_replicas == 4


def test_a_pause_leaves_nobody_without_anything() -> None:
    start = a_rollout(P, "0+0@0", strategy=Strategy.RECREATE, steps=(), paused=True)
    after = run(start, seconds=10)
    assert (after.candidate_replicas, after.weight) == (4, 100)


def test_a_pause_ends_no_deadline_of_pods_that_do_not_come() -> None:
    start = STARTS["Provisioning"].model_copy(update={"paused": True})
    assert advance(start, a_sight(start, **EVENTS["late"])).cause is RollbackCause.DEADLINE_EXCEEDED


def test_a_paused_rollout_follows_the_replicas() -> None:
    start = a_rollout(S, "4+2@50", step=1, observed_since=at(-5), paused=True)
    more, fewer = run(start, seconds=5, replicas=8), run(start, seconds=5, replicas=2)
    assert (more.stable_replicas, more.candidate_replicas, more.weight) == (8, 4, 50)
    assert (fewer.stable_replicas, fewer.candidate_replicas, fewer.weight) == (2, 1, 50)


@pytest.mark.parametrize("event", ["bad", "golden", "trouble"])
def test_a_pause_holds_no_way_back(event: str) -> None:
    start = STARTS["  - until promoted"].model_copy(update={"paused": True})
    assert advance(start, a_sight(start, **EVENTS[event])).phase is R
    back = roll_back(start, RollbackCause.ABORTED, "by command")
    assert run(back, seconds=3).phase is RolloutPhase.HALTED


def test_a_pause_that_is_over_goes_on_where_it_was() -> None:
    held = run(STARTS["Provisioning"].model_copy(update={"paused": True}), seconds=700)
    assert told(held) == "V"
    resumed = run(held.model_copy(update={"paused": False}), seconds=2)
    assert told(resumed) == "S0*"


@pytest.mark.parametrize(("seconds_ago", "after"), [(59, "S0*"), (60, "S1"), (3600, "S1")])
def test_a_step_waits_for_its_time_from_when_its_share_was_observed(seconds_ago: int, after: str) -> None:
    start = a_rollout(S, "4+1@25", observed_since=at(-seconds_ago))
    assert told(advance(start, a_sight(start))) == after


def test_a_step_without_a_pause_waits_for_its_checks_alone() -> None:
    start = a_rollout(S, "4+1@25", steps=(Step(weight=25), Step(weight=50)), observed_since=at(0))
    assert told(advance(start, a_sight(start, verdict=Verdict.INCONCLUSIVE))) == "S0*"
    assert told(advance(start, a_sight(start))) == "S1"


def test_only_a_person_ends_a_step_until_promoted() -> None:
    start = STARTS["  - until promoted"]
    assert is_waiting_for_promotion(start)
    assert run(start, seconds=100) == start
    promoted = start.model_copy(update={"promoted": 2})
    assert not is_waiting_for_promotion(promoted)
    assert told(run(promoted)) == "S2"


def test_a_promotion_counts_for_its_step_alone() -> None:
    start = a_rollout(S, "4+1@25", observed_since=at(0), promoted=1)
    assert told(run(start, seconds=500)) == "S1*"


def test_a_full_promotion_goes_all_the_way() -> None:
    start = a_rollout(S, "4+1@25", step=2, promoted=3)
    after = run(start, seconds=5, verdict=Verdict.INCONCLUSIVE)
    assert (after.phase, after.weight) == (RolloutPhase.DRAINING, 100)


@pytest.mark.parametrize(
    ("keep_warm", "seconds_ago", "phase"),
    [
        (None, 29, B),
        (None, 30, RolloutPhase.DRAINING),
        (0, 0, RolloutPhase.DRAINING),
        (90, 89, B),
        (90, 90, RolloutPhase.DRAINING),
    ],
)
def test_the_old_pods_are_kept_warm_for_a_while(keep_warm: int | None, seconds_ago: int, phase: RolloutPhase) -> None:
    start = a_rollout(B, "4+4@100", step=2, observed_since=at(-seconds_ago))
    policy = POLICY.model_copy(update={"keep_warm_seconds": keep_warm})
    after = advance(start, a_sight(start, policy=policy))
    assert after.phase is phase
    assert (after.finished_at == at(0)) is (phase is RolloutPhase.DRAINING)


@pytest.mark.parametrize("verdict", [Verdict.INCONCLUSIVE, Verdict.ERROR])
@pytest.mark.parametrize(
    "name", [name for name, start in STARTS.items() if start.observed_since and start.weight and not start.promoted]
)
def test_who_is_not_sure_never_goes_on(name: str, verdict: Verdict) -> None:
    start = STARTS[name]
    after = run(start, seconds=150, verdict=verdict)
    assert (after.phase, after.step, after.weight) == (start.phase, start.step, start.weight)


@pytest.mark.parametrize("name", ["  - its pause over", "  - promoted", "  - long enough", "  - at once by promotion"])
def test_a_candidate_without_its_pods_never_goes_on(name: str) -> None:
    """Else the last pods that serve would be removed for some that do not."""
    start = STARTS[name]
    after = run(start, seconds=300, ready=0)
    assert (after.phase, after.step, after.weight) == (start.phase, start.step, 0)
    assert run(after, seconds=2).weight == start.weight


@pytest.mark.parametrize("name", [name for name, start in STARTS.items() if start.observed_since and start.weight])
def test_a_share_that_was_lost_is_observed_anew(name: str) -> None:
    """Else the time without requests would count as time in which nothing was wrong."""
    start = STARTS[name].model_copy(update={"promoted": 0})
    lost = advance(start, a_sight(start, ready=0))
    assert (lost.phase, lost.step, lost.weight, lost.observed_since) == (start.phase, start.step, 0, None)
    assert window_of(lost) is None
    later = NOW + timedelta(seconds=300)
    back = advance(lost, a_sight(lost, ready=start.candidate_replicas, now=later))
    assert (back.weight, back.observed_since) == (start.weight, None)
    observed = advance(back, a_sight(back, now=later))
    assert (observed.phase, observed.step, observed.observed_since) == (start.phase, start.step, at(300))
    assert advance(observed, a_sight(observed, now=later)) == observed, "its time begins anew"


def test_a_share_of_which_something_is_left_stays_observed() -> None:
    start = STARTS["  - until promoted"]
    fewer = advance(start, a_sight(start, ready=1))
    assert (fewer.weight, fewer.observed_since) == (25, start.observed_since)


# Ways back.


@pytest.mark.parametrize("event", ["bad", "golden", "trouble"])
@pytest.mark.parametrize("name", [name for name, start in STARTS.items() if start.weight and start.cause is None])
def test_what_fails_with_traffic_gives_all_of_it_back(name: str, event: str) -> None:
    start = STARTS[name]
    after = advance(start, a_sight(start, **EVENTS[event]))
    assert (after.phase, after.weight, after.deadline, after.observed_since) == (R, 0, at(60), None)
    halted = run(after, seconds=2)
    assert (halted.phase, halted.cause, halted.deadline) == (RolloutPhase.HALTED, after.cause, None)
    assert halted.finished_at is not None
    assert window_of(halted) is None


def test_a_way_back_says_why() -> None:
    start = STARTS["Shifting 0"]
    for event, message in (
        ("bad", FAILED.message),
        ("golden", "other answers"),
        ("trouble", "CrashLooping: it crashes"),
        ("late", "for 600 s no more of its pods came to serve"),
    ):
        assert advance(start, a_sight(start, **EVENTS[event])).message == message


def test_what_goes_back_keeps_its_first_cause() -> None:
    start = STARTS["RollingBack"]
    assert roll_back(start, RollbackCause.SUPERSEDED, "another") == start
    assert advance(start, a_sight(start, **EVENTS["golden"])).cause is RollbackCause.ABORTED


def test_the_way_back_is_as_fast_as_the_stable_revision_can_carry_it() -> None:
    rollout = STARTS["RollingBack"]
    for stable, weight in ((0, 100), (1, 75), (0, 75), (3, 25), (4, 0)):
        rollout = advance(rollout, a_sight(rollout, stable=stable))
        assert (rollout.phase, rollout.weight) == (R, weight)
    assert advance(rollout, a_sight(rollout)).phase is RolloutPhase.HALTED


@pytest.mark.parametrize(
    ("seconds", "stable", "weight"),
    [(59, 1, 75), (60, 1, 0), (60, 0, 100), (3600, 0, 100), (3600, 3, 0)],
    ids=["not for long", "too few are enough by now", "none is not", "none, ever", "one less than asked for"],
)
def test_the_way_back_ends_with_what_stable_pods_there_are(seconds: int, stable: int, weight: int) -> None:
    first = STARTS["RollingBack"]
    assert timedelta(seconds=60) == WAY_BACK_PATIENCE
    begun = advance(first, a_sight(first, stable=0))
    assert (begun.weight, begun.deadline) == (100, at(60))
    after = advance(begun, a_sight(begun, stable=stable, now=NOW + timedelta(seconds=seconds)))
    assert (after.phase, after.weight, after.deadline) == (R, weight, at(60)), "set once, at the first step back"


@pytest.mark.parametrize("strategy", [Strategy.SURGE, Strategy.REPLACE])
def test_a_way_back_with_too_few_stable_pods_is_over_in_the_end(strategy: Strategy) -> None:
    split = "4+2@50" if strategy is Strategy.SURGE else "2+2@50"
    start = roll_back(a_rollout(S, split, strategy=strategy, step=1), RollbackCause.ABORTED, "by command")
    before, after = run(start, seconds=59, stable=1), run(start, seconds=120, stable=1)
    assert (before.phase, before.weight > 0) == (R, True)
    # Who took pods from the stable revision has given the places of all of them back.
    assert (after.phase, after.weight, after.stable_replicas) == (RolloutPhase.HALTED, 0, 4)


def test_after_its_time_a_way_back_takes_all_places_of_a_replacement_at_once() -> None:
    start = a_rollout(R, "2+2@50", strategy=Strategy.REPLACE, cause=RollbackCause.ABORTED, deadline=at(60))
    early = advance(start, a_sight(start, stable=1, now=NOW + timedelta(seconds=59)))
    assert (early.stable_replicas, early.candidate_replicas) == (2, 2), "the next only once its own are ready"
    late = advance(start, a_sight(start, stable=1, now=NOW + timedelta(seconds=60)))
    assert (late.stable_replicas, late.candidate_replicas, late.weight) == (2, 0, 0)
    # With no stable pod at all the candidate's are all that serve.
    nobody = advance(start, a_sight(start, stable=0, now=NOW + timedelta(seconds=60)))
    assert (nobody.candidate_replicas, nobody.weight) == (2, 50)


@pytest.mark.parametrize("cause", [RollbackCause.SUPERSEDED, RollbackCause.ANALYSIS_FAILED])
@pytest.mark.parametrize(
    ("fields", "lost_seconds", "phase"),
    [
        ({}, LOST_SECONDS, RolloutPhase.DRAINING),
        ({}, LOST_SECONDS - 1, R),
        ({"superseded": False}, LOST_SECONDS, R),
        ({"ready": 0}, LOST_SECONDS, R),
        ({"stable": 1}, LOST_SECONDS, R),
        ({"stable": 1, "ready": 0}, 9 * LOST_SECONDS, R),
    ],
    ids=["lost", "not for long", "the stable one is asked for", "neither serves", "it is back", "it alone serves"],
)
def test_who_is_on_its_way_back_to_a_revision_that_is_lost_stays_until_the_next_takes_over(
    fields: dict[str, Any], lost_seconds: int, phase: RolloutPhase, cause: RollbackCause
) -> None:
    start = a_rollout(R, "4+2@50", step=1, cause=cause, stable_lost_since=at(-lost_seconds))
    after = advance(start, a_sight(start, **{"stable": 0, "superseded": True, **fields}))
    assert after.phase is phase
    assert (after.finished_at == at(0)) is (phase is RolloutPhase.DRAINING)
    if phase is RolloutPhase.DRAINING:
        assert after.weight == 50, "nothing is taken from it"


def test_a_stable_revision_that_never_served_since_a_pause_of_all_is_not_lost_on_the_way_back() -> None:
    start = a_rollout(R, "4+2@50", step=1, cause=RollbackCause.SUPERSEDED, stable_served=False)
    assert run(start, seconds=3 * LOST_SECONDS, stable=0, superseded=True).phase is R


def test_a_way_back_never_gives_traffic_again_to_who_has_lost_it() -> None:
    start = a_rollout(R, "2+2@0", strategy=Strategy.REPLACE, cause=RollbackCause.ABORTED, deadline=at(0))
    assert run(start, seconds=9, stable=1).weight == 0


@pytest.mark.parametrize("strategy", [Strategy.REPLACE, Strategy.RECREATE])
def test_who_took_the_stable_revisions_pods_gives_them_back_before_it_halts(strategy: Strategy) -> None:
    start = roll_back(a_rollout(B, "0+4@100", strategy=strategy, step=2), RollbackCause.ABORTED, "by command")
    after = run(start, seconds=60)
    assert (after.phase, after.stable_replicas, after.candidate_replicas, after.weight) == (
        RolloutPhase.HALTED,
        4,
        0,
        0,
    )


def test_after_which_causes_a_revision_is_not_tried_again() -> None:
    assert set(RollbackCause) - FAILURES == {RollbackCause.SUPERSEDED, RollbackCause.REVERTED}


@pytest.mark.parametrize(
    ("strategy", "phase", "goes_back"),
    [
        (Strategy.SURGE, P, False),
        (Strategy.SURGE, V, False),
        (Strategy.SURGE, S, True),
        (Strategy.REPLACE, P, True),
        (Strategy.REPLACE, V, True),
        (Strategy.RECREATE, P, True),
    ],
)
def test_trouble_is_waited_out_only_by_who_took_nothing_from_the_stable_revision(
    strategy: Strategy, phase: RolloutPhase, goes_back: bool
) -> None:
    start = a_rollout(phase, "3+1@25" if phase is S else "3+1@0", strategy=strategy, deadline=at(1))
    trouble = EVENTS["trouble"]
    assert (advance(start, a_sight(start, **trouble)).cause is RollbackCause.CANDIDATE_FAILED) is goes_back
    late = {**trouble, "now": NOW + timedelta(seconds=1)}
    after = advance(start, a_sight(start, **late))
    assert (after.cause, after.message) == (RollbackCause.CANDIDATE_FAILED, "CrashLooping: it crashes")


def test_trouble_that_may_pass_by_itself_gives_nothing_back_before_the_deadline() -> None:
    start = a_rollout(S, "4+2@50", step=1, observed_since=at(-5), ready=2, deadline=at(1))
    trouble: dict[str, Any] = {"ready": 1, "trouble": "SourceUnreachable: a hiccup", "trouble_lasts": False}
    assert advance(start, a_sight(start, **trouble)).cause is None
    assert advance(start, a_sight(start, **{**trouble, "trouble_lasts": True})).cause is RollbackCause.CANDIDATE_FAILED
    late = advance(start, a_sight(start, **trouble, now=NOW + timedelta(seconds=1)))
    assert (late.cause, late.message) == (RollbackCause.CANDIDATE_FAILED, "SourceUnreachable: a hiccup")


# Deadlines.


def test_a_deadline_is_renewed_by_every_pod_that_gets_ready() -> None:
    start = a_rollout(S, "4+4@50", step=2, ready=2, deadline=at(10))
    same = advance(start, a_sight(start, ready=2, now=NOW + timedelta(seconds=9)))
    assert (same.deadline, same.ready) == (at(10), 2)
    further = advance(start, a_sight(start, ready=3, now=NOW + timedelta(seconds=9)))
    assert (further.deadline, further.ready) == (at(609), 3)
    # One that was there before is no progress.
    again = advance(further, a_sight(further, ready=2, now=NOW + timedelta(seconds=20)))
    again = advance(again, a_sight(again, ready=3, now=NOW + timedelta(seconds=30)))
    assert again.deadline == at(609)


def test_every_step_counts_its_pods_anew() -> None:
    start = a_rollout(S, "4+4@50", step=1, ready=4, observed_since=at(-5), promoted=2)
    start = advance(start, a_sight(start, replicas=4, ready=4))
    assert (start.step, start.candidate_replicas) == (1, 2), "more than the share needs"
    after = advance(start, a_sight(start, ready=2))
    assert (after.step, after.ready) == (2, 2)


def test_a_pod_that_starts_and_crashes_over_and_over_gets_no_further() -> None:
    rollout = a_rollout(P, "4+1@0", deadline=at(600))
    for second in range(0, 1300, 10):
        rollout = advance(
            rollout,
            a_sight(rollout, ready=0, candidate_started=second // 10 % 2, now=NOW + timedelta(seconds=second)),
        )
        if rollout.cause:
            break
    assert rollout.cause is RollbackCause.DEADLINE_EXCEEDED


def test_a_deadline_does_not_run_while_there_is_no_room() -> None:
    """With Surge: it takes nothing from anybody."""
    start = STARTS["Provisioning"]
    waiting = advance(start, a_sight(start, **EVENTS["no room"]))
    assert (waiting.deadline, waiting.cause) == (None, None)
    late = NOW + timedelta(hours=9)
    still = advance(waiting, a_sight(waiting, ready=0, no_room="no GPU", now=late))
    assert still == waiting
    placed = advance(still, a_sight(still, ready=0, now=late))
    assert placed.deadline == at(9 * 3600 + 600)


@pytest.mark.parametrize(("strategy", "split"), [(Strategy.REPLACE, "3+1@0"), (Strategy.RECREATE, "0+4@0")])
def test_a_deadline_runs_also_without_room_where_stable_pods_have_ended_for_it(strategy: Strategy, split: str) -> None:
    start = a_rollout(P, split, strategy=strategy, deadline=at(600))
    before = advance(start, a_sight(start, ready=0, no_room="no GPU", now=NOW + timedelta(seconds=599)))
    assert (before.deadline, before.cause) == (at(600), None)
    after = advance(before, a_sight(before, ready=0, no_room="no GPU", now=NOW + timedelta(seconds=600)))
    assert (after.cause, after.message) == (RollbackCause.DEADLINE_EXCEEDED, "its pods find no room: no GPU")
    # What it lacks comes before what else is wrong with its pods.
    both = a_sight(before, ready=0, no_room="no GPU", now=NOW + timedelta(seconds=600), golden_failure="")
    assert advance(before, both).message == "its pods find no room: no GPU"


@pytest.mark.parametrize(
    ("strategy", "split", "goes_back"),
    [
        (Strategy.RECREATE, "0+4@0", True),
        (Strategy.RECREATE, "0+4@100", False),
        (Strategy.REPLACE, "3+1@0", False),
        (Strategy.SURGE, "4+1@0", False),
    ],
    ids=["nobody serves", "the first serves", "Replace", "Surge"],
)
def test_who_recreates_and_finds_no_room_for_long_goes_back_at_once(
    strategy: Strategy, split: str, goes_back: bool
) -> None:
    start = a_rollout(P, split, strategy=strategy, steps=(), deadline=at(600))
    for for_long in (False, True):
        after = advance(start, a_sight(start, ready=0, no_room="no GPU", no_room_for_long=for_long))
        assert (after.cause is RollbackCause.DEADLINE_EXCEEDED) is (goes_back and for_long)
    assert after.message == ("its pods find no room: no GPU" if goes_back else "")


@pytest.mark.parametrize(
    ("strategy", "split", "ready"),
    [
        (Strategy.REPLACE, "3+0@0", 0),
        (Strategy.REPLACE, "1+2@66", 2),
        (Strategy.RECREATE, "0+0@0", 0),
    ],
)
def test_a_deadline_runs_while_old_pods_do_not_end(strategy: Strategy, split: str, ready: int) -> None:
    """All the pods that it asks for are there, and it gets no further."""
    start = a_rollout(S if ready else P, split, strategy=strategy, step=0 if strategy is Strategy.RECREATE else 2)
    fleet = Fleet(
        stable_ready=start.stable_replicas,
        stable_left=start.stable_replicas + 1,
        candidate_ready=ready,
        candidate_left=ready,
    )
    stuck = advance(start, a_sight(start, fleet=fleet))
    assert (stuck.stable_replicas, stuck.candidate_replicas) == (start.stable_replicas, start.candidate_replicas)
    assert stuck.deadline == at(600)
    assert advance(stuck, a_sight(stuck, fleet=fleet, now=NOW + timedelta(seconds=599))) == stuck
    after = advance(stuck, a_sight(stuck, fleet=fleet, now=NOW + timedelta(seconds=600)))
    assert (after.cause, after.message) == (
        RollbackCause.DEADLINE_EXCEEDED,
        "for 600 s no more of its pods came to serve",
    )


def test_a_replacement_that_has_the_pods_of_its_step_is_not_late() -> None:
    start = a_rollout(S, "3+1@25", strategy=Strategy.REPLACE, observed_since=at(-5), ready=1, deadline=at(600))
    assert advance(start, a_sight(start)).deadline is None


@pytest.mark.parametrize("name", ["  - its pause not over", "  - until promoted", "Baking", "Shifting 0"])
@pytest.mark.parametrize("fields", [{}, {"paused": True}, {"promoted": 0}])
def test_a_deadline_runs_wherever_pods_are_missing(name: str, fields: dict[str, Any]) -> None:
    start = STARTS[name].model_copy(update={"deadline": None, **fields})
    missing = advance(start, a_sight(start, ready=start.candidate_replicas - 1, verdict=Verdict.INCONCLUSIVE))
    assert missing.deadline == at(600)
    late = a_sight(missing, ready=start.candidate_replicas - 1, now=NOW + timedelta(seconds=600))
    assert advance(missing, late).cause is RollbackCause.DEADLINE_EXCEEDED
    there = advance(missing, a_sight(missing, verdict=Verdict.INCONCLUSIVE))
    assert there.deadline is None


def test_a_deadline_runs_for_pods_that_are_lost_at_an_observed_step() -> None:
    start = a_rollout(S, "4+2@50", step=1, observed_since=at(-5), ready=2)
    lost = advance(start, a_sight(start, ready=1))
    assert lost.deadline == at(600)
    back = advance(lost, a_sight(lost, now=NOW + timedelta(seconds=599)))
    assert back.deadline is None
    assert advance(lost, a_sight(lost, ready=1, now=NOW + timedelta(seconds=600))).cause is (
        RollbackCause.DEADLINE_EXCEEDED
    )


def test_nothing_is_late_that_waits_for_a_person_or_for_time() -> None:
    for name in ("  - until promoted", "  - its pause not over", "Baking"):
        start = STARTS[name]
        assert advance(start, a_sight(start)).deadline is None


def test_another_deadline_in_the_policy_counts_from_the_next_progress() -> None:
    start = a_rollout(P, "4+1@0")
    policy = POLICY.model_copy(update={"progress_deadline_seconds": 5})
    assert advance(start, a_sight(start, ready=0, policy=policy)).deadline == at(5)


# Strategies.

AUTO: Final = POLICY.model_copy(update={"strategy": Strategy.AUTO})
NO_ROOM: Final[dict[str, Any]] = {"no_room": "3 Insufficient nvidia.com/gpu", "no_room_for_long": True, "policy": AUTO}


def test_auto_without_room_for_long_replaces() -> None:
    start = a_rollout(P, "4+2@0", ready=1)
    after = advance(start, a_sight(start, ready=1, **NO_ROOM))
    assert after.strategy is Strategy.REPLACE
    assert after.strategy_reason == "Auto: no room for pods beside the old ones (3 Insufficient nvidia.com/gpu)"
    assert (after.stable_replicas, after.candidate_replicas, after.steps) == (3, 1, STEPS)


@pytest.mark.parametrize("through_gateways", [True, False])
def test_auto_without_room_recreates_where_there_is_but_one_pod(through_gateways: bool) -> None:
    start = a_rollout(P, "1+1@0")
    seen = a_sight(start, ready=0, replicas=1, through_gateways=through_gateways, misfit="of old agents", **NO_ROOM)
    after = advance(start, seen)
    assert (after.strategy, after.steps, after.step) == (Strategy.RECREATE, (), 0)
    assert after.strategy_reason == (
        "Auto: no room for a pod beside the old one (3 Insufficient nvidia.com/gpu); requests are held while it starts"
        ". Not in place: of old agents"
    )
    assert (after.stable_replicas, after.candidate_replicas) == (0, 0)


@pytest.mark.parametrize(("replicas", "beside"), [(1, True), (4, False)])
def test_auto_without_room_changes_pods_in_place_that_can(replicas: int, beside: bool) -> None:
    start = a_rollout(P, f"{replicas}+1@0")
    after = advance(start, a_sight(start, ready=0, replicas=replicas, misfit="", **NO_ROOM))
    assert (after.strategy, after.beside) == (Strategy.IN_PLACE, beside)
    assert "in place" in after.strategy_reason
    assert after.stable_replicas + after.candidate_replicas == replicas


@pytest.mark.parametrize(
    ("replicas", "misfit", "strategy", "reason"),
    [
        (4, "of old agents", Strategy.REPLACE, "no room for pods beside the old ones (3 Insufficient nvidia.com/gpu)"),
        (1, "of old agents", Strategy.RECREATE, "no room for a pod beside the old one (3 Insufficient nvidia.com/gpu)"),
        (4, "", Strategy.IN_PLACE, "no room for pods beside the old ones (3 Insufficient nvidia.com/gpu)"),
    ],
)
def test_who_asked_for_in_place_is_not_told_of_auto(
    replicas: int, misfit: str, strategy: Strategy, reason: str
) -> None:
    in_place = POLICY.model_copy(update={"strategy": Strategy.IN_PLACE})
    start = a_rollout(P, f"{replicas}+1@0")
    seen = a_sight(start, ready=0, replicas=replicas, misfit=misfit, **NO_ROOM | {"policy": in_place})
    after = advance(start, seen)
    assert (after.strategy, after.strategy_reason.startswith(reason)) == (strategy, True)


def test_auto_waits_until_it_is_known_whether_pods_can_change_in_place() -> None:
    start = a_rollout(P, "1+1@0")
    after = advance(start, a_sight(start, ready=0, replicas=1, misfit=None, **NO_ROOM))
    assert after.strategy is Strategy.SURGE


@pytest.mark.parametrize(
    "fields",
    [
        {"no_room_for_long": False},
        {"policy": POLICY},
        {"policy": AUTO.model_copy(update={"paused": True})},
        {"through_gateways": False},
    ],
    ids=["not for long", "who asked for Surge", "paused", "several pods without a gateway"],
)
def test_who_keeps_its_strategy(fields: dict[str, Any]) -> None:
    start = a_rollout(P, "4+2@0", strategy_reason="why", deadline=at(600))
    after = run(start, seconds=700, ready=0, **{**NO_ROOM, **fields})
    # It waits, and takes nothing from anybody meanwhile.
    expected = {"candidate_replicas": 1, "deadline": None}
    assert after == start.model_copy(update=expected)


@pytest.mark.parametrize(("ready", "weight"), [(3, 75), (0, 0)])
def test_auto_changes_nothing_any_more_once_all_traffic_was_there(ready: int, weight: int) -> None:
    start = STARTS["Baking"]
    after = run(start, seconds=700, ready=ready, **NO_ROOM)
    assert (after.phase, after.strategy, after.cause) == (B, Strategy.SURGE, None)
    assert (after.stable_replicas, after.candidate_replicas, after.weight) == (4, 4, weight)


def test_auto_that_replaces_never_surges_again() -> None:
    start = a_rollout(P, "3+1@0", strategy=Strategy.REPLACE, strategy_reason="why")
    after = advance(start, a_sight(start, ready=0, **NO_ROOM))
    assert (after.strategy, after.strategy_reason) == (Strategy.REPLACE, "why")


def test_a_replacement_from_beginning_to_end_goes_by_pods() -> None:
    policy = POLICY.model_copy(update={"strategy": Strategy.REPLACE, "steps": ()})
    rollout = begin(id_="w2", revision="new", from_revision="old", policy=policy, replicas=4, now=NOW)
    weights = [0]
    for second in range(100):
        rollout = advance(rollout, a_sight(rollout, policy=policy, now=NOW + timedelta(seconds=second)))
        assert rollout.stable_replicas + rollout.candidate_replicas in (3, 4)
        if rollout.weight != weights[-1]:
            weights.append(rollout.weight)
        if rollout.phase is RolloutPhase.DRAINING:
            break
    assert (rollout.phase, rollout.stable_replicas, rollout.candidate_replicas) == (RolloutPhase.DRAINING, 0, 4)
    assert weights == sorted(weights)
    assert weights[-1] == 100


# What else is lost.


def test_a_stable_revision_that_is_lost_hands_over_without_steps_or_checks() -> None:
    rollout = a_rollout(V, "4+1@0", deadline=at(600))
    fields: dict[str, Any] = {"stable": 0, "ready": 1, "verdict": Verdict.INCONCLUSIVE}
    rollout = advance(rollout, a_sight(rollout, **fields))
    assert (rollout.stable_lost_since, rollout.step) == (at(0), 0)
    rollout = advance(rollout, a_sight(rollout, **fields, now=NOW + STABLE_LOST_PATIENCE - timedelta(seconds=1)))
    assert (told(rollout), rollout.weight) == ("S0*", 25)
    rollout = advance(rollout, a_sight(rollout, **fields, now=NOW + STABLE_LOST_PATIENCE))
    assert (rollout.step, rollout.candidate_replicas, rollout.weight) == (2, 4, 100)
    rollout = advance(rollout, a_sight(rollout, **fields, now=NOW + STABLE_LOST_PATIENCE + timedelta(seconds=1)))
    assert rollout.weight == 100, "one pod is better than none"
    fields["ready"] = 4
    for second in (2, 3):
        later = NOW + STABLE_LOST_PATIENCE + timedelta(seconds=second)
        rollout = advance(rollout, a_sight(rollout, **fields, now=later))
    assert (rollout.phase, rollout.step) == (RolloutPhase.DRAINING, 2), "neither checks nor time, and no step twice"


@pytest.mark.parametrize("paused", [False, True])
def test_nobody_takes_over_who_has_no_pods_or_for_whom_nothing_is_lost(paused: bool) -> None:
    start = a_rollout(S, "4+1@25", stable_lost_since=at(-LOST_SECONDS), paused=paused)
    assert advance(start, a_sight(start, stable=0)).step == 2
    assert advance(start, a_sight(start, stable=0, ready=0)).step == 0
    back = advance(start, a_sight(start, stable=1))
    assert (back.step, back.stable_lost_since) == (0, None)
    recreate = a_rollout(S, "0+4@100", strategy=Strategy.RECREATE, steps=())
    assert advance(recreate, a_sight(recreate, stable=0)).stable_lost_since is None
    replaced = a_rollout(S, "0+4@100", strategy=Strategy.REPLACE, step=2)
    assert advance(replaced, a_sight(replaced, stable=0)).stable_lost_since is None


def test_a_pause_keeps_nobody_from_taking_over() -> None:
    start = a_rollout(V, "3+1@0", strategy=Strategy.REPLACE, stable_lost_since=at(-LOST_SECONDS), paused=True)
    after = run(start, seconds=60, stable=0)
    assert (after.stable_replicas, after.candidate_replicas, after.weight) == (0, 4, 100)


def test_what_is_bad_takes_nothing_over() -> None:
    start = a_rollout(S, "4+1@25", stable_lost_since=at(-LOST_SECONDS))
    after = advance(start, a_sight(start, stable=0, verdict=Verdict.FAIL, checks=(FAILED,)))
    assert (after.phase, after.weight) == (R, 25)


@pytest.mark.parametrize("name", [name for name, start in STARTS.items() if start.phase is not R])
def test_what_is_suspended_stays_where_it_is(name: str) -> None:
    start = STARTS[name].model_copy(update={"stable_lost_since": at(-9)})
    frozen = advance(start, a_sight(start, replicas=0, golden_failure="x", verdict=Verdict.FAIL, checks=(FAILED,)))
    expected = {"deadline": None, "observed_since": None, "stable_lost_since": None, "stable_served": False}
    assert frozen == start.model_copy(update=expected)
    assert advance(frozen, a_sight(frozen, replicas=0, now=NOW + timedelta(days=9))) == frozen


def test_what_is_no_longer_suspended_goes_on() -> None:
    start = STARTS["  - until promoted"]
    frozen = advance(start, a_sight(start, replicas=0))
    resumed = run(frozen, seconds=3)
    assert (told(resumed), resumed.stable_replicas, resumed.candidate_replicas, resumed.weight) == ("S1*", 4, 2, 50)
    assert resumed.stable_served


def test_what_is_resumed_is_not_taken_over_while_its_stable_pods_start() -> None:
    start = STARTS["  - until promoted"]
    frozen = advance(start, a_sight(start, replicas=0))
    starting = run(frozen, seconds=3 * LOST_SECONDS, stable=0)
    assert (starting.step, starting.weight, starting.stable_lost_since) == (1, 50, None)
    # Once one of them was ready, they can be lost.
    served = advance(starting, a_sight(starting, stable=1))
    assert (served.stable_served, served.stable_lost_since) == (True, None)
    assert run(served, seconds=LOST_SECONDS, stable=0).step == 1
    lost = run(served, seconds=LOST_SECONDS + 1, stable=0)
    assert (lost.stable_lost_since, lost.step) == (at(0), 2)


def test_what_was_suspended_is_observed_for_its_whole_time_anew() -> None:
    start = STARTS["  - its pause over"]
    frozen = advance(start, a_sight(start, replicas=0))
    later = NOW + timedelta(days=1)
    resumed = advance(frozen, a_sight(frozen, now=later))
    assert (told(resumed), resumed.observed_since) == ("S0*", at(86400))
    before = advance(resumed, a_sight(resumed, now=later + timedelta(seconds=59)))
    assert told(before) == "S0*"
    assert told(advance(before, a_sight(before, now=later + timedelta(seconds=60)))) == "S1"


@pytest.mark.parametrize("strategy", [Strategy.SURGE, Strategy.REPLACE, Strategy.RECREATE])
@pytest.mark.parametrize("split", ["4+4@100", "0+4@100", "2+2@50", "4+2@0"])
def test_a_way_back_of_which_nothing_runs_any_more_is_over(strategy: Strategy, split: str) -> None:
    cause = RollbackCause.ANALYSIS_FAILED
    start = a_rollout(R, split, strategy=strategy, cause=cause, message="9 % failed", deadline=at(0), step=1)
    over = advance(start, a_sight(start, replicas=0, acknowledged=False))
    assert (over.phase, over.weight, over.deadline, over.finished_at) == (RolloutPhase.HALTED, 0, None, at(0))
    assert (over.cause, over.message) == (cause, "9 % failed")


# What is written.


def test_numbers_that_only_grow_are_written_now_and_then() -> None:
    def check(samples: int, verdict: Verdict = Verdict.INCONCLUSIVE) -> tuple[CheckResult, ...]:
        return (CheckResult(name="successRate", verdict=verdict, samples=samples),)

    start = a_rollout(S, "4+1@25", observed_since=at(-5), checks=check(10), checked_at=at(0))

    def after(
        seconds: float, checks: tuple[CheckResult, ...], verdict: Verdict = Verdict.INCONCLUSIVE
    ) -> RolloutStatus:
        return advance(start, a_sight(start, checks=checks, verdict=verdict, now=NOW + timedelta(seconds=seconds)))

    seconds = CHECKS_INTERVAL.total_seconds()
    assert after(seconds - 1, check(20)) == start
    assert (after(seconds, check(20)).checks, after(seconds, check(20)).checked_at) == (check(20), at(seconds))
    assert after(seconds + 4, check(10)) == start, "nothing new"
    told_at_once = after(1, check(20, Verdict.ERROR), Verdict.ERROR)
    assert (told_at_once.checks, told_at_once.checked_at) == (check(20, Verdict.ERROR), at(1))
    assert after(1, ()).checks == ()


def test_each_step_and_each_phase_has_a_window_of_its_own() -> None:
    windows = [window_of(start) for start in STARTS.values()]
    assert windows == [
        None,
        None,
        None,
        None,
        "w2/Shifting/0",
        "w2/Shifting/0",
        None,
        "w2/Shifting/1",
        "w2/Shifting/1",
        None,
        "w2/Baking/2",
        "w2/Baking/2",
        "w2/Baking/2",
        "w2/Baking/2",
        None,
        None,
    ]
    assert window_of(STARTS["RollingBack"].model_copy(update={"observed_since": at(0)})) is None
