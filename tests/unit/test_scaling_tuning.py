"""What is calculated now and then: when, from what, and until when it holds."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conch.core.scaling.history import History
from conch.core.scaling.level import PRIOR, Replay
from conch.core.scaling.service_curve import SeenBatches
from conch.core.scaling.settings import Metric, ScalingSettings
from conch.core.scaling.signals import BatchTimes
from conch.core.scaling.slots import Slots
from conch.core.scaling.state import ScalingState
from conch.core.scaling.tuning import capacity_now, is_guess, limit_seconds, prior_policy, tune, wants_tuning

LATENCY = ScalingSettings(minimum=1, maximum=10, metric=Metric.LATENCY, value=50.0, behavior=None)
TEN_PER_SECOND = replace(LATENCY, metric=Metric.REQUESTS_PER_SECOND, value=10.0)
TWO_AT_ONCE = replace(LATENCY, metric=Metric.CONCURRENCY, value=2.0)
QUEUE = replace(LATENCY, metric=Metric.QUEUE_TIME, value=20.0)


def seen(seconds: float = 0.01, *, max_batch: int = 1, decoupled: bool = False) -> SeenBatches:
    """Servers of which one request takes so long."""
    told = BatchTimes(
        name="m",
        max_batch=max_batch,
        instances=2,
        decoupled=decoupled,
        requests=1000,
        sizes=((1, 1000, 1000 * seconds),),
    )
    return SeenBatches().with_([told])


def history(seconds: float, rate: float = 100.0) -> History:
    bins = int(seconds / 2)
    rates = (np.random.default_rng(1).poisson(rate * 2, bins) / 2).astype(np.float32)
    return replace(History.empty(), rates=rates, concurrency=(rates / 10).astype(np.float32), bins=bins)


def state(**fields: Any) -> ScalingState:
    return replace(
        ScalingState.initial(1, 0.0), **{"batches": seen(), "history": history(300.0), "busy_at": 1e9, **fields}
    )


@pytest.mark.parametrize(
    ("settings", "known", "wants"),
    [
        (LATENCY, state(batches=SeenBatches()), False),
        (LATENCY, state(), True),
        (TEN_PER_SECOND, state(batches=SeenBatches()), True),
        (TWO_AT_ONCE, state(batches=SeenBatches()), True),
    ],
)
def test_there_is_something_to_calculate_as_soon_as_there_is_a_curve_where_one_is_needed(
    settings: ScalingSettings, known: ScalingState, *, wants: bool
) -> None:
    assert wants_tuning(0.0, settings, known) is wants


def test_nothing_executed_cannot_be_calculated_with() -> None:
    with pytest.raises(ValueError, match="nothing was executed yet"):
        tune(0.0, LATENCY, state(batches=SeenBatches()))


def test_it_is_calculated_anew_for_another_curve_or_objective_and_now_and_then_while_something_comes() -> None:
    known = state()
    known = known.with_tuning(tune(1000.0, LATENCY, known))
    assert not wants_tuning(1059.0, LATENCY, known)
    assert wants_tuning(1060.0, LATENCY, known)
    assert not wants_tuning(1060.0, LATENCY, replace(known, busy_at=999.0))
    assert wants_tuning(1001.0, replace(LATENCY, value=60.0), known)
    assert wants_tuning(1001.0, LATENCY, replace(known, batches=seen(0.02)))
    assert not wants_tuning(1001.0, LATENCY, replace(known, batches=seen(0.0102)))
    old = replace(known, history=history(7200.0))
    assert not wants_tuning(1299.0, LATENCY, old)
    assert wants_tuning(1300.0, LATENCY, old)


def test_a_surface_is_calculated_once_for_a_curve() -> None:
    known = state(history=history(60.0))
    first = tune(0.0, LATENCY, known)
    again = tune(60.0, LATENCY, known.with_tuning(first))
    assert again.surface is first.surface
    other = tune(60.0, LATENCY, replace(known, batches=seen(0.02)).with_tuning(first))
    assert other.surface is not first.surface
    assert capacity_now(LATENCY, known.with_tuning(first)) is first.capacity


def test_a_curve_that_is_learnt_better_counts_at_the_next_time_without_another_simulation() -> None:
    known = state(history=history(60.0))
    first = tune(0.0, LATENCY, known)
    # Each time a little slower, 12 % in all.
    tuned, surfaces = first, []
    for seconds in (0.0104, 0.0108, 0.0112):
        slower = replace(known, batches=seen(seconds)).with_tuning(tuned)
        tuned = tune(60.0, LATENCY, slower)
        surfaces.append(tuned.surface)
        now = capacity_now(LATENCY, slower.with_tuning(tuned))
        assert now is not None
        assert now.ceiling == pytest.approx(2 / seconds)
    assert [surface is first.surface for surface in surfaces] == [True, True, False]
    at_first, alike = (
        capacity_now(LATENCY, known.with_tuning(first)),
        tune(60.0, LATENCY, replace(known, batches=seen(0.0108)).with_tuning(first)).capacity,
    )
    assert at_first is not None
    assert alike.carries(3) == pytest.approx(at_first.carries(3) / 1.08)


def test_a_short_history_is_not_replayed() -> None:
    assert tune(0.0, LATENCY, state(history=history(100.0))).policy == PRIOR
    assert tune(0.0, LATENCY, state(history=history(300.0))).policy != PRIOR


def test_what_was_really_late_makes_the_replay_stricter() -> None:
    bursts = history(7200.0)
    rates = np.where(np.arange(len(bursts.rates)) % 601 < 3, 900.0, 200.0).astype(np.float32)
    calm = state(history=replace(bursts, rates=rates))
    late = replace(calm, answered=1000.0, late=200.0)
    relaxed, strict = (tune(0.0, LATENCY, known) for known in (calm, late))
    replay = Replay(
        load=rates, capacity=relaxed.capacity, least=1, cold_start_seconds=60.0, limit_seconds=limit_seconds(LATENCY)
    )
    # Half of what the objective allows; where four times as much was late, a tenth of that.
    late_shares = [replay.run(tuning.policy).late_share for tuning in (relaxed, strict)]
    assert late_shares[1] <= 0.0025 < late_shares[0] <= 0.025


@pytest.mark.parametrize(
    ("settings", "known", "capacity_of_two"),
    [
        (TEN_PER_SECOND, state(batches=SeenBatches()), 20.0),
        (TWO_AT_ONCE, state(batches=SeenBatches()), 4.0),
        (LATENCY, state(), 0.6 * 2 * 200.0),
        # A quarter of what a stream's server can have is left for those that begin meanwhile.
        (LATENCY, state(batches=seen(decoupled=True, max_batch=5)), 0.8 * 2 * 10),
        (LATENCY, state(batches=seen(decoupled=True), slots=Slots(proven=40.0)), 0.8 * 2 * 40),
        (LATENCY, state(batches=SeenBatches(), quickest_seconds=0.05, latencies_seen=15), 0.6 * 2 * 20),
    ],
)
def test_what_servers_carry_is_known_before_anything_is_calculated(
    settings: ScalingSettings, known: ScalingState, capacity_of_two: float
) -> None:
    capacity = capacity_now(settings, known)
    assert capacity is not None
    assert capacity.carries(2) == pytest.approx(capacity_of_two)


def test_with_nothing_known_nothing_is_said_of_what_servers_carry() -> None:
    assert capacity_now(LATENCY, state(batches=SeenBatches())) is None


def test_a_queue_time_is_a_mean_and_one_in_twenty_waits_three_times_as_long() -> None:
    assert limit_seconds(QUEUE) == pytest.approx(0.06)
    waits = tune(0.0, QUEUE, state(history=history(60.0)))
    latency = tune(0.0, replace(LATENCY, value=60.0), state(history=history(60.0)))
    # The 10 ms of the request itself do not count.
    assert waits.capacity.carries(1) > latency.capacity.carries(1)


@pytest.mark.parametrize(("request_seconds", "window_seconds"), [(0.01, 60), (2.0, 60), (4.0, 120), (30.0, 900)])
def test_a_slow_models_load_is_seen_over_a_longer_time(request_seconds: float, window_seconds: float) -> None:
    assert prior_policy(LATENCY, state(batches=seen(request_seconds))).window_seconds == pytest.approx(window_seconds)


@pytest.mark.parametrize(
    "edit", [{"maximum": 15}, {"minimum": 2}, {"paused": True}, {"percentile": 99.0}], ids=lambda edit: next(iter(edit))
)
def test_an_edit_that_needs_no_other_surface_changes_nothing_that_was_learnt(edit: dict[str, Any]) -> None:
    tuned = state(tuning=tune(0.0, LATENCY, state()))
    edited = replace(LATENCY, **edit)
    before, after = capacity_now(LATENCY, tuned), capacity_now(edited, tuned)
    assert before is not None and after is not None  # noqa: PT018 - one thing: both are there
    assert after.surface is before.surface
    assert after.most_servers == edited.maximum
    if "percentile" not in edit:
        assert after.carries(5) == before.carries(5)
    assert wants_tuning(1.0, edited, tuned)
    assert tune(1.0, edited, tuned).surface is before.surface, "not simulated once more"
    guess = capacity_now(replace(LATENCY, value=60.0), tuned)
    assert guess is not None
    assert is_guess(LATENCY, tuned, guess)
