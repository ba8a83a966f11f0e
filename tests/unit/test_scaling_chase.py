"""More servers at once: when, and how many."""

import pytest

from conch.core.scaling.capacity import Capacity, by_surface, linear
from conch.core.scaling.chase import Surge, chase, chase_concurrency, for_queues
from conch.core.scaling.late_surface import late_surface
from conch.core.scaling.service_curve import ServiceCurve
from conch.core.scaling.state import Arrivals

HUNDRED_EACH = linear(100.0, 50)
CURVE = ServiceCurve(base_seconds=0.01, per_item_seconds=0.0, max_batch=1)


def looks(*rates: float, seconds: float = 2.0) -> tuple[Arrivals, ...]:
    """One look each, up to now."""
    return tuple(
        Arrivals(at=seconds * number, seconds=seconds, count=rate * seconds) for number, rate in enumerate(rates, 1)
    )


@pytest.mark.parametrize(
    ("rates", "ready", "servers"),
    [
        ((), 1, None),
        ((500.0,), 1, None),
        ((90.0, 90.0), 1, None),
        # 105 per second over 4 s are 420 +- 20: they may be 100 by chance.
        ((105.0, 105.0), 1, None),
        ((120.0, 120.0), 1, 2),
        ((500.0, 500.0), 1, 6),
        ((500.0, 500.0), 5, None),
        ((500.0, 500.0), 6, None),
        ((0.0, 500.0), 1, 3),
        ((1e6, 1e6), 1, 50),
        ((2.0, 2.0), 0, 1),
        ((0.5, 0.5), 0, None),
        ((0.0, 0.0), 0, None),
    ],
)
def test_a_load_is_chased_when_it_is_surely_more_than_what_is_ready_carries(
    rates: tuple[float, ...], ready: int, servers: int | None
) -> None:
    surge = chase(looks(*rates), HUNDRED_EACH, ready=ready, cold_start_seconds=60.0)
    assert (surge.servers if surge else None) == servers


def test_a_shortfall_is_asked_for_once_however_long_the_servers_take() -> None:
    counts = set()
    for further in range(20):
        surge = chase(looks(*[500.0] * (2 + further)), HUNDRED_EACH, ready=1, cold_start_seconds=60.0)
        assert surge is not None
        counts.add(surge.servers)
    assert counts == {6}


def test_a_load_that_surely_grows_is_carried_on_until_servers_are_there_but_never_doubled() -> None:
    growing = looks(*[100.0 + 20 * number for number in range(9)])
    at_once = chase(growing, HUNDRED_EACH, ready=1, cold_start_seconds=0.0)
    soon = chase(growing, HUNDRED_EACH, ready=1, cold_start_seconds=10.0)
    late = chase(growing, HUNDRED_EACH, ready=1, cold_start_seconds=600.0)
    assert at_once is not None and soon is not None and late is not None  # noqa: PT018 - all three are compared
    assert at_once.expected == at_once.load == soon.load == late.load == pytest.approx(250)
    assert soon.expected == pytest.approx(350, rel=0.05)
    assert late.expected == pytest.approx(500)


@pytest.mark.parametrize("rates", [[300.0] * 9, [100.0] * 6 + [500.0] * 3, [400.0] * 3 + [200.0] * 6])
def test_one_step_or_a_falling_load_is_not_carried_on(rates: list[float]) -> None:
    surge = chase(looks(*rates), HUNDRED_EACH, ready=1, cold_start_seconds=60.0)
    assert surge is not None
    assert surge.expected == surge.load == pytest.approx(rates[-1], rel=0.01)


@pytest.mark.parametrize(
    ("now", "ready", "servers"), [(8, 1, None), (15, 1, None), (20, 1, 3), (95, 1, 11), (100, 11, None), (0, 0, None)]
)
def test_requests_at_the_same_time_are_chased_as_they_are_seen(now: float, ready: int, servers: int | None) -> None:
    surge = chase_concurrency(now, linear(10.0, 50, by_concurrency=True), ready=ready)
    assert surge == (None if servers is None else Surge(servers=servers, load=now, expected=now))


@pytest.fixture(scope="module")
def capacity() -> Capacity:
    """Servers of 100 requests per second, 50 ms allowed."""
    return by_surface(late_surface(CURVE, 0.05), 0.025, 20)


@pytest.mark.parametrize(
    ("in_flight", "ready", "servers"),
    [
        (0, 2, None),
        (10, 2, None),
        (11, 2, 3),
        # 2 servers do 10 in time; 1000 more are worked off in 10 s by one more server.
        (1010, 2, 3),
        (1011, 2, 4),
        (100_000, 2, 4),
        (100_000, 15, 20),
        (100_000, 0, None),
    ],
)
def test_a_queue_is_worked_off_by_at_most_as_many_again(
    capacity: Capacity, in_flight: int, ready: int, servers: int | None
) -> None:
    assert for_queues(in_flight, capacity, ready=ready, limit_seconds=0.05) == servers


def test_one_batch_executed_and_one_waiting_are_no_queue_however_tight_the_objective() -> None:
    tight = by_surface(late_surface(CURVE, 0.0101), 0.025, 20)
    assert for_queues(6, tight, ready=3, limit_seconds=0.0101) is None
    assert for_queues(7, tight, ready=3, limit_seconds=0.0101) == 4


def test_where_no_request_can_be_in_time_no_server_is_asked_for_because_of_queues() -> None:
    hopeless = by_surface(late_surface(CURVE, 0.001), 0.025, 20)
    assert for_queues(1000, hopeless, ready=3, limit_seconds=0.001) is None
