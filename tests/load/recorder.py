"""Keeps account of every request while a load runs, and makes the result of it."""

import time
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from tests.load.plan import Plan
from tests.load.result import Failure, Group, Quantiles, Result, Span
from tests.load.timeline import span, timeline

NOT_SENT = "not sent: too many in flight"
RECENT_SECONDS = 5.0
_WORDS_MOST = 300


@dataclass(slots=True)
class Sending:
    """One request on its way; a sender says when it went and on what."""

    protocol: str
    due: float
    """In time.monotonic()'s seconds."""
    sent: float = 0.0
    reused_connection: bool | None = None

    def goes(self) -> None:
        """It is handed to the connection now."""
        self.sent = time.monotonic()


class RequestFailedError(Exception):
    """An answer that is none; `kind` is what it is counted as."""

    def __init__(self, kind: str, words: str = "") -> None:
        super().__init__(words)
        self.kind = kind


@dataclass(slots=True)
class _Fate:
    sent: "array[float]" = field(default_factory=lambda: array("d"))
    latency: "array[float]" = field(default_factory=lambda: array("d"))


@dataclass(frozen=True, slots=True)
class _Lost:
    sending: Sending
    at: float
    kind: str
    words: str


class Recorder:
    """Of one run. Times are time.monotonic()'s, which all processes of a machine share."""

    def __init__(self, plan: Plan, *, planned: int) -> None:
        self._plan, self._planned = plan, planned
        self._began = self._began_at = self._cpu_before = 0.0
        self._answered: dict[str, _Fate] = {}
        self._lost: list[_Lost] = []
        self._lateness = array("d")
        self._marks: list[tuple[float, str]] = []
        self.scheduled = 0

    def begin(self) -> float:
        """Now is the beginning; returns it."""
        self._began, self._began_at = time.monotonic(), datetime.now(UTC).timestamp()
        self._cpu_before = time.process_time()
        return self._began

    @property
    def answered(self) -> int:
        """So far."""
        return sum(len(fate.sent) for fate in self._answered.values())

    @property
    def failed(self) -> int:
        """So far."""
        return len(self._lost)

    @property
    def in_flight(self) -> int:
        """Now."""
        return self.scheduled - self.answered - self.failed

    def due(self, protocol: str, at: float) -> Sending:
        """A request whose time has come."""
        self.scheduled += 1
        return Sending(protocol=protocol, due=at)

    def is_answered(self, sending: Sending) -> None:
        """As it should be."""
        self._lateness.append(sending.sent - sending.due)
        fate = self._answered.setdefault(sending.protocol, _Fate())
        fate.sent.append(sending.sent)
        fate.latency.append(time.monotonic() - sending.sent)

    def is_lost(self, sending: Sending, kind: str, words: str) -> None:
        """Failed, or was never sent."""
        if sending.sent:
            self._lateness.append(sending.sent - sending.due)
        self._lost.append(_Lost(sending, time.monotonic(), kind, " ".join(words.split())[:_WORDS_MOST]))

    def recent(self) -> Span:
        """The last seconds up to now; fewer than RECENT_SECONDS at the beginning."""
        now = time.monotonic()
        begin = max(self._began, now - RECENT_SECONDS)
        latencies = array("d")
        for fate in self._answered.values():
            # In the order in which they ended.
            for sent, latency in zip(reversed(fate.sent), reversed(fate.latency), strict=True):
                if sent + latency < begin:
                    break
                latencies.append(latency)
        failed = len(self._lost) - bisect_left(self._lost, begin, key=lambda lost: lost.at)
        return span(begin - self._began, now - begin, latencies, failed=failed)

    def mark(self, phase: str, at: float) -> None:
        """A phase begins."""
        self._marks.append((at, phase))
        self._marks.sort()

    def result(self, *, stopped_early: bool) -> Result:
        """The account, once nothing is in flight."""
        lateness = quantiles(self._lateness)
        by_kind = Counter(lost.kind for lost in self._lost)
        never_sent = sum(not lost.sending.sent for lost in self._lost)
        return Result(
            planned=self._planned,
            scheduled=self.scheduled,
            sent=len(self._lateness),
            answered=self.answered,
            failed=self.failed,
            failed_by_kind=dict(by_kind.most_common()),
            first_failures=tuple(
                self._failure(lost)
                for lost in sorted(self._lost, key=lambda lost: lost.sending.due)[: self._plan.failures_kept]
            ),
            lateness=lateness,
            lateness_bound_ms=self._plan.lateness_bound_ms,
            on_schedule=lateness.p99_ms <= self._plan.lateness_bound_ms and not never_sent,
            stopped_early=stopped_early,
            began_at=self._time(self._began),
            seconds=time.monotonic() - self._began,
            cpu_seconds=time.process_time() - self._cpu_before,
            marks={phase: at - self._began for at, phase in self._marks},
            groups=tuple(self._groups()),
            timeline=timeline(self._ends(), [lost.at - self._began for lost in self._lost]),
        )

    def _ends(self) -> Iterator[tuple[float, float]]:
        """(seconds since the beginning, latency) of every request that was answered."""
        for fate in self._answered.values():
            for sent, latency in zip(fate.sent, fate.latency, strict=True):
                yield sent + latency - self._began, latency

    def _time(self, at: float) -> str:
        return datetime.fromtimestamp(self._began_at + at - self._began, UTC).isoformat(timespec="milliseconds")

    def _failure(self, lost: _Lost) -> Failure:
        sent = lost.sending.sent or lost.sending.due
        return Failure(
            protocol=lost.sending.protocol,
            kind=lost.kind,
            words=lost.words,
            sent_at=self._time(sent),
            sent_seconds=sent - self._began,
            failed_after_seconds=lost.at - sent,
            sent_in=self._phase(sent),
            failed_in=self._phase(lost.at),
            reused_connection=lost.sending.reused_connection,
        )

    def _phase(self, at: float) -> str:
        number = bisect_right(self._marks, at, key=lambda mark: mark[0])
        return self._marks[number - 1][1] if number else ""

    def _groups(self) -> list[Group]:
        latencies: dict[tuple[str, str], array[float]] = {}
        losses: dict[tuple[str, str], Counter[str]] = {}
        for protocol, fate in self._answered.items():
            for sent, latency in zip(fate.sent, fate.latency, strict=True):
                latencies.setdefault((self._phase(sent), protocol), array("d")).append(latency)
        for lost in self._lost:
            key = self._phase(lost.sending.sent or lost.sending.due), lost.sending.protocol
            losses.setdefault(key, Counter())[lost.kind] += 1
        order = {"": -1} | {phase: number for number, (_, phase) in enumerate(self._marks)}
        groups = []
        for key in sorted(latencies.keys() | losses.keys(), key=lambda key: (order[key[0]], key[1])):
            phase, protocol = key
            answered, lost_here = latencies.get(key, array("d")), losses.get(key, Counter())
            groups.append(
                Group(
                    protocol=protocol,
                    phase=phase,
                    sent=len(answered) + lost_here.total() - lost_here[NOT_SENT],
                    answered=len(answered),
                    failed=dict(lost_here),
                    latency=quantiles(answered),
                )
            )
        return groups


def quantiles(seconds: Sequence[float]) -> Quantiles:
    """Of durations in seconds: each is one that occurred, and at least that share of all is not above it."""
    if not len(seconds):
        return Quantiles(count=0, p50_ms=0, p90_ms=0, p99_ms=0, max_ms=0)
    p50, p90, p99, most = np.percentile(np.asarray(seconds) * 1000, [50, 90, 99, 100], method="inverted_cdf").tolist()
    return Quantiles(count=len(seconds), p50_ms=p50, p90_ms=p90, p99_ms=p99, max_ms=most)
