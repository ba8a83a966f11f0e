"""Leader election: how one leader follows another."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pytest

from conch.runtime.leadership import (
    DURATION_SECONDS,
    RENEW_DEADLINE_SECONDS,
    RETRY_SECONDS,
    Leadership,
    NotLeadingError,
)
from tests.support.virtual_time import run_virtually, virtual_now


@dataclass(frozen=True, kw_only=True)
class Lease:
    """What the store holds."""

    holder: str = ""
    transitions: int = 0
    version: str | None = None


class ConflictError(Exception):
    """Somebody else wrote since."""


class Server:
    """One Lease with compare-and-swap, as the API server keeps it."""

    def __init__(self) -> None:
        self.lease = Lease()
        self.writes: list[Lease] = []

    def write(self, holder: str, transitions: int, version: str | None) -> Lease:
        if version != self.lease.version:
            raise ConflictError
        self.lease = Lease(holder=holder, transitions=transitions, version=str(len(self.writes) + 1))
        self.writes.append(self.lease)
        return self.lease


class Wire:
    """One elector's connection to the server: every call takes its time on both ways, and either way may fail."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.faults: list[tuple[float, float, str]] = []
        """(seconds there, seconds back, what is lost), one per call; then the network is good."""
        self.down = False

    async def _call(self, carry_out: Callable[[], Lease]) -> Lease:
        # Who gives up waiting does not call a request back that is on its way.
        return await asyncio.shield(asyncio.ensure_future(self._serve(carry_out)))

    async def _serve(self, carry_out: Callable[[], Lease]) -> Lease:
        there, back, lost = self.faults.pop(0) if self.faults else (0.01, 0.01, "")
        await asyncio.sleep(there)
        if self.down or lost == "request":
            raise ConnectionError
        answer = carry_out()
        await asyncio.sleep(back)
        if lost == "reply":
            raise ConnectionError
        return answer

    async def read(self) -> Lease:
        return await self._call(lambda: self._server.lease)

    async def write(self, *, holder: str, transitions: int, version: str | None, now: datetime) -> Lease:
        assert now.tzinfo is not None
        return await self._call(lambda: self._server.write(holder, transitions, version))


class Elector:
    """An operator process with a clock that began anywhere and may jump forward."""

    def __init__(self, server: Server, identity: str, *, clock_at: float = 0.0) -> None:
        self.offset = clock_at
        self.wire = Wire(server)
        self.leadership = Leadership(self.wire, identity=identity, clock=lambda: virtual_now() + self.offset)
        self.led: list[str] = []
        self.holder_at_end = ""
        self._server = server
        self._task: asyncio.Task[None] | None = None

    async def _lead(self) -> None:
        self.led.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            self.led.append("ended")
            self.holder_at_end = self._server.lease.holder

    def start(self) -> None:
        self._task = asyncio.ensure_future(self.leadership.run(self._lead))

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})

    def kill(self) -> None:
        """The process is gone: nothing it would still write arrives."""
        self.wire.down = True


def _with_two(test: Callable[[Server, Elector, Elector], Awaitable[None]]) -> None:
    """`a` leads, `b` has been standing by for a while."""

    async def main() -> None:
        server = Server()
        a, b = Elector(server, "a"), Elector(server, "b")
        a.start()
        await asyncio.sleep(1)
        b.start()
        await asyncio.sleep(20)
        assert (a.leadership.leads(), b.leadership.leads()) == (True, False)
        await test(server, a, b)
        for elector in (a, b):
            await elector.stop()

    run_virtually(main)


async def _seconds_until_leading(elector: Elector) -> float:
    since = virtual_now()
    for _ in range(1000):
        if elector.leadership.leads():
            return virtual_now() - since
        await asyncio.sleep(0.05)
    raise AssertionError("never led")


def test_the_lease_of_a_leader_that_died_is_taken_only_after_its_whole_duration() -> None:
    async def test(server: Server, a: Elector, b: Elector) -> None:
        a.kill()
        # The last renewal was at most one interval ago, and b looks every interval.
        assert DURATION_SECONDS - 2 <= await _seconds_until_leading(b) <= DURATION_SECONDS + 4
        assert server.lease == Lease(holder="b", transitions=2, version=server.lease.version)

    _with_two(test)


@pytest.mark.parametrize("lost", ["request", "reply"])
@pytest.mark.parametrize("failures", [1, 2, 3])
def test_writes_that_fail_do_not_raise_a_dead_leader(failures: int, lost: str) -> None:
    """Who reads a version again that it has seen for ten seconds waits no other ten."""

    async def main() -> None:
        server = Server()
        server.write("dead", 1, None)
        b = Elector(server, "b")
        failing = 0

        async def write(**fields: Any) -> Lease:
            nonlocal failing
            failing += 1
            if failing <= failures:
                b.wire.faults = [(0.1, 0.1, lost)]
            return await written(**fields)

        written = b.wire.write
        b.wire.write = write  # type: ignore[method-assign]  # a stand-in
        b.start()
        took = await _seconds_until_leading(b)
        assert failing == failures + 1
        # It looks every two seconds, and soon again after a fault.
        assert DURATION_SECONDS <= took <= DURATION_SECONDS + 2.1 + 0.8 * failures
        assert server.lease.holder == "b"
        await b.stop()

    run_virtually(main)


