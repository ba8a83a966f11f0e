"""The rules of others, by tables calculated by hand from what their sources do; and ours, which is the operator's."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from conch.core.scaling.service_curve import ServiceCurve
from conch.core.scaling.settings import Metric, ScalingSettings
from conch.simulate import loads
from conch.simulate.fleet import Fleet, FleetSettings
from conch.simulate.look import Look, PodLook
from conch.simulate.replay import Rule, simulate
from conch.simulate.rules.bounds import Bounds
from conch.simulate.rules.conch import Conch
from conch.simulate.rules.counters import CounterWindow
from conch.simulate.rules.hpa import Hpa, PodMetric, replicas_by_pods, replicas_by_total
from conch.simulate.rules.hpa_behavior import DefaultBehavior
from conch.simulate.rules.keda import Keda
from conch.simulate.rules.kpa import Kpa, KpaSettings
from conch.simulate.trace import Trace

BOUNDS = Bounds(minimum=1, maximum=100)
TO_ZERO = Bounds(minimum=0, maximum=100)


def pod(number: int, *, in_flight: int = 0, taken: int = 0, executed: int = 0, queued: float = 0.0) -> PodLook:
    return PodLook(number=number, ready=True, in_flight=in_flight, taken=taken, executed=executed, queue_seconds=queued)


def look(
    now: float,
    pods: Sequence[PodLook] = (),
    *,
    starting: int = 0,
    blocked: int = 0,
    held: int = 0,
    request_seconds: float = 0.0,
    desired: int | None = None,
) -> Look:
    on_their_way = tuple(PodLook(number=1000 + number, ready=False) for number in range(starting))
    return Look(
        now=now,
        desired=len(pods) + starting + blocked if desired is None else desired,
        arrived=0,
        answered=0,
        answered_seconds=0.0,
        late=0,
        failed=0,
        in_flight=sum(each.in_flight for each in pods),
        held=held,
        request_seconds=request_seconds,
        pods=(*pods, *on_their_way),
        blocked=blocked,
        starts=(),
        batches={},
    )


@pytest.mark.parametrize(
    ("current", "values", "unready", "missing", "expected"),
    [
        # 20 / 10 = 2 times 3.
        (3, [20, 20, 20], 0, 0, 6),
        # 1.09 and 0.91 are within the tolerance, 1.11 and 0.89 are not.
        (2, [10.9, 10.9], 0, 0, 2),
        (2, [11.1, 11.1], 0, 0, 3),
        (10, [9.1] * 10, 0, 0, 10),
        (10, [8.9] * 10, 0, 0, 9),
        # Up with pods on their way: they count as 0. 60 / 4 pods / 10 = 1.5, times 4.
        (4, [30, 30], 2, 0, 6),
        # 40 / 4 / 10 = 1.0: enough are on their way.
        (4, [20, 20], 2, 0, 4),
        # 40 / 8 / 10 = 0.5, the other direction: nothing.
        (8, [20, 20], 6, 0, 8),
        # 36 / 3 / 10 = 1.2, times 3 = 4, which is less than the 6 there are: nothing.
        (6, [18, 18], 1, 0, 6),
        # Down: pods on their way do not count. 0.2 times 2.
        (4, [2, 2], 2, 0, 1),
        # Missing, down: as if at the target. (4 + 20) / 4 / 10 = 0.6, times 4.
        (4, [2, 2], 0, 2, 3),
        # Missing, up: as if at 0. 60 / 3 / 10 = 2, times 3.
        (3, [30, 30], 0, 1, 6),
        # No metric at all: nothing is done.
        (3, [], 0, 3, 3),
        # 0.1 + 0.2 is no reason for one more.
        (3, [0.1 + 0.2, 0.3], 0, 0, 1),
    ],
)
def test_hpa_by_a_metric_of_the_pods(
    current: int, values: list[float], unready: int, missing: int, expected: int
) -> None:
    assert replicas_by_pods(current, values, 10, unready=unready, missing=missing) == expected


@pytest.mark.parametrize(
    ("current", "total", "expected"),
    [(3, 61, 7), (3, 33, 3), (3, 33.1, 4), (3, 27, 3), (3, 26.9, 3), (5, 11, 2), (2, 0, 0)],
)
def test_hpa_by_a_total(current: int, total: float, expected: int) -> None:
    assert replicas_by_total(current, total, 10) == expected


def followed(wanted: Sequence[int], begun: int, bounds: Bounds = BOUNDS) -> list[int]:
    """What is asked for at each sync, 15 s apart."""
    behavior = DefaultBehavior(bounds)
    counts = [begun]
    for number, count in enumerate(wanted):
        counts.append(behavior.limit(15.0 * number, counts[-1], count))
    return counts[1:]


def test_hpa_goes_up_to_4_pods_or_to_twice_as_many_at_a_sync() -> None:
    assert followed([100] * 7, 1) == [4, 8, 16, 32, 64, 100, 100]
    assert followed([3, 100], 3) == [3, 6]


def test_hpa_goes_on_up_to_what_it_recommended_once() -> None:
    # What is remembered is what the metric wanted, not what was allowed.
    assert followed([30, 1, 1, 1, 1], 1) == [4, 8, 16, 30, 30]


def test_hpa_goes_down_when_it_was_not_needed_for_300_s() -> None:
    # 10 was recommended last at 0 s; the first sync at which that is 300 s ago is no. 20.
    assert followed([10] + [2] * 21, 10) == [10] * 20 + [2, 2]
    # In between 6 is wanted once: then that is the most of the last 300 s.
    assert followed([10] + [2] * 9 + [6] + [2] * 21, 10) == [10] * 20 + [6] * 10 + [2, 2]


def test_hpa_stays_within_its_bounds() -> None:
    assert followed([3, 3], 8, Bounds(minimum=1, maximum=5)) == [5, 5]
    assert followed([100, 100, 100], 1, Bounds(minimum=1, maximum=7)) == [4, 7, 7]


def test_hpa_on_in_flight() -> None:
    rule = Hpa(PodMetric.IN_FLIGHT, 2, BOUNDS)
    assert rule.desired(look(15, [pod(0, in_flight=6)])) == 3
    assert rule.desired(look(30, [pod(0, in_flight=6)], starting=2)) == 3
    assert rule.desired(look(45, [pod(0, in_flight=9)], starting=1, blocked=1)) == 5


def test_hpa_on_requests_per_second() -> None:
    rule = Hpa(PodMetric.RATE, 2, BOUNDS)
    assert rule.desired(look(15, [pod(0, taken=0)])) == 1
    # 120 in 15 s are 8 per second.
    assert rule.desired(look(30, [pod(0, taken=120)])) == 4
    # The window is 60 s: (480 - 0) / 60 = 8 of the old one, the young one has no rate yet and counts as 0.
    rule.desired(look(45, [pod(0, taken=240)], starting=3))
    rule.desired(look(60, [pod(0, taken=360)], starting=3))
    assert rule.desired(look(75, [pod(0, taken=480), pod(1, taken=3)], starting=2)) == 4


def test_hpa_on_queue_time() -> None:
    rule = Hpa(PodMetric.QUEUE_TIME, 50, BOUNDS)
    rule.desired(look(15, [pod(0)]))
    # 10 s for 50 requests: 200 ms.
    assert rule.desired(look(30, [pod(0, executed=50, queued=10.0)])) == 4
    # Nothing executed since: no wait.
    rule = Hpa(PodMetric.QUEUE_TIME, 50, BOUNDS)
    rule.desired(look(15, [pod(0), pod(1)]))
    assert [rule.desired(look(30.0 + 15 * number, [pod(0), pod(1)])) for number in range(21)][-1] == 1


def test_hpa_neither_goes_to_zero_nor_leaves_it() -> None:
    rule = Hpa(PodMetric.IN_FLIGHT, 2, TO_ZERO)
    assert [rule.desired(look(15.0 * number, [pod(0)])) for number in range(25)][-1] == 1
    assert rule.desired(look(400, held=9, desired=0)) == 0


def test_rates_are_of_what_was_seen_twice() -> None:
    window = CounterWindow(60)
    window.add(0, {1: (10.0,)})
    assert window.growth(1) is None
    window.add(30, {1: (40.0,), 2: (0.0,)})
    assert window.growth(1) == (30, (30.0,))
    assert window.growth(2) is None
    for at in (60, 90, 120):
        window.add(at, {1: (float(at),)})
    assert window.growth(1) == (60, (60.0,))
    assert window.growth(2) is None


def kpa(concurrency: Callable[[float], float], seconds: int, ready: Callable[[float], int], **more: float) -> list[int]:
    """What is asked for, second by second."""
    rule = Kpa(10, TO_ZERO, KpaSettings(target_utilization_percentage=100, **more))
    total, wanted = 0.0, [1]
    for number in range(1, seconds + 1):
        now = float(number)
        total += concurrency(now)
        pods = [pod(each) for each in range(ready(now))]
        wanted.append(rule.desired(look(now, pods, request_seconds=total, desired=wanted[-1])))
    return wanted[1:]


def test_kpa_follows_the_mean_of_60_s() -> None:
    counts = kpa(lambda _: 15.0, 70, lambda _: 2)
    assert counts == [2] * 70
    # 10 s of 40, of a window that is not full: 40, then ever less; at 50 s 400 / 50 / 10 = 0.8.
    counts = kpa(lambda now: 40.0 if now <= 10 else 1.0, 61, lambda _: 4)
    assert counts[9] == 4
    assert counts[30] == 2  # (400 + 21) / 31 / 10 = 1.36; down by half of 4 at most
    assert counts[60] == 2  # the half of 4


def test_kpa_aims_at_70_percent_of_its_target() -> None:
    rule = Kpa(10, BOUNDS)
    assert rule.desired(look(1, [pod(0)], request_seconds=7.0)) == 1
    rule = Kpa(10, BOUNDS)
    assert rule.desired(look(1, [pod(0)], request_seconds=7.1)) == 2


def test_kpa_panics_when_6_s_need_twice_what_is_ready_and_then_never_goes_down_for_60_s() -> None:
    counts = kpa(lambda now: 10.0 if now <= 60 else 100.0 if now <= 66 else 0.0, 140, lambda _: 1)
    # At 61 s: 150 / 6 / 10 = 2.5, so 3, which is over twice the one that is ready.
    assert counts[58] == 1
    assert counts[60] == 3
    # At 65 s: 510 / 6 / 10 = 8.5.
    assert counts[64] == 9
    # At 67 s the last second was empty: 500 / 6 / 10, no more than before. At 71 s it is 100 / 6 / 10 = 1.7: 2 again,
    # which is at the threshold for the last time.
    # Not so for more than 60 s: at 133 s.
    assert counts[66:132] == [9] * 66
    assert counts[132] == 1


def test_kpa_overshoots_while_pods_start() -> None:
    # What queues counts as concurrency, and what is on its way does not count as ready.
    counts = kpa(lambda now: 20.0 * now, 30, lambda _: 1)
    assert counts[28] > 50


def test_kpa_is_held_back_by_its_rates() -> None:
    assert max(kpa(lambda _: 500.0, 10, lambda _: 1, max_scale_up_rate=10)) == 10
    assert kpa(lambda _: 0.0, 3, lambda _: 9)[-1] == 4


def test_kpa_keeps_the_last_pod_for_the_grace_period() -> None:
    counts = kpa(lambda _: 0.0, 40, lambda _: 1)
    assert counts.index(0) + 1 == 31  # the first decision is at 1 s
    rule = Kpa(10, BOUNDS)
    assert [rule.desired(look(float(now), [pod(0)])) for now in range(1, 100)][-1] == 1


def test_kpa_wakes_by_what_is_held() -> None:
    counts = kpa(lambda now: 0.0 if now <= 60 else 3.0, 70, lambda now: 0 if now >= 32 else 1)
    assert counts[59] == 0
    assert counts[60] == 1


def test_keda_follows_the_total_as_an_hpa() -> None:
    rule = Keda(2, BOUNDS)
    # 4.5 are 5; from 1 it goes no further than to 4 at a time.
    assert rule.desired(look(15, [pod(0, in_flight=9)])) == 4
    # All that wait count, wherever; pods on their way are replicas.
    assert rule.desired(look(30, [pod(0, in_flight=9)], starting=4)) == 5
    assert rule.desired(look(45, [pod(0, in_flight=8)], starting=4, held=5)) == 7


def test_keda_goes_to_zero_after_its_cooldown_and_wakes_at_a_poll() -> None:
    rule = Keda(2, TO_ZERO)
    counts = {}
    for number in range(1, 41):
        now = 15.0 * number
        busy = now <= 60
        seen = [pod(0, in_flight=1)] if busy else [pod(0)]
        counts[now] = rule.desired(look(now, seen))
    # It was active last at the poll of 45 s; polls are at 15, 45, 75 … s.
    assert counts[330] == 1
    assert counts[345] == 0
    assert rule.desired(look(615, held=3, desired=0)) == 1
    assert Keda(2, TO_ZERO, activation=3).desired(look(15, held=3, desired=0)) == 0
    asleep = Keda(2, TO_ZERO)
    assert asleep.desired(look(15, desired=0)) == 0
    assert asleep.desired(look(30, held=3, desired=0)) == 0  # not polled yet
    assert asleep.desired(look(45, held=3, desired=0)) == 1


CURVE = ServiceCurve(base_seconds=0.04, per_item_seconds=0.01, max_batch=8)


def conch(**more: float) -> Conch:
    settings = ScalingSettings(
        minimum=1, maximum=20, metric=Metric.LATENCY, value=500, idle_seconds=more.get("idle_seconds")
    )
    return Conch(settings, CURVE, replicas=1, hold_seconds=60)


def test_conch_is_told_what_has_happened_since() -> None:
    fleet = Fleet(
        FleetSettings(curve=CURVE, objective_seconds=0.5, cold_start_seconds=5),
        [0.0, 1.0, 1.0, 3.0, 11.0],
    )
    rule = conch()
    seen = []
    for tick in range(1, 7):
        fleet.advance(2.0 * tick)
        if tick == 2:
            fleet.scale(3)
        seen.append(rule.signals(fleet.look()))
    assert [each.arrived for each in seen] == [3, 1, 0, 0, 0, 1]
    assert [each.answered for each in seen] == [3, 1, 0, 0, 0, 1]
    assert seen[0].mean_latency_seconds == pytest.approx((0.05 + 0.05 + 0.1) / 3)
    assert seen[2].mean_latency_seconds is None
    assert [each.ready for each in seen] == [1, 1, 1, 1, 3, 3]
    assert [each.starting for each in seen] == [0, 2, 2, 2, 0, 0]
    assert [each.starts for each in seen] == [(), (), (), (), (5.0, 5.0), ()]
    # Agents are asked each 10 s, at the first tick too.
    assert [len(each.batches) for each in seen] == [1, 0, 0, 0, 0, 1]
    for tick, executions in ((0, 3), (5, 2)):
        ((size, executed, seconds),) = seen[tick].batches[0].sizes
        assert (size, executed, round(seconds, 9)) == (1, executions, round(0.05 * executions, 9))


def test_conch_keeps_the_objective_where_one_replica_would_not() -> None:
    trace = loads.step(10, 200, 300, 900, seed=7)
    rule: Rule = conch()
    settings = FleetSettings(curve=CURVE, objective_seconds=0.5, cold_start_seconds=10)
    played = simulate(trace, rule, settings)
    assert played.moments[-1].desired >= 3
    assert played.late_share_within(400, 900) < 0.02
    assert played.late_share_within(0, 300) < 0.02


def test_conch_goes_to_zero_and_wakes_for_what_is_held() -> None:
    trace = Trace(name="twice", seconds=np.array([*np.arange(0, 60, 0.5), 600.0, 600.5]), span_seconds=700.0)
    settings = ScalingSettings(
        minimum=0, maximum=20, metric=Metric.LATENCY, value=500, idle_seconds=60, cold_start_prior_seconds=10
    )
    rule = Conch(settings, CURVE, replicas=1, hold_seconds=60)
    played = simulate(trace, rule, FleetSettings(curve=CURVE, objective_seconds=0.5, cold_start_seconds=10))
    wanted = {moment.now: moment.desired for moment in played.moments}
    assert wanted[60] >= 1
    assert wanted[598] == 0
    assert played.failed == 0
    # Seen at the next tick, ready 10 s later.
    assert 10 < played.latencies[-2] <= 12.1
    assert played.replica_hours < 300 / 3600


def test_conch_learns_only_what_can_be_seen() -> None:
    rule = conch()
    settings = FleetSettings(curve=CURVE, objective_seconds=0.5, cold_start_seconds=17)
    simulate(loads.step(10, 200, 60, 400, seed=7), rule, settings)
    learnt = rule.state.batches.curve()
    assert learnt is not None
    assert learnt.batch_seconds(1) == pytest.approx(0.05, rel=0.1)
    assert set(rule.state.starts) == {17.0}
