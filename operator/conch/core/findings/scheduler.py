"""Pods of which no scheduler has said anything: nobody writes a condition where there is nobody.

A scheduler that does not run is one cause; the other is a claim that was never made, for until then the scheduler does
not look at the pod. Both tell themselves by their silence alone, so it takes a while to be sure.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from conch.api.reasons import Reason
from conch.core.finding import Finding, blocked
from conch.core.observed_pod import ObservedPod
from conch.core.situation import Situation

SILENCE_MOST: Final = timedelta(seconds=60)
"""A scheduler that runs says something within a second or two; while its leader changes, within twenty."""


def a_scheduler_looks_at_the_pods(situation: Situation) -> Finding | None:
    """A scheduler has looked at every pod."""
    unseen = [pod for pod in situation.pods if _is_due(pod, situation.now)]
    if not unseen or situation.ready >= situation.wanted_replicas:
        return None
    missing = min(len(unseen), situation.wanted_replicas - situation.ready)
    count = f"{missing} of {situation.wanted_replicas} replicas"
    pod, seconds = unseen[0], int(SILENCE_MOST.total_seconds())
    if pod.missing_claims:
        templates = ", ".join(pod.missing_claims)
        return blocked(
            Reason.UNSCHEDULABLE,
            f"{count} have waited for more than {seconds} s for a claim that nobody makes. Check gpu.claims: is there "
            f"a ResourceClaimTemplate {templates} in the namespace? Does the cluster allocate devices at all?",
        )
    return blocked(
        Reason.UNSCHEDULABLE,
        f"{count} have waited for more than {seconds} s for the scheduler {pod.waits_for_scheduler}, which has said "
        "nothing of them. Check scheduling.schedulerName, or see whether that scheduler runs.",
    )


def silence_due_after(pods: Iterable[ObservedPod], now: datetime) -> timedelta | None:
    """When to look again at pods that no scheduler has looked at: no event will tell; None if there are none."""
    dues = [_since(pod) + SILENCE_MOST for pod in pods if pod.waits_for_scheduler and pod.created and not pod.deleting]
    # The pod's date is cut to the second.
    return min((due - now + timedelta(seconds=1) for due in dues if due > now), default=None)


def _is_due(pod: ObservedPod, now: datetime) -> bool:
    return bool(pod.waits_for_scheduler and pod.created) and now - _since(pod) >= SILENCE_MOST


def _since(pod: ObservedPod) -> datetime:
    return datetime.fromisoformat(pod.created)
