"""Checks of the objects that a ModelDeployment owns."""

from typing import Final

from conch.api import names
from conch.api.reasons import Reason
from conch.api.status import ConditionStatus, ConditionType
from conch.core.finding import EXCEEDED_QUOTA, Finding, Severity, progressing, quota_blocked, stalled
from conch.core.observed_child import ChildId, ChildKind
from conch.core.situation import Situation

_OBSTACLES: Final = {
    Reason.NAME_CONFLICT: Severity.STALLED,
    Reason.INVALID_SPEC: Severity.STALLED,
    Reason.QUOTA_BLOCKED: Severity.BLOCKED,
}


def names_are_free(situation: Situation) -> Finding | None:
    """No object of somebody else stands where one of Conch's has to be."""
    observed, owner = situation.observed, situation.owner
    foreign = {
        id_: child.controller
        for id_, child in observed.children.items()
        if id_ in situation.needed and not child.belongs_to(owner.uid)
    }
    met = {id_: controller for id_, controller in observed.strangers.items() if id_ in situation.unwritten}
    for child, controller in sorted({**foreign, **met}.items(), key=lambda item: item[0]):
        if controller and controller.kind == names.KIND and controller.name == owner.name:
            # Left by an earlier object of the same name; garbage collection is about to take it.
            return progressing(Reason.STARTING, f"Waits until {child} of an earlier {controller} is removed.")
        belongs = f"belongs to {controller}" if controller else "was not made by Conch"
        return _name_conflict(child, belongs)
    return None


def admin_key_is_ours(situation: Situation) -> Finding | None:
    """The pods run with the admin key that Conch made.

    A Secret cannot be read, so its content shows by its effect.
    """
    secret = ChildId(kind=ChildKind.SECRET, name=names.admin_key_secret(situation.owner.name, situation.owner.uid))
    if any(pod.key_refused for pod in situation.pods):
        return _name_conflict(secret, "holds another key than the one Conch makes")
    for _, container in situation.containers:
        message = container.waiting_message
        if container.waiting_reason == "CreateContainerConfigError" and (
            f"find key {names.ADMIN_KEY_SECRET_KEY} in" in message
        ):
            return _name_conflict(secret, "holds no admin key")
    return None


def children_are_accepted(situation: Situation) -> Finding | None:
    """The API server accepts every object that Conch writes."""
    refusals = {id_: said for id_, said in situation.observed.refusals.items() if id_ in situation.unwritten}
    for child, detail in sorted(refusals.items()):
        if EXCEEDED_QUOTA in detail:
            return quota_blocked(f"{child}: {detail}")
        return stalled(Reason.INVALID_SPEC, f"The API server refuses {child}: {detail}")
    return None


def earlier_obstacles_are_gone(situation: Situation) -> Finding | None:
    """Nothing that stood in the way before the operator restarted still does.

    What stood in a child's way does so until that child was written. Obstacles are in memory only: without this, each
    restart would call the object ready until it meets them again.
    """
    before = situation.owner.status.condition(ConditionType.READY)
    if before is None or before.status is not ConditionStatus.FALSE or before.reason not in _OBSTACLES:
        return None
    untried = situation.unwritten - situation.observed.children.keys()
    if not untried or before.observed_generation != situation.owner.generation:
        return None
    return Finding(severity=_OBSTACLES[before.reason], reason=before.reason, message=before.message)


def _name_conflict(child: ChildId, belongs: str) -> Finding:
    return stalled(
        Reason.NAME_CONFLICT,
        f"{child} {belongs}. Conch does not touch it: delete or rename it, or give this ModelDeployment another name.",
    )
