"""What counts of servers carry, and how many a load needs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conch.core.scaling.capacity import Capacity, first_guess, linear
from conch.core.scaling.service_curve import ServiceCurve

TEN_EACH = linear(10.0, 5)


@pytest.mark.parametrize(
    ("load", "servers"), [(0, 0), (0.001, 1), (10, 1), (10.001, 2), (49.9, 5), (50, 5), (51, 5), (1e9, 5)]
)
def test_a_load_needs_the_fewest_servers_that_carry_it_or_all(load: float, servers: int) -> None:
    assert TEN_EACH.need(load) == servers
    assert TEN_EACH.needs(np.array([load])).tolist() == [servers]


@pytest.mark.parametrize(("servers", "carries"), [(-1, 0), (0, 0), (3, 30), (5, 50), (9, 50)])
def test_no_more_is_carried_than_by_the_maximum(servers: int, carries: float) -> None:
    assert TEN_EACH.carries(servers) == carries


def test_the_maximum_is_the_last_count_that_has_a_rate() -> None:
    assert Capacity(rates=np.array([0.0, 5.0, 12.0, 21.0]), ceiling=10.0).most_servers == 3


def test_servers_that_do_twice_as_much_are_needed_half_as_often() -> None:
    doubled = TEN_EACH.times(2)
    assert (doubled.need(40), doubled.ceiling, doubled.carries(1)) == (2, 20, 20)
    assert TEN_EACH.need(40) == 4


def test_the_first_guess_uses_six_tenths_of_what_a_server_can_do() -> None:
    curve = ServiceCurve(base_seconds=0.01, per_item_seconds=0.0, max_batch=1)
    assert first_guess(curve, 10).rates.tolist() == pytest.approx([60.0 * count for count in range(11)])
    assert first_guess(curve, 10).ceiling == pytest.approx(100)


@given(
    st.lists(st.floats(0.1, 50.0), min_size=1, max_size=20),
    st.lists(st.floats(0.0, 1e4), min_size=1, max_size=20),
)
@settings(max_examples=80, derandomize=True)
def test_more_load_never_needs_fewer_and_what_is_needed_carries_it(steps: list[float], loads: list[float]) -> None:
    capacity = Capacity(rates=np.concatenate(([0.0], np.cumsum(steps))), ceiling=50.0)
    needs = capacity.needs(np.sort(np.array(loads)))
    assert (np.diff(needs) >= 0).all()
    for load, need in zip(np.sort(loads), needs, strict=True):
        assert capacity.carries(int(need)) >= load or need == capacity.most_servers
        assert need == 0 or capacity.carries(int(need) - 1) < load
