"""How findings are put together."""

from typing import Final

from conch.api.reasons import Reason
from conch.core.situation import Finding, Severity

EXCEEDED_QUOTA: Final = "exceeded quota"


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
