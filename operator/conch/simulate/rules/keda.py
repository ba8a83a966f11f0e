"""KEDA: an HPA with an external metric, and a loop of its own between zero and one."""

from typing import Final

from conch.simulate.look import Look
from conch.simulate.rules.bounds import Bounds
from conch.simulate.rules.hpa import SYNC_SECONDS, replicas_by_total
from conch.simulate.rules.hpa_behavior import DefaultBehavior

POLLING_SECONDS: Final = 30.0
COOLDOWN_SECONDS: Final = 300.0


class Keda:
    """A ScaledObject on the number of requests in flight or held, with KEDA's defaults.

    From one on, the HPA that KEDA makes reads the metric at each of its own syncs (External, averageValue). Between
    zero and one KEDA looks every pollingInterval: it wakes where the metric is over the activation threshold, and
    sleeps cooldownPeriod after it last was. (pkg/scaling/executor/scale_scaledobjects.go, KEDA.)
    """

    name = "KEDA"
    interval_seconds = SYNC_SECONDS

    def __init__(self, target: float, bounds: Bounds, *, activation: float = 0.0) -> None:
        """`target`: requests per replica."""
        self._target = target
        self._activation = activation
        self._to_zero = bounds.minimum == 0
        self._bounds = Bounds(minimum=max(1, bounds.minimum), maximum=max(1, bounds.maximum))
        self._behavior = DefaultBehavior(self._bounds)
        self._last_active = 0.0
        self._next_poll = 0.0

    def desired(self, look: Look) -> int:
        """One sync of the HPA, and a poll of KEDA's own where one is due."""
        waiting = float(look.in_flight + look.held)
        wanted = look.desired
        if wanted:
            by_metric = self._bounds.clamp(replicas_by_total(wanted, waiting, self._target))
            wanted = self._behavior.limit(look.now, wanted, by_metric)
        if self._to_zero and look.now >= self._next_poll:
            self._next_poll = look.now + POLLING_SECONDS
            wanted = self._polled(look.now, wanted, active=waiting > self._activation)
        return wanted

    def _polled(self, now: float, wanted: int, *, active: bool) -> int:
        if active:
            self._last_active = now
            return max(1, wanted)
        # The HPA has to be at its least first; an object that is idle is scaled away by KEDA whatever that says.
        return 0 if now - self._last_active >= COOLDOWN_SECONDS else wanted
