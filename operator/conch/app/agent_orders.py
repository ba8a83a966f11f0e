"""Tells agents what they wait for; the kubelet brings the same with their assignment, up to a minute later."""

import asyncio
from collections.abc import Sequence

import aiohttp
import structlog

from conch.api import names, pod
from conch.api.agent_orders import PinOrder, TurnOrder
from conch.api.model_deployment import ModelDeployment
from conch.core.actions import TellPin, TellTurn

_log = structlog.get_logger(__name__)

AgentOrder = TellPin | TellTurn


async def tell_agents(
    orders: Sequence[AgentOrder], owner: ModelDeployment, *, installation_key: bytes, within_seconds: float
) -> None:
    """Send the orders at the same time; never raises for agents that do not take theirs."""
    key = names.admin_key(installation_key, owner.uid)
    timeout = aiohttp.ClientTimeout(total=within_seconds)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        await asyncio.gather(*(_tell(session, order, key) for order in orders))


async def _tell(session: aiohttp.ClientSession, order: AgentOrder, key: str) -> None:
    path, body = _request(order, key)
    host = f"[{order.address}]" if ":" in order.address else order.address
    url = f"http://{host}:{pod.AGENT_PORT}{path}"
    try:
        async with session.put(url, data=body.model_dump_json(by_alias=True), allow_redirects=False) as response:
            response.raise_for_status()
    except (aiohttp.ClientError, TimeoutError) as error:
        _log.info("agent did not take its order", pod=order.pod, path=path, error=str(error) or type(error).__name__)


def _request(order: AgentOrder, key: str) -> tuple[str, PinOrder | TurnOrder]:
    if isinstance(order, TellPin):
        code = names.pin_code(key, order.revision, order.pin.digest, order.pin.resolved)
        return "/pin", PinOrder(revision=order.revision, pin=order.pin, code=code)
    code = names.turn_code(key, order.pod, order.change, order.turn, order.revision)
    return "/turn", TurnOrder(change=order.change, turn=order.turn, revision=order.revision, code=code)
