"""Loads that are made, with a seed: steady, over a day, in bursts, a step."""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from conch.simulate.trace import Trace

DAY_SECONDS: Final = 86_400.0


def steady(rate: float, seconds: float, *, seed: int) -> Trace:
    """Poisson, `rate` requests per second."""
    return _poisson("steady", lambda at: np.full_like(at, rate), rate, seconds, seed)


def diurnal(
    mean_rate: float, seconds: float, *, seed: int, day_seconds: float = DAY_SECONDS, swing: float = 0.8
) -> Trace:
    """Poisson, whose rate is a sine of one day from its trough on; at most (1 + swing) times the mean."""

    def rates(at: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(mean_rate * (1 - swing * np.cos(2 * math.pi * at / day_seconds)))

    return _poisson("diurnal", rates, mean_rate * (1 + swing), seconds, seed)


def step(before: float, after: float, at_seconds: float, seconds: float, *, seed: int) -> Trace:
    """Poisson, whose rate changes once."""

    def rates(at: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(at < at_seconds, before, after)

    return _poisson("step", rates, max(before, after), seconds, seed)


def bursts(
    quiet_rate: float, burst_rate: float, seconds: float, *, seed: int, quiet_seconds: float, burst_seconds: float
) -> Trace:
    """Poisson that is switched between two rates; each lasts an exponential time of that mean (an on-off source)."""
    random = np.random.default_rng([seed, 1])
    edges = [0.0]
    while edges[-1] <= seconds:
        quiet = len(edges) % 2 == 1
        edges.append(edges[-1] + random.exponential(quiet_seconds if quiet else burst_seconds))
    ends = np.array(edges[1:])

    def rates(at: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(np.searchsorted(ends, at, side="right") % 2 == 0, quiet_rate, burst_rate)

    return _poisson("bursts", rates, max(quiet_rate, burst_rate), seconds, seed)


def _poisson(
    name: str, rates: Callable[[NDArray[np.float64]], NDArray[np.float64]], most: float, seconds: float, seed: int
) -> Trace:
    """Thinned from a process of the highest rate (Lewis and Shedler, 1979)."""
    random = np.random.default_rng(seed)
    at = np.sort(random.uniform(0.0, seconds, random.poisson(most * seconds)))
    kept = at[random.uniform(0.0, most, len(at)) < rates(at)]
    return Trace(name=name, seconds=kept, span_seconds=seconds)
