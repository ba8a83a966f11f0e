"""Which Events a change of status is worth: the same reasons as the conditions, told once when they begin."""

from dataclasses import dataclass

from conch.api.reasons import Reason
from conch.api.rollout import RolloutPhase, RolloutStatus
from conch.api.status import ConditionStatus, ConditionType, ModelDeploymentStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """Something that people should find in `kubectl describe`."""

    reason: Reason
    message: str
    warning: bool


def happenings(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> tuple[Happening, ...]:
    """What happened between two statuses."""
    found = (_command(before, after), _readiness(before, after), _rollout(before, after), _cache(before, after))
    by_reason = {happening.reason: happening for happening in reversed(found) if happening}
    return tuple(happening for happening in found if happening and by_reason[happening.reason] is happening)


def _readiness(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Happening | None:
    was, now = before.condition(ConditionType.READY), after.condition(ConditionType.READY)
    if now is None or (was is not None and was.reason is now.reason and was.status is now.status):
        return None
    stalled = after.condition(ConditionType.STALLED)
    warning = stalled is not None and stalled.status is ConditionStatus.TRUE
    return Happening(reason=now.reason, message=now.message, warning=warning)


def _rollout(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Happening | None:
    """A rollout that has come to another phase, step or share, whatever keeps it there."""
    was, now = before.rollout, after.rollout
    if now is None or now.cause is not None or (was is not None and _place(was) == _place(now)):
        return None
    if now.phase in (RolloutPhase.DRAINING, RolloutPhase.DONE):
        return None
    step = f", step {now.step + 1} of {len(now.steps)}" if now.step < len(now.steps) else ""
    message = f"{now.weight} % of the requests go to revision {now.revision} ({now.strategy}, {now.phase}{step})."
    return Happening(reason=Reason.ROLLING_OUT, message=message, warning=False)


def _cache(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Happening | None:
    """Something is wrong with the model cache, which a revision that serves does not show."""
    said = after.cache.message if after.cache else ""
    if not said or (before.cache is not None and before.cache.message == said):
        return None
    return Happening(reason=Reason.MODEL_CACHE_UNAVAILABLE, message=said, warning=True)


def _place(rollout: RolloutStatus) -> tuple[object, ...]:
    return (rollout.id, rollout.phase, rollout.step, rollout.weight, rollout.strategy)


def _command(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Happening | None:
    now = after.command
    if now is None or (before.command is not None and before.command.nonce == now.nonce):
        return None
    reason = Reason.COMMAND_ACCEPTED if now.accepted else Reason.COMMAND_REFUSED
    return Happening(reason=reason, message=f"{now.command}: {now.message}", warning=not now.accepted)
