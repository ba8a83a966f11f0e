"""What became of a load, as JSON and for a person."""

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Quantiles(_Part):
    """Of some durations in milliseconds; all zero where there were none."""

    count: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


class Failure(_Part):
    """One request that was not answered as it should."""

    protocol: str
    kind: str
    """A status (`HTTP 503`), a gRPC code (`UNAVAILABLE`), or an exception's class."""
    words: str
    sent_at: str
    """UTC."""
    sent_seconds: float
    """Since the beginning."""
    failed_after_seconds: float
    sent_in: str
    """The phase."""
    failed_in: str
    reused_connection: bool | None
    """Whether the connection had been used before; None where the library does not tell, or there was none."""


class Group(_Part):
    """The requests of one protocol that were sent in one phase."""

    protocol: str
    phase: str
    sent: int
    answered: int
    failed: dict[str, int]
    """By kind."""
    latency: Quantiles
    """Of those that were answered, from when they were sent."""


class Span(_Part):
    """What came to an end within a span of time."""

    begin_seconds: float
    """Since the beginning of the run."""
    seconds: float
    """How long it is."""
    answered: int
    failed: int
    p50_ms: float
    """Of those that were answered, from when they were sent; zero where none was."""
    p95_ms: float


class Result(_Part):
    """A whole run. `scheduled` = `answered` + `failed`: every request whose time came is accounted for."""

    planned: int
    """What the whole plan has; more than `scheduled` only where the load was stopped before."""
    scheduled: int
    sent: int
    answered: int
    failed: int
    failed_by_kind: dict[str, int]
    first_failures: tuple[Failure, ...]
    lateness: Quantiles
    """Of sending, against the schedule."""
    lateness_bound_ms: float
    on_schedule: bool
    """Whether it was an open loop: p99 of lateness is within the bound, and everything scheduled was sent."""
    stopped_early: bool
    began_at: str
    """UTC."""
    seconds: float
    cpu_seconds: float
    """Of the generator, its start not counted."""
    marks: dict[str, float]
    """Phase -> seconds since the beginning."""
    groups: tuple[Group, ...]
    timeline: tuple[Span, ...]
    """Each second from the beginning to the last end of a request, also where nothing ended."""

    def summary(self) -> str:
        """Some lines for a test's message."""
        lines = [
            f"{self.answered} of {self.scheduled} requests answered ({self.planned} planned), {self.failed} failed, in "
            f"{self.seconds:.1f} s; sent late by p50 {self.lateness.p50_ms:.1f} p99 {self.lateness.p99_ms:.1f} max "
            f"{self.lateness.max_ms:.1f} ms{'' if self.on_schedule else ': NOT ON SCHEDULE'}; "
            f"{self.cpu_seconds / max(self.seconds, 1e-9):.2f} cores"
        ]
        for group in self.groups:
            failed = f", failed {group.failed}" if group.failed else ""
            lines.append(
                f"  {group.phase or 'begin'} {group.protocol}: {group.answered} of {group.sent}, p50 "
                f"{group.latency.p50_ms:.1f} p99 {group.latency.p99_ms:.1f} max {group.latency.max_ms:.1f} ms{failed}"
            )
        for each in self.first_failures:
            reused = {None: "", True: ", reused connection", False: ", fresh connection"}[each.reused_connection]
            lines.append(
                f"  {each.sent_at} {each.protocol} {each.kind} after {each.failed_after_seconds:.3f} s "
                f"(sent in {each.sent_in or 'begin'}, failed in {each.failed_in or 'begin'}{reused}): {each.words}"
            )
        return "\n".join(lines)
