"""The share of requests that are late with c servers at a utilisation u, and its inverse: what c servers carry in time.

Computed by simulation for a few counts and loads, and interpolated between them. More servers carry more each, because
they share their queues' luck: one server keeps a latency at perhaps 60 % of its ceiling, thirty at 90 %.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from conch.core.scaling.queue_model import simulate_load
from conch.core.scaling.service_curve import ServiceCurve

_SERVERS: Final = (1, 2, 3, 4, 6, 8, 12, 16)
"""Beyond the last each server is counted on no more than there."""
_ROWS: Final = np.maximum(np.searchsorted(_SERVERS, np.arange(_SERVERS[-1] + 1), side="right") - 1, 0)
"""By count of servers, where in the list it is, or the last before it."""
_UTILISATIONS: Final = (0.1, 0.3, 0.45, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.96)
_LENGTHS: Final = (0.25, 0.25, 0.25, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0)
"""How long each is simulated: near the ceiling a queue comes and goes slowly."""
_REQUESTS: Final = 800
_REQUESTS_OF_ONE: Final = 3600
"""Divided by the count of servers: where there are few, chance is large."""
_REQUESTS_PER_SERVER: Final = 60

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LateSurface:
    """Of one service curve and one objective."""

    curve: ServiceCurve
    limit_seconds: float
    shares: Floats
    """Late share by [count of servers, utilisation] of the two lists above."""
    of_wait: bool = False
    """Whether the limit is on the time before a request is executed."""

    def late_share(self, servers: NDArray[np.int64], utilisation: Floats) -> Floats:
        """Late shares of many moments at once, for loads that last; what a queue of the past adds is not in it.

        A load over what the servers can do at all counts as the highest that was simulated: how late its requests are
        depends on how long it lasts.
        """
        rows = _ROWS[np.minimum(servers, _SERVERS[-1])]
        columns = np.interp(utilisation, _UTILISATIONS, np.arange(len(_UTILISATIONS), dtype=np.float64))
        lower = np.minimum(columns.astype(np.int64), len(_UTILISATIONS) - 2)
        part = columns - lower
        shares, cells = self.shares.ravel(), rows * len(_UTILISATIONS) + lower
        late = shares.take(cells) * (1 - part) + shares.take(cells + 1) * part
        return np.where(servers < 1, 1.0, late)

    def rates(self, share: float, most_servers: int) -> Floats:
        """By count of servers from 0: requests per second of which no more than `share` are late."""
        if self.is_in_reach:
            # Never less with more servers: what differs there is chance in the simulation.
            useful = np.maximum.accumulate([_largest_within(row, share) for row in self.shares])
        else:
            useful = np.full(len(_SERVERS), _UNREACHABLE_UTILISATION)
        counts = np.arange(most_servers + 1, dtype=np.float64)
        return counts * self.curve.ceiling * np.interp(counts, _SERVERS, useful)

    @property
    def is_in_reach(self) -> bool:
        """Whether a request that is alone is answered in time; else no count of servers helps."""
        return self.of_wait or self.curve.least_seconds <= self.limit_seconds


def late_surface(curve: ServiceCurve, limit_seconds: float, *, of_wait: bool = False) -> LateSurface:
    """Simulate the surface for requests that take longer than `limit_seconds`, or wait so long (`of_wait`)."""
    shares = np.empty((len(_SERVERS), len(_UTILISATIONS)))
    for row, servers in enumerate(_SERVERS):
        requests = _REQUESTS + _REQUESTS_OF_ONE / servers + _REQUESTS_PER_SERVER * servers
        for column, utilisation in enumerate(_UTILISATIONS):
            load = simulate_load(curve, servers, utilisation, round(_LENGTHS[column] * requests))
            taken = load.wait_seconds if of_wait else load.latency_seconds
            shares[row, column] = float(np.mean(taken > limit_seconds))
        shares[row] = np.maximum.accumulate(shares[row])
    return LateSurface(curve=curve, limit_seconds=limit_seconds, shares=shares, of_wait=of_wait)


_UNREACHABLE_UTILISATION: Final = 0.6
"""Where no request is in time even alone, servers are used like this: more of them would not help."""


def _largest_within(row: Floats, share: float) -> float:
    """The largest utilisation whose late share is within `share`."""
    if row[0] > share:
        # With nearly no load, nearly none is late.
        return _UTILISATIONS[0] * share / float(row[0])
    beyond = np.flatnonzero(row > share)
    if not len(beyond):
        return _UTILISATIONS[-1]
    first = int(beyond[0])
    low, high = float(row[first - 1]), float(row[first])
    part = (share - low) / (high - low)
    return _UTILISATIONS[first - 1] + part * (_UTILISATIONS[first] - _UTILISATIONS[first - 1])