def test_a_leader_that_lives_keeps_a_standby_waiting_although_its_renewal_was_seen_before_it_was_answered() -> None:
    """The duration is counted from when a record was seen, not from when it was asked for."""

    async def main() -> None:
        server = Server()
        b = Elector(server, "b")
        server.write("a", 1, None)
        asyncio.get_running_loop().call_later(1.8, lambda: server.write("a", 1, server.lease.version))
        b.wire.faults = [(1.9, 0.05, "")]
        b.start()
        assert await _seconds_until_leading(b) >= 1.8 + DURATION_SECONDS
        assert [lease.holder for lease in server.writes] == ["a", "a", "b"]
        await b.stop()

    run_virtually(main)


def test_a_lease_that_is_given_back_after_the_work_is_taken_at_the_next_look() -> None:
    async def test(server: Server, a: Elector, b: Elector) -> None:
        await a.stop()
        assert (a.led, a.holder_at_end) == (["begun", "ended"], "a")
        assert server.lease.holder == ""
        assert await _seconds_until_leading(b) <= 2.1
        a.start()

    _with_two(test)


@pytest.mark.parametrize(("there", "back"), [(0.05, 0.4), (0.3, 0.01)], ids=["written", "on its way"])
def test_a_lease_is_given_back_although_its_renewal_was_cut_off(there: float, back: float) -> None:
    async def test(server: Server, a: Elector, b: Elector) -> None:
        del b
        a.wire.faults = [(there, back, "")]
        for _ in range(100):
            await asyncio.sleep(0.05)
            if not a.wire.faults:
                break
        await asyncio.sleep(0.1)
        await a.stop()
        assert server.writes[-1].holder == ""
        a.start()

    _with_two(test)


def test_a_leader_that_cannot_renew_stops_before_anybody_may_take_over() -> None:
    async def test(server: Server, a: Elector, b: Elector) -> None:
        del server
        a.wire.down = True
        await asyncio.sleep(RENEW_DEADLINE_SECONDS + 0.1)
        assert not a.leadership.leads()
        assert a.led == ["begun", "ended"]
        with pytest.raises(NotLeadingError):
            a.leadership.check()
        # The last renewal may have been up to two seconds before.
        assert await _seconds_until_leading(b) >= DURATION_SECONDS - RETRY_SECONDS - RENEW_DEADLINE_SECONDS - 0.2

    _with_two(test)


def test_a_short_fault_of_the_store_costs_no_leadership() -> None:
    async def test(server: Server, a: Elector, b: Elector) -> None:
        a.wire.faults = [(0.1, 0.1, "request")] * 2
        for _ in range(100):
            await asyncio.sleep(0.1)
            assert a.leadership.leads()
        assert not b.leadership.leads()
        assert (a.led, server.lease.transitions) == (["begun"], 1)

    _with_two(test)


def test_a_lost_reply_to_a_renewal_is_found_out_by_reading() -> None:
    async def test(server: Server, a: Elector, b: Elector) -> None:
        del b
        a.wire.faults = [(0.1, 0.1, "reply")]
        for _ in range(120):
            await asyncio.sleep(0.1)
            assert a.leadership.leads()
        assert server.lease.holder == "a"
        assert a.led == ["begun"]

    _with_two(test)


def test_a_foreign_renewal_starts_the_wait_again() -> None:
    async def test(server: Server, a: Elector, b: Elector) -> None:
        a.kill()
        await asyncio.sleep(DURATION_SECONDS - 3)
        server.write("c", 2, server.lease.version)
        assert await _seconds_until_leading(b) >= DURATION_SECONDS - 2.1

    _with_two(test)


def test_a_process_that_comes_back_with_its_name_needs_no_waiting() -> None:
    async def main() -> None:
        server = Server()
        server.lease = replace(server.write("a", 1, None), holder="a")
        elector = Elector(server, "a")
        elector.start()
        assert await _seconds_until_leading(elector) <= 0.2
        assert server.lease.transitions == 1
        await elector.stop()

    run_virtually(main)


def test_work_that_fails_is_begun_again_without_giving_up_the_lease() -> None:
    async def main() -> None:
        server = Server()
        elector = Elector(server, "a")
        begun: list[float] = []

        async def fail() -> None:
            begun.append(virtual_now())
            raise ValueError("no")

        run = asyncio.ensure_future(elector.leadership.run(fail))
        await asyncio.sleep(10)
        assert not run.done()
        assert len(begun) > 2
        run.cancel()
        await asyncio.wait({run})
        assert (server.lease.holder, server.lease.transitions) == ("", 1)

    run_virtually(main)


def test_a_write_may_last_until_shortly_before_somebody_else_may_lead() -> None:
    async def test(server: Server, a: Elector, b: Elector) -> None:
        del server, b
        a.wire.down = True
        within = a.leadership.check()
        assert RENEW_DEADLINE_SECONDS - 2 < within < DURATION_SECONDS
        await asyncio.sleep(2)
        assert a.leadership.check() == pytest.approx(within - 2, abs=0.01)

    _with_two(test)
