"""Evidence that may be looked at at any time: fair bets, and Ville's inequality, by enumeration."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.core.analysis.evidence import (
    log_evidence_above,
    log_evidence_below,
    log_evidence_mean_above,
    log_evidence_mean_below,
)

SHARES = st.floats(0.001, 0.999)


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int]:
    total = draw(st.integers(0, 20_000))
    return draw(st.integers(0, total)), total


@given(counts(), SHARES)
def test_on_average_the_next_request_leaves_evidence_as_it_is(of: tuple[int, int], share: float) -> None:
    count, total = of
    now = log_evidence_above(count, total, share)
    bad, good = (log_evidence_above(count + more, total + 1, share) - now for more in (1, 0))
    assert share * math.exp(bad) + (1 - share) * math.exp(good) == pytest.approx(1)
    assert bad >= 0 >= good


@given(counts(), SHARES, st.floats(0, 1))
def test_a_request_that_counts_in_part_is_no_stronger_evidence(of: tuple[int, int], share: float, part: float) -> None:
    count, total = of
    now = log_evidence_above(count, total, share)
    in_part = math.exp(log_evidence_above(count + part, total + 1, share) - now)
    bad, good = (math.exp(log_evidence_above(count + more, total + 1, share) - now) for more in (1, 0))
    assert in_part <= (part * bad + (1 - part) * good) * (1 + 1e-9)


@given(counts(), SHARES)
def test_below_is_above_from_the_other_side(of: tuple[int, int], share: float) -> None:
    count, total = of
    assert log_evidence_below(count, total, share) == log_evidence_above(total - count, total, 1 - share)


def _chance_that_it_is_ever_reached(true_share: float, is_reached: Callable[[int, int], bool], total: int) -> float:
    """Exactly, over all sequences of so many requests."""
    alive, reached = {0: 1.0}, 0.0
    for seen in range(1, total + 1):
        after: dict[int, float] = {}
        for count, chance in alive.items():
            after[count] = after.get(count, 0.0) + chance * (1 - true_share)
            after[count + 1] = after.get(count + 1, 0.0) + chance * true_share
        alive = {count: chance for count, chance in after.items() if not is_reached(count, seen)}
        reached += sum(chance for count, chance in after.items() if count not in alive)
    return reached


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_a_true_assumption_is_hardly_ever_refuted_though_each_request_is_looked_at(share: float, alpha: float) -> None:
    threshold = -math.log(alpha)

    def is_reached(count: int, total: int) -> bool:
        return log_evidence_above(count, total, share) >= threshold

    at_the_limit = _chance_that_it_is_ever_reached(share, is_reached, 400)
    # It is not merely never reached: half of what is allowed is used up within 400 requests.
    assert alpha / 10 < at_the_limit <= alpha
    assert _chance_that_it_is_ever_reached(share / 2, is_reached, 400) < at_the_limit


def test_looking_at_a_test_for_a_fixed_number_at_each_request_would_find_something_far_too_often() -> None:
    """Why it is not simply a binomial test."""

    def is_reached(count: int, total: int) -> bool:
        # 2.58 standard deviations above the share: 0.5 % at any one look.
        return total >= 20 and count > 0.05 * total + 2.58 * math.sqrt(0.05 * 0.95 * total)

    assert _chance_that_it_is_ever_reached(0.05, is_reached, 400) > 0.05


@pytest.mark.parametrize("evidence", [log_evidence_mean_above, log_evidence_mean_below])
@pytest.mark.parametrize(("sum_", "total"), [(0.0, 0.0), (3.0, 2.0), (30.0, 40.0), (500.0, 400.0)])
def test_of_an_exponential_time_the_next_one_leaves_evidence_as_it_is_on_average(
    evidence: Callable[[float, float, float], float], sum_: float, total: float
) -> None:
    mean = 2.5
    # The mean over the next one, as a sum over 40,000 small steps, ever longer ones.
    edges = [0.0, *(1e-6 * 1.0006**step for step in range(40_000))]
    before, expected = evidence(sum_, total, mean), 0.0
    for lower, upper in pairwise(edges):
        time = (lower + upper) / 2
        gain = evidence(sum_ + time, total + 1, mean) - before
        expected += math.exp(gain - time / mean) / mean * (upper - lower)
    assert expected == pytest.approx(1, abs=1e-4)


@given(st.floats(0, 1000), st.floats(1, 1000), st.floats(0.1, 1000))
def test_longer_times_are_evidence_for_a_longer_mean(sum_: float, total: float, mean: float) -> None:
    assert log_evidence_mean_above(sum_ + 1, total, mean) > log_evidence_mean_above(sum_, total, mean)
    assert log_evidence_mean_below(sum_ + 1, total, mean) < log_evidence_mean_below(sum_, total, mean)
