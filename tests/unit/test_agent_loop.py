"""The agent's loop rests until the next look, or until the operator tells it something."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from conch.agent.loop import Agent
from conch.agent.settings import AgentSettings
from conch.agent.volume import Volume
from conch.api.agent_orders import PinOrder, TurnOrder
from conch.api.assignment import Pin

PIN = PinOrder(revision="r1", pin=Pin(digest=f"sha256:{'a' * 64}"), code="")
TURN = TurnOrder(change="c1", turn=1, revision="r2", code="")


async def _pin(agent: Agent) -> None:
    agent.take_pin(PIN)


async def _turn(agent: Agent) -> None:
    await agent.take_turn(TURN)


@pytest.mark.parametrize("order", [_pin, _turn], ids=["pin", "turn"])
async def test_an_order_ends_its_rest(tmp_path: Path, order: Callable[[Agent], Awaitable[None]]) -> None:
    volume = Volume(tmp_path)
    settings = AgentSettings(admin_key="k", model_folder=tmp_path, assignment_file=tmp_path / "none.json")
    agent = Agent(settings, volume, cast(Any, None), cast(Any, None))
    resting = asyncio.ensure_future(agent._rest(3600))
    await asyncio.sleep(0)
    assert not resting.done()
    await order(agent)
    await asyncio.wait_for(resting, 60)
