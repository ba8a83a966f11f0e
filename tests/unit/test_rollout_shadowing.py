"""A candidate that gets copies of requests before it gets any: when, with how many pods, and what comes of it."""

from datetime import timedelta
from typing import Any, Final

import pytest

from conch.api.rollout import RollbackCause, Rollout, RolloutPhase, RolloutStatus, Step, Strategy
from conch.api.shadow import OutputTolerance, Shadow, Tolerance
from conch.core.analysis.copies import NOTHING_COPIED, Copies, judge_copies, shadow_status
from conch.core.analysis.judgement import Verdict
from conch.core.rollout.machine import CHECKS_INTERVAL, advance, begin
from tests.unit.test_rollout_machine import NOW, POLICY, a_rollout, a_sight, at

SHADOW: Final = Shadow(percent=10, min_samples=50)
WITH_SHADOW: Final = POLICY.model_copy(update={"shadow": SHADOW})
SHADOWING: Final = a_rollout(RolloutPhase.SHADOWING, "4+1@0", shadow=shadow_status(SHADOW.share, NOTHING_COPIED))


def seen(rollout: RolloutStatus, copies: Copies, policy: Rollout = WITH_SHADOW, **fields: Any) -> RolloutStatus:
    """A step in which so much was compared."""
    assert policy.shadow
    verdict, checks = judge_copies(policy.shadow, copies)
    return advance(rollout, a_sight(rollout, policy=policy, verdict=verdict, checks=checks, copies=copies, **fields))


def run(policy: Rollout, copies: Copies, *, seconds: int, replicas: int = 4, **fields: Any) -> list[RolloutStatus]:
    """Every step from the beginning, with pods that do at once what is asked of them."""
    rollout = begin(id_="w2", revision="new", from_revision="old", policy=policy, replicas=replicas, now=NOW)
    steps = [rollout]
    for second in range(seconds):
        now = NOW + timedelta(seconds=second)
        if rollout.phase is RolloutPhase.SHADOWING:
            rollout = seen(rollout, copies, policy, now=now, replicas=replicas, **fields)
        else:
            sight = a_sight(rollout, policy=policy, now=now, replicas=replicas, **fields)
            rollout = advance(rollout, sight)
        steps.append(rollout)
    return steps


GOOD: Final = Copies(compared=50)


def test_it_comes_between_verification_and_traffic_with_one_pod() -> None:
    steps = run(WITH_SHADOW, Copies(compared=49), seconds=20)
    assert [step.phase for step in steps[-15:]] == [RolloutPhase.SHADOWING] * 15
    assert {step.weight for step in steps} == {0}
    assert (steps[-1].stable_replicas, steps[-1].candidate_replicas) == (4, 1)
    assert steps[-1].deadline is None, "nothing of its pods is missing, and traffic may be rare"
    assert steps[-1].shadow
    assert steps[-1].shadow.share == SHADOW.share

    steps = run(WITH_SHADOW, GOOD, seconds=20)
    assert RolloutPhase.SHADOWING in [step.phase for step in steps]
    assert (steps[-1].phase, steps[-1].weight) == (RolloutPhase.SHIFTING, 25)
    assert steps[-1].shadow, "what it has shown stays told"
    assert steps[-1].shadow.compared == 50


def test_replace_keeps_the_others_while_one_is_looked_at() -> None:
    policy = WITH_SHADOW.model_copy(update={"strategy": Strategy.REPLACE, "steps": ()})
    steps = run(policy, Copies(), seconds=30)
    assert steps[-1].phase is RolloutPhase.SHADOWING
    assert (steps[-1].stable_replicas, steps[-1].candidate_replicas, steps[-1].weight) == (3, 1, 0)
    steps = run(policy, GOOD, seconds=30)
    assert (steps[-1].candidate_replicas, steps[-1].weight) == (4, 100)


