"""Orders to agents: what is sent proves who sent it, and an agent that does not take it stops nobody."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from conch.api import names, pod
from conch.api.agent_orders import PinOrder
from conch.api.assignment import Pin
from conch.app.agent_orders import tell_agents
from conch.core.actions import TellPin
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
