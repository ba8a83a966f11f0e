import asyncio

from tests.support.virtual_time import run_virtually, virtual_now


def test_an_hour_of_sleep_is_over_at_once_and_on_the_clock() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return virtual_now()

    assert 3600 <= run_virtually(main) < 3601


def test_timers_fire_in_their_order() -> None:
    async def main() -> list[str]:
        order: list[str] = []

        async def after(seconds: float, name: str) -> None:
            await asyncio.sleep(seconds)
            order.append(name)

        await asyncio.gather(after(20, "late"), after(10, "early"))
        return order

    assert run_virtually(main) == ["early", "late"]
