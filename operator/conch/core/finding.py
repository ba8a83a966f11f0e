"""What a check finds, and the words for it."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from conch.api.reasons import Reason

UNREACHABLE: Final = (
    "Where a NetworkPolicy is in the way: the pod's must let the operator's pods in at that port, and one on what the "
    "operator's pods may connect to must let them out."
)
"""What to do about a port that the operator cannot reach, with Conch's own NetworkPolicies and without them."""
EXCEEDED_QUOTA: Final = "exceeded quota"


class Severity(Enum):
    """What a finding means for the object."""

    PROGRESSING = auto()
    """On its way; nobody has to do anything."""
    BLOCKED = auto()
    """Waits for room in the cluster; goes on by itself when there is."""
    STALLED = auto()
    """Will not get on unless a person (or the other side of a network) does something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason why the wanted revision does not serve as wanted."""

    severity: Severity
    reason: Reason
    message: str
    check: str = ""
    """Name of the check that found it."""


def stalled(reason: Reason, message: str) -> Finding:
    """It will not get on unless somebody acts."""
    return Finding(severity=Severity.STALLED, reason=reason, message=message)


def blocked(reason: Reason, message: str) -> Finding:
    """It waits for room in the cluster."""
    return Finding(severity=Severity.BLOCKED, reason=reason, message=message)


def progressing(reason: Reason, message: str) -> Finding:
    """It is on its way."""
    return Finding(severity=Severity.PROGRESSING, reason=reason, message=message)


def quota_blocked(said: str) -> Finding:
    """A quota of the namespace is used up."""
    return blocked(Reason.QUOTA_BLOCKED, f"The namespace's quota allows no more: {said}. Raise it or lower replicas.")
