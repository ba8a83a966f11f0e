"""One step of a rollout: from what `status.rollout` says and what is seen to what it says next.

    Provisioning -> Verifying -> [Shadowing] -> Shifting (step 0, 1, ... all traffic) -> Baking -> Draining -> Done
         |              |             |                |                                  |
         +--------------+-------------+----------------+----------------------------------+--> RollingBack -> Halted

A pause is no phase: it only keeps the machine from going forward. Every step is written to the object's status before
anything of it is done, and a step that is taken again from the same status and sight changes nothing.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from conch.api.rollout import (
    CheckResult,
    Pause,
    RollbackCause,
    Rollout,
    RolloutPhase,
    RolloutStatus,
    Strategy,
)
from conch.api.shadow import Shadow
from conch.api.types import timestamp
from conch.core.analysis.copies import NOTHING_COPIED, Copies
from conch.core.analysis.judgement import Verdict
from conch.core.rollout.capacity import Fleet, Split, is_reached, next_split
from conch.core.rollout.shadowing import GOAL, left_out, shadows, with_copies, with_share

WAY_BACK_PATIENCE: Final = timedelta(seconds=60)
"""How long traffic stays with a revision that is rolled back because the stable one has too few ready pods for it."""

CHECKS_INTERVAL: Final = timedelta(seconds=10)
"""How often the numbers of checks whose verdicts stay the same are written."""

UNDER_WAY: Final = frozenset(
    {
        RolloutPhase.PROVISIONING,
        RolloutPhase.VERIFYING,
        RolloutPhase.SHADOWING,
        RolloutPhase.SHIFTING,
        RolloutPhase.BAKING,
        RolloutPhase.ROLLING_BACK,
    }
)
FAILURES: Final = frozenset(RollbackCause) - {RollbackCause.SUPERSEDED, RollbackCause.REVERTED}
"""Causes after which the same spec does not start the revision again."""

NO_TRAFFIC_YET: Final = (RolloutPhase.PROVISIONING, RolloutPhase.VERIFYING, RolloutPhase.SHADOWING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a step looks at."""

    policy: Rollout
    """As the spec has it now; only the steps are those that it had when the rollout began."""
    replicas: int
    """How many pods the object is to have."""
    fleet: Fleet
    candidate_started: int
    """Pods of the candidate that the kubelets call ready."""
    trouble: str = ""
    """Why a pod of the candidate does not serve and will not by itself; empty if none is in trouble."""
    trouble_lasts: bool = True
    """Whether that did not pass when it was tried again."""
    no_room: str = ""
    """Why a pod of the candidate finds no node; empty if each has one."""
    no_room_for_long: bool = False
    """Whether it has waited for longer than an automatic rollout waits for room."""
    golden_failure: str = ""
    """What a pod of the candidate answered otherwise than recorded."""
    verdict: Verdict = Verdict.PASS
    """Of all checks together, in the window of this step; of the copied requests while these are compared."""
    copies: Copies = NOTHING_COPIED
    """What was counted of them by now."""
    checks: tuple[CheckResult, ...] = ()
    superseded: bool = False
    """Whether the spec asks for neither of the two revisions."""
    acknowledged: bool
    """Whether every gateway does what the status asks for."""
    through_gateways: bool = True
    """Whether the traffic can be split at all."""
    misfit: str | None = ""
    """Why the pods that there are cannot change to the candidate in place; empty if they can, None while it is open."""
    refused: str = ""
    """Why a pod that was to change in place cannot, in its agent's words."""
    stable_lost_patience: timedelta
    """How long the stable revision may be without a ready pod until a candidate that runs takes over without more ado.

    Its requests are answered by the candidate from the first moment: gateways send to no workload without servers."""
    now: datetime


def begin(
    *, id_: str, revision: str, from_revision: str, policy: Rollout, replicas: int, misfit: str = "", now: datetime
) -> RolloutStatus:
    """A rollout that starts now; `misfit` is why pods cannot change to its revision in place."""
    if policy.strategy is Strategy.AUTO:
        strategy, why = Strategy.SURGE, "Auto: new pods beside the old ones, as long as there is room for them"
    elif policy.strategy is Strategy.IN_PLACE and misfit:
        strategy, why = Strategy.SURGE, f"not InPlace: {misfit}"
    else:
        strategy, why = policy.strategy, "as spec.rollout.strategy says"
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
    rollout = _with_strategy_that_fits(rollout, sight)
    rollout = _beside_where_it_is_alone(rollout, sight)
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
    if _is_paused(rollout, sight) and not rescues:
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


