"""Which Events a change of status is worth: the same reasons as the conditions, told once when they begin."""

from dataclasses import dataclass

from conch.api.reasons import Reason
from conch.api.status import ConditionStatus, ConditionType, ModelDeploymentStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """Something that people should find in `kubectl describe`."""

    reason: Reason
    message: str
    warning: bool


def happenings(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> tuple[Happening, ...]:
    """What happened between two statuses."""
    was, now = before.condition(ConditionType.READY), after.condition(ConditionType.READY)
    if now is None or (was is not None and was.reason is now.reason and was.status is now.status):
        return ()
    stalled = after.condition(ConditionType.STALLED)
    warning = stalled is not None and stalled.status is ConditionStatus.TRUE
    return (Happening(reason=now.reason, message=now.message, warning=warning),)
