"""One step of a rollout: from what `status.rollout` says and what is seen to what it says next.

    Provisioning -> Verifying -> [Shadowing] -> Shifting (step 0, 1, ... all traffic) -> Baking -> Draining -> Done
         |              |             |                |                                  |
         +--------------+-------------+----------------+----------------------------------+--> RollingBack -> Halted

A pause is no phase: it only keeps the machine from going forward. Every step is written to the object's status before
anything of it is done, and a step that is taken again from the same status and sight changes nothing.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from conch.api.rollout import (
    Pause,
    RollbackCause,
    Rollout,
    RolloutPhase,
    RolloutStatus,
    Strategy,
)
from conch.api.shadow import Shadow
from conch.api.types import timestamp
from conch.core.analysis.judgement import Verdict
from conch.core.rollout.capacity import Split, is_reached, next_split
from conch.core.rollout.phases import NO_TRAFFIC_YET
from conch.core.rollout.shadowing import GOAL, left_out, shadows, with_copies, with_share
from conch.core.rollout.sight import Sight
from conch.core.rollout.strategy import beside_where_it_is_alone, first_strategy, with_strategy_that_fits

WAY_BACK_PATIENCE: Final = timedelta(seconds=60)
"""How long traffic stays with a revision that is rolled back because the stable one has too few ready pods for it."""

CHECKS_INTERVAL: Final = timedelta(seconds=10)
"""How often the numbers of checks whose verdicts stay the same are written."""


def begin(
    *, id_: str, revision: str, from_revision: str, policy: Rollout, replicas: int, misfit: str = "", now: datetime
) -> RolloutStatus:
    """A rollout that starts now; `misfit` is why pods cannot change to its revision in place."""
    strategy, why = first_strategy(policy, misfit)
    why += left_out(policy.shadow, strategy, replicas)
    steps = () if strategy is Strategy.RECREATE else policy.steps
    return RolloutStatus(
        id=id_,
        revision=revision,
        from_revision=from_revision,
        strategy=strategy,
        strategy_reason=why,
        steps=steps,
        phase=RolloutPhase.PROVISIONING,
        stable_replicas=replicas,
        beside=strategy is Strategy.IN_PLACE and replicas == 1,
        deadline=timestamp(now + timedelta(seconds=policy.effective_progress_deadline_seconds)),
        started_at=timestamp(now),
    )


def roll_back(rollout: RolloutStatus, cause: RollbackCause, message: str) -> RolloutStatus:
    """The same rollout on its way back; one that is already keeps its first cause."""
    if rollout.cause is not None:
        return rollout
    return rollout.model_copy(
        update={
            "phase": RolloutPhase.ROLLING_BACK,
            "cause": cause,
            "message": message,
            "observed_since": None,
            "deadline": None,
        }
    )


def advance(rollout: RolloutStatus, sight: Sight) -> RolloutStatus:
    """The next step of a rollout that is under way. DRAINING says: from now on the candidate is the stable revision."""
    if sight.replicas == 0:
        # Suspended: nothing runs that could be judged. It goes on where it was.
        resting: dict[str, object] = {
            "deadline": None,
            "observed_since": None,
            "stable_lost_since": None,
            "stable_served": False,
        }
        if rollout.phase is RolloutPhase.ROLLING_BACK:
            resting |= {"phase": RolloutPhase.HALTED, "weight": 0, "finished_at": timestamp(sight.now)}
        return rollout.model_copy(update=resting)
    rollout = _with_checks(rollout, sight)
    served = rollout.stable_served or sight.fleet.stable_ready > 0
    rollout = rollout.model_copy(
        update={"stable_served": served, "stable_lost_since": _stable_lost(rollout, sight) if served else None}
    )
    if rollout.cause is None and (why := _cause(rollout, sight)):
        rollout = roll_back(rollout, *why)
    if rollout.phase is RolloutPhase.ROLLING_BACK:
        return _back(rollout, sight)
    return _forward(rollout, sight)


def goal_of(rollout: RolloutStatus) -> int:
    """The share of the traffic, in percent, that the candidate is on its way to."""
    if rollout.phase is RolloutPhase.ROLLING_BACK:
        return 0
    return rollout.steps[rollout.step].weight if rollout.step < len(rollout.steps) else 100


def window_of(rollout: RolloutStatus) -> str | None:
    """Name of the window in which the candidate is judged now; None while it has not got its share yet."""
    if rollout.observed_since is None or rollout.phase is RolloutPhase.ROLLING_BACK:
        return None
    return f"{rollout.id}/{rollout.phase.value}/{rollout.step}"


def is_waiting_for_promotion(rollout: RolloutStatus) -> bool:
    """Whether nothing but a person's word is missing."""
    return (
        rollout.phase is RolloutPhase.SHIFTING
        and rollout.observed_since is not None
        and rollout.step < len(rollout.steps)
        and rollout.steps[rollout.step].pause is Pause.UNTIL_PROMOTED
        and rollout.promoted <= rollout.step
    )