def _beside_where_it_is_alone(rollout: RolloutStatus, sight: Sight) -> RolloutStatus:
    """Where the others are no more: the only pod must not be away while it changes."""
    alone = sight.replicas == 1 and sight.fleet.stable_left + sight.fleet.candidate_left <= 1
    is_new = rollout.strategy is Strategy.IN_PLACE and alone and not rollout.beside
    return rollout.model_copy(update={"beside": True}) if is_new else rollout


def _is_paused(rollout: RolloutStatus, sight: Sight) -> bool:
    return rollout.paused or sight.policy.paused


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
        is_held = _is_paused(rollout, sight)
        return rollout if is_held else rollout.model_copy(update={"phase": RolloutPhase.SHIFTING})
    return rollout.model_copy(update={"phase": _first_phase(rollout, sight)})


def _shadowing(rollout: RolloutStatus, sight: Sight, shadow: Shadow) -> RolloutStatus:
    """It gets copies from when a pod is verified until they have shown enough."""
    is_paused = _is_paused(rollout, sight)
    if rollout.phase is RolloutPhase.SHADOWING:
        rollout = with_share(rollout, shadow)
        goes_on = sight.verdict is Verdict.PASS and not is_paused
        return rollout.model_copy(update={"phase": RolloutPhase.SHIFTING}) if goes_on else rollout
    if sight.fleet.candidate_ready and sight.fleet.stable_ready and not is_paused:
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
    if _is_paused(rollout, sight):
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
    rollout = _beside_where_it_is_alone(rollout, sight)
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


def _with_strategy_that_fits(rollout: RolloutStatus, sight: Sight) -> RolloutStatus:
    """Where Auto has begun with Surge and a pod has found no room for long: without another GPU.

    InPlace goes on as Auto does where no pod can be changed, and none was.
    """
    is_auto = sight.policy.strategy in (Strategy.AUTO, Strategy.IN_PLACE)
    held = _is_paused(rollout, sight) or rollout.phase is RolloutPhase.BAKING
    if rollout.strategy is Strategy.IN_PLACE and sight.refused and not rollout.turned:
        return _with_new_pods(rollout, sight.refused, sight)
    misfit = rollout.misfit or sight.misfit
    if not (is_auto and rollout.strategy is Strategy.SURGE and sight.no_room_for_long) or held:
        return rollout
    if sight.replicas > 1 and not sight.through_gateways:
        # A Service on the pods of one workload cannot do with some of each, and nobody asked for an end of all.
        return rollout
    if misfit is None:
        return rollout
    if not (misfit or sight.candidate_started) and rollout.phase in NO_TRAFFIC_YET:
        return rollout.model_copy(
            update={
                "strategy": Strategy.IN_PLACE,
                "strategy_reason": f"Auto: no room for pods beside the old ones ({sight.no_room}); they change their "
                "model in place" + left_out(sight.policy.shadow, Strategy.IN_PLACE, sight.replicas),
                "beside": sight.replicas == 1,
                "candidate_replicas": 0,
                "stable_replicas": sight.replicas,
            }
        )
    if sight.replicas > 1:
        # Those that run already stay, and are counted among the replicas.
        return rollout.model_copy(
            update={
                "strategy": Strategy.REPLACE,
                "strategy_reason": f"Auto: no room for pods beside the old ones ({sight.no_room})"
                + left_out(sight.policy.shadow, Strategy.REPLACE, sight.replicas)
                + _not_in_place(misfit),
                "candidate_replicas": min(sight.fleet.candidate_ready, sight.replicas),
            }
        )
    return rollout.model_copy(
        update={
            "strategy": Strategy.RECREATE,
            "strategy_reason": f"Auto: no room for a pod beside the old one ({sight.no_room}); "
            "requests are held while it starts"
            + left_out(sight.policy.shadow, Strategy.RECREATE, sight.replicas)
            + _not_in_place(misfit),
            "candidate_replicas": 0,
            "steps": (),
            "step": 0,
            "ready": 0,
            "observed_since": None,
        }
    )


def _not_in_place(misfit: str) -> str:
    """To follow a strategy's reason: why the pods that there are do not change their model."""
    return f". Not in place: {misfit}" if misfit else ""


def _with_new_pods(rollout: RolloutStatus, why: str, sight: Sight) -> RolloutStatus:
    """Surge in the place of a change that turns out to be impossible before any pod began it."""
    return rollout.model_copy(
        update={
            "strategy": Strategy.SURGE,
            "strategy_reason": f"not InPlace: {why}",
            "misfit": why,
            "beside": False,
            "candidate_replicas": 0,
            "stable_replicas": sight.replicas,
            "deadline": None,
        }
    )


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
