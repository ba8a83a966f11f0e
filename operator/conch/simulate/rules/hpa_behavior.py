"""How fast an HPA lets the count follow its metric: `behavior`, with Kubernetes' defaults."""

import math
from collections import deque
from typing import Final

from conch.simulate.rules.bounds import Bounds

_SCALE_DOWN_WINDOW_SECONDS: Final = 300.0
_POLICY_SECONDS: Final = 15.0
_UP_PODS: Final = 4
_UP_TIMES: Final = 2.0
_TO_THE_SECOND: Final = 1e-9


class DefaultBehavior:
    """The `behavior` of an HPA that has none: up at once, by 4 pods or 100 % in 15 s; down after 300 s, without limit.

    As pkg/controller/podautoscaler/horizontal.go of Kubernetes does (stabilizeRecommendationWithBehaviors,
    convertDesiredReplicasWithBehaviorRate).
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._recommended: deque[tuple[float, int]] = deque()
        self._ups: deque[tuple[float, int]] = deque()
        self._downs: deque[tuple[float, int]] = deque()

    def limit(self, now: float, current: int, wanted: int) -> int:
        """What is asked for where the metric wants so many."""
        if not self._recommended:
            # A controller that starts takes what it finds for the first recommendation.
            self._recommended.append((now, current))
        stable = self._stabilized(now, current, wanted)
        chosen = self._paced(now, current, stable)
        if chosen > current:
            self._ups.append((now, chosen - current))
        elif chosen < current:
            self._downs.append((now, current - chosen))
        return chosen

    def _stabilized(self, now: float, current: int, wanted: int) -> int:
        while self._recommended and self._recommended[0][0] <= now - _SCALE_DOWN_WINDOW_SECONDS + _TO_THE_SECOND:
            self._recommended.popleft()
        highest = max([wanted, *(count for _, count in self._recommended)])
        self._recommended.append((now, wanted))
        # Up: its window is 0 s, the newest recommendation alone counts.
        return min(max(current, wanted), highest)

    def _paced(self, now: float, current: int, wanted: int) -> int:
        begun = current - self._within(self._ups, now) + self._within(self._downs, now)
        if wanted > current:
            limit = max(begun + _UP_PODS, math.ceil(begun * _UP_TIMES))
            return min(wanted, max(limit, current), self._bounds.maximum)
        # Down: 100 % in 15 s is no limit.
        return max(wanted, self._bounds.minimum) if wanted < current else self._bounds.clamp(current)

    @staticmethod
    def _within(events: deque[tuple[float, int]], now: float) -> int:
        while events and events[0][0] <= now - _POLICY_SECONDS + _TO_THE_SECOND:
            events.popleft()
        return sum(count for _, count in events)
