"""The level policy: what it makes of a load, held against plain Python; and that replay chooses what fits the load."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conch.core.scaling.capacity import Capacity, by_surface, linear
from conch.core.scaling.kept_needs import kept_needs
from conch.core.scaling.late_surface import late_surface
from conch.core.scaling.level import (
    PRIOR,
    LevelPolicy,
    Replay,
    Replayed,
    kept,
    moving_extreme,
    moving_mean,
    raw_needs,
    recurring_need,
    sudden_needs,
    window_mean,
)
from conch.core.scaling.policy_search import choose
from conch.core.scaling.service_curve import ServiceCurve

BIN = 2
LASTING_BINS = 15
STEADY_BINS = 150
REACTION_SECONDS = 4.0
CURVE = ServiceCurve(base_seconds=0.01, per_item_seconds=0.0, max_batch=1)
TEN_EACH = linear(10.0, 20)


@pytest.fixture(scope="module")
def capacity() -> Capacity:
    """Servers of 100 requests per second, 50 ms allowed."""
    return by_surface(late_surface(CURVE, 0.05), 0.025, 20)


# The same in plain Python, as slow as can be.


def plain_mean(load: list[float], at: int, window: int) -> float:
    known = [rate for rate in load[max(0, at - window + 1) : at + 1] if not math.isnan(rate)]
    return sum(known) / max(len(known), min(window, 3))


def plain_raw(policy: LevelPolicy, load: list[float], capacity: Capacity) -> list[int]:
    window = max(1, round(policy.window_seconds / BIN))
    return [capacity.need(policy.factor * plain_mean(load, at, window)) for at in range(len(load))]


def plain_kept(needs: list[int], policy: LevelPolicy) -> list[int]:
    window = max(1, round(policy.hold_seconds / BIN))
    return [max(needs[max(0, at - window + 1) : at + 1]) for at in range(len(needs))]


def plain_replay(replay: Replay, policy: LevelPolicy) -> tuple[float, float]:
    """Late share and cost, second by second."""
    load = [0.0 if math.isnan(rate) else rate for rate in replay.load.tolist()]
    sudden = sudden_needs(replay.load, replay.capacity, policy.slack_share).tolist()
    raw = plain_raw(policy, replay.load.tolist(), replay.capacity)
    needs = plain_kept([max(each) for each in zip(raw, sudden, strict=True)], policy)
    wanted = [min(replay.capacity.most_servers, max(need, replay.least, policy.floor)) for need in needs]
    start = max(1, round((replay.cold_start_seconds + REACTION_SECONDS) / BIN))
    surface = replay.capacity.surface
    assert surface is not None
    backlog = came = late = 0.0
    for at, rate in enumerate(load):
        ready = min(wanted[max(0, at - start + 1) : at + 1])
        could = max(1e-9, ready * replay.capacity.ceiling)
        backlog = max(0.0, backlog + (rate - could) * BIN)
        lasting, steady = plain_mean(load, at, LASTING_BINS), plain_mean(load, at, STEADY_BINS)
        if abs(lasting - steady) <= 3 * math.sqrt(steady * LASTING_BINS * BIN) / (LASTING_BINS * BIN):
            lasting = steady
        share = float(surface.late_share(np.array([ready]), np.array([lasting / could]))[0])
        if backlog / could > replay.limit_seconds - surface.curve.least_seconds:
            share = 1.0
        if at >= replay.counted_from:
            came, late = came + rate, late + rate * share
    counted = wanted[replay.counted_from :]
    starts = sum(max(0, after - before) for before, after in pairwise(counted))
    cost = (sum(counted) + starts * replay.cold_start_seconds / BIN) / len(counted)
    return late / came if came else 0.0, cost


LOADS = st.lists(st.one_of(st.integers(0, 900).map(float), st.just(math.nan)), min_size=1, max_size=60)
POLICIES = st.builds(
    LevelPolicy,
    window_seconds=st.sampled_from([2.0, 15.0, 60.0]),
    factor=st.sampled_from([1.0, 1.5, 3.0]),
    hold_seconds=st.sampled_from([2.0, 30.0, 180.0]),
    floor=st.integers(0, 4),
    slack_share=st.sampled_from([0.3, 1.0]),
)


@given(LOADS, POLICIES)
@settings(max_examples=100, derandomize=True)
def test_what_is_needed_is_as_in_plain_python(load: list[float], policy: LevelPolicy) -> None:
    # A capacity that no mean of whole numbers meets: sums of floating point numbers differ in their last digits.
    uneven = linear(9.9731, 200)
    needs = raw_needs(policy, window_mean(policy.window_seconds, np.array(load)), uneven)
    assert needs.tolist() == plain_raw(policy, load, uneven)
    assert kept(needs, policy).tolist() == plain_kept(needs.tolist(), policy)


@given(load=LOADS, policy=POLICIES, cold_start_seconds=st.sampled_from([2.0, 10.0, 40.0]), twice=st.booleans())
@settings(max_examples=60, derandomize=True)
def test_a_replay_is_as_in_plain_python(
    capacity: Capacity, *, load: list[float], policy: LevelPolicy, cold_start_seconds: float, twice: bool
) -> None:
    replay = Replay(
        load=np.array(load, dtype=np.float32),
        capacity=capacity,
        least=1,
        cold_start_seconds=cold_start_seconds,
        limit_seconds=0.05,
    )
    if twice:
        replay = replay.again()
    result = replay.run(policy)
    late, cost = plain_replay(replay, policy)
    assert result.cost == pytest.approx(cost)
    assert result.late_share == pytest.approx(late, abs=1e-6)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 60))
@settings(max_examples=100, derandomize=True)
def test_moving_extremes_are_as_in_plain_python(values: list[int], window: int) -> None:
    series = np.array(values)
    for combine, plain in ((np.maximum, max), (np.minimum, min)):
        expected = [plain(values[max(0, at - window + 1) : at + 1]) for at in range(len(values))]
        assert moving_extreme(series, window, combine).tolist() == expected
    assert series.tolist() == values


def test_a_mean_is_of_what_is_known() -> None:
    nan = math.nan
    series = np.array([nan, 6.0, 6.0, 6.0, nan, nan, nan, nan, 9.0])
    assert moving_mean(series, 4).tolist() == pytest.approx([0, 2, 4, 6, 6, 4, 2, 0, 3])
    assert moving_mean(np.zeros(0), 4).tolist() == []


@pytest.mark.parametrize(("rate", "servers"), [(0.0, 0), (0.05, 0), (1.0, 1), (9.0, 1), (12.0, 2), (40.0, 5)])
def test_a_sudden_load_counts_as_far_as_it_is_no_chance(rate: float, servers: int) -> None:
    assert sudden_needs(np.full(60, rate), TEN_EACH)[-1] == servers


@given(load=LOADS, factor=st.integers(2, 9))
@settings(max_examples=60, derandomize=True)
def test_a_larger_sudden_load_needs_no_fewer_servers_and_none_needs_many_more_than_it_is(
    load: list[float], factor: int
) -> None:
    series = np.array(load)
    needs, more = sudden_needs(series, linear(10.0, 2000)), sudden_needs(factor * series, linear(10.0, 2000))
    assert (more >= needs).all()
    assert needs.max() <= math.ceil(1.25 * max(0.0, *(rate for rate in load if not math.isnan(rate)), 0.0) / 10)


def test_a_burst_that_may_wait_needs_fewer_servers_the_more_of_the_time_it_may_use(capacity: Capacity) -> None:
    patient = replace(capacity, surface=late_surface(CURVE, 20.0))
    burst = np.concatenate((np.zeros(30), np.full(3, 900.0)))
    at_once, partly, wholly = (int(sudden_needs(burst, patient, share)[-1]) for share in (0.0, 0.3, 1.0))
    assert at_once > partly > wholly > 1


def needs_by_looks(load: np.ndarray, policies: list[LevelPolicy], capacity: Capacity) -> list[int]:
    """Look by look, each with one bin more; the policy changes half-way."""
    known, most = None, []
    for end in range(1, len(load) + 1):
        policy = policies[end * len(policies) // (len(load) + 1)]
        known = kept_needs(known, policy, capacity, load[:end], end)
        most.append(known.most)
    return most


@given(load=LOADS, policies=st.lists(POLICIES, min_size=1, max_size=2))
@settings(max_examples=40, derandomize=True)
def test_what_is_kept_from_look_to_look_is_as_if_calculated_anew(
    load: list[float], policies: list[LevelPolicy]
) -> None:
    uneven, series = linear(9.9731, 200), np.array(load)
    expected = []
    for end in range(1, len(load) + 1):
        policy = policies[end * len(policies) // (len(load) + 1)]
        needs = np.maximum(
            raw_needs(policy, window_mean(policy.window_seconds, series[:end]), uneven),
            sudden_needs(series[:end], uneven, policy.slack_share),
        )
        expected.append(int(kept(needs, policy)[-1]))
    assert needs_by_looks(series, policies, uneven) == expected


def test_a_recurring_need_is_that_of_the_same_phase_until_a_server_would_be_there() -> None:
    policy = LevelPolicy(window_seconds=60, factor=1, hold_seconds=60, period_seconds=3600)
    peaks = np.full(90, 5.0, dtype=np.float32)
    # 90 minutes are over, so the 91st is going on: one hour before is the 31st.
    peaks[32] = 55.0
    assert recurring_need(policy, peaks, TEN_EACH, 60.0) == 1
    assert recurring_need(policy, peaks, TEN_EACH, 120.0) == 6
    assert recurring_need(policy, peaks[:59], TEN_EACH, 120.0) == 0
    assert recurring_need(PRIOR, peaks, TEN_EACH, 120.0) == 0
    peaks[32] = math.nan
    assert recurring_need(policy, peaks, TEN_EACH, 120.0) == 1


def chosen(
    load: np.ndarray, capacity: Capacity, *, cold_start: float = 60.0, late: float = 0.025, **how: object
) -> Replayed:
    replay = Replay(
        load=load.astype(np.float32), capacity=capacity, least=1, cold_start_seconds=cold_start, limit_seconds=0.05
    )
    return choose(replay, late_share=late, **how)  # type: ignore[arg-type]  # fields as the test gives them


def test_a_steady_load_gets_no_more_than_it_needs(capacity: Capacity) -> None:
    steady = np.random.default_rng(1).poisson(400.0 * BIN, 3600) / BIN
    result = chosen(steady, capacity)
    assert result.late_share <= 0.025
    assert result.cost <= capacity.need(420.0) + 0.5


def test_what_chance_does_to_a_steady_load_makes_nobody_late_twice() -> None:
    """Three servers at 92 % with 9 s to wait: the surface, which knows chance, says that none are late."""
    curve = ServiceCurve(base_seconds=0.6, per_item_seconds=0.35, max_batch=4)
    surface = late_surface(curve, 10.0)
    assert surface.late_share(np.array([3]), np.array([0.92]))[0] == 0.0
    steady = np.random.default_rng(1).poisson(5.5 * BIN, 3600) / BIN
    replay = Replay(
        load=steady.astype(np.float32),
        capacity=by_surface(surface, 0.005, 20),
        least=3,
        cold_start_seconds=45.0,
        limit_seconds=10.0,
    )
    three = LevelPolicy(window_seconds=300, factor=0.85, hold_seconds=300)
    assert replay.run(three).late_share < 0.0005
    # Half an hour of 4 % more is no chance.
    longer = np.where((np.arange(3600) // 900) % 2 == 1, 1.08 * steady, steady).astype(np.float32)
    assert replace(replay, load=longer).run(three).late_share > 0.005


def test_bursts_get_servers_that_stay_and_the_more_the_slower_these_start(capacity: Capacity) -> None:
    random = np.random.default_rng(2)
    rates = np.where((np.arange(3600) // 300) % 4 == 0, 800.0, 100.0)
    bursts = random.poisson(rates * BIN) / BIN
    slow, quick = (chosen(bursts, capacity, cold_start=seconds) for seconds in (120.0, 2.0))
    assert slow.cost > 1.2 * quick.cost
    assert max(slow.late_share, quick.late_share) <= 0.025


def test_of_candidates_of_which_none_fits_the_one_with_the_fewest_late_is_taken(capacity: Capacity) -> None:
    impossible = np.where(np.arange(1800) % 900 < 5, 1e5, 10.0)
    replay = Replay(
        load=impossible.astype(np.float32), capacity=capacity, least=1, cold_start_seconds=60.0, limit_seconds=0.05
    )
    result = choose(replay, late_share=0.0001)
    assert result.late_share > 0.0001
    generous = LevelPolicy(window_seconds=15, factor=3.0, hold_seconds=1800, floor=capacity.most_servers)
    assert result.late_share == pytest.approx(replay.run(generous).late_share, rel=0.01)


def test_what_comes_every_hour_is_prepared_for(capacity: Capacity) -> None:
    minute = np.arange(4 * 1800) // 30
    hourly = np.where(minute % 60 == 30, 1200.0, 50.0).astype(np.float32)
    replay = Replay(load=hourly, capacity=capacity, least=1, cold_start_seconds=120.0, limit_seconds=0.05).again()
    blind, knowing = (choose(replay, late_share=0.025, periods=periods) for periods in ((), (3600.0,)))
    assert max(blind.late_share, knowing.late_share) <= 0.025
    assert knowing.policy.period_seconds == 3600
    assert knowing.cost < 0.5 * blind.cost


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (PRIOR, "1.5 x the load of the last 60 s, what that needs is kept for 5 min"),
        (
            LevelPolicy(window_seconds=300, factor=1, hold_seconds=3600, floor=4, period_seconds=86_400),
            "1 x the load of the last 5 min, what that needs is kept for 1 h, never below 4 while requests come, "
            "and what the same time 24 h before needed",
        ),
    ],
)
def test_a_policy_is_told_in_words(policy: LevelPolicy, words: str) -> None:
    assert policy.words == words