@pytest.mark.parametrize(("strategy", "replicas"), [(Strategy.RECREATE, 4), (Strategy.REPLACE, 1)])
def test_where_no_old_pod_runs_beside_the_new_one_it_is_left_out_and_that_is_said(
    strategy: Strategy, replicas: int
) -> None:
    policy = WITH_SHADOW.model_copy(update={"strategy": strategy, "steps": ()})
    steps = run(policy, Copies(), seconds=30, replicas=replicas)
    assert RolloutPhase.SHADOWING not in [step.phase for step in steps]
    assert steps[-1].weight == 100
    assert "rollout.shadow is left out" in steps[0].strategy_reason


def test_auto_without_room_leaves_it_out_too() -> None:
    policy = WITH_SHADOW.model_copy(update={"strategy": Strategy.AUTO, "steps": ()})
    start = a_rollout(RolloutPhase.PROVISIONING, "1+1@0", steps=())
    after = advance(
        start,
        a_sight(start, ready=0, policy=policy, replicas=1, no_room="no GPU", no_room_for_long=True, misfit="old"),
    )
    assert after.strategy is Strategy.RECREATE
    assert "rollout.shadow is left out, for no old pod runs beside the new one" in after.strategy_reason


def test_without_gateways_nothing_is_copied() -> None:
    steps = run(WITH_SHADOW.model_copy(update={"steps": ()}), Copies(), seconds=20, through_gateways=False)
    assert RolloutPhase.SHADOWING not in [step.phase for step in steps]


@pytest.mark.parametrize(
    "copies",
    [
        Copies(compared=50, disagreed=1),
        Copies(compared=49, failed=1),
        # Beyond doubt before there are enough.
        Copies(compared=20, disagreed=5),
        Copies(failed=20),
    ],
)
def test_disagreement_is_the_end_of_it(copies: Copies) -> None:
    after = seen(SHADOWING, copies)
    assert after.cause is RollbackCause.SHADOW_DISAGREED
    assert after.message
    assert after.weight == 0


def test_some_disagreement_may_be_allowed() -> None:
    policy = POLICY.model_copy(update={"shadow": Shadow(percent=10, min_samples=50, max_disagreement=4)})
    assert seen(SHADOWING, Copies(compared=50, disagreed=2), policy).phase is RolloutPhase.SHIFTING
    assert seen(SHADOWING, Copies(compared=50, disagreed=3), policy).cause is RollbackCause.SHADOW_DISAGREED


@pytest.mark.parametrize("copies", [Copies(), Copies(compared=3, disagreed=3), Copies(skipped=900, dropped=900)])
def test_too_few_say_nothing(copies: Copies) -> None:
    assert seen(SHADOWING, copies).phase is RolloutPhase.SHADOWING


def test_a_candidate_that_is_slower_than_it_may_be_is_found_out_too() -> None:
    slow = Shadow.model_validate({"percent": 10, "latency": {"percentile": 90, "maxRatioToStable": 2}})
    policy = POLICY.model_copy(update={"shadow": slow})
    fast, late = (0, 0, 500), (0,) * 20 + (500,)
    alike = Copies(compared=500, stable_latency=fast, candidate_latency=fast)
    assert seen(SHADOWING, alike, policy).phase is RolloutPhase.SHIFTING
    after = seen(SHADOWING, Copies(compared=500, stable_latency=fast, candidate_latency=late), policy)
    assert after.cause is RollbackCause.SHADOW_DISAGREED
    assert [check.name for check in after.checks] == ["shadowAnswers", "shadowLatency"]


def test_a_pause_holds_it_and_lets_it_go_back() -> None:
    paused = SHADOWING.model_copy(update={"paused": True})
    assert seen(paused, GOOD).phase is RolloutPhase.SHADOWING
    assert seen(paused, Copies(compared=50, disagreed=9)).cause is RollbackCause.SHADOW_DISAGREED
    verifying = a_rollout(RolloutPhase.VERIFYING, "4+1@0", paused=True)
    after = advance(verifying, a_sight(verifying, policy=WITH_SHADOW))
    assert after.phase is RolloutPhase.VERIFYING


