"""The work queue: each key once, one worker to a key, the nearest time counts, and nothing is ever lost."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conch.runtime.work_queue import WorkQueue
from tests.support.virtual_time import run_virtually, virtual_now


def _with_queue(test: Callable[[WorkQueue[str]], Awaitable[None]]) -> None:
    async def main() -> None:
        await test(WorkQueue())

    run_virtually(main)


async def _is_idle(queue: WorkQueue[str]) -> bool:
    """Whether nobody would get a key now."""
    try:
        async with asyncio.timeout(0):
            await queue.take()
    except TimeoutError:
        return True
    return False


def test_a_key_that_is_added_twice_is_worked_on_once() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        queue.add("a")
        queue.add("a")
        assert len(queue) == 1
        queue.done(await queue.take())
        assert await _is_idle(queue)

    _with_queue(test)


def test_keys_come_in_the_order_in_which_they_were_added() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        for key in ("b", "a", "c", "a"):
            queue.add(key)
        assert [await queue.take() for _ in range(3)] == ["b", "a", "c"]

    _with_queue(test)


def test_a_key_that_is_added_while_it_is_worked_on_comes_again_afterwards_and_not_before() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        queue.add("a")
        key = await queue.take()
        queue.add("a")
        assert await _is_idle(queue)
        queue.done(key)
        assert await queue.take() == "a"

    _with_queue(test)


def test_a_waiting_worker_is_woken() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        taken = asyncio.ensure_future(queue.take())
        await asyncio.sleep(1)
        assert not taken.done()
        queue.add("a")
        assert await taken == "a"

    _with_queue(test)


def test_a_worker_that_gives_up_waiting_takes_no_key_with_it() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        gone = asyncio.ensure_future(queue.take())
        await asyncio.sleep(1)
        gone.cancel()
        queue.add("a")
        assert await queue.take() == "a"

    _with_queue(test)


def test_a_delayed_key_comes_when_its_time_is_there() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        queue.add_after("a", 30)
        assert len(queue) == 0
        await queue.take()
        assert virtual_now() == pytest.approx(30, abs=0.1)

    _with_queue(test)


@pytest.mark.parametrize("delays", [(30.0, 10.0), (10.0, 30.0)])
def test_of_two_delays_the_earlier_counts_and_the_key_comes_once(delays: tuple[float, float]) -> None:
    async def test(queue: WorkQueue[str]) -> None:
        for delay in delays:
            queue.add_after("a", delay)
        queue.done(await queue.take())
        assert virtual_now() == pytest.approx(10, abs=0.1)
        await asyncio.sleep(60)
        assert len(queue) == 0

    _with_queue(test)


def test_a_key_that_is_added_now_does_not_come_again_for_an_earlier_delay() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        queue.add_after("a", 30)
        queue.add("a")
        queue.done(await queue.take())
        await asyncio.sleep(60)
        assert len(queue) == 0

    _with_queue(test)


def test_a_delay_that_ends_while_the_key_is_worked_on_waits_for_the_worker() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        queue.add("a")
        key = await queue.take()
        queue.add_after("a", 5)
        await asyncio.sleep(10)
        assert await _is_idle(queue)
        queue.done(key)
        assert len(queue) == 1

    _with_queue(test)


def test_the_back_off_grows_to_a_minute_and_starts_over_after_a_success() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        waits = [queue.add_after_failure("a") for _ in range(40)]
        for number, wait in enumerate(waits):
            limit = min(60.0, 0.2 * 2.0**number)
            assert limit / 2 <= wait <= limit
        queue.forget_failures("a")
        assert queue.add_after_failure("a") <= 0.2

    _with_queue(test)


def test_the_failures_of_one_key_do_not_delay_another() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        for _ in range(20):
            queue.add_after_failure("a")
        assert queue.add_after_failure("b") <= 0.2

    _with_queue(test)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["add", "urgent", "fail"]), st.sampled_from("abc"), st.just(0.0)),
        st.tuples(st.just("after"), st.sampled_from("abc"), st.floats(0, 5)),
        st.tuples(st.just("wait"), st.just(""), st.floats(0, 5)),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(STEPS, st.floats(0, 4))
def test_no_key_has_two_workers_and_every_wish_is_followed_by_work(
    steps: list[tuple[str, str, float]], work_seconds: float
) -> None:
    async def test(queue: WorkQueue[str]) -> None:
        active: set[str] = set()
        started: dict[str, float] = {}

        async def work() -> None:
            while True:
                key = await queue.take()
                assert key not in active, "two workers on one key"
                active.add(key)
                started[key] = virtual_now()
                await asyncio.sleep(work_seconds)
                active.remove(key)
                queue.done(key)

        workers = [asyncio.ensure_future(work()) for _ in range(3)]
        wished: dict[str, float] = {}
        for kind, key, seconds in steps:
            match kind:
                case "add":
                    queue.add(key)
                case "urgent":
                    queue.add(key, urgent=True)
                case "fail":
                    queue.add_after_failure(key)
                case "after":
                    queue.add_after(key, seconds)
                case _:
                    await asyncio.sleep(seconds)
                    continue
            wished[key] = virtual_now()
        await asyncio.sleep(200)
        for key, since in wished.items():
            assert started.get(key, -1.0) >= since, f"{key} was never worked on after it was asked for"
        assert not active
        assert len(queue) == 0
        for worker in workers:
            assert not worker.done(), worker
            worker.cancel()

    _with_queue(test)


def test_urgent_keys_come_first() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        queue.add("a")
        queue.add("b", urgent=True)
        queue.add("c", urgent=True)
        assert [await queue.take() for _ in range(3)] == ["b", "c", "a"]

    _with_queue(test)


def test_a_key_that_becomes_urgent_moves_forward_and_stays_one() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        for key in ("a", "b", "c"):
            queue.add(key)
        queue.add("c", urgent=True)
        queue.add("c")
        assert len(queue) == 3
        assert [await queue.take() for _ in range(3)] == ["c", "a", "b"]
        assert await _is_idle(queue)

    _with_queue(test)


def test_a_key_that_was_moved_forward_and_comes_again_queues_at_the_end() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        queue.add("a")
        queue.add("a", urgent=True)
        queue.add("z")
        queue.done(await queue.take())
        queue.add("b")
        queue.add("a")
        assert [await queue.take() for _ in range(3)] == ["z", "b", "a"]
        assert await _is_idle(queue)

    _with_queue(test)


def test_a_key_that_becomes_urgent_while_it_is_worked_on_comes_back_urgent() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        queue.add("a")
        key = await queue.take()
        queue.add("b")
        queue.add("a", urgent=True)
        queue.add("a")
        queue.done(key)
        assert await queue.take() == "a"

    _with_queue(test)


def test_a_flood_of_urgent_keys_lets_the_others_through_now_and_then() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        queue.add("patient")
        for number in range(100):
            queue.add(f"urgent-{number}", urgent=True)
        first = [await queue.take() for _ in range(20)]
        assert "patient" in first
        assert first[0] == "urgent-0"

    _with_queue(test)
