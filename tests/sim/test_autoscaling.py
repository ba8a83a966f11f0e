"""The autoscaler under any load, and when things are wrong: what holds always, and that the count neither runs away,
nor swings, nor falls blindly.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conch.api.autoscaling import ScalingReason
from conch.core.scaling.decide import Decision, decide
from conch.core.scaling.service_curve import ServiceCurve
from conch.core.scaling.settings import Metric, ScalingSettings
from conch.core.scaling.signals import BatchTimes, Signals
from conch.core.scaling.state import ScalingState
from conch.core.scaling.tuned import Tuning
from conch.core.scaling.tuning import tune
from tests.support.fluid_fleet import TICK_SECONDS, ClosedLoop, FluidFleet, direction_changes

CURVE = ServiceCurve(base_seconds=0.008, per_item_seconds=0.002, max_batch=4)
"""A server that does 250 requests per second."""
LATENCY = ScalingSettings(minimum=1, maximum=20, metric=Metric.LATENCY, value=100.0, behavior=None)
TO_ZERO = replace(LATENCY, minimum=0, idle_seconds=60.0)
MINUTE, HOUR = 60.0, 3600.0


def fleet(**fields: Any) -> FluidFleet:
    return FluidFleet(**{"curve": CURVE, "limit_seconds": 0.1, **fields})


def loop(asked: ScalingSettings = LATENCY, *, tunes: int = 0, **fields: Any) -> ClosedLoop:
    return ClosedLoop(asked, fleet(**fields), tunes=tunes)


def needed(rate: float, share: float = 0.6) -> int:
    """Servers for a load, each used to so much of what it can do."""
    return max(1, -int(-rate // (share * CURVE.ceiling)))


@pytest.fixture(scope="module")
def tuning() -> Tuning:
    """Calculated once, after half an hour of a load with a burst; it holds for whoever has the same settings."""
    learnt = loop(ready=2).run(30 * MINUTE, lambda at: 900.0 if 600 < at < 700 else 300.0)
    return tune(learnt.now, LATENCY, learnt.state)


# What holds always.

LOAD = st.sampled_from([0.0, 0.2, 5.0, 100.0, 600.0, 3000.0, 50_000.0])
LOOKS = st.fixed_dictionaries(
    {
        "rate": LOAD,
        "ready": st.integers(0, 22),
        "in_flight": st.sampled_from([0, 1, 30, 4000]),
        "held": st.sampled_from([0, 0, 1, 900]),
        "batches": st.booleans(),
        "known": st.sampled_from(["all", "all", "all", "part", "nothing"]),
        "times": st.integers(1, 40),
        "blocked": st.integers(0, 3),
        "floor": st.sampled_from([0, 0, 1, 3]),
    }
)
PATHS = st.lists(LOOKS, min_size=1, max_size=8)
ASKED = st.builds(
    ScalingSettings,
    minimum=st.integers(0, 4),
    maximum=st.integers(4, 12),
    metric=st.sampled_from(list(Metric)),
    value=st.sampled_from([5.0, 100.0]),
    idle_seconds=st.sampled_from([None, 30.0, 300.0]),
    behavior=st.none(),
    paused=st.sampled_from([False, False, False, True]),
)
EXECUTED = (BatchTimes(name="m", max_batch=4, instances=1, requests=400, sizes=((1, 100, 1.0), (3, 100, 1.4))),)


def look(seen: dict[str, Any]) -> Signals:
    known = seen["known"]
    return Signals(
        arrived=None if known == "nothing" else int(seen["rate"] * TICK_SECONDS),
        complete=known == "all",
        answered=5,
        mean_latency_seconds=0.02,
        in_flight=0 if known == "nothing" else seen["in_flight"],
        held=0 if known == "nothing" else seen["held"],
        ready=seen["ready"],
        blocked=seen["blocked"],
        batches=EXECUTED if seen["batches"] else (),
        floor=seen["floor"],
    )


def walk(asked: ScalingSettings, path: list[dict[str, Any]], begun_with: int) -> list[tuple[Signals, Decision, int]]:
    """Each look, what was decided, and the count before."""
    state, now, steps = ScalingState.initial(begun_with, 0.0), 0.0, []
    for seen in path:
        for _ in range(seen["times"]):
            now += TICK_SECONDS
            signals, before = look(seen), state.desired
            decision = decide(now, asked, state, signals)
            steps.append((signals, decision, before))
            state = decision.state
    return steps


@given(asked=ASKED, path=PATHS, begun_with=st.integers(0, 12))
@settings(max_examples=30, derandomize=True)
def test_whatever_is_seen_the_count_keeps_its_bounds_and_falls_only_on_knowledge(
    asked: ScalingSettings, path: list[dict[str, Any]], begun_with: int
) -> None:
    begun_with = min(max(begun_with, asked.minimum), asked.maximum)
    quiet_seconds = 0.0
    for signals, decision, before in walk(asked, path, begun_with):
        count = decision.desired
        least = asked.minimum if asked.idle_seconds is not None else max(1, asked.minimum)
        assert least <= count <= asked.maximum
        assert count >= min(signals.floor, asked.maximum)
        nothing_there = signals.arrived == 0 and not signals.in_flight and not signals.held and signals.complete
        quiet_seconds = quiet_seconds + TICK_SECONDS if nothing_there else 0.0
        if signals.arrived is None or not signals.complete:
            assert count >= before
        if signals.arrived is None:
            assert count == max(before, min(signals.floor, asked.maximum), least)
        if count == 0 and before:
            assert asked.idle_seconds is not None
            assert quiet_seconds >= asked.idle_seconds
        if signals.held and not signals.ready:
            assert count >= 1
        assert decision.message
        assert decision.state.desired == count


@given(path=PATHS, factor=st.integers(2, 10))
@settings(max_examples=15, derandomize=True)
def test_a_load_that_is_larger_everywhere_never_gets_fewer_servers(path: list[dict[str, Any]], factor: int) -> None:
    asked = replace(LATENCY, metric=Metric.REQUESTS_PER_SECOND, value=40.0)
    path = [{**seen, "ready": 20, "batches": False, "known": "all"} for seen in path]
    more = [{**seen, "rate": factor * seen["rate"]} for seen in path]
    counts, more_counts = ([each.desired for _, each, _ in walk(asked, each, 3)] for each in (path, more))
    assert all(less <= many for less, many in zip(counts, more_counts, strict=True))


@given(rates=st.lists(st.sampled_from([1.0, 50.0, 200.0, 600.0]), min_size=1, max_size=6), factor=st.integers(2, 6))
@settings(max_examples=8, derandomize=True)
def test_a_larger_load_ends_with_no_fewer_servers_whatever_was_learnt(
    tuning: Tuning, rates: list[float], factor: int
) -> None:
    def ends(times: int) -> int:
        made = loop(ready=2)
        made.state = made.state.with_tuning(tuning)
        for rate in rates:
            made.run(MINUTE, rate * times)
        return made.desired

    assert ends(1) <= ends(factor)


@given(count=st.integers(1, 20), rate=LOAD, known=st.sampled_from(["all", "part", "nothing"]))
@settings(max_examples=20, derandomize=True)
def test_a_restart_loses_no_capacity_for_a_minute(count: int, rate: float, known: str) -> None:
    seen = {"rate": rate, "ready": count, "in_flight": 1, "held": 0, "batches": True, "known": known, "blocked": 0}
    steps = walk(LATENCY, [{**seen, "floor": 0, "times": 29}], count)
    assert min(decision.desired for _, decision, _ in steps) >= count


# Scale to zero.


@pytest.mark.parametrize("idle_seconds", [10.0, 60.0, 600.0])
def test_the_last_server_goes_after_just_the_time_that_was_given(idle_seconds: float) -> None:
    made = loop(replace(TO_ZERO, idle_seconds=idle_seconds)).run(2 * MINUTE, 20.0)
    assert made.desired == 1
    made.run(idle_seconds - TICK_SECONDS, 0.0)
    assert made.desired == 1
    assert made.run(2 * TICK_SECONDS, 0.0).desired == 0
    assert made.run(5 * MINUTE, 0.0).counts(-140) == [0] * 140


def test_a_request_that_takes_longer_than_the_idle_time_keeps_its_server() -> None:
    state, now = ScalingState.initial(1, 0.0), 0.0
    for _ in range(300):
        now += TICK_SECONDS
        decision = decide(now, TO_ZERO, state, Signals(arrived=0, in_flight=1, ready=1))
        state = decision.state
        assert decision.desired == 1


@pytest.mark.parametrize(("rate", "least", "most"), [(2.0, 1, 1), (900.0, 4, 12)])
def test_what_is_held_wakes_a_model_and_a_burst_wakes_several(rate: float, least: int, most: int) -> None:
    made = loop(TO_ZERO, ready=1, cold_start_seconds=20.0).run(5 * MINUTE, 100.0).run(3 * MINUTE, 0.0)
    assert made.desired == 0
    made.run(6.0, rate)
    assert least <= made.desired <= most
    made.run(MINUTE, rate)
    assert made.fleet.held == 0
    assert made.fleet.ready >= least


def test_a_restart_while_requests_are_held_goes_on_waking() -> None:
    made = loop(TO_ZERO, ready=1, cold_start_seconds=30.0).run(MINUTE, 20.0).run(3 * MINUTE, 0.0).run(8.0, 5.0)
    assert made.desired >= 1
    count = made.desired
    made.state = ScalingState.initial(count, made.now)
    assert min(made.run(MINUTE, 5.0).counts(-30)) >= count
    assert made.fleet.held == 0


# How it behaves when things are wrong.


@pytest.mark.parametrize("seconds", [20.0, 10 * MINUTE])
def test_gateways_that_are_gone_leave_the_count_as_it_is_and_nothing_falls_when_they_are_back(seconds: float) -> None:
    made = loop(ready=4).run(10 * MINUTE, 500.0)
    before = made.desired
    made.fleet.gateways_heard = False
    began = len(made.decisions)
    made.run(seconds, 500.0)
    assert set(made.counts(began)) == {before}
    assert {decision.reason for decision in made.decisions[began:]} == {ScalingReason.NO_DATA}
    made.fleet.gateways_heard = True
    began = len(made.decisions)
    made.run(10 * MINUTE, 500.0)
    assert min(made.counts(began)) >= before - 1
    assert max(made.counts(began)) <= before + 1


def test_a_gateway_that_is_not_heard_lets_the_count_rise_and_never_fall() -> None:
    made = loop(ready=2).run(10 * MINUTE, 200.0)
    before = made.desired
    made.fleet.complete = False
    began = len(made.decisions)
    made.run(10 * MINUTE, 20.0)
    assert set(made.counts(began)) == {before}
    made.run(MINUTE, 1500.0)
    assert made.desired > before
    high = made.desired
    assert made.run(10 * MINUTE, 20.0).desired == high
    made.fleet.complete = True
    assert made.run(10 * MINUTE, 20.0).desired < high


def test_agents_that_never_tell_leave_what_the_gateways_see_of_latency() -> None:
    made = loop(ready=1, agents_heard=False).run(20 * MINUTE, 300.0)
    # Each server is taken for one that does one request at a time.
    assert needed(300.0, 0.9) <= made.desired <= 9
    assert made.fleet.late / made.fleet.came < 0.05
    assert direction_changes(made.counts(150)) <= 2


def test_agents_that_fall_silent_change_nothing() -> None:
    made = loop(ready=2).run(10 * MINUTE, 400.0)
    before = made.desired
    made.fleet.agents_heard = False
    began = len(made.decisions)
    made.run(20 * MINUTE, 400.0)
    assert abs(max(made.counts(began)) - before) <= 1
    assert abs(min(made.counts(began)) - before) <= 1


@pytest.mark.parametrize("jump", [-HOUR, -5.0, 15.0, HOUR, 30 * 24 * HOUR])
def test_a_clock_that_jumps_moves_no_server(jump: float) -> None:
    made = loop(replace(TO_ZERO, idle_seconds=120.0), ready=2).run(10 * MINUTE, 400.0)
    before = made.desired
    made.now += jump
    began = len(made.decisions)
    made.fleet._agents_at += min(jump, 0.0)
    made.run(10 * MINUTE, 400.0)
    assert min(made.counts(began)) >= before - 1
    assert max(made.counts(began)) <= before + 1


@pytest.mark.parametrize(("hung", "agents_heard"), [(1, True), (3, True), (3, False)])
def test_pods_that_are_ready_and_do_not_answer_make_no_count_run_away(hung: int, *, agents_heard: bool) -> None:
    made = loop(ready=3, tunes=1).run(5 * MINUTE, 400.0)
    before = made.desired
    made.fleet.hung = min(hung, made.fleet.ready)
    made.fleet.agents_heard = agents_heard
    began = len(made.decisions)
    made.run(20 * MINUTE, 400.0)
    assert max(made.counts(began)) <= 2 * before + 1
    assert direction_changes(made.counts(began)) <= 4


@pytest.mark.parametrize("served", [0.0, 50.0, 400.0])
@pytest.mark.parametrize("flood", [1000.0, 20_000.0])
def test_requests_that_are_refused_at_once_are_no_load(served: float, flood: float) -> None:
    quiet = loop(ready=2).run(5 * MINUTE, served)
    before = quiet.desired
    quiet.fleet.refused_per_second = flood
    began = len(quiet.decisions)
    quiet.run(6 * MINUTE, served)
    assert max(quiet.counts(began)) <= 2 * before + 1
    assert quiet.desired <= before + 2


def test_a_model_that_refuses_everything_from_the_beginning_gets_no_servers_for_it() -> None:
    made = loop(ready=1, refused_per_second=5000.0).run(20 * MINUTE, 0.0)
    assert max(made.counts()) <= 6
    assert made.desired < LATENCY.maximum / 2


SLOW = ServiceCurve(base_seconds=0.0, per_item_seconds=30.0, max_batch=1)


def test_a_model_whose_request_takes_half_a_minute_is_followed_calmly() -> None:
    asked = replace(LATENCY, value=90_000.0)
    made = loop(asked, curve=SLOW, limit_seconds=90.0, ready=4, tunes=1).run(1.5 * HOUR, 0.1)
    # Three at the same time on average.
    hour = made.counts(900)
    assert 3 < sum(hour) / len(hour) <= 9
    assert direction_changes(hour) <= 10
    assert made.fleet.late / made.fleet.came < 0.05


def test_an_ensemble_is_followed_by_its_slowest_member() -> None:
    quick = ServiceCurve(base_seconds=0.001, per_item_seconds=0.0001, max_batch=4)
    alone = loop(ready=2, tunes=1).run(10 * MINUTE, 400.0)
    together = loop(ready=2, tunes=1, members=(quick, CURVE)).run(10 * MINUTE, 400.0)
    assert abs(together.desired - alone.desired) <= 1
    assert needed(400.0, 0.9) <= together.desired


def test_streams_are_followed_by_how_many_there_are_at_the_same_time() -> None:
    # One stream takes 5 s, and a server can have 16.
    streams = ServiceCurve(base_seconds=5.0, per_item_seconds=0.0, max_batch=1, instances=16)
    asked = replace(LATENCY, value=20_000.0)
    made = loop(asked, curve=streams, limit_seconds=20.0, decoupled=True, ready=1)
    made.run(20 * MINUTE, 1.0)
    assert made.desired == 1
    made.run(20 * MINUTE, 12.0)
    # Sixty at the same time.
    assert 4 <= made.desired <= 12
    assert direction_changes(made.counts(900)) <= 6
    assert made.run(20 * MINUTE, 1.0).desired == 1


@pytest.mark.parametrize("asked", [LATENCY, TO_ZERO])
def test_a_burst_before_anything_is_known_is_met_and_left_again(asked: ScalingSettings) -> None:
    made = loop(asked, ready=1, cold_start_seconds=20.0)
    made.run(3 * MINUTE, 1200.0)
    assert needed(1200.0, 0.9) <= made.desired <= 3 * needed(1200.0)
    assert made.fleet.queue < 100
    assert made.run(20 * MINUTE, 50.0).desired <= 2


def test_pods_that_find_no_room_are_asked_for_once() -> None:
    made = loop(ready=2, room=3, tunes=1).run(5 * MINUTE, 300.0)
    began = len(made.decisions)
    made.run(15 * MINUTE, 1200.0)
    counts = made.counts(began + 30)
    assert made.fleet.blocked > 0
    assert max(counts) <= 3 * needed(1200.0)
    assert direction_changes(counts) <= 2
    assert len(set(counts)) <= 4


def test_nodes_that_come_minutes_later_find_no_more_asked_for_than_is_needed() -> None:
    made = loop(ready=2, room=3, tunes=1).run(3 * MINUTE, 300.0).run(8 * MINUTE, 1200.0)
    made.fleet.room = 1000
    began = len(made.decisions)
    made.run(20 * MINUTE, 1200.0)
    assert max(made.counts(began)) <= 3 * needed(1200.0)
    assert direction_changes(made.counts(began)) <= 4
    assert made.fleet.queue < 100
    assert made.fleet.blocked == 0


def test_the_maximum_is_a_quota_that_is_not_tried_again_and_again() -> None:
    made = loop(replace(LATENCY, maximum=3), ready=3).run(10 * MINUTE, 5000.0)
    assert set(made.counts(60)) == {3}
    assert made.fleet.pods_made == 0


# On a steady load the count stays.


@pytest.mark.parametrize(("utilisation", "tunes"), [(0.05, 0), (0.6, 1), (0.95, 0), (0.95, 1), (2.0, 0), (6.0, 1)])
def test_on_a_steady_load_the_count_hardly_changes_its_direction(utilisation: float, tunes: int) -> None:
    made = loop(tunes=tunes, ready=1).run(40 * MINUTE, utilisation * CURVE.ceiling)
    half_an_hour = made.counts(300)
    assert direction_changes(half_an_hour) <= 4
    assert max(half_an_hour) - min(half_an_hour) <= max(1, round(0.25 * max(half_an_hour)))
    assert made.fleet.late / made.fleet.came < 0.05
    assert max(half_an_hour) <= 1 + needed(utilisation * CURVE.ceiling, 0.3)


@pytest.mark.parametrize("rate", [0.05, 2.0])
def test_on_few_requests_the_count_stays_too(rate: float) -> None:
    made = loop(ready=1).run(30 * MINUTE, rate)
    assert set(made.counts(150)) == {1}


@pytest.mark.parametrize(
    "load",
    [lambda at: 300.0 + 250.0 * (at % 600 < 60), lambda at: 50.0 + 900.0 * (at % 1800 < 300)],
    ids=["short bursts", "long bursts"],
)
def test_bursts_move_the_count_no_more_often_than_they_come(load: Callable[[float], float]) -> None:
    made = loop(ready=2, tunes=1).run(HOUR, load)
    bursts = 6 if load(1700.0) == 300.0 else 2
    assert direction_changes(made.counts()) <= 3 * bursts + 6
