"""Which strategy a rollout has: when it begins, and when there turns out to be no room, or no pod that can change."""

from conch.api.rollout import Rollout, RolloutPhase, RolloutStatus, Strategy
from conch.core.rollout.phases import NO_TRAFFIC_YET
from conch.core.rollout.shadowing import left_out
from conch.core.rollout.sight import Sight


def first_strategy(policy: Rollout, misfit: str) -> tuple[Strategy, str]:
    """How a rollout begins, and why so; `misfit` is why pods cannot change to its revision in place."""
    if policy.strategy is Strategy.AUTO:
        return Strategy.SURGE, "Auto: new pods beside the old ones, as long as there is room for them"
    if policy.strategy is Strategy.IN_PLACE and misfit:
        return Strategy.SURGE, f"not InPlace: {misfit}"
    return policy.strategy, "as spec.rollout.strategy says"


def with_strategy_that_fits(rollout: RolloutStatus, sight: Sight) -> RolloutStatus:
    """Where Auto has begun with Surge and a pod has found no room for long: without another GPU.

    InPlace goes on as Auto does where no pod can be changed, and none was.
    """
    may_do_without_room = sight.policy.strategy in (Strategy.AUTO, Strategy.IN_PLACE)
    chosen = "Auto: " if sight.policy.strategy is Strategy.AUTO else ""
    held = sight.holds(rollout) or rollout.phase is RolloutPhase.BAKING
    if rollout.strategy is Strategy.IN_PLACE and sight.refused and not rollout.turned:
        return _with_new_pods(rollout, sight.refused, sight)
    misfit = rollout.misfit or sight.misfit
    if not (may_do_without_room and rollout.strategy is Strategy.SURGE and sight.no_room_for_long) or held:
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
                "strategy_reason": f"{chosen}no room for pods beside the old ones ({sight.no_room}); they change their "
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
                "strategy_reason": f"{chosen}no room for pods beside the old ones ({sight.no_room})"
                + left_out(sight.policy.shadow, Strategy.REPLACE, sight.replicas)
                + _not_in_place(misfit),
                "candidate_replicas": min(sight.fleet.candidate_ready, sight.replicas),
            }
        )
    return rollout.model_copy(
        update={
            "strategy": Strategy.RECREATE,
            "strategy_reason": f"{chosen}no room for a pod beside the old one ({sight.no_room}); "
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


def beside_where_it_is_alone(rollout: RolloutStatus, sight: Sight) -> RolloutStatus:
    """The same; in place beside what it has where the others are no more: the only pod must not be away meanwhile."""
    alone = sight.replicas == 1 and sight.fleet.stable_left + sight.fleet.candidate_left <= 1
    is_new = rollout.strategy is Strategy.IN_PLACE and alone and not rollout.beside
    return rollout.model_copy(update={"beside": True}) if is_new else rollout


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
