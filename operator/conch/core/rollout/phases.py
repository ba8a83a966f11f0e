"""What the phases of a rollout, and the causes of a rollback, have in common."""

from typing import Final

from conch.api.rollout import RollbackCause, RolloutPhase

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
"""Phases from which a rollout goes on by itself."""
FAILURES: Final = frozenset(RollbackCause) - {RollbackCause.SUPERSEDED, RollbackCause.REVERTED}
"""Causes after which the same spec does not start the revision again."""

NO_TRAFFIC_YET: Final = (RolloutPhase.PROVISIONING, RolloutPhase.VERIFYING, RolloutPhase.SHADOWING)
"""Phases in which no client has been answered by the candidate."""