def _with_checks(rollout: RolloutStatus, sight: Sight) -> RolloutStatus:
    """With what the checks say; numbers that only grow are worth a write every few seconds."""
    if sight.checks == rollout.checks:
        return rollout
    same = [(check.name, check.verdict) for check in sight.checks] == [
        (check.name, check.verdict) for check in rollout.checks
    ]
    written = rollout.checked_at and datetime.fromisoformat(rollout.checked_at)
    if same and written and sight.now - written < CHECKS_INTERVAL:
        return rollout
    told = rollout.model_copy(update={"checks": sight.checks, "checked_at": timestamp(sight.now)})
    return with_copies(told, sight.copies)


def _cause(rollout: RolloutStatus, sight: Sight) -> tuple[RollbackCause, str] | None:
    if sight.golden_failure:
        return RollbackCause.GOLDEN_SET_FAILED, sight.golden_failure
    if sight.verdict is Verdict.FAIL:
        failed = next(check for check in sight.checks if check.verdict == Verdict.FAIL)
        shadowing = rollout.phase is RolloutPhase.SHADOWING
        return RollbackCause.SHADOW_DISAGREED if shadowing else RollbackCause.ANALYSIS_FAILED, failed.message
    spares_capacity = rollout.strategy is not Strategy.SURGE
    if sight.trouble and sight.trouble_lasts and (rollout.phase not in NO_TRAFFIC_YET or spares_capacity):
        return RollbackCause.CANDIDATE_FAILED, sight.trouble
    if rollout.strategy is Strategy.RECREATE and rollout.weight == 0 and sight.no_room_for_long:
        # The old pods have ended for it, and what they had is not enough, or somebody else's now.
        return RollbackCause.DEADLINE_EXCEEDED, f"its pods find no room: {sight.no_room}"
    if rollout.deadline is None or sight.now < datetime.fromisoformat(rollout.deadline):
        return None
    if rollout.candidate_replicas and _is_whole(rollout, sight):
        # Nobody looked until now, and all that it was asked for is there.
        return None
    if sight.no_room and not spares_capacity:
        return None
    if sight.no_room:
        return RollbackCause.DEADLINE_EXCEEDED, f"its pods find no room: {sight.no_room}"
    if sight.trouble:
        return RollbackCause.CANDIDATE_FAILED, sight.trouble
    seconds = sight.policy.effective_progress_deadline_seconds
    return RollbackCause.DEADLINE_EXCEEDED, f"for {seconds} s no more of its pods came to serve"


def _forward(rollout: RolloutStatus, sight: Sight) -> RolloutStatus:
    rollout = with_strategy_that_fits(rollout, sight)
    rollout = beside_where_it_is_alone(rollout, sight)
    before = _split(rollout)
    if rescues := _takes_over(rollout, sight):
        skips = rollout.step < len(rollout.steps)
        rollout = rollout.model_copy(
            update={
                "step": len(rollout.steps),
                "promoted": len(rollout.steps) + 1,
                "observed_since": None if skips else rollout.observed_since,
            }
        )
        # Those of its pods that serve are better than none.
        before = replace(before, weight=100)
    shadowed = shadows(rollout, sight.policy.shadow, sight.replicas, through_gateways=sight.through_gateways)
    split = next_split(rollout.strategy, GOAL if shadowed else goal_of(rollout), sight.replicas, sight.fleet, before)
    if shadowed:
        split = replace(split, weight=0)
    if sight.holds(rollout) and not rescues:
        if rollout.observed_since and before.weight:
            # All of this step's share it had already.
            before = replace(before, weight=max(before.weight, goal_of(rollout)))
        split = _held(rollout.strategy, split, before, sight.replicas)
    moves = split != _split(rollout)
    rollout = _with_split(rollout, split)
    if rollout.phase in NO_TRAFFIC_YET:
        return _timed(_starting(rollout, sight, shadowed=shadowed), rollout, sight)
    if split.weight == 0:
        # What it has not got does not count.
        rollout = rollout.model_copy(update={"observed_since": None})
    reached = not moves and is_reached(rollout.strategy, goal_of(rollout), sight.replicas, split, sight.fleet)
    if rollout.observed_since is None:
        there = reached and sight.acknowledged
        return _timed(_arrived(rollout, sight) if there else rollout, rollout, sight)
    return _timed(_next_step(rollout, sight) if reached and _may_go_on(rollout, sight) else rollout, rollout, sight)


