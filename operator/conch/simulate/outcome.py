"""What a replay has come to: requests that were late, and what the replicas cost."""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SECONDS_PER_HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """How things stood at one tick of the rule."""

    now: float
    desired: int
    ready: int
    placed: int
    """Pods with a GPU that are not on their way out, ready or not."""
    waiting: int
    """Requests in flight or held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One trace through one rule."""

    rule: str
    arrivals: NDArray[np.float64]
    """Seconds, ascending."""
    latencies: NDArray[np.float64]
    """Seconds of each request; infinite: held too long, it failed."""
    objective_seconds: float
    span_seconds: float
    """What replicas are paid for; requests that are answered later count all the same."""
    placed: tuple[tuple[float, int], ...]
    """From when on how many pods had a GPU."""
    moments: tuple[Moment, ...]

    @property
    def requests(self) -> int:
        """How many there were."""
        return len(self.arrivals)

    @property
    def late(self) -> NDArray[np.bool_]:
        """Which requests were later than the objective; what failed is among them."""
        return self.latencies > self.objective_seconds

    @property
    def failed(self) -> int:
        """Requests without an answer."""
        return int(np.isinf(self.latencies).sum())

    @property
    def late_share(self) -> float:
        """Of all requests; 0 to 1."""
        return float(self.late.mean()) if self.requests else 0.0

    @property
    def replica_hours(self) -> float:
        """Hours in which pods had a GPU: serving, starting or draining."""
        return self.replica_hours_within(0.0, self.span_seconds)

    @property
    def peak(self) -> int:
        """The most pods at a time."""
        return max(count for _, count in self.placed)

    @property
    def direction_changes(self) -> int:
        """How often more was asked for after less, or less after more."""
        wanted = np.array([moment.desired for moment in self.moments], dtype=np.int64)
        signs = np.sign(np.diff(wanted))
        signs = signs[signs != 0]
        return int((signs[1:] != signs[:-1]).sum())

    def late_share_within(self, begin: float, end: float) -> float:
        """Of the requests that came then; seconds of the trace, the end not included."""
        first, last = np.searchsorted(self.arrivals, (begin, end))
        return float(self.late[first:last].mean()) if last > first else 0.0

    def replica_hours_within(self, begin: float, end: float) -> float:
        """Of that part of the trace."""
        ends = [at for at, _ in self.placed[1:]] + [math.inf]
        seconds = sum(
            count * max(0.0, min(until, end) - max(since, begin))
            for (since, count), until in zip(self.placed, ends, strict=True)
        )
        return seconds / _SECONDS_PER_HOUR

    def within(self, begin: float, end: float) -> "Outcome":
        """That part alone: requests that came then, and what the replicas cost then."""
        first, last = np.searchsorted(self.arrivals, (begin, end))
        before = [count for since, count in self.placed if since <= begin]
        later = ((since - begin, count) for since, count in self.placed if begin < since < end)
        return replace(
            self,
            arrivals=self.arrivals[first:last] - begin,
            latencies=self.latencies[first:last],
            span_seconds=end - begin,
            placed=((0.0, before[-1] if before else 0), *later),
            moments=tuple(
                replace(moment, now=moment.now - begin) for moment in self.moments if begin <= moment.now < end
            ),
        )

    def cost(self, gpu_hour_cost: float, gpus: int = 1) -> float:
        """In whatever money the hour of a GPU is given in; `gpus` of each replica."""
        return self.replica_hours * gpus * gpu_hour_cost

    def percentile_seconds(self, percentile: float) -> float:
        """So many percent of the requests were not slower; infinite if they have not all been answered."""
        if not self.requests:
            return 0.0
        return float(np.percentile(self.latencies, percentile, method="inverted_cdf"))
