"""Pods that find no node because of a volume, by the scheduler's own words."""

from collections.abc import Iterable, Iterator
from typing import Final

from conch.core.observed_pod import ObservedPod

_WORDS: Final = (
    "persistentvolume",  # also "... unbound immediate PersistentVolumeClaims", "... PersistentVolume's node affinity"
    "persistent volume",
    "storageclass",
    "volume node affinity",  # before Kubernetes 1.33
    "non-existent pv",
    "free storage",
    "volume zone",
)


def waiting_for_volume(pods: Iterable[ObservedPod]) -> Iterator[tuple[ObservedPod, str]]:
    """Those of the pods, each with what the scheduler says."""
    for pod in pods:
        message = pod.unschedulable_message.rstrip(". ")
        if not pod.scheduled and any(word in message.lower() for word in _WORDS):
            yield pod, message


def names_claim(message: str, claim: str) -> bool:
    """Whether the scheduler's words are about the claim of this name."""
    return f'persistentvolumeclaim "{claim}"' in message


def names_no_claim(message: str) -> bool:
    """Whether they leave it open which claim they are about."""
    return 'persistentvolumeclaim "' not in message