def _held(strategy: Strategy, split: Split, before: Split, replicas: int) -> Split:
    """A move as far as a pause lets it: no more traffic, and nothing is taken from the stable revision for it.

    But for what the stable revision could not carry, because it has nothing any more.
    """
    if strategy is Strategy.IN_PLACE:
        candidate = min(split.candidate, before.candidate)
        return Split(stable=replicas - candidate, candidate=candidate, weight=min(split.weight, before.weight))
    is_too_many = before.stable + before.candidate > replicas
    stable = split.stable if is_too_many else max(split.stable, before.stable)
    return replace(split, stable=stable, weight=min(split.weight, before.weight) if stable else split.weight)


def _starting(rollout: RolloutStatus, sight: Sight, *, shadowed: bool) -> RolloutStatus:
    if rollout.weight > 0:
        return rollout.model_copy(update={"phase": RolloutPhase.SHIFTING})
    if shadowed and sight.policy.shadow is not None:
        return _shadowing(rollout, sight, sight.policy.shadow)
    if rollout.phase is RolloutPhase.SHADOWING:
        # Nobody asks for it any more.
        is_held = sight.holds(rollout)
        return rollout if is_held else rollout.model_copy(update={"phase": RolloutPhase.SHIFTING})
    return rollout.model_copy(update={"phase": _first_phase(rollout, sight)})


def _shadowing(rollout: RolloutStatus, sight: Sight, shadow: Shadow) -> RolloutStatus:
    """It gets copies from when a pod is verified until they have shown enough."""
    if rollout.phase is RolloutPhase.SHADOWING:
        rollout = with_share(rollout, shadow)
        goes_on = sight.verdict is Verdict.PASS and not sight.holds(rollout)
        return rollout.model_copy(update={"phase": RolloutPhase.SHIFTING}) if goes_on else rollout
    if sight.fleet.candidate_ready and sight.fleet.stable_ready and not sight.holds(rollout):
        return with_share(rollout.model_copy(update={"phase": RolloutPhase.SHADOWING}), shadow)
    return rollout.model_copy(update={"phase": _first_phase(rollout, sight)})


def _first_phase(rollout: RolloutStatus, sight: Sight) -> RolloutPhase:
    # Never back: who starts, crashes and starts again gets no further, and its deadline is to come.
    return RolloutPhase.VERIFYING if sight.candidate_started else rollout.phase


def _arrived(rollout: RolloutStatus, sight: Sight) -> RolloutStatus:
    """It has the share of its step; what has all of it is judged once more, with the old pods still there."""
    phase = rollout.phase if rollout.step < len(rollout.steps) else RolloutPhase.BAKING
    return rollout.model_copy(update={"phase": phase, "observed_since": timestamp(sight.now)})


def _may_go_on(rollout: RolloutStatus, sight: Sight) -> bool:
    """Whether everything that this step waits for has come."""
    if sight.holds(rollout):
        return False
    if rollout.promoted > rollout.step:
        return True
    if sight.verdict is not Verdict.PASS or is_waiting_for_promotion(rollout):
        return False
    assert rollout.observed_since is not None  # noqa: S101 - the caller's promise
    waited = sight.now - datetime.fromisoformat(rollout.observed_since)
    if rollout.phase is RolloutPhase.BAKING:
        return waited >= timedelta(seconds=sight.policy.effective_keep_warm_seconds)
    # With all of the traffic there is no step any more.
    pause_seconds = rollout.steps[rollout.step].pause_seconds if rollout.step < len(rollout.steps) else None
    return waited >= timedelta(seconds=pause_seconds or 0)


def _next_step(rollout: RolloutStatus, sight: Sight) -> RolloutStatus:
    if rollout.phase is RolloutPhase.BAKING:
        return rollout.model_copy(
            update={"phase": RolloutPhase.DRAINING, "finished_at": timestamp(sight.now), "observed_since": None}
        )
    return rollout.model_copy(update={"step": rollout.step + 1, "observed_since": None, "ready": 0})


