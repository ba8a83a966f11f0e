"""Orders to agents: what is sent proves who sent it, and an agent that does not take it stops nobody."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from conch.api import names, pod
from conch.api.agent_orders import PinOrder, TurnOrder
from conch.api.assignment import Pin
from conch.app.agent_orders import tell_agents
from conch.core.actions import TellPin, TellTurn
from tests.sim.world import World

KEY = b"k" * 32
PIN = Pin(digest=f"sha256:{'a' * 64}", resolved="etag 1")
OWNER = World(spec={"model": {"version": 1, "source": {"uri": "https://h.example/m.onnx"}}}).owner


@pytest.mark.parametrize("status", [204, 401])
async def test_an_agent_gets_the_pin_with_a_code_of_its_objects_key(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    received: list[PinOrder] = []

    async def put(request: web.Request) -> web.Response:
        received.append(PinOrder.model_validate_json(await request.read()))
        return web.Response(status=status)

    application = web.Application()
    application.router.add_put("/pin", put)
    async with TestServer(application, host="127.0.0.1") as agent:
        monkeypatch.setattr(pod, "AGENT_PORT", agent.port)
        # The second pod's address is nobody's.
        orders = [
            TellPin(pod=p, address=a, revision="r1", pin=PIN) for p, a in (("a", "127.0.0.1"), ("b", "127.0.0.9"))
        ]
        await tell_agents(orders, OWNER, installation_key=KEY, within_seconds=60)
    code = names.pin_code(names.admin_key(KEY, OWNER.uid), "r1", PIN.digest, PIN.resolved)
    assert received == [PinOrder(revision="r1", pin=PIN, code=code)]


async def test_each_pod_gets_its_turn_with_a_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[TurnOrder] = []

    async def put(request: web.Request) -> web.Response:
        received.append(TurnOrder.model_validate_json(await request.read()))
        return web.Response(status=204)

    application = web.Application()
    application.router.add_put("/turn", put)
    async with TestServer(application, host="127.0.0.1") as agent:
        monkeypatch.setattr(pod, "AGENT_PORT", agent.port)
        orders = [
            TellTurn(pod=each, address="127.0.0.1", change="c1", turn=turn, revision="r2")
            for turn, each in enumerate(("a", "b"), start=1)
        ]
        await tell_agents(orders, OWNER, installation_key=KEY, within_seconds=60)
    key = names.admin_key(KEY, OWNER.uid)
    assert sorted(received, key=lambda each: each.turn) == [
        TurnOrder(change="c1", turn=turn, revision="r2", code=names.turn_code(key, each, "c1", turn, "r2"))
        for turn, each in enumerate(("a", "b"), start=1)
    ]
