"""What is said of a candidate, check by check."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.api.analysis import Check, GoldenSet, Latency, QueueTime, SuccessRate
from conch.api.gateway_report import LATENCY_BOUNDS_MILLISECONDS
from conch.core.analysis import judge as judging
from conch.core.analysis.alpha import ROLLOUT_ALPHA, alpha_of_each
from conch.core.analysis.judge import DEFAULT_CHECK
from conch.core.analysis.judgement import Judgement, Verdict, combine
from conch.core.analysis.samples import Samples

WORST_FIRST = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)
NOTHING = Samples()
P95_ABSOLUTE = Check(latency=Latency(percentile=95, max_milliseconds=300))
P95_RATIO = Check(latency=Latency(percentile=95, max_ratio_to_stable=1.5))
QUEUE = Check(queue_time=QueueTime(max_milliseconds=10))


def judge(check: Check, candidate: Samples, stable: Samples) -> Judgement:
    """In a rollout with one step and this check."""
    return judging.judge(check, candidate, stable, alpha=alpha_of_each(windows=2, checks=1))


def success(minimum_percent: float = 99, minimum_samples: int | None = None) -> Check:
    return Check(success_rate=SuccessRate(minimum_percent=minimum_percent), minimum_samples=minimum_samples)


def answered(by_bound: dict[float, int]) -> Samples:
    """So many in the bucket that ends at this bound; infinity is beyond the last."""
    latency = tuple(by_bound.get(bound, 0) for bound in (*LATENCY_BOUNDS_MILLISECONDS, float("inf")))
    return Samples(requests=sum(latency), latency=latency)


def failing(failures: int, requests: int) -> Samples:
    return Samples(requests=requests, failures=failures)


def queued(requests: int, mean_milliseconds: float) -> Samples:
    return Samples(requests=requests, queued_requests=requests, queue_seconds=requests * mean_milliseconds / 1000)


@pytest.mark.parametrize(
    ("check", "failures", "requests", "verdict"),
    [
        (success(), 0, 0, Verdict.INCONCLUSIVE),
        (success(), 3, 3, Verdict.INCONCLUSIVE),
        (success(), 19, 19, Verdict.INCONCLUSIVE),
        (success(), 20, 20, Verdict.FAIL),
        (success(minimum_samples=5), 5, 5, Verdict.FAIL),
        (success(), 0, 99, Verdict.INCONCLUSIVE),
        (success(), 0, 120, Verdict.PASS),
        (success(minimum_samples=1000), 0, 999, Verdict.INCONCLUSIVE),
        (success(minimum_samples=1000), 0, 1000, Verdict.PASS),
        (success(), 2, 400, Verdict.PASS),
        (success(), 20, 400, Verdict.FAIL),
        (success(), 8, 400, Verdict.INCONCLUSIVE),
        (success(99.9), 8, 400, Verdict.FAIL),
        (success(0), 400, 400, Verdict.PASS),
        # A failure that is counted before its request.
        (success(), 401, 400, Verdict.FAIL),
        (DEFAULT_CHECK, 12, 400, Verdict.PASS),
        (DEFAULT_CHECK, 20, 25, Verdict.FAIL),
    ],
)
def test_success_rate(check: Check, failures: int, requests: int, verdict: Verdict) -> None:
    assert judge(check, failing(failures, requests), NOTHING).verdict is verdict


def test_a_judgement_says_what_was_seen_and_what_is_allowed() -> None:
    assert judge(success(), failing(21, 400), NOTHING) == Judgement(
        verdict=Verdict.FAIL,
        value=5.25,
        limit=1,
        samples=400,
        message="5.25 % of 400 requests failed; at most 1 % may",
    )


@pytest.mark.parametrize(
    ("check", "candidate", "message"),
    [
        (success(), NOTHING, "no request has come to an end; too few samples yet, 100 are needed"),
        (success(), failing(0, 1), "0 % of 1 request failed; at most 1 % may; too few samples yet, 100 are needed"),
        (success(), failing(8, 400), "2 % of 400 requests failed; at most 1 % may; not certain yet"),
        (
            P95_ABSOLUTE,
            answered({100: 400}),
            "95 % of 400 requests took up to 99 ms; at most 300 ms are allowed (told in steps: up to 320 ms)",
        ),
        (P95_ABSOLUTE, NOTHING, "no request was answered by a server; too few samples yet, 100 are needed"),
        (
            P95_RATIO,
            answered({float("inf"): 400}),
            "95 % of 400 requests took up to more than 1 h; "
            "at most 148 ms are allowed (1.5 times the stable revision's 99 ms)",
        ),
        (
            Check(latency=Latency(percentile=95, max_ratio_to_stable=1.1)),
            answered({100: 400}),
            "95 % of 400 requests took up to 99 ms; at most 130 ms are allowed "
            "(1.1 times the stable revision's 99 ms, and no less than can be told apart)",
        ),
        (QUEUE, queued(400, 2.5), "400 requests waited 2.5 ms on average; at most 10 ms are allowed"),
        (QUEUE, NOTHING, "no request has left the queue; too few samples yet, 100 are needed"),
        (
            QUEUE,
            failing(0, 100),
            "100 requests came to an end, and Triton's counters tell of none in the queue",
        ),
    ],
)
def test_messages(check: Check, candidate: Samples, message: str) -> None:
    assert judge(check, candidate, answered({100: 900})).message == message


@pytest.mark.parametrize(
    ("by_bound", "verdict"),
    [
        ({100: 400}, Verdict.PASS),
        ({100: 99}, Verdict.INCONCLUSIVE),
        ({100: 395, 500: 5}, Verdict.PASS),
        # 310 ms are in the bucket that is still allowed, 321 ms are not.
        ({320: 400}, Verdict.PASS),
        ({400: 400}, Verdict.FAIL),
        ({100: 340, 400: 60}, Verdict.FAIL),
        ({100: 375, 400: 25}, Verdict.INCONCLUSIVE),
        ({400: 19}, Verdict.INCONCLUSIVE),
        ({400: 20}, Verdict.FAIL),
        ({float("inf"): 400}, Verdict.FAIL),
    ],
)
def test_latency_against_a_limit(by_bound: dict[float, int], verdict: Verdict) -> None:
    assert judge(P95_ABSOLUTE, answered(by_bound), NOTHING).verdict is verdict


@pytest.mark.parametrize(
    ("candidate", "stable", "verdict"),
    [
        ({100: 400}, {100: 900}, Verdict.PASS),
        ({200: 400}, {100: 900}, Verdict.FAIL),
        ({200: 20}, {100: 900}, Verdict.FAIL),
        ({200: 19}, {100: 900}, Verdict.INCONCLUSIVE),
        ({200: 400}, {100: 20}, Verdict.INCONCLUSIVE),
        ({200: 400}, {}, Verdict.INCONCLUSIVE),
        ({10: 400}, {100: 900}, Verdict.PASS),
        # A bucket further: it may be one millisecond more.
        ({130: 400}, {100: 900}, Verdict.PASS),
        ({100: 392, 500: 8}, {100: 900}, Verdict.PASS),
        ({100: 380, 500: 20}, {100: 900}, Verdict.INCONCLUSIVE),
        ({100: 320, 500: 80}, {100: 900}, Verdict.FAIL),
        # A stable revision that has slow requests too.
        ({100: 320, 500: 80}, {100: 720, 500: 180}, Verdict.PASS),
        # Nothing can be said of what takes more than the last bound.
        ({float("inf"): 400}, {float("inf"): 900}, Verdict.PASS),
    ],
)
def test_latency_against_the_stable_revision(
    candidate: dict[float, int], stable: dict[float, int], verdict: Verdict
) -> None:
    assert judge(P95_RATIO, answered(candidate), answered(stable)).verdict is verdict


def test_latencies_on_both_sides_of_a_bound_are_not_told_apart_whatever_the_ratio() -> None:
    check = Check(latency=Latency(percentile=95, max_ratio_to_stable=1))
    assert judge(check, answered({130: 4000}), answered({100: 9000})).verdict is Verdict.PASS
    assert judge(check, answered({160: 4000}), answered({100: 9000})).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("requests", "mean_milliseconds", "verdict"),
    [
        (100, 0, Verdict.PASS),
        (99, 0, Verdict.INCONCLUSIVE),
        (99, 1000, Verdict.INCONCLUSIVE),
        (100, 1000, Verdict.FAIL),
        (100, 15, Verdict.INCONCLUSIVE),
        (2000, 15, Verdict.INCONCLUSIVE),
        (2000, 20, Verdict.FAIL),
        (2000, 9, Verdict.PASS),
        (400, 3, Verdict.PASS),
        (400, 9, Verdict.INCONCLUSIVE),
    ],
)
def test_queue_time(requests: int, mean_milliseconds: float, verdict: Verdict) -> None:
    assert judge(QUEUE, queued(requests, mean_milliseconds), NOTHING).verdict is verdict


def test_counters_that_tell_nothing_are_an_error_once_there_should_be_something() -> None:
    assert judge(QUEUE, failing(0, 99), NOTHING).verdict is Verdict.INCONCLUSIVE
    assert judge(QUEUE, failing(0, 100), NOTHING).verdict is Verdict.ERROR
    # What failed may never have come to a queue.
    assert judge(QUEUE, failing(1, 100), NOTHING).verdict is Verdict.INCONCLUSIVE


def test_a_golden_set_is_not_judged_by_traffic() -> None:
    with pytest.raises(ValueError, match="not judged"):
        judge(Check(golden_set=GoldenSet()), NOTHING, NOTHING)


def test_the_worst_verdict_is_that_of_all() -> None:
    said = {verdict: Judgement(verdict=verdict, samples=1, message="") for verdict in Verdict}
    assert combine(said.values()) is Verdict.FAIL
    assert combine(said[each] for each in (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.ERROR)) is Verdict.ERROR
    assert combine(said[each] for each in (Verdict.PASS, Verdict.INCONCLUSIVE)) is Verdict.INCONCLUSIVE
    assert combine([said[Verdict.PASS]]) is Verdict.PASS
    assert combine([]) is Verdict.PASS


MINIMUM_SAMPLES = st.integers(1, 500)
CHECKS = st.one_of(
    st.builds(
        lambda minimum, samples: Check(success_rate=SuccessRate(minimum_percent=minimum), minimum_samples=samples),
        st.floats(0, 99.99),
        MINIMUM_SAMPLES,
    ),
    st.builds(
        lambda percentile, most, samples: Check(
            latency=Latency(percentile=percentile, max_milliseconds=most), minimum_samples=samples
        ),
        st.floats(1, 99.9),
        st.integers(1, 3_600_000),
        MINIMUM_SAMPLES,
    ),
    st.builds(
        lambda percentile, ratio, samples: Check(
            latency=Latency(percentile=percentile, max_ratio_to_stable=ratio), minimum_samples=samples
        ),
        st.floats(1, 99.9),
        st.floats(1, 100),
        MINIMUM_SAMPLES,
    ),
    st.builds(
        lambda most, samples: Check(queue_time=QueueTime(max_milliseconds=most), minimum_samples=samples),
        st.integers(1, 3_600_000),
        MINIMUM_SAMPLES,
    ),
)


@st.composite
def samples(draw: st.DrawFn) -> Samples:
    requests = draw(st.integers(0, 5000))
    failures = draw(st.integers(0, requests))
    latency = draw(st.lists(st.integers(0, 300), max_size=len(LATENCY_BOUNDS_MILLISECONDS) + 1))
    return Samples(
        requests=requests,
        failures=failures,
        latency=tuple(latency),
        queued_requests=requests - failures,
        queue_seconds=draw(st.floats(0, 1e6)),
    )


@given(CHECKS, samples(), samples())
def test_whatever_was_seen_there_is_a_judgement_and_it_is_the_same_each_time(
    check: Check, candidate: Samples, stable: Samples
) -> None:
    found = judge(check, candidate, stable)
    assert found == judge(check, replace(candidate), replace(stable))
    assert found.message
    if found.samples < check.effective_minimum_samples:
        assert found.verdict is not Verdict.PASS
    if found.verdict is Verdict.PASS and check.latency is None:
        assert found.value is not None
        assert found.limit is not None
        assert found.value <= found.limit


@given(CHECKS, samples(), samples(), st.integers(1, 100))
def test_more_failures_never_make_it_better(check: Check, candidate: Samples, stable: Samples, more: int) -> None:
    worse = replace(candidate, failures=min(candidate.failures + more, candidate.requests))
    if check.success_rate is not None:
        before, after = (judge(check, each, stable).verdict for each in (candidate, worse))
        assert WORST_FIRST.index(after) <= WORST_FIRST.index(before)


@given(st.integers(0, 100_000), CHECKS)
def test_without_a_failure_no_success_rate_fails(requests: int, check: Check) -> None:
    if check.success_rate is not None:
        assert judge(check, failing(0, requests), NOTHING).verdict is not Verdict.FAIL


@given(CHECKS, samples(), samples(), st.data())
def test_later_answers_never_make_it_better(
    check: Check, candidate: Samples, stable: Samples, data: st.DataObject
) -> None:
    if check.latency is None or not sum(candidate.latency):
        return
    latency = [*candidate.latency, *(0,) * (len(LATENCY_BOUNDS_MILLISECONDS) + 1 - len(candidate.latency))]
    filled = [place for place, number in enumerate(latency[:-1]) if number]
    if not filled:
        return
    place = data.draw(st.sampled_from(filled))
    later = data.draw(st.integers(place + 1, len(latency) - 1))
    moved = data.draw(st.integers(1, latency[place]))
    latency[place] -= moved
    latency[later] += moved
    before, after = (
        judge(check, each, stable).verdict for each in (candidate, replace(candidate, latency=tuple(latency)))
    )
    assert WORST_FIRST.index(after) <= WORST_FIRST.index(before)


@given(st.lists(st.integers(0, 3000), max_size=len(LATENCY_BOUNDS_MILLISECONDS) + 1), st.floats(1, 99.9))
def test_a_candidate_with_the_very_latencies_of_the_stable_revision_never_fails(
    latency: list[int], percentile: float
) -> None:
    check = Check(latency=Latency(percentile=percentile, max_ratio_to_stable=1))
    same = Samples(latency=tuple(latency))
    assert judge(check, same, same).verdict is not Verdict.FAIL


@given(samples(), st.floats(0, 1e6))
def test_longer_waits_never_make_it_better(candidate: Samples, more: float) -> None:
    if candidate.queued_requests:
        worse = replace(candidate, queue_seconds=candidate.queue_seconds + more)
        before, after = (judge(QUEUE, each, NOTHING).verdict for each in (candidate, worse))
        assert WORST_FIRST.index(after) <= WORST_FIRST.index(before)


@pytest.mark.parametrize(("steps", "checks"), [(0, 1), (1, 1), (3, 2), (20, 10)])
def test_all_the_chances_of_a_rollout_to_be_wrong_are_one_percent_together(steps: int, checks: int) -> None:
    assert alpha_of_each(windows=steps + 1, checks=checks) * (steps + 1) * checks == pytest.approx(ROLLOUT_ALPHA)


@pytest.mark.parametrize(
    ("check", "candidate", "stable"),
    [
        (success(), failing(9, 200), NOTHING),
        (P95_ABSOLUTE, answered({100: 175, 1000: 25}), NOTHING),
        (P95_RATIO, answered({100: 175, 1000: 25}), answered({100: 2000})),
        (QUEUE, queued(500, 27), NOTHING),
    ],
    ids=["success rate", "absolute latency", "relative latency", "queue time"],
)
def test_the_more_there_is_to_be_wrong_about_the_more_it_takes_to_fail(
    check: Check, candidate: Samples, stable: Samples
) -> None:
    few, many = (
        judging.judge(check, candidate, stable, alpha=alpha_of_each(windows=windows, checks=1)).verdict
        for windows in (1, 200)
    )
    assert (few, many) == (Verdict.FAIL, Verdict.INCONCLUSIVE)
