"""What counts of servers carry: in requests per second, or in requests at the same time."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from conch.core.scaling.late_surface import LateSurface
from conch.core.scaling.service_curve import ServiceCurve

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

_FIRST_GUESS: Final = 0.6
"""Of the ceiling, until the late surface of a new curve is calculated."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Capacity:
    """What c servers carry as they should, for c from 0 to the maximum."""

    rates: Floats
    ceiling: float
    """What one server can do at most, whatever it takes."""
    by_concurrency: bool = False
    """Whether it is counted in requests at the same time, not per second."""
    surface: LateSurface | None = None

    @property
    def most_servers(self) -> int:
        """The maximum."""
        return len(self.rates) - 1

    @property
    def slack_seconds(self) -> float:
        """How long a request may wait and still be in time."""
        if self.surface is None:
            return 0.0
        return max(0.0, self.surface.limit_seconds - self.surface.curve.least_seconds)

    def bound(self, seconds: float, slack_share: float = 1.0) -> float:
        """The part of a load of so many seconds that has to be carried while it comes.

        What comes in T seconds has T and the slack to be done: servers that carry T / (T + slack) of its rate do it in
        time. It is the demand bound function of real-time scheduling (Baruah, Rosier, Howell, 1990). `slack_share` is
        how much of the slack may be used up.
        """
        return seconds / (seconds + slack_share * self.slack_seconds)

    def times(self, factor: float) -> "Capacity":
        """Of servers that do so many times as much."""
        return replace(self, rates=self.rates * factor, ceiling=self.ceiling * factor)

    def carries(self, servers: int) -> float:
        """What so many servers carry."""
        return float(self.rates[min(max(servers, 0), self.most_servers)])

    def needs(self, load: Floats) -> Counts:
        """How many servers each of these loads needs; the maximum where that is not enough."""
        counts: Counts = np.searchsorted(self.rates, load, side="left")
        return np.minimum(counts, self.most_servers)

    def need(self, load: float) -> int:
        """How many servers this load needs."""
        return min(int(np.searchsorted(self.rates, load, side="left")), self.most_servers)


def linear(per_server: float, most_servers: int, *, by_concurrency: bool = False) -> Capacity:
    """Each server carries the same: a target that was given."""
    rates = per_server * np.arange(most_servers + 1, dtype=np.float64)
    return Capacity(rates=rates, ceiling=per_server, by_concurrency=by_concurrency)


def first_guess(curve: ServiceCurve, most_servers: int) -> Capacity:
    """Of a curve that nothing was calculated for yet."""
    rates = _FIRST_GUESS * curve.ceiling * np.arange(most_servers + 1, dtype=np.float64)
    return Capacity(rates=rates, ceiling=curve.ceiling)


def by_surface(surface: LateSurface, share: float, most_servers: int) -> Capacity:
    """As many requests per second as keep the late share within `share`."""
    return Capacity(rates=surface.rates(share, most_servers), ceiling=surface.curve.ceiling, surface=surface)
