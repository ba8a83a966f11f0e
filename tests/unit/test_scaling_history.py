"""What came when: bins of two seconds, and peaks of a minute."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conch.core.scaling.history import BIN_SECONDS, History

DAY_BINS = 86_400 // 2


def filled(*looks: tuple[float, float | None]) -> History:
    history = History.empty()
    for elapsed, arrived in looks:
        history = history.with_(elapsed, arrived, 0.0 if arrived is None else arrived / 10)
    return history


@pytest.mark.parametrize(
    ("looks", "rates"),
    [
        ([(2.0, 10)], [5.0]),
        ([(1.0, 4), (1.0, 6)], [5.0]),
        ([(4.0, 20)], [5.0, 5.0]),
        ([(3.0, 30), (1.0, 10)], [10.0, 10.0]),
        ([(0.5, 1)], []),
        ([(0.0, 7), (2.0, 3)], [5.0]),
        ([(-5.0, 0), (2.0, 4)], [2.0]),
        ([(2.0, None), (2.0, 4)], [np.nan, 2.0]),
        ([(20.0, None)], [np.nan] * 10),
    ],
)
def test_what_came_is_spread_over_the_time_in_which_it_came(
    looks: list[tuple[float, float | None]], rates: list[float]
) -> None:
    assert filled(*looks).rates.tolist() == pytest.approx(rates, nan_ok=True)


@given(st.lists(st.tuples(st.floats(0.1, 9.0), st.integers(0, 500)), min_size=1, max_size=40))
@settings(max_examples=60, derandomize=True)
def test_nothing_gets_lost_however_the_looks_come(looks: list[tuple[float, int]]) -> None:
    history = filled(*looks)
    counted = float(history.rates.sum(dtype=np.float64)) * BIN_SECONDS + history.pending
    assert counted == pytest.approx(sum(arrived for _, arrived in looks), rel=1e-3, abs=1e-3)
    assert history.seconds + history.carried == pytest.approx(sum(elapsed for elapsed, _ in looks))


def test_it_keeps_four_hours_of_bins_and_of_peaks() -> None:
    history = filled((3 * 86_400.0 + 600.0, 1000.0), (2.0, 14.0))
    assert len(history.rates) == 7200
    assert len(history.peaks) == 4 * 60
    assert history.rates[-1] == 7
    assert history.bins == 3 * DAY_BINS + 300 + 1


def test_a_peak_is_the_largest_mean_of_half_a_minute() -> None:
    looks = [(2.0, 2.0)] * 10 + [(2.0, 20.0)] * 15 + [(2.0, 2.0)] * 5 + [(2.0, 100.0)]
    history = filled(*looks)
    assert history.peaks.tolist() == pytest.approx([10.0])
    assert history.peaks_of_concurrency.tolist() == pytest.approx([2.0])


def test_a_minute_of_little_knowledge_has_the_peak_of_what_is_known_and_one_of_none_has_none() -> None:
    looks: list[tuple[float, float | None]] = [(2.0, None)] * 58 + [(2.0, 6.0)] * 2
    assert filled(*looks).peaks.tolist() == pytest.approx([np.nan, 3.0], nan_ok=True)


def test_after_a_gap_of_minutes_each_minute_still_has_its_place() -> None:
    history = filled(*[(2.0, 20.0)] * 30, (600.0, None), *[(2.0, 40.0)] * 30)
    assert len(history.peaks) == history.bins // 30 == 12
    assert history.peaks.tolist() == pytest.approx([10.0, *[np.nan] * 10, 20.0], nan_ok=True)
