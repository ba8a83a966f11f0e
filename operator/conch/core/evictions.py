"""Who of a workload's pods may be evicted: a drained node takes what others can carry, and no more.

The API server counts the pods that the kubelet calls ready. One that is held back until it is verified (held_back.py)
is ready to the kubelet and gets no request, so for the API server it would take the place of one that serves.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from conch.api.agent_report import AgentPhase
from conch.core.observed_pod import ObservedPod

_COMES_WITHIN: Final = timedelta(minutes=15)
"""A node is not kept from being drained for longer by a pod that does not come."""


class Evictions(Enum):
    """What a node that is drained may take. Pods that are not ready never hold it up."""

    ONE_AT_A_TIME = "one pod may be away"
    ONE_STAYS = "the only replica leaves once another is ready"
    ANY = "the only replica may leave: nobody comes in its place"
    NONE = "nobody leaves while one that comes has yet to be verified"


def evictions(wanted: int, pods: Collection[ObservedPod], held: frozenset[str], now: datetime) -> Evictions:
    """Of a workload that is to have `wanted` pods; those in `held` get no request before they are verified."""
    serves = any(pod.ready and pod.name not in held for pod in pods)
    if serves and any(pod.name in held and not _will_not_come(pod, held, now) for pod in pods):
        return Evictions.NONE
    if wanted != 1:
        return Evictions.ONE_AT_A_TIME
    return Evictions.ANY if any(_will_not_come(pod, held, now) for pod in pods) else Evictions.ONE_STAYS


def _will_not_come(pod: ObservedPod, held: frozenset[str], now: datetime) -> bool:
    """Whether this pod is nobody to wait for: it finds no room, its model fails, or it has taken too long."""
    if pod.ready and pod.name not in held:
        return False
    if pod.unschedulable_message and not pod.scheduled and not pod.gated:
        # Behind a queue's gate each pod begins.
        return True
    if pod.report is not None and pod.report.phase is AgentPhase.FAILED:
        return True
    return bool(pod.created) and now - datetime.fromisoformat(pod.created) >= _COMES_WITHIN


def given_up_after(pods: Collection[ObservedPod], held: frozenset[str], now: datetime) -> timedelta | None:
    """How long until one of a workload's pods is nobody to wait for any more; None: none is waited for."""
    left = [
        _COMES_WITHIN - (now - datetime.fromisoformat(pod.created))
        for pod in pods
        if pod.created and (pod.name in held or not pod.ready) and not _will_not_come(pod, held, now)
    ]
    return min(left, default=None)
