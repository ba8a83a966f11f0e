"""Latencies that are known by their bucket only."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.api.gateway_report import LATENCY_BOUNDS_MILLISECONDS
from conch.core.analysis.histogram import bound_at_least, bound_beyond_the_next_bucket, exceeded_by, later_than

HISTOGRAMS = st.lists(st.integers(0, 500), max_size=len(LATENCY_BOUNDS_MILLISECONDS) + 1)


def counts(**by_bound: int) -> list[int]:
    """So many in the bucket that ends at this bound: `ms100=5`."""
    bounds = [f"ms{bound}" for bound in LATENCY_BOUNDS_MILLISECONDS]
    return [by_bound.get(name, 0) for name in (*bounds, "beyond")]


@pytest.mark.parametrize(
    ("milliseconds", "later"),
    [(50, 30), (80, 30), (90, 20), (95, 15), (100, 10), (130, 10), (160, 0), (math.inf, 0)],
)
def test_a_bucket_is_taken_as_filled_evenly(milliseconds: float, later: float) -> None:
    assert later_than(counts(ms100=20, ms160=10), milliseconds) == later


@pytest.mark.parametrize(("number", "milliseconds"), [(0, 160), (5, 145), (10, 100), (20, 90), (30, 0)])
def test_what_so_many_exceed(number: float, milliseconds: float) -> None:
    assert exceeded_by(counts(ms100=20, ms160=10), number) == milliseconds


def test_nothing_is_known_of_what_is_beyond_the_last_bound() -> None:
    late = counts(ms100=95, beyond=5)
    assert exceeded_by(late, 4) == math.inf
    assert exceeded_by(late, 5) == 100
    assert (later_than(late, 3_600_000), later_than(late, math.inf)) == (5, 0)


def test_no_requests_exceed_nothing() -> None:
    assert (later_than((), 5), exceeded_by((), 0)) == (0, 0)


@given(HISTOGRAMS, st.floats(0, 1))
def test_one_is_the_inverse_of_the_other(histogram: list[int], share: float) -> None:
    number = share * sum(histogram)
    value = exceeded_by(histogram, number)
    assert later_than(histogram, value) <= number + 1e-6


@pytest.mark.parametrize(
    ("milliseconds", "at_least", "beyond"),
    [(100, 100, 130), (101, 130, 160), (0.5, 1, 2), (3_600_000, 3_600_000, math.inf), (math.inf, math.inf, math.inf)],
)
def test_bounds(milliseconds: float, at_least: float, beyond: float) -> None:
    assert bound_at_least(milliseconds) == at_least
    assert bound_beyond_the_next_bucket(milliseconds) == beyond
