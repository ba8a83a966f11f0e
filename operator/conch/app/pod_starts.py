"""How long pods take from their creation until they serve, by seeing them before and after."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from conch.core.observed_pod import ObservedPod

_SECONDS_MOST: Final = 3600.0
"""A pod that took longer waited for something that says nothing of the next."""
_NEW_SECONDS: Final = 30.0
"""A pod that is older when it is first seen may have served before."""


@dataclass(slots=True)
class PodStarts:
    """Pods that were seen when they did not serve yet, and when they were made."""

    waiting: dict[str, datetime] = field(default_factory=dict)

    def since_last_look(self, pods: Iterable[ObservedPod], now: datetime) -> tuple[float, ...]:
        """How long the pods took that serve now and did not when they were seen before."""
        took = []
        waiting: dict[str, datetime] = {}
        for pod in pods:
            if not pod.ready:
                made = datetime.fromisoformat(pod.created) if pod.created else None
                # A pod that served once and is ready again did not start anew.
                if made and (pod.uid in self.waiting or (now - made).total_seconds() < _NEW_SECONDS):
                    waiting[pod.uid] = made
            elif (made := self.waiting.get(pod.uid)) is not None:
                took.append(max(0.0, (now - made).total_seconds()))
        self.waiting = waiting
        return tuple(seconds for seconds in took if seconds <= _SECONDS_MOST)
