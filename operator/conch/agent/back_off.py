"""When what has failed is tried again: later each time, and not at the same moment in all pods."""

import random
from dataclasses import dataclass
from typing import Final

from conch.agent.state import Failure
from conch.api.agent_report import AgentPhase
from conch.api.reasons import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class BackOff:
    """Seconds between attempts."""

    first_seconds: float
    most_seconds: float


USUAL: Final = BackOff(first_seconds=2.0, most_seconds=30.0)
HARMFUL: Final = BackOff(first_seconds=10.0, most_seconds=1800.0)
"""Of what takes the model that serves away for a while when it fails."""


def failed_again(
    before: Failure | None,
    *,
    stage: AgentPhase,
    reason: Reason,
    message: str,
    now: float,
    refetch: bool,
    back_off: BackOff = USUAL,
) -> Failure:
    """What is known after another attempt that failed."""
    attempts = before.attempts + 1 if before else 1
    pause = min(back_off.most_seconds, back_off.first_seconds * 2 ** min(attempts - 1, 16))
    pause *= random.uniform(0.75, 1.0)  # noqa: S311 - jitter
    return Failure(
        stage=stage, reason=reason, message=message, attempts=attempts, retry_at=now + pause, refetch=refetch
    )
