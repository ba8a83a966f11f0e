"""What a replay has come to: shares, hours, turns; and the loads that are made."""

import math

import numpy as np
import pytest

from conch.core.scaling.service_curve import ServiceCurve
from conch.simulate import loads
from conch.simulate.fleet import FleetSettings
from conch.simulate.look import Look
from conch.simulate.outcome import Moment, Outcome
from conch.simulate.replay import Fixed, simulate
from conch.simulate.rules.bounds import Bounds
from conch.simulate.rules.hpa import Hpa, PodMetric
from conch.simulate.sweep import Baseline, baselines, best
from conch.simulate.trace import Trace

CURVE = ServiceCurve(base_seconds=0.1, per_item_seconds=0.1, max_batch=4)
SETTINGS = FleetSettings(curve=CURVE, objective_seconds=1.0, cold_start_seconds=20)


def outcome(wanted: list[int]) -> Outcome:
    return Outcome(
        rule="any",
        arrivals=np.array([0.0, 10.0, 20.0, 3600.0]),
        latencies=np.array([0.5, 1.5, math.inf, 1.0]),
        objective_seconds=1.0,
        span_seconds=7200.0,
        placed=((0.0, 2), (1800.0, 4), (9000.0, 1)),
        moments=tuple(
            Moment(now=float(at), desired=count, ready=1, placed=1, waiting=0) for at, count in enumerate(wanted)
        ),
    )


def test_what_is_late() -> None:
    seen = outcome([1])
    assert seen.late.tolist() == [False, True, True, False]
    assert (seen.late_share, seen.failed) == (0.5, 1)
    assert seen.late_share_within(10, 3600) == 1
    assert seen.late_share_within(30, 40) == 0
    assert seen.percentile_seconds(50) == 1.0
    assert seen.percentile_seconds(95) == math.inf


def test_what_it_costs() -> None:
    seen = outcome([1])
    assert seen.replica_hours == 0.5 * 2 + 1.5 * 4
    assert seen.replica_hours_within(3600, 7200) == 4
    assert seen.replica_hours_within(0, 1800) == 1
    assert seen.cost(2.5, gpus=2) == 7 * 2.5 * 2
    assert seen.peak == 4


@pytest.mark.parametrize(
    ("wanted", "turns"), [([1, 1, 1], 0), ([1, 2, 3], 0), ([1, 3, 3, 2], 1), ([1, 3, 2, 2, 4, 1], 3), ([], 0)]
)
def test_changes_of_direction(wanted: list[int], turns: int) -> None:
    assert outcome(wanted).direction_changes == turns


def test_a_trace_without_a_span_is_played() -> None:
    trace = Trace(name="one", seconds=np.array([0.0]), span_seconds=0.0)
    shares: list[float] = []
    played = simulate(trace, Fixed(1), SETTINGS, progress=shares.append)
    assert played.latencies.tolist() == pytest.approx([0.2])
    assert played.replica_hours == 0
    assert shares == [1.0]


def test_requests_after_the_last_tick_are_waited_for() -> None:
    trace = Trace(name="two", seconds=np.array([0.0, 59.99]), span_seconds=60.0)
    played = simulate(trace, Fixed(1), SETTINGS)
    assert np.isfinite(played.latencies).all()
    assert played.replica_hours == pytest.approx(1 / 60)


class Knob:
    """As many replicas as the knob says."""

    name = "knob"
    interval_seconds = 10.0

    def __init__(self, replicas: float) -> None:
        self._replicas = round(replicas)

    def desired(self, look: Look) -> int:
        return self._replicas if look.now >= 0 else 0


def test_the_best_knob_is_the_cheapest_that_is_late_rarely_enough() -> None:
    trace = loads.steady(3 * CURVE.ceiling, 600, seed=1)
    baseline = Baseline(make=Knob, least=1, most=64, unit="replicas")
    found = best(trace, baseline, SETTINGS, late_share_most=0.25)
    assert found.outcome.late_share <= 0.25
    for fewer in range(1, round(found.knob)):
        assert simulate(trace, Knob(fewer), SETTINGS).late_share > 0.25
    nothing = best(trace, baseline, SETTINGS, late_share_most=0.0)
    # The start is late whatever is asked for: then the least late one.
    assert 0 < nothing.outcome.late_share < 0.25
    assert nothing.outcome.late_share <= simulate(trace, Knob(64), SETTINGS).late_share


def test_every_baseline_has_a_range_in_which_it_follows_the_load() -> None:
    trace = loads.steady(10, 900, seed=1)
    names = set()
    for baseline in baselines(SETTINGS, Bounds(maximum=50)):
        most, least = (simulate(trace, baseline.make(knob), SETTINGS) for knob in (baseline.least, baseline.most))
        names.add(most.rule)
        assert most.replica_hours > least.replica_hours
    assert names == {"HPA on in-flight", "HPA on rps", "HPA on queue time", "KPA", "KEDA"}


def test_an_hpa_follows_a_step() -> None:
    trace = loads.step(2, 40, 300, 900, seed=2)
    played = simulate(trace, Hpa(PodMetric.RATE, 6.0, Bounds(maximum=20)), SETTINGS)
    wanted = {moment.now: moment.desired for moment in played.moments}
    assert wanted[300] == 1
    assert 6 <= wanted[900] <= 8


def test_steady_and_step() -> None:
    counts, _ = np.histogram(loads.steady(20, 1000, seed=1).seconds, np.arange(0, 1001, 10))
    assert counts.mean() == pytest.approx(200, rel=0.03)
    # Poisson: the variance is the mean.
    assert counts.var() == pytest.approx(200, rel=0.4)
    step = loads.step(2, 20, 500, 1000, seed=1)
    assert (step.seconds < 500).sum() == pytest.approx(1000, rel=0.1)
    assert (step.seconds >= 500).sum() == pytest.approx(10_000, rel=0.05)


def test_diurnal_goes_from_trough_to_peak_and_back() -> None:
    day = loads.diurnal(10, 3600, seed=1, day_seconds=3600, swing=0.8)
    counts, _ = np.histogram(day.seconds, np.arange(0, 3601, 360))
    assert day.requests == pytest.approx(36_000, rel=0.03)
    assert counts[0] == pytest.approx(360 * 2.5, rel=0.2)
    assert counts[4] == pytest.approx(360 * 17.5, rel=0.1)


def test_bursts_are_switched() -> None:
    load = loads.bursts(0, 50, 2000, seed=4, quiet_seconds=30, burst_seconds=10)
    counts, _ = np.histogram(load.seconds, np.arange(0, 2001, 1))
    assert (counts == 0).mean() == pytest.approx(0.75, abs=0.12)
    assert counts[counts > 20].mean() == pytest.approx(50, rel=0.1)
    assert (loads.bursts(0, 50, 2000, seed=4, quiet_seconds=30, burst_seconds=10).seconds == load.seconds).all()
