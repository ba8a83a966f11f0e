"""When a candidate gets copies of requests before it gets any traffic, and what status tells of that."""

from typing import Final

from conch.api.rollout import RolloutPhase, RolloutStatus, Strategy
from conch.api.shadow import Shadow
from conch.core.analysis.copies import NOTHING_COPIED, Copies, shadow_status
from conch.core.rollout.phases import NO_TRAFFIC_YET

GOAL: Final = 1
"""Percent whose pods it has meanwhile: one is enough to be asked, and costs least if it is given up."""


def shadows(rollout: RolloutStatus, shadow: Shadow | None, replicas: int, *, through_gateways: bool) -> bool:
    """Whether a rollout compares copies before anything else, or will once a pod of the candidate is verified."""
    return (
        shadow is not None
        and through_gateways
        and rollout.phase in NO_TRAFFIC_YET
        and rollout.weight == 0
        and rollout.promoted == 0
        and _has_both(rollout.strategy, replicas)
    )


def left_out(shadow: Shadow | None, strategy: Strategy, replicas: int) -> str:
    """To follow the strategy's reason: why nothing is compared though it is asked for; empty if it is, or is not."""
    if shadow is None or _has_both(strategy, replicas):
        return ""
    return "; rollout.shadow is left out, for no old pod runs beside the new one to compare with"


def _has_both(strategy: Strategy, replicas: int) -> bool:
    """Whether pods of both revisions run at the same time before the candidate has any traffic."""
    one_by_one = strategy in (Strategy.IN_PLACE, Strategy.REPLACE)
    return strategy is Strategy.SURGE or (one_by_one and replicas > 1)


def with_share(rollout: RolloutStatus, shadow: Shadow) -> RolloutStatus:
    """With what gateways are to copy and how they compare, as the spec has it now."""
    before = rollout.shadow or shadow_status(shadow.share, NOTHING_COPIED)
    if rollout.shadow is not None and before.share == shadow.share:
        return rollout
    if before.share.comparison != shadow.share.comparison:
        # What another way to compare has shown counts no more.
        before = shadow_status(shadow.share, NOTHING_COPIED)
    return rollout.model_copy(update={"shadow": before.model_copy(update={"share": shadow.share})})


def with_copies(rollout: RolloutStatus, copies: Copies) -> RolloutStatus:
    """With what was counted by now, while it is counted."""
    if rollout.phase is not RolloutPhase.SHADOWING or rollout.shadow is None:
        return rollout
    return rollout.model_copy(update={"shadow": shadow_status(rollout.shadow.share, copies)})
