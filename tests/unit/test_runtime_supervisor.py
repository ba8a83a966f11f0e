"""The supervisor: whatever ends a part, it is started again, in time and not too often."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from conch.runtime.supervisor import supervise
from tests.support.virtual_time import run_virtually, virtual_now


def _starts(part: Callable[[int], Awaitable[None]], seconds: float) -> list[float]:
    """When a part was started within so many seconds."""
    starts: list[float] = []

    async def started() -> None:
        starts.append(virtual_now())
        await part(len(starts))

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await supervise("part", started, clock=virtual_now)

    run_virtually(main)
    return starts


async def _end(_: int) -> None:
    return


async def _fail(_: int) -> None:
    raise ValueError("no")


@pytest.mark.parametrize("part", [_end, _fail], ids=["ends", "fails"])
def test_a_part_is_started_again_however_it_stopped(part: Callable[[int], Awaitable[None]]) -> None:
    assert len(_starts(part, 5)) > 2


def test_a_part_that_cannot_run_is_tried_ever_more_rarely_down_to_every_20_seconds() -> None:
    starts = _starts(_fail, 600)
    waits = [later - earlier for earlier, later in pairwise(starts)]
    for number, wait in enumerate(waits):
        limit = min(20.0, 0.5 * 2.0**number)
        assert limit / 2 - 0.01 <= wait <= limit + 0.01


def test_a_part_that_ran_well_for_more_than_a_minute_starts_again_soon() -> None:
    async def run(life: int) -> None:
        await asyncio.sleep(61 if life == 10 else 0)

    starts = _starts(run, 400)
    assert starts[9] - starts[8] > 5
    assert starts[10] - (starts[9] + 61) <= 0.51


def test_a_part_that_runs_is_left_alone() -> None:
    async def run(_: int) -> None:
        await asyncio.sleep(10_000)

    assert len(_starts(run, 5000)) == 1


def test_stopping_the_supervisor_stops_the_part() -> None:
    ended: list[float] = []

    async def run(_: int) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(virtual_now())

    assert _starts(run, 5) == [0.0]
    assert ended == [pytest.approx(5, abs=0.1)]
