"""A run over time: what came to an end in each second."""

from array import array
from collections.abc import Iterable, Sequence

import numpy as np

from tests.load.result import Span


def timeline(answered: Iterable[tuple[float, float]], failed: Iterable[float]) -> tuple[Span, ...]:
    """One span a second up to the last end: a run that is bounded in time has a bounded number of them.

    `answered` are (end, latency), `failed` are ends; in seconds, ends since the beginning of the run, in any order.
    """
    latencies: dict[int, array[float]] = {}
    failures: dict[int, int] = {}
    for end, latency in answered:
        latencies.setdefault(int(end), array("d")).append(latency)
    for end in failed:
        failures[int(end)] = failures.get(int(end), 0) + 1
    last = max(latencies.keys() | failures.keys(), default=-1)
    return tuple(
        span(second, 1.0, latencies.get(second, ()), failed=failures.get(second, 0)) for second in range(last + 1)
    )


def span(begin_seconds: float, seconds: float, latencies: Sequence[float], *, failed: int) -> Span:
    """One, of the latencies in seconds of what was answered in it; percentiles are latencies that occurred."""
    p50, p95 = (
        np.percentile(np.asarray(latencies) * 1000, [50, 95], method="inverted_cdf").tolist()
        if len(latencies)
        else (0.0, 0.0)
    )
    return Span(
        begin_seconds=begin_seconds,
        seconds=seconds,
        answered=len(latencies),
        failed=failed,
        p50_ms=p50,
        p95_ms=p95,
    )
