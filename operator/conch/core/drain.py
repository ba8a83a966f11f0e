"""When pods that get nothing new may end."""

from datetime import datetime

from conch.api.status import TrafficShare
from conch.api.types import timestamp
from conch.core.policy import InstallationPolicy


def drained(
    share: TrafficShare | None, *, in_flight: int, acknowledged: bool, policy: InstallationPolicy, now: datetime
) -> bool:
    """Whether every gateway knows that nothing new goes there and nothing is in flight any more, or it took too long.

    A gateway that cannot be heard gets more time than requests do, and is not waited for without end either: it sees
    from the EndpointSlices that the pods go.
    """
    if share is None or share.draining_since is None:
        return False
    waited = now - datetime.fromisoformat(share.draining_since)
    if acknowledged:
        return in_flight == 0 or waited >= policy.drain_timeout
    return waited >= policy.drain_timeout + policy.acknowledgement_timeout


def begun(share: TrafficShare | None, now: datetime) -> str:
    """Since when: the time already noted, or now."""
    noted = share.draining_since if share else None
    return noted or timestamp(now)