def _back(rollout: RolloutStatus, sight: Sight) -> RolloutStatus:
    if rollout.deadline is None:
        rollout = rollout.model_copy(update={"deadline": timestamp(sight.now + WAY_BACK_PATIENCE)})
    if sight.superseded and _is_lost(rollout, sight):
        # There is nothing to go back to. What serves stays until the revision that is asked for now takes over.
        stays = {"phase": RolloutPhase.DRAINING, "finished_at": timestamp(sight.now), "deadline": None, "cause": None}
        return rollout.model_copy(update=stays)
    fleet = sight.fleet
    if fleet.stable_ready and rollout.deadline and sight.now >= datetime.fromisoformat(rollout.deadline):
        # Fewer pods that are good are better by now than more of which some are bad.
        fleet = replace(fleet, candidate_ready=0)
    rollout = beside_where_it_is_alone(rollout, sight)
    before = _split(rollout)
    split = next_split(rollout.strategy, 0, sight.replicas, fleet, before)
    rollout = _with_split(rollout, split)
    has_its_pods = split.candidate == 0 and split.stable == sight.replicas and not rollout.turned
    if (
        rollout.strategy is Strategy.IN_PLACE
        and rollout.deadline
        and sight.now < datetime.fromisoformat(rollout.deadline)
    ):
        # Who has not heard yet that it is to change back would not be told any more.
        has_its_pods = has_its_pods and sight.fleet.stable_ready >= sight.replicas
    staffed = rollout.strategy is Strategy.SURGE or has_its_pods
    if split == before and split.weight == 0 and staffed and sight.acknowledged:
        return rollout.model_copy(
            update={"phase": RolloutPhase.HALTED, "finished_at": timestamp(sight.now), "deadline": None}
        )
    return rollout


def _takes_over(rollout: RolloutStatus, sight: Sight) -> bool:
    """Whether the stable revision is lost, so that a candidate that serves must not wait for anything any more."""
    return rollout.strategy is not Strategy.RECREATE and rollout.stable_replicas > 0 and _is_lost(rollout, sight)


def _is_lost(rollout: RolloutStatus, sight: Sight) -> bool:
    """Whether the stable revision has had no ready pod for long, and the candidate has one."""
    if rollout.stable_lost_since is None or sight.fleet.candidate_ready == 0:
        return False
    return sight.now - datetime.fromisoformat(rollout.stable_lost_since) >= sight.stable_lost_patience


def _stable_lost(rollout: RolloutStatus, sight: Sight) -> str | None:
    if sight.fleet.stable_ready or rollout.strategy is Strategy.RECREATE or rollout.stable_replicas == 0:
        return None
    return rollout.stable_lost_since or timestamp(sight.now)


def _timed(after: RolloutStatus, before: RolloutStatus, sight: Sight) -> RolloutStatus:
    """With the time until which it has to get further; none while nothing of its pods is missing.

    Surge takes nothing from anybody while it waits for room, so it may wait.
    """
    ready = sight.fleet.candidate_ready
    waits = bool(sight.no_room) and after.strategy is Strategy.SURGE
    if _is_whole(after, sight) or after.phase is RolloutPhase.DRAINING or waits:
        return after.model_copy(update={"deadline": None, "ready": max(after.ready, ready)})
    further = (after.phase, after.step) != (before.phase, before.step) or ready > after.ready
    if after.deadline is not None and not further:
        return after
    deadline = sight.now + timedelta(seconds=sight.policy.effective_progress_deadline_seconds)
    return after.model_copy(update={"deadline": timestamp(deadline), "ready": max(after.ready, ready)})


def _is_whole(rollout: RolloutStatus, sight: Sight) -> bool:
    """Whether all pods serve that were asked for, and none is waited for to end: it may be stuck."""
    asked = rollout.stable_replicas + rollout.candidate_replicas
    awaits_room = rollout.strategy is not Strategy.SURGE and asked < sight.replicas
    return sight.fleet.candidate_ready >= rollout.candidate_replicas and not awaits_room


def _split(rollout: RolloutStatus) -> Split:
    return Split(stable=rollout.stable_replicas, candidate=rollout.candidate_replicas, weight=rollout.weight)


def _with_split(rollout: RolloutStatus, split: Split) -> RolloutStatus:
    return rollout.model_copy(
        update={"stable_replicas": split.stable, "candidate_replicas": split.candidate, "weight": split.weight}
    )
