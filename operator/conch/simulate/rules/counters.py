"""Rates over a window, as Prometheus makes them of counters."""

from collections import deque


class CounterWindow:
    """The growth of counters, one per pod, over the last seconds. What is younger than a sample has no rate yet."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._samples: deque[tuple[float, dict[int, tuple[float, ...]]]] = deque()

    def add(self, now: float, counters: dict[int, tuple[float, ...]]) -> None:
        """One scrape: by pod, its counters."""
        self._samples.append((now, counters))
        while len(self._samples) > 2 and self._samples[1][0] <= now - self._seconds:
            self._samples.popleft()

    def growth(self, pod: int) -> tuple[float, tuple[float, ...]] | None:
        """Seconds, and the growth of each counter since; None: seen only once."""
        seen = [(at, counters[pod]) for at, counters in self._samples if pod in counters]
        if len(seen) < 2:
            return None
        (began, first), (ended, last) = seen[0], seen[-1]
        return ended - began, tuple(after - before for before, after in zip(first, last, strict=True))
