"""How much came when: counts of two seconds for the last hours, and peaks of a minute."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

BIN_SECONDS: Final = 2.0
_BINS_MOST: Final = 4 * 3600 // 2
PEAK_SECONDS: Final = 60.0
_PEAKS_MOST: Final = 4 * 60
_BINS_PER_PEAK: Final = int(PEAK_SECONDS // BIN_SECONDS)
_PEAK_BINS: Final = 15
"""A peak is the largest mean of 30 seconds within its minute."""

Series = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class History:
    """Per bin, what came per second; NaN where nobody told. The last bin is the newest."""

    rates: Series
    concurrency: Series
    """Requests at the servers and held, by the same bins."""
    peaks: Series
    """Of the rates, by the minute."""
    peaks_of_concurrency: Series
    bins: int = 0
    """How many bins there ever were."""
    carried: float = 0.0
    """Seconds that belong to no bin yet."""
    pending: float = 0.0
    """What came in them."""

    @staticmethod
    def empty() -> "History":
        """Nothing seen yet."""
        nothing = np.zeros(0, dtype=np.float32)
        return History(rates=nothing, concurrency=nothing, peaks=nothing, peaks_of_concurrency=nothing)

    @property
    def seconds(self) -> float:
        """How long anything was seen at all, bins without data included."""
        return self.bins * BIN_SECONDS

    def with_(self, elapsed_seconds: float, arrived: float | None, concurrency: float) -> "History":
        """With what came in the last `elapsed_seconds`, spread evenly over them; None where nobody tells."""
        carried = self.carried + max(0.0, elapsed_seconds)
        pending = self.pending + (arrived or 0.0)
        new = int(carried // BIN_SECONDS)
        if new == 0:
            return replace(self, carried=carried, pending=pending)
        missing = arrived is None
        rate = np.nan if missing else pending / carried
        rates = _appended(self.rates, rate, new)
        concurrent = _appended(self.concurrency, np.nan if missing else concurrency, new)
        bins = self.bins + new
        left = carried - new * BIN_SECONDS
        grown = replace(
            self,
            rates=rates,
            concurrency=concurrent,
            bins=bins,
            carried=left,
            pending=0.0 if missing else pending * left / carried,
        )
        # After a gap several minutes have gone by, and each keeps its place: a phase is counted in minutes.
        begun = bins % _BINS_PER_PEAK
        minutes = min(bins // _BINS_PER_PEAK - self.bins // _BINS_PER_PEAK, _PEAKS_MOST)
        if not minutes:
            return grown
        return replace(
            grown,
            peaks=_with_peaks(self.peaks, rates, minutes, begun),
            peaks_of_concurrency=_with_peaks(self.peaks_of_concurrency, concurrent, minutes, begun),
        )


def _appended(series: Series, value: float, times: int) -> Series:
    times = min(times, _BINS_MOST)
    kept = series[max(0, len(series) + times - _BINS_MOST) :]
    return np.concatenate((kept, np.full(times, value, dtype=np.float32)))


def _with_peaks(peaks: Series, series: Series, minutes: int, begun: int) -> Series:
    """With the peaks of the last whole minutes; `begun` bins belong to the one that is going on."""
    end = len(series) - begun
    ends = range(end - (minutes - 1) * _BINS_PER_PEAK, end + 1, _BINS_PER_PEAK)
    new = np.array([_peak(series[max(0, end - _BINS_PER_PEAK) : max(0, end)]) for end in ends], dtype=np.float32)
    return np.concatenate((peaks[max(0, len(peaks) + minutes - _PEAKS_MOST) :], new))


def _peak(minute: Series) -> float:
    known = minute[~np.isnan(minute)]
    if len(known) >= _PEAK_BINS:
        sums = np.concatenate(([0.0], np.cumsum(known, dtype=np.float64)))
        return float(np.max(sums[_PEAK_BINS:] - sums[:-_PEAK_BINS]) / _PEAK_BINS)
    return float(np.max(known)) if len(known) else float("nan")
