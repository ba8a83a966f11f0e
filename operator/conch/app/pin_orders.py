"""Tells agents which files their revision has; the kubelet brings the same, up to a minute later."""

import asyncio
from collections.abc import Sequence

import aiohttp
import structlog

from conch.api import names, pod
from conch.api.assignment import PinOrder
from conch.api.model_deployment import ModelDeployment
from conch.core.actions import TellPin

_log = structlog.get_logger(__name__)


async def tell_pins(
    orders: Sequence[TellPin], owner: ModelDeployment, *, installation_key: bytes, within_seconds: float
) -> None:
    """Send the orders at the same time; never raises for agents that do not take theirs."""
    key = names.admin_key(installation_key, owner.uid)
    timeout = aiohttp.ClientTimeout(total=within_seconds)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        await asyncio.gather(*(_tell(session, order, key) for order in orders))


async def _tell(session: aiohttp.ClientSession, action: TellPin, key: str) -> None:
    code = names.pin_code(key, action.revision, action.pin.digest, action.pin.resolved)
    order = PinOrder(revision=action.revision, pin=action.pin, code=code)
    host = f"[{action.address}]" if ":" in action.address else action.address
    url = f"http://{host}:{pod.AGENT_PORT}/pin"
    try:
        async with session.put(url, data=order.model_dump_json(by_alias=True), allow_redirects=False) as response:
            response.raise_for_status()
    except (aiohttp.ClientError, TimeoutError) as error:
        _log.info("agent did not take its pin", pod=action.pod, error=str(error) or type(error).__name__)
