"""One decision: the count, its reason, and what it says."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conch.api.autoscaling import Behavior, PolicySelect, ScalingReason, ScalingRules
from conch.core.scaling.capacity import by_surface
from conch.core.scaling.decide import Decision, decide
from conch.core.scaling.late_surface import late_surface
from conch.core.scaling.level import LevelPolicy
from conch.core.scaling.service_curve import ServiceCurve
from conch.core.scaling.settings import Metric, ScalingSettings
from conch.core.scaling.signals import BatchTimes, Signals
from conch.core.scaling.state import ScalingState
from conch.core.scaling.tuned import Tuning
from conch.core.scaling.tuning import tune

LATENCY = ScalingSettings(minimum=1, maximum=20, metric=Metric.LATENCY, value=50.0, behavior=None)
TEN_PER_SECOND = replace(LATENCY, metric=Metric.REQUESTS_PER_SECOND, value=10.0)
FOUR_AT_ONCE = replace(LATENCY, metric=Metric.CONCURRENCY, value=4.0)
TO_ZERO = replace(TEN_PER_SECOND, minimum=0, idle_seconds=60.0)


def did(requests: int) -> tuple[BatchTimes, ...]:
    """What servers tell that can do a hundred per second each."""
    return (BatchTimes(name="m", max_batch=1, instances=1, requests=requests, sizes=((1, requests, requests * 0.01),)),)


class Looks:
    """Decisions one after the other, two seconds each; what is ready is what was decided."""

    def __init__(self, settings: ScalingSettings, replicas: int = 1) -> None:
        self.settings = settings
        self.now = 5000.0
        self.state = ScalingState.initial(replicas, self.now)
        self.decision: Decision | None = None

    def see(self, times: int = 1, **fields: Any) -> Decision:
        for _ in range(times):
            self.now += 2.0
            self.decision = decide(
                self.now, self.settings, self.state, Signals(**{"ready": self.state.desired, "arrived": 0, **fields})
            )
            self.state = self.decision.state
        assert self.decision is not None
        return self.decision


def what(decision: Decision) -> tuple[int, ScalingReason]:
    return decision.desired, decision.reason


@pytest.mark.parametrize(
    ("settings", "signals", "count"),
    [
        (TEN_PER_SECOND, {"arrived": 60}, 5),
        (TEN_PER_SECOND, {"arrived": 20}, 2),
        (FOUR_AT_ONCE, {"arrived": 20, "in_flight": 8}, 3),
        (FOUR_AT_ONCE, {"arrived": 20, "in_flight": 6, "held": 2}, 3),
    ],
)
def test_a_given_target_is_followed_with_spare(settings: ScalingSettings, signals: dict[str, int], count: int) -> None:
    looks = Looks(settings)
    assert what(looks.see(100, **signals)) == (count, ScalingReason.LOAD)


def test_until_anything_was_executed_nothing_is_known_and_nothing_is_taken_away() -> None:
    looks = Looks(LATENCY, replicas=3)
    assert what(looks.see(200, arrived=10)) == (3, ScalingReason.LEARNING)


def test_a_curve_is_followed_by_a_guess_before_it_is_calculated_with() -> None:
    looks = Looks(LATENCY, replicas=2)
    # 200 per second x 1.5, of servers that are taken to carry 60.
    assert looks.see(60, arrived=400, in_flight=4, batches=did(400)).desired == 5


def test_a_load_beyond_what_is_ready_is_asked_for_within_two_looks() -> None:
    looks = Looks(LATENCY, replicas=2)
    looks.see(60, arrived=100, in_flight=2, batches=did(100))
    looks.see(arrived=1200, in_flight=800, ready=2, batches=did(400))
    decision = looks.see(arrived=1200, in_flight=1600, ready=2, batches=did(400))
    assert what(decision) == (11, ScalingReason.SURGE)
    assert "600 requests per second come now, more than 2 servers carry" in decision.message


@pytest.mark.parametrize(
    ("held", "hold_seconds", "count"), [(1, 60.0, 1), (600, 60.0, 1), (601, 60.0, 2), (601, 10.0, 7), (9, 0.1, 1)]
)
def test_what_is_held_wakes_as_many_as_can_work_it_off_while_it_is_held(
    held: int, hold_seconds: float, count: int
) -> None:
    looks = Looks(TO_ZERO, replicas=0)
    decision = looks.see(arrived=1, held=held, hold_seconds=hold_seconds)
    assert what(decision) == (count, ScalingReason.HELD)
    assert f"{held} requests are held" in decision.message


def test_before_anything_is_known_of_a_server_one_is_woken() -> None:
    assert what(Looks(replace(LATENCY, minimum=0, idle_seconds=60.0), replicas=0).see(arrived=0, held=900)) == (
        1,
        ScalingReason.HELD,
    )


def test_a_load_that_meets_no_server_is_asked_for_at_once_not_only_what_is_held_of_it() -> None:
    looks = Looks(TO_ZERO, replicas=0)
    looks.see(arrived=160, held=160)
    decision = looks.see(arrived=160, held=320, ready=0)
    assert what(decision) == (9, ScalingReason.HELD)


def test_held_requests_wake_also_when_paused_but_change_no_count_there_is() -> None:
    paused = replace(TO_ZERO, paused=True)
    assert what(Looks(paused, replicas=0).see(arrived=1, held=5)) == (1, ScalingReason.HELD)
    assert what(Looks(paused, replicas=2).see(30, arrived=900, held=5000, ready=0)) == (2, ScalingReason.PAUSED)
    assert what(Looks(paused, replicas=2).see(200)) == (2, ScalingReason.PAUSED)


def test_nobody_asking_for_long_enough_is_no_server() -> None:
    looks = Looks(TO_ZERO, replicas=2)
    looks.see(40, arrived=2)
    assert looks.see(29).desired >= 1
    assert what(looks.see()) == (0, ScalingReason.IDLE)
    assert what(looks.see(100)) == (0, ScalingReason.IDLE)


@pytest.mark.parametrize("first", [{}, {"arrived": None}, {"complete": False}])
def test_a_model_that_sleeps_is_not_woken_by_a_restart(first: dict[str, Any]) -> None:
    looks = Looks(TO_ZERO, replicas=0)
    for fields in (first, {}, {}, {}):
        assert looks.see(**fields).desired == 0
    assert what(looks.see(arrived=1, held=1)) == (1, ScalingReason.HELD)


def test_a_minimum_above_none_never_sleeps() -> None:
    assert Looks(TEN_PER_SECOND, replicas=1).see(300).desired == 1
    assert what(Looks(replace(TEN_PER_SECOND, minimum=3), replicas=1).see()) == (3, ScalingReason.LOAD)


def test_a_rollouts_floor_holds_also_while_nobody_asks() -> None:
    looks = Looks(TO_ZERO, replicas=1)
    assert looks.see(100, floor=1).desired == 1
    assert looks.see(29).desired == 1, "the idle time begins when it has proven itself"
    assert what(looks.see()) == (0, ScalingReason.IDLE)


def test_the_maximum_is_said_to_be_in_the_way() -> None:
    decision = Looks(replace(TEN_PER_SECOND, maximum=3), replicas=1).see(10, arrived=2000, in_flight=50)
    assert decision.desired == 3
    too_many = Looks(replace(TEN_PER_SECOND, maximum=3), replicas=9).see(arrived=20)
    assert what(too_many) == (3, ScalingReason.MAXIMUM)
    assert "maxReplicas is 3" in too_many.message


def test_behavior_has_the_last_word_on_how_fast_and_none_on_sleeping() -> None:
    slow = Behavior(scale_up=ScalingRules(select_policy=PolicySelect.DISABLED))
    decision = Looks(replace(TO_ZERO, behavior=slow), replicas=1).see(10, arrived=400, in_flight=9)
    assert what(decision) == (1, ScalingReason.BEHAVIOR)
    assert "autoscaling.behavior allows 1" in decision.message
    kept = Behavior(scale_down=ScalingRules(select_policy=PolicySelect.DISABLED))
    looks = Looks(replace(TO_ZERO, behavior=kept), replicas=5)
    assert looks.see(20, arrived=2).desired == 5
    assert what(looks.see(30)) == (0, ScalingReason.IDLE)


@pytest.fixture(scope="module")
def tuned() -> Tuning:
    """Servers of a hundred requests per second; the load of 10 s, kept for 60."""
    curve = ServiceCurve(base_seconds=0.003, per_item_seconds=0.007, max_batch=1)
    surface = late_surface(curve, 0.05)
    return Tuning(
        at=5000.0,
        settings=LATENCY,
        curve=curve,
        surface=surface,
        capacity=by_surface(surface, 0.025, 20),
        policy=LevelPolicy(window_seconds=10, factor=1.0, hold_seconds=60),
    )


def test_what_is_not_needed_any_more_is_kept_for_a_while_and_said_to_be(tuned: Tuning) -> None:
    looks = Looks(LATENCY, replicas=1)
    looks.state = looks.state.with_tuning(tuned)
    many = looks.see(50, arrived=1000, in_flight=5, batches=did(1000)).desired
    decision = looks.see(20, arrived=40, batches=did(40))
    assert what(decision) == (many, ScalingReason.STABILISING)
    assert f"need 1 now; {many} were needed within 60 s" in decision.message
    assert what(looks.see(40, arrived=40, batches=did(40))) == (1, ScalingReason.LOAD)


def test_what_a_load_was_to_grow_to_is_said_to_be_given_back_soon() -> None:
    looks = Looks(replace(TEN_PER_SECOND, maximum=90), replicas=30)
    looks.see(60, arrived=320, in_flight=1)
    for more in range(1, 10):
        grown = looks.see(arrived=320 + 40 * more, in_flight=1, ready=30)
    # Twice the 330 at the most, and a tenth as spare.
    assert what(grown) == (73, ScalingReason.SURGE)
    assert grown.message == (
        "330 requests per second come now, more than 30 servers carry, "
        "and they grow: 660 by the time that a server more would serve"
    )
    after = looks.see(7, arrived=320, in_flight=1)
    assert what(after) == (73, ScalingReason.STABILISING)
    assert after.message.endswith("need 29 now; 73 were asked for 14 s ago, for what may still come")
    given_back = looks.see(arrived=320, in_flight=1)
    assert what(given_back) == (33, ScalingReason.STABILISING)
    assert given_back.message.endswith("need 29 now; 33 were needed within 5 min")


def test_what_the_same_time_before_needed_is_said_to_be_kept_for_that(tuned: Tuning) -> None:
    looks = Looks(LATENCY, replicas=1)
    looks.see(40, arrived=40, batches=did(40))
    hourly = replace(tuned, policy=replace(tuned.policy, period_seconds=3600))
    peaks = np.full(60, 500.0, dtype=np.float32)
    looks.state = replace(looks.state.with_tuning(hourly), history=replace(looks.state.history, peaks=peaks))
    decision = looks.see(arrived=40, batches=did(40))
    assert what(decision) == (tuned.capacity.need(500.0), ScalingReason.STABILISING)
    assert f"need 1 now; {decision.desired} were needed at this time 1 h ago" in decision.message


def test_a_queue_at_the_servers_asks_for_more_though_no_more_comes(tuned: Tuning) -> None:
    looks = Looks(LATENCY, replicas=2)
    looks.state = looks.state.with_tuning(tuned)
    looks.see(40, arrived=240, in_flight=2, batches=did(240))
    queue: dict[str, Any] = {"arrived": 240, "in_flight": 2000, "batches": did(240)}
    before = looks.state.desired
    assert looks.see(**queue).desired == before
    assert what(looks.see(**queue)) == (2 * before, ScalingReason.QUEUES)
    calm = looks.see(60, arrived=240, in_flight=2, batches=did(240))
    assert what(calm) == (2 * before, ScalingReason.STABILISING)
    assert f"queues showed 2 min ago that it takes {2 * before}" in calm.message


def test_a_queue_at_servers_that_answer_nothing_asks_for_nothing(tuned: Tuning) -> None:
    looks = Looks(LATENCY, replicas=2)
    looks.state = looks.state.with_tuning(tuned)
    looks.see(40, arrived=240, in_flight=2, batches=did(240))
    before = looks.state.desired
    ill = did(0)
    counts = [looks.see(arrived=240, in_flight=240 * number, batches=ill).desired for number in range(1, 200)]
    assert max(counts) <= 2 * before
    assert counts[-1] == before


def test_a_curve_that_has_changed_scales_what_was_calculated_until_it_is_anew(tuned: Tuning) -> None:
    looks = Looks(LATENCY, replicas=2)
    looks.state = looks.state.with_tuning(tuned)
    looks.see(5, arrived=100, in_flight=1, batches=did(100))
    slower = (BatchTimes(name="m", max_batch=1, instances=1, requests=100_000, sizes=((1, 100_000, 2000.0),)),)
    decision = looks.see(5, arrived=100, in_flight=1, batches=slower)
    assert decision.capacity is not None
    assert decision.capacity.ceiling == pytest.approx(50, rel=0.05)
    np.testing.assert_allclose(decision.capacity.rates, tuned.capacity.rates / 2, rtol=0.05)


def test_each_decision_tells_its_demand_and_changes_are_remembered() -> None:
    looks = Looks(TEN_PER_SECOND, replicas=1)
    decision = looks.see(100, arrived=60)
    assert decision.demand == pytest.approx(30)
    assert decision.message.startswith("30 requests per second: 1.5 x the load")
    assert [(change.before, change.after) for change in looks.state.changes][-1][1] == decision.desired
    assert decide(looks.now + 2, TEN_PER_SECOND, looks.state, Signals(arrived=60, ready=5)).state.desired == 5


def test_who_wakes_a_model_gets_no_servers_that_were_needed_before_it_slept() -> None:
    looks = Looks(TO_ZERO)
    assert looks.see(40, arrived=60).desired == 5
    assert what(looks.see(31)) == (0, ScalingReason.IDLE)
    assert looks.see(arrived=1, held=1, ready=0).desired == 1
    assert {looks.see(arrived=number % 2).desired for number in range(20)} == {1}


def test_by_a_guess_nothing_is_taken_away() -> None:
    """Of another objective it is not known yet how few servers keep it."""
    looks = Looks(LATENCY, replicas=3)
    looks.see(100, arrived=4, batches=did(4))
    looks.state = replace(looks.state.with_tuning(tune(looks.now, LATENCY, looks.state)), desired=3)
    looks.settings = replace(LATENCY, value=60.0)
    assert what(looks.see(arrived=4, batches=did(4))) == (3, ScalingReason.LEARNING)