def test_a_promotion_of_all_skips_it() -> None:
    promoted = a_rollout(RolloutPhase.VERIFYING, "4+1@0", promoted=3, step=2)
    after = advance(promoted, a_sight(promoted, policy=WITH_SHADOW))
    assert (after.phase, after.candidate_replicas) == (RolloutPhase.VERIFYING, 4)
    after = advance(after, a_sight(after, policy=WITH_SHADOW))
    assert (after.phase, after.weight) == (RolloutPhase.SHIFTING, 100)


def test_a_spec_that_asks_for_it_no_more_ends_it() -> None:
    assert advance(SHADOWING, a_sight(SHADOWING, policy=WITH_SHADOW, verdict=Verdict.INCONCLUSIVE)).phase is (
        RolloutPhase.SHADOWING
    )
    sight = a_sight(SHADOWING, verdict=Verdict.INCONCLUSIVE)
    without = advance(SHADOWING, type(sight)(**{**_fields(sight), "policy": POLICY}))
    assert without.phase is RolloutPhase.SHIFTING


def _fields(sight: Any) -> dict[str, Any]:
    return {name: getattr(sight, name) for name in sight.__slots__}


def test_a_lost_stable_revision_is_not_waited_for() -> None:
    lost = SHADOWING.model_copy(update={"stable_lost_since": at(-3600)})
    after = seen(lost, Copies(), stable=0)
    assert (after.phase, after.weight) == (RolloutPhase.SHIFTING, 100)


def test_other_percents_go_on_counting_and_another_way_to_compare_begins_anew() -> None:
    shown = seen(SHADOWING, Copies(compared=7, example="y differs"))
    assert shown.shadow
    assert (shown.shadow.compared, shown.shadow.example) == (7, "y differs")
    larger = SHADOW.model_copy(update={"percent": 90})
    more = seen(shown, Copies(compared=7), WITH_SHADOW.model_copy(update={"shadow": larger}))
    assert more.shadow
    assert (more.shadow.share.percent, more.shadow.compared) == (90, 7)
    other = SHADOW.model_copy(update={"tolerance": Tolerance(absolute=1)})
    anew = seen(shown, Copies(compared=7), WITH_SHADOW.model_copy(update={"shadow": other}))
    assert anew.shadow
    assert (anew.shadow.share.absolute, anew.shadow.compared) == (1, 0)


def test_numbers_that_only_grow_are_written_now_and_then() -> None:
    first = seen(SHADOWING, Copies(compared=1))
    soon = seen(first, Copies(compared=9), now=NOW + timedelta(seconds=1))
    assert soon.shadow
    assert soon.shadow.compared == 1
    later = seen(first, Copies(compared=9), now=NOW + CHECKS_INTERVAL)
    assert later.shadow
    assert later.shadow.compared == 9


def test_what_gateways_are_told_names_how_they_compare() -> None:
    plain = Shadow(percent=5).share
    assert (plain.absolute, plain.relative) == (1e-4, 1e-3)
    assert plain.comparison == Shadow(percent=50).share.comparison
    for other in (
        Shadow(percent=5, tolerance=Tolerance(relative=0)),
        Shadow(percent=5, outputs=(OutputTolerance(output="y", same_label=True),)),
    ):
        assert other.share.comparison != plain.comparison


def test_steps_are_those_of_the_policy_after_it() -> None:
    policy = WITH_SHADOW.model_copy(update={"steps": (Step(weight=50),)})
    steps = run(policy, GOOD, seconds=30)
    assert [step.weight for step in steps if step.phase is RolloutPhase.SHADOWING] == [0] * sum(
        step.phase is RolloutPhase.SHADOWING for step in steps
    )
    weights = [step.weight for step in steps]
    assert weights == sorted(weights)
    assert 50 in weights
