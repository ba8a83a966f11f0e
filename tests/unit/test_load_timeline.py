"""A load over time: what ended in each second, and lately."""

import time

import pytest

from tests.load.plan import Plan, Protocol, Stream
from tests.load.recorder import RECENT_SECONDS, Recorder
from tests.load.timeline import span, timeline

MOMENT_SECONDS = 0.5
"""Between what a test does and the look at it, on a busy machine."""


def test_each_second_has_what_ended_in_it_also_where_nothing_did() -> None:
    answered = [(0.1, 0.010), (0.9, 0.020), (2.0, 0.030)]
    spans = timeline(answered, [3.5, 0.5, 3.9])
    assert [(each.begin_seconds, each.seconds) for each in spans] == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert [(each.answered, each.failed) for each in spans] == [(2, 1), (0, 0), (1, 0), (0, 2)]
    assert [each.p50_ms for each in spans] == pytest.approx([10, 0, 30, 0])
    assert spans[0].p95_ms == pytest.approx(20)
    assert timeline([], []) == ()


def test_percentiles_are_latencies_that_occurred() -> None:
    of_all = span(0, 1, [number / 1000 for number in range(1, 101)], failed=0)
    assert (of_all.answered, of_all.p50_ms, of_all.p95_ms) == (100, 50, 95)


def test_a_recorder_tells_the_last_seconds_and_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    stream = Stream(protocol=Protocol.HTTP, address="a:1", model="m", rate_per_second=1)
    account = Recorder(Plan(streams=(stream,), duration_seconds=60), planned=60)
    began = account.begin()
    assert account.recent().answered == 0
    for lost in (False, True, False):
        sending = account.due("http", began)
        # As if it had waited for so long already.
        sending.sent = time.monotonic() - 0.2
        if lost:
            account.is_lost(sending, "HTTP 503", "")
        else:
            account.is_answered(sending)
    recent = account.recent()
    assert (recent.answered, recent.failed) == (2, 1)
    assert 0 <= recent.seconds < MOMENT_SECONDS
    assert 200 <= recent.p50_ms < 200 + 1000 * MOMENT_SECONDS
    result = account.result(stopped_early=False)
    assert (sum(each.answered for each in result.timeline), sum(each.failed for each in result.timeline)) == (2, 1)


def test_what_ended_before_is_not_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream = Stream(protocol=Protocol.HTTP, address="a:1", model="m", rate_per_second=1)
    account = Recorder(Plan(streams=(stream,), duration_seconds=60), planned=60)
    account.begin()
    for ended in (101.0, 104.0, 108.0):
        for lost in (False, True):
            now = ended
            sending = account.due("grpc", ended)
            sending.sent = ended - 0.25
            if lost:
                account.is_lost(sending, "UNAVAILABLE", "")
            else:
                account.is_answered(sending)
    now = 108.5
    recent = account.recent()
    assert (recent.begin_seconds, recent.seconds) == (3.5, RECENT_SECONDS)
    assert (recent.answered, recent.failed, recent.p95_ms) == (2, 2, 250)
    spans = account.result(stopped_early=True).timeline
    assert [each.begin_seconds for each in spans if each.answered and each.failed] == [1, 4, 8]
    assert len(spans) == 9
