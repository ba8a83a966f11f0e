"""What a look adds to what is remembered: what came, what of it cost anything, and what nobody knows."""

import math
from dataclasses import replace
from typing import Any

import pytest

from conch.core.scaling.observe import observed
from conch.core.scaling.settings import Metric, ScalingSettings
from conch.core.scaling.signals import BatchTimes, Signals
from conch.core.scaling.slots import Slots, slots_seen
from conch.core.scaling.state import ScalingState
from conch.core.scaling.tuning import known_curve

SETTINGS = ScalingSettings(minimum=1, maximum=20, metric=Metric.LATENCY, value=100.0, behavior=None)
NOTHING = Signals(arrived=0, ready=2)


def executed(requests: int, *, seconds: float = 0.01, **fields: Any) -> tuple[BatchTimes, ...]:
    return (
        BatchTimes(
            name="m", max_batch=1, instances=1, requests=requests, sizes=((1, requests, requests * seconds),), **fields
        ),
    )


def after(*looks: Signals | float, settings: ScalingSettings = SETTINGS, at: float = 0.0) -> ScalingState:
    """Looks every two seconds; a number is a further time that goes by, or back."""
    state, now = ScalingState.initial(2, at), at
    for look in looks:
        if isinstance(look, float):
            now += look
        else:
            now += 2.0
            state = observed(now, settings, state, look)
    return state


def rates(state: ScalingState) -> list[float]:
    return [float(rate) for rate in state.history.rates]


def test_what_came_is_in_the_history_and_in_what_is_recent() -> None:
    state = after(Signals(arrived=20, in_flight=3, held=1, ready=2), Signals(arrived=40, in_flight=5, ready=2))
    assert rates(state) == [10, 20]
    assert state.history.concurrency.tolist() == [4, 5]
    assert [(each.at, each.count) for each in state.recent] == [(2.0, 20), (4.0, 40)]


def test_only_the_last_seconds_are_recent() -> None:
    state = after(*[Signals(arrived=4, ready=2)] * 100)
    assert [each.at for each in state.recent] == [2.0 * number for number in range(88, 101)]


@pytest.mark.parametrize(
    "busy",
    [
        Signals(arrived=1, ready=2),
        Signals(arrived=0, in_flight=1, ready=2),
        Signals(arrived=0, held=1, ready=0),
        Signals(arrived=None, ready=2),
        Signals(arrived=0, complete=False, ready=2),
    ],
)
def test_idle_is_only_what_is_known_to_be(busy: Signals) -> None:
    assert after(NOTHING, NOTHING, busy, NOTHING, NOTHING).busy_at == 6.0
    assert after(NOTHING, NOTHING).busy_at == 0.0


@pytest.mark.parametrize("unknown", [Signals(arrived=None, ready=2), Signals(arrived=1, complete=False, ready=2)])
def test_what_is_not_wholly_known_is_a_gap_and_looking_begins_anew(unknown: Signals) -> None:
    state = after(Signals(arrived=20, ready=2), unknown, Signals(arrived=20, ready=2))
    assert rates(state) == pytest.approx([10, math.nan, 10], nan_ok=True)
    assert state.began == 4.0


def test_a_part_of_what_came_is_recent_all_the_same() -> None:
    state = after(Signals(arrived=5000, in_flight=50, complete=False, ready=2))
    assert [each.count for each in state.recent] == [5000]


def test_a_clock_that_jumps_ahead_tells_nothing_of_the_load_in_between() -> None:
    state = after(Signals(arrived=20, ready=2), 3600.0, Signals(arrived=20, ready=2), Signals(arrived=22, ready=2))
    assert rates(state)[0] == 10
    assert all(math.isnan(rate) for rate in rates(state)[1:-1])
    assert rates(state)[-1] == 11
    assert state.busy_at == 3606.0
    assert state.began == 3604.0
    assert [each.count for each in state.recent] == [22]


def test_a_clock_that_goes_back_leaves_nothing_in_the_future() -> None:
    state = after(*[Signals(arrived=20, ready=2)] * 5, -500.0, Signals(arrived=20, ready=2), at=1000.0)
    moments = (state.at, state.began, state.busy_at, *(each.at for each in state.recent))
    assert max(moments) == state.at == 1000.0 + 10 - 500 + 2
    later = observed(state.at + 2, SETTINGS, state, Signals(arrived=20, ready=2))
    assert rates(later)[-1] <= 20
    assert later.history.bins == 6


def test_requests_that_are_refused_are_not_taken_for_load_once_the_agents_have_told() -> None:
    flood = Signals(arrived=2000, in_flight=0, ready=2)
    told = replace(flood, batches=executed(20))
    looks = [told, *([flood] * 4 + [told]) * 6]
    assert rates(after(*looks))[-1] < 20


def test_until_they_have_told_no_more_is_taken_for_load_than_was_done_or_is_still_there() -> None:
    known = after(*[Signals(arrived=100, in_flight=1, ready=2, batches=executed(100))] * 10)
    flooded = observed(known.at + 2, SETTINGS, known, Signals(arrived=20_000, in_flight=3, ready=2))
    assert rates(flooded)[-1] == pytest.approx(1.5 * 50 + 3 / 2)
    queued = observed(known.at + 2, SETTINGS, known, Signals(arrived=20_000, in_flight=19_800, ready=2))
    assert rates(queued)[-1] == 10_000


