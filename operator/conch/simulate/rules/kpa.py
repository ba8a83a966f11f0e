"""Knative's autoscaler (KPA): concurrency over a stable and a panic window."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from conch.simulate.look import Look
from conch.simulate.rules.bounds import Bounds

TICK_SECONDS: Final = 2.0
SCRAPE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KpaSettings:
    """config-autoscaler, with Knative's defaults."""

    stable_window_seconds: float = 60.0
    panic_window_percentage: float = 10.0
    panic_threshold_percentage: float = 200.0
    target_utilization_percentage: float = 70.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    scale_to_zero_grace_seconds: float = 30.0


class Kpa:
    """The KPA on concurrency: requests at the pods, and at the activator (here: held) while there is none.

    As pkg/autoscaler/scaling/autoscaler.go and pkg/reconciler/autoscaling/kpa/scaler.go of Knative Serving do.
    """

    name = "KPA"
    interval_seconds = SCRAPE_SECONDS

    def __init__(self, target: float, bounds: Bounds, settings: KpaSettings | None = None) -> None:
        """`target`: autoscaling.knative.dev/target, requests per replica, of which 70 % are aimed at."""
        self._settings = settings or KpaSettings()
        self._target = target * self._settings.target_utilization_percentage / 100
        self._bounds = bounds
        self._seconds: deque[float] = deque(maxlen=round(self._settings.stable_window_seconds / SCRAPE_SECONDS))
        self._request_seconds = 0.0
        self._next_decision = 0.0
        self._panicking_since: float | None = None
        self._panic_pods = 0
        self._zero_since: float | None = None

    def desired(self, look: Look) -> int:
        """One scrape, and every other time a decision."""
        self._seconds.append((look.request_seconds - self._request_seconds) / SCRAPE_SECONDS)
        self._request_seconds = look.request_seconds
        if look.now < self._next_decision:
            return look.desired
        self._next_decision = look.now + TICK_SECONDS
        return self._bounds.clamp(self._retained(look, self._decided(look.now, look.ready)))

    def _decided(self, now: float, ready_count: int) -> int:
        settings, ready = self._settings, max(1, ready_count)
        up = math.ceil(settings.max_scale_up_rate * ready)
        down = math.floor(ready / settings.max_scale_down_rate)
        stable = self._pods(settings.stable_window_seconds)
        panic = self._pods(settings.stable_window_seconds * settings.panic_window_percentage / 100)
        wanted_stable = min(max(stable, down), up)
        wanted_panic = min(max(panic, down), up)
        if panic / ready >= settings.panic_threshold_percentage / 100:
            self._panicking_since = now
        elif self._panicking_since is not None and self._panicking_since + settings.stable_window_seconds < now:
            self._panicking_since = None
            self._panic_pods = 0
        if self._panicking_since is None:
            return wanted_stable
        # Never less while it panics.
        self._panic_pods = max(self._panic_pods, wanted_stable, wanted_panic)
        return self._panic_pods

    def _pods(self, window_seconds: float) -> int:
        seconds = list(self._seconds)[-round(window_seconds / SCRAPE_SECONDS) :]
        # Sums of what came and went leave a trace in the last bits.
        return math.ceil(round(sum(seconds) / len(seconds) / self._target, 9))

    def _retained(self, look: Look, wanted: int) -> int:
        """The last pod stays for the grace period, in which the activator takes its place."""
        if wanted or self._bounds.minimum:
            self._zero_since = None
            return wanted
        if self._zero_since is None:
            self._zero_since = look.now
        over = look.now - self._zero_since >= self._settings.scale_to_zero_grace_seconds
        return 0 if over or not look.desired else 1
