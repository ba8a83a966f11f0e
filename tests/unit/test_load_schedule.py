"""When requests go, and how durations and phases are accounted for."""

import itertools
import statistics

import pytest

from tests.load.plan import Plan, Protocol, Stream
from tests.load.recorder import NOT_SENT, Recorder, quantiles
from tests.load.schedule import schedule, schedules


def stream(rate: float, *, poisson: bool = False) -> Stream:
    return Stream(protocol=Protocol.HTTP, address="a:1", model="m", rate_per_second=rate, poisson=poisson)


def test_a_constant_rate_has_exactly_its_count_at_equal_distances() -> None:
    times = list(schedule(stream(50), duration_seconds=2, seed=0))
    assert len(times) == 100
    assert times[:3] == [0, 0.02, 0.04]


def test_poisson_keeps_its_rate_varies_and_is_repeatable() -> None:
    times = list(schedule(stream(100, poisson=True), duration_seconds=100, seed=7))
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(times) == pytest.approx(10_000, rel=0.05)
    # Of exponential gaps mean and deviation are equal.
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.1)
    assert times == list(schedule(stream(100, poisson=True), duration_seconds=100, seed=7))
    assert times != list(schedule(stream(100, poisson=True), duration_seconds=100, seed=8))


def test_two_streams_of_a_plan_do_not_go_in_step() -> None:
    first, second = schedules(Plan(streams=(stream(9, poisson=True), stream(9, poisson=True)), duration_seconds=5))
    assert first != second


def test_a_plan_beyond_its_own_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="the plan has 100 requests, more than its own bound of 99"):
        schedules(Plan(streams=(stream(50),), duration_seconds=2, requests_most=99))


def test_quantiles_are_durations_that_occurred() -> None:
    found = quantiles([number / 1000 for number in range(100, 0, -1)])
    assert (found.count, found.p50_ms, found.p90_ms, found.p99_ms, found.max_ms) == (100, 50, 90, 99, 100)
    assert quantiles([]).max_ms == 0
    assert quantiles([0.002]).p50_ms == 2


def recorder(**bounds: float) -> tuple[Recorder, float]:
    made = Recorder(Plan.model_validate({"streams": (stream(1),), "duration_seconds": 9} | bounds), planned=9)
    return made, made.begin()


def test_requests_belong_to_the_phase_that_they_were_sent_in() -> None:
    account, began = recorder()
    account.mark("second", began + 2)
    account.mark("first", began + 1)
    for sent, lost in ((0.5, False), (1.5, True), (2.5, False), (2.6, True)):
        sending = account.due("http", began + sent)
        sending.sent = began + sent
        if lost:
            account.is_lost(sending, "HTTP 503", "no\nserver")
        else:
            account.is_answered(sending)
    result = account.result(stopped_early=False)
    assert [(group.phase, group.sent, group.answered, group.failed) for group in result.groups] == [
        ("", 1, 1, {}),
        ("first", 1, 0, {"HTTP 503": 1}),
        ("second", 2, 1, {"HTTP 503": 1}),
    ]
    assert (result.scheduled, result.answered, result.failed, result.failed_by_kind) == (4, 2, 2, {"HTTP 503": 2})
    assert [(failure.sent_in, failure.words) for failure in result.first_failures] == [
        ("first", "no server"),
        ("second", "no server"),
    ]
    assert result.marks == pytest.approx({"first": 1, "second": 2})


def test_what_was_sent_late_is_no_open_loop() -> None:
    account, began = recorder(lateness_bound_ms=100)
    for late in (0.05, 0.15):
        sending = account.due("http", began)
        sending.sent = began + late
        account.is_answered(sending)
    result = account.result(stopped_early=False)
    assert (result.lateness.p50_ms, result.lateness.max_ms) == pytest.approx((50, 150))
    assert not result.on_schedule
    assert "NOT ON SCHEDULE" in result.summary()


def test_what_was_never_sent_is_a_failure_and_no_open_loop() -> None:
    account, began = recorder()
    account.is_lost(account.due("http", began), NOT_SENT, "")
    result = account.result(stopped_early=False)
    assert (result.scheduled, result.sent, result.failed, result.on_schedule) == (1, 0, 1, False)


def test_only_so_many_failures_are_told_one_by_one() -> None:
    account, began = recorder(failures_kept=3)
    for number in range(5):
        sending = account.due("grpc", began + number)
        sending.sent = sending.due
        account.is_lost(sending, "UNAVAILABLE", "")
    result = account.result(stopped_early=False)
    assert (len(result.first_failures), result.failed_by_kind) == (3, {"UNAVAILABLE": 5})