@pytest.mark.parametrize("agents_every", [1, 5, 8])
@pytest.mark.parametrize("in_flight", [0, 1, 9])
def test_a_load_that_is_executed_counts_in_full_however_seldom_agents_tell(agents_every: int, in_flight: int) -> None:
    looks = [
        Signals(
            arrived=60,
            in_flight=in_flight,
            ready=2,
            batches=executed(60 * agents_every) if not n % agents_every else (),
        )
        for n in range(1, 61)
    ]
    assert rates(after(*looks)) == [30.0] * 60


def test_agents_that_fall_silent_take_no_load_away() -> None:
    looks = [Signals(arrived=60, ready=2, batches=executed(60)) for _ in range(30)]
    assert rates(after(*looks, *[Signals(arrived=60, ready=2)] * 60)) == [30.0] * 90


def test_a_target_of_requests_per_second_counts_whatever_comes_while_no_agent_tells() -> None:
    target = replace(SETTINGS, metric=Metric.REQUESTS_PER_SECOND, value=5.0)
    assert rates(after(Signals(arrived=20_000, in_flight=0, ready=1), settings=target)) == [10_000]


def test_what_was_executed_per_second_is_known_while_agents_tell() -> None:
    state = after(*[Signals(arrived=60, ready=2, batches=executed(60))] * 20)
    assert state.executed_per_second(state.at) == pytest.approx(30)
    assert state.executed_per_second(state.at + 31) is None
    assert after(NOTHING).executed_per_second(2.0) is None


def test_without_agents_the_gateways_latency_is_what_a_request_takes_and_a_wrong_one_is_forgotten() -> None:
    def seen(*milliseconds: float) -> float:
        looks = [Signals(arrived=9, answered=9, mean_latency_seconds=each / 1000, ready=2) for each in milliseconds]
        state = after(*(part for look in looks for part in (8.0, look)))
        curve = known_curve(state)
        assert curve is not None
        return 1000 * curve.least_seconds

    assert seen(*[50] * 13, 30, 90) == pytest.approx(30, rel=0.02)
    assert seen(1, *[50] * 1080) == pytest.approx(50, rel=0.01)
    assert known_curve(after(NOTHING)) is None


def test_the_first_latencies_are_of_requests_that_have_waited_for_the_server() -> None:
    looks = [Signals(arrived=9, answered=9, mean_latency_seconds=0.9, ready=1)] * 14
    assert known_curve(after(*(part for look in looks for part in (2.0, look)))) is None


def test_what_the_agents_tell_is_better_than_the_gateways_latency() -> None:
    state = after(Signals(arrived=9, answered=9, mean_latency_seconds=0.5, ready=2, batches=executed(50)))
    curve = known_curve(state)
    assert curve is not None
    assert curve.least_seconds == pytest.approx(0.01)


def test_the_cold_start_is_what_nine_of_ten_pods_took_of_the_last_thirty() -> None:
    state = after(Signals(arrived=0, ready=2, starts=tuple(float(second) for second in range(1, 61))))
    assert state.starts == tuple(float(second) for second in range(31, 61))
    assert state.cold_start_seconds(10.0) == 58.0
    assert after(NOTHING).cold_start_seconds(10.0) == 10.0


def streams(*in_flight: int, late: int = 0, answered: int = 1, metric: Metric = Metric.LATENCY) -> float:
    """What is proven of a server's slots by looks every two seconds; a stream may take 10 s."""
    settings = replace(SETTINGS, metric=metric, value=10_000.0)
    slots = Slots()
    for number, count in enumerate(in_flight):
        look = Signals(arrived=1, in_flight=count, answered=answered, late=late, ready=2)
        slots = slots_seen(2.0 * number, settings, slots, look)
    return slots.proven


def test_streams_prove_the_slots_that_a_server_had_all_through() -> None:
    assert streams(*[20] * 6) == 10
    assert streams(*[20] * 5) == 0
    assert streams(*[20] * 5, 6) == 3
    assert streams(*[20] * 6, *[40] * 10) == 20


def test_streams_that_are_late_or_never_end_prove_nothing() -> None:
    assert streams(*[20] * 6, late=1) == 0
    assert streams(*[20] * 6, answered=0) == 0
    assert streams(*[20] * 6, metric=Metric.QUEUE_TIME) == 0


def test_another_revision_is_learnt_anew_and_until_then_the_one_before_counts() -> None:
    def did(workload: str, seconds: float) -> Signals:
        told = BatchTimes(name="m", max_batch=1, instances=1, requests=90, sizes=((1, 90, 90 * seconds),))
        return Signals(arrived=90, ready=1, batches=(told,), workload=workload)

    first = after(2.0, did("w1", 0.02))
    switched = after(2.0, did("w1", 0.02), 2.0, Signals(arrived=90, ready=1, workload="w2"))
    second = after(2.0, did("w1", 0.02), 2.0, did("w2", 0.06))
    for seen, seconds in ((first, 0.02), (switched, 0.02), (second, 0.06)):
        curve = known_curve(seen)
        assert curve is not None
        assert curve.least_seconds == pytest.approx(seconds)
