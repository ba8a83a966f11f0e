"""The analysis' error rates: rollouts that are looked at every second for two minutes, with a fixed seed."""

import numpy as np
import pytest

from conch.api.analysis import Check, Latency, QueueTime, SuccessRate
from tests.perf.analysis_power import P95_ABSOLUTE, P95_RATIO, SEED, SUCCESS, Scene, simulate

QUEUE = Check(queue_time=QueueTime(max_milliseconds=50))
"""At 10 requests per second an M/M/1 queue has this mean wait at half load."""


@pytest.mark.parametrize("requests_per_second", [2, 10, 50])
@pytest.mark.parametrize("failing", [0.001, 0.01])
def test_candidates_that_fail_as_often_as_they_may_are_not_withdrawn(
    failing: float, requests_per_second: float
) -> None:
    scene = Scene(check=SUCCESS, failing=failing, requests_per_second=requests_per_second)
    assert simulate(scene, 400).failed <= 0.01


def test_good_candidates_need_hardly_more_than_the_minimum_of_samples() -> None:
    found = simulate(Scene(check=SUCCESS, failing=0.0005), 400)
    assert found.passed >= 0.99
    assert found.median_samples is not None
    assert found.median_samples <= 130


@pytest.mark.parametrize("requests_per_second", [2, 10, 50])
def test_one_failure_in_twenty_is_found_where_one_in_a_hundred_is_allowed(requests_per_second: float) -> None:
    found = simulate(Scene(check=SUCCESS, failing=0.05, requests_per_second=requests_per_second, seconds=300), 500)
    assert found.passed <= 0.01
    assert found.failed >= 0.97


def test_a_candidate_that_only_fails_is_withdrawn_at_once() -> None:
    found = simulate(Scene(check=Check(success_rate=SuccessRate(minimum_percent=95)), failing=1.0), 500)
    assert found.failed == 1
    assert found.median_seconds is not None
    assert found.median_seconds <= 3


@pytest.mark.parametrize("spread", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("ratio", [1.0, 1.5])
def test_equal_latencies_are_not_taken_for_slower(ratio: float, spread: float) -> None:
    check = Check(latency=Latency(percentile=95, max_ratio_to_stable=ratio))
    scene = Scene(check=check, spread=spread, seconds=60)
    assert simulate(scene, 100).failed <= 0.01


@pytest.mark.parametrize("spread", [0.05, 0.5])
@pytest.mark.parametrize("stable_times", [1, 9])
def test_a_candidate_that_is_twice_as_slow_is_found(stable_times: float, spread: float) -> None:
    found = simulate(
        Scene(check=P95_RATIO, slower=2, spread=spread, stable_times=stable_times, requests_per_second=20), 200
    )
    assert found.passed <= 0.01
    assert found.failed >= 0.99


def test_a_limit_in_milliseconds_is_kept_and_broken() -> None:
    good, bad = (simulate(Scene(check=P95_ABSOLUTE, slower=slower), 300) for slower in (1.6, 2))
    assert good.failed <= 0.01
    assert bad.failed >= 0.99
    assert bad.passed <= 0.01


def test_queues_that_keep_to_the_limit_are_not_withdrawn_and_others_are() -> None:
    # The mean waits are a sixth of the limit, the limit, and four times that.
    light, at_the_limit, long = (simulate(Scene(check=QUEUE, load=load), 300) for load in (0.25, 0.5, 0.73))
    assert light.failed == 0
    assert light.passed >= 0.99
    assert at_the_limit.failed <= 0.01
    assert long.passed <= 0.01
    assert long.failed >= 0.9


@pytest.mark.parametrize("load", [0.3, 0.65])
def test_means_of_waits_are_as_irregular_as_the_formula_says(load: float) -> None:
    """What 50 requests are taken for one of: see conch.core.analysis.queue_time."""
    scene = Scene(check=QUEUE, load=load, requests_per_second=10, seconds=400)
    means = [
        last.queue_seconds / last.queued_requests
        for looks in scene.looks(1000, np.random.default_rng(SEED))
        for last in [list(looks)[-1][0]]
    ]
    mean = scene.mean_wait_milliseconds / 1000
    assert np.mean(means) == pytest.approx(mean, rel=0.05)
    one_in = np.var(means) / mean**2 * 4000
    formula = (2 + 5 * load - 4 * load**2 + load**3) / (load * (1 - load) ** 2)
    assert one_in == pytest.approx(formula, rel=0.2)
