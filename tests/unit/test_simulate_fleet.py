"""The simulated servers: by hand where they can be followed, by queueing theory where they cannot."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from conch.core.scaling.service_curve import ServiceCurve
from conch.simulate import loads
from conch.simulate.fleet import Fleet, FleetSettings
from conch.simulate.replay import Fixed, simulate


def curve(base: float = 0.0, per_item: float = 1.0, max_batch: int = 1, instances: int = 1) -> ServiceCurve:
    return ServiceCurve(base_seconds=base, per_item_seconds=per_item, max_batch=max_batch, instances=instances)


def fleet(
    arrivals: Sequence[float],
    served: ServiceCurve,
    *,
    replicas: int = 1,
    cold_start: float | tuple[float, ...] = 10.0,
    gateways: int = 1,
    hold: float = 60.0,
    room: int | None = None,
) -> Fleet:
    settings = FleetSettings(
        curve=served,
        objective_seconds=2.0,
        cold_start_seconds=cold_start,
        replicas=replicas,
        gateways=gateways,
        hold_seconds=hold,
        room=room,
    )
    return Fleet(settings, arrivals)


def latencies(run: Fleet, until: float) -> list[float]:
    run.advance(until)
    assert run.idle
    return [round(each, 9) for each in run.latencies.tolist()]


def test_an_idle_instance_takes_what_is_queued_up_to_the_largest_batch() -> None:
    # 0: alone, 0.5 + 0.1. Five wait for 0.6: four of them go together (0.9 s), the fifth after them (0.6 s).
    run = fleet([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], curve(base=0.5, per_item=0.1, max_batch=4))
    assert latencies(run, 10) == [0.6, 1.4, 1.3, 1.2, 1.1, 1.6]
    look = run.look()
    assert {size: count for size, (count, _) in look.batches.items()} == {1: 2, 4: 1}
    assert {size: seconds for size, (_, seconds) in look.batches.items()} == pytest.approx({1: 1.2, 4: 0.9})
    assert look.pods[0].executed == 6
    assert look.pods[0].queue_seconds == pytest.approx(0.5 + 0.4 + 0.3 + 0.2 + 1.0)
    assert (look.answered, look.late, look.in_flight) == (6, 0, 0)
    assert look.answered_seconds == pytest.approx(7.2)


def test_instances_execute_at_the_same_time() -> None:
    assert latencies(fleet([0.0, 0.0, 0.0], curve(instances=2)), 5) == [1, 1, 2]


def test_a_gateway_gives_to_who_has_the_least() -> None:
    run = fleet([0.0] * 4, curve(), replicas=4)
    assert latencies(run, 5) == [1, 1, 1, 1]


def test_gateways_do_not_know_of_each_other() -> None:
    arrivals = [0.01 * number for number in range(100)]
    alone = fleet(arrivals, curve(), replicas=50)
    alone.advance(0.995)
    two = fleet(arrivals, curve(), replicas=50, gateways=2)
    two.advance(0.995)
    assert {pod.taken for pod in alone.look().pods} == {2}
    assert {pod.taken for pod in two.look().pods} > {2}


def test_in_flight_is_counted_over_time() -> None:
    run = fleet([0.0, 0.5], curve())
    run.advance(0.75)
    assert run.look().in_flight == 2
    assert run.look().request_seconds == pytest.approx(0.75 + 0.25)
    run.advance(10)
    assert run.look().request_seconds == pytest.approx(1.0 + 1.5)


def test_a_pod_serves_after_its_cold_start() -> None:
    run = fleet([], curve(), cold_start=10)
    run.advance(5)
    run.scale(3)
    run.advance(14.9)
    assert (run.look().ready, run.look().starting) == (1, 2)
    run.advance(15)
    assert (run.look().ready, run.look().starting) == (3, 0)
    assert run.look().starts == (10, 10)
    assert run.placed == ((0, 1), (5, 3))


def test_a_cold_start_can_be_any_of_those_measured() -> None:
    run = fleet([], curve(), cold_start=(5.0, 50.0))
    run.scale(41)
    run.advance(5)
    assert 5 < run.look().ready < 36
    run.advance(50)
    assert run.look().ready == 41
    assert set(run.look().starts) == {5.0, 50.0}


def test_pods_that_leave_are_those_that_start_and_then_the_youngest() -> None:
    run = fleet([], curve(), replicas=2, cold_start=10)
    run.scale(3)
    run.advance(10)
    run.scale(5)
    run.scale(3)
    assert [pod.number for pod in run.look().pods] == [0, 1, 2]
    run.scale(2)
    assert [pod.number for pod in run.look().pods] == [0, 1]
    run.advance(100)
    assert run.look().ready == 2
    assert run.look().starts == (10,)


def test_a_pod_that_leaves_answers_what_it_has_and_is_paid_until_then() -> None:
    run = fleet([0.0, 0.0, 1.5], curve(per_item=3.0), replicas=2)
    run.advance(1)
    run.scale(1)
    assert run.look().in_flight == 2
    assert sum(pod.in_flight for pod in run.look().pods) == 1
    assert latencies(run, 20) == [3, 3, 4.5]
    assert run.placed == ((0, 2), (3, 1))


def test_requests_are_held_while_nothing_serves_and_released_with_the_first() -> None:
    run = fleet([0.0, 1.0, 2.0], curve(per_item=0.5, max_batch=8), replicas=0, cold_start=10)
    run.advance(2)
    assert (run.look().held, run.look().in_flight) == (3, 0)
    assert run.look().request_seconds == pytest.approx(3)
    run.scale(1)
    # All are given at 12; the first is taken at once, alone, the others together after it.
    assert latencies(run, 30) == [12.5, 12.5, 11.5]
    assert run.look().pods[0].queue_seconds == pytest.approx(0.5 + 0.5)


def test_a_request_that_is_held_too_long_fails() -> None:
    run = fleet([0.0, 30.0], curve(per_item=0.5), replicas=0, hold=60, cold_start=10)
    run.advance(55)
    run.scale(1)
    assert latencies(run, 100) == [math.inf, 35.5]
    assert (run.look().failed, run.look().answered, run.look().late) == (1, 1, 1)


def test_pods_without_room_wait_until_there_is_some() -> None:
    run = fleet([0.0], curve(per_item=30), replicas=2, cold_start=10, room=3)
    run.advance(1)
    run.scale(5)
    assert (run.look().ready, run.look().starting, run.look().blocked) == (2, 1, 2)
    run.scale(4)
    assert run.look().blocked == 1
    run.advance(11)
    run.scale(1)
    assert (run.look().ready, run.look().blocked) == (1, 0)


def test_a_pod_that_drains_keeps_its_room() -> None:
    run = fleet([0.0, 0.0], curve(per_item=30), replicas=2, cold_start=10, room=2)
    run.advance(1)
    run.scale(1)
    run.scale(2)
    assert (run.look().ready, run.look().blocked) == (1, 1)
    run.advance(30)
    assert (run.look().ready, run.look().starting, run.look().blocked) == (1, 1, 0)
    run.advance(40)
    assert run.look().ready == 2


def waits(served: ServiceCurve, rate: float, *, variation: float = 0.0, seconds: float = 40_000) -> tuple[float, float]:
    """Mean wait and its standard error (batch means), of one replica."""
    settings = FleetSettings(curve=served, objective_seconds=1.0, gateways=1, variation=variation, seed=3)
    outcome = simulate(loads.steady(rate, seconds, seed=5), Fixed(1), settings)
    served_seconds = served.batch_seconds(1)
    means = [float(part.mean()) - served_seconds for part in np.array_split(outcome.latencies, 40)]
    return float(np.mean(means)), float(np.std(means, ddof=1) / math.sqrt(len(means)))


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_server_of_constant_times_is_an_m_d_1_queue(load: float) -> None:
    mean, error = waits(curve(per_item=1.0), load)
    # Pollaczek and Khinchine.
    assert mean == pytest.approx(load / (2 * (1 - load)), abs=4 * error)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.6), (4, 0.7)])
def test_instances_of_exponential_times_are_an_m_m_c_queue(servers: int, load: float) -> None:
    mean, error = waits(curve(per_item=1.0, instances=servers), load * servers, variation=1.0)
    offered = load * servers
    # Erlang's C: the chance to wait; a wait is 1 / (c - a) long.
    last = offered**servers / math.factorial(servers) / (1 - load)
    chance = last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)
    assert mean == pytest.approx(chance / (servers - offered), abs=4 * error)


def test_a_batching_server_carries_its_ceiling_and_no_more() -> None:
    served = curve(base=0.3, per_item=0.1, max_batch=8)
    settings = FleetSettings(curve=served, objective_seconds=5.0)
    below = simulate(loads.steady(0.9 * served.ceiling, 1000, seed=1), Fixed(1), settings)
    above = simulate(loads.steady(1.2 * served.ceiling, 1000, seed=1), Fixed(1), settings)
    assert below.late_share < 0.01
    assert above.late_share > 0.9


def test_the_same_seed_gives_the_same_run_and_another_one_does_not() -> None:
    trace = loads.steady(3, 200, seed=1)
    runs = [
        simulate(
            trace, Fixed(4), FleetSettings(curve=curve(), objective_seconds=2.0, variation=0.3, seed=seed, replicas=4)
        )
        for seed in (1, 1, 2)
    ]
    assert runs[0].latencies.tolist() == runs[1].latencies.tolist()
    assert runs[0].latencies.tolist() != runs[2].latencies.tolist()
