"""How fast an HPA lets the count follow its metric, where it has no `behavior`."""

import math
from collections import deque
from typing import Final

from conch.simulate.rules.bounds import Bounds

SCALE_DOWN_WINDOW_SECONDS: Final = 300.0
"""--horizontal-pod-autoscaler-downscale-stabilization."""
_UP_TIMES: Final = 2.0
_UP_TO: Final = 4
_TO_THE_SECOND: Final = 1e-9


class DefaultBehavior:
    """Up to twice as many at a sync, or to 4 if that is more; down after 300 s, without limit.

    As pkg/controller/podautoscaler/horizontal.go of Kubernetes does where `behavior` is nil (stabilizeRecommendation,
    convertDesiredReplicasWithRules). The defaults that its API documents (in 15 s 4 pods more, or twice as many) are
    those of an HPA that sets a part of `behavior`.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._recommended: deque[tuple[float, int]] = deque()

    def limit(self, now: float, current: int, wanted: int) -> int:
        """What is asked for where the metric wants so many."""
        if not self._recommended:
            # A controller that starts takes what it finds for the first recommendation.
            self._recommended.append((now, current))
        most = max(_UP_TO, math.floor(_UP_TIMES * current))
        return self._bounds.clamp(min(self._stabilized(now, wanted), most))

    def _stabilized(self, now: float, wanted: int) -> int:
        while self._recommended and self._recommended[0][0] <= now - SCALE_DOWN_WINDOW_SECONDS + _TO_THE_SECOND:
            self._recommended.popleft()
        highest = max([wanted, *(count for _, count in self._recommended)])
        self._recommended.append((now, wanted))
        return highest
