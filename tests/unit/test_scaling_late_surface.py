"""How late requests are at a load, by simulation: held against the formulas of queueing theory where there are any."""

import math

import numpy as np
import pytest

from conch.core.scaling.late_surface import LateSurface, late_surface
from conch.core.scaling.queue_model import simulate_load
from conch.core.scaling.service_curve import ServiceCurve

SERVICE = 0.01
ALONE = ServiceCurve(base_seconds=SERVICE, per_item_seconds=0.0, max_batch=1)
REQUESTS = 60_000


def mean_wait_of_fixed_services(utilisation: float, servers: int) -> float:
    """M/D/c by Crommelin, in services: sum over i of e^-ia (P[>= ic] - (c / a) P[>= ic + 1]), a the offered load.

    With one server that is u / 2(1 - u) (Pollaczek and Khinchine).
    """
    offered, total = utilisation * servers, 0.0
    for i in range(1, 400):
        mean = i * offered

        def at_least(count: int, mean: float = mean) -> float:
            return 1 - sum(math.exp(n * math.log(mean) - mean - math.lgamma(n + 1)) for n in range(count))

        term = at_least(i * servers) - servers / offered * at_least(i * servers + 1)
        total += term
        if abs(term) < 1e-10:
            break
    return total


def test_the_formula_for_many_servers_is_the_one_for_one_server() -> None:
    for utilisation in (0.3, 0.7):
        assert mean_wait_of_fixed_services(utilisation, 1) == pytest.approx(utilisation / (2 * (1 - utilisation)))


@pytest.mark.parametrize(
    ("utilisation", "instances"), [(0.3, 1), (0.6, 1), (0.8, 1), (0.5, 2), (0.8, 2), (0.7, 4), (0.9, 4)]
)
def test_a_server_of_single_requests_waits_as_a_queue_with_fixed_services(utilisation: float, instances: int) -> None:
    curve = ServiceCurve(base_seconds=SERVICE, per_item_seconds=0.0, max_batch=1, instances=instances)
    load = simulate_load(curve, 1, utilisation, REQUESTS)
    expected = SERVICE * mean_wait_of_fixed_services(utilisation, instances)
    assert float(load.wait_seconds.mean()) == pytest.approx(expected, rel=0.1, abs=0.02 * SERVICE)
    np.testing.assert_allclose(load.latency_seconds - load.wait_seconds, SERVICE)


def test_requests_that_find_a_server_busy_wait_with_the_probability_of_its_use() -> None:
    load = simulate_load(ALONE, 1, 0.6, REQUESTS)
    assert float(np.mean(load.wait_seconds > 1e-9)) == pytest.approx(0.6, abs=0.02)


def test_servers_that_share_a_load_wait_less_than_one_alone_and_more_than_one_with_a_common_queue() -> None:
    def mean_wait(servers: int, instances: int) -> float:
        curve = ServiceCurve(base_seconds=SERVICE, per_item_seconds=0.0, max_batch=1, instances=instances)
        return float(simulate_load(curve, servers, 0.8, REQUESTS).wait_seconds.mean())

    assert mean_wait(1, 4) < mean_wait(4, 1) < mean_wait(1, 1) / 2


def test_batches_let_a_server_carry_more_than_single_requests_would() -> None:
    curve = ServiceCurve(base_seconds=SERVICE, per_item_seconds=0.001, max_batch=8)
    load = simulate_load(curve, 1, 0.8, 20_000)
    # One at a time this load would be 3.9 times what the server can do.
    assert 0.8 * curve.ceiling * curve.batch_seconds(1) > 3.5
    assert float(np.quantile(load.latency_seconds, 0.99)) < 4 * curve.batch_seconds(8)


def test_the_other_members_of_an_ensemble_add_to_each_latency_and_to_no_wait() -> None:
    curve = ServiceCurve(base_seconds=SERVICE, per_item_seconds=0.0, max_batch=1, others_seconds=1.0)
    load = simulate_load(curve, 1, 0.1, 2000)
    assert load.latency_seconds.min() == pytest.approx(1.0 + SERVICE)
    assert load.wait_seconds.min() == 0


def test_the_same_load_gives_the_same_result() -> None:
    first, second = (simulate_load(ALONE, 2, 0.7, 2000) for _ in range(2))
    np.testing.assert_array_equal(first.latency_seconds, second.latency_seconds)


@pytest.fixture(scope="module")
def surface() -> LateSurface:
    """Of 10 ms requests that may take 50."""
    return late_surface(ALONE, 5 * SERVICE)


def test_more_load_is_later_and_more_servers_carry_more_each(surface: LateSurface) -> None:
    assert (np.diff(surface.shares, axis=1) >= 0).all()
    rates = surface.rates(0.05, 40)
    assert rates[0] == 0
    assert (np.diff(rates) > 0).all()
    each = rates[1:] / np.arange(1, 41)
    assert (np.diff(each) > -1e-9).all()
    assert each[-1] == pytest.approx(each[15])
    assert each[-1] < ALONE.ceiling


def test_a_stricter_share_carries_less(surface: LateSurface) -> None:
    assert (surface.rates(0.001, 10)[1:] < surface.rates(0.1, 10)[1:]).all()


def test_what_servers_carry_is_late_by_just_that_share(surface: LateSurface) -> None:
    for share in (0.01, 0.05, 0.2):
        utilisation = surface.rates(share, 1)[1] / ALONE.ceiling
        assert surface.late_share(np.array([1]), np.array([utilisation]))[0] == pytest.approx(share)
        load = simulate_load(ALONE, 1, utilisation, REQUESTS)
        assert float(np.mean(load.latency_seconds > surface.limit_seconds)) == pytest.approx(share, rel=0.5)


def test_without_a_server_everything_is_late_and_beyond_the_ceiling_as_much_as_at_it(surface: LateSurface) -> None:
    assert surface.late_share(np.array([0]), np.array([0.0]))[0] == 1
    at, beyond = surface.late_share(np.array([2, 2]), np.array([0.96, 5.0]))
    assert at == beyond > 0.05


def test_one_server_out_of_reach_does_not_make_others_carry_what_they_cannot() -> None:
    # One request in eleven finds the only server busy and is late then; with several servers hardly any does.
    tight = late_surface(ALONE, 1.01 * SERVICE)
    rates = tight.rates(0.02, 16)
    assert rates[1] < 0.05 * ALONE.ceiling
    for servers in (2, 3, 4, 8, 16):
        load = simulate_load(ALONE, servers, rates[servers] / servers / ALONE.ceiling, 20_000)
        assert float(np.mean(load.latency_seconds > tight.limit_seconds)) < 0.03


def test_an_objective_that_no_request_can_keep_asks_for_no_more_than_a_sound_use() -> None:
    hopeless = late_surface(ALONE, 0.5 * SERVICE)
    assert not hopeless.is_in_reach
    assert hopeless.rates(0.05, 10).tolist() == pytest.approx([0.6 * ALONE.ceiling * count for count in range(11)])


def test_a_limit_on_the_wait_is_in_reach_however_long_a_request_takes() -> None:
    waits = late_surface(ALONE, 0.5 * SERVICE, of_wait=True)
    assert waits.is_in_reach
    assert 0.1 * ALONE.ceiling < waits.rates(0.05, 4)[4] / 4 < 0.9 * ALONE.ceiling
