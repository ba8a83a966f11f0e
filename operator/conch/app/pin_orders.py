"""Tells an agent which files its revision has; the kubelet brings the same, up to a minute later."""

from typing import Final

import aiohttp
import structlog

from conch.api import names, pod
from conch.api.assignment import PinOrder
from conch.api.model_deployment import ModelDeployment
from conch.core.actions import TellPin

_TIMEOUT: Final = aiohttp.ClientTimeout(total=2, sock_connect=1)

_log = structlog.get_logger(__name__)


async def tell_pin(action: TellPin, owner: ModelDeployment, *, installation_key: bytes) -> None:
    """Send one order; never raises for an agent that does not take it."""
    key = names.admin_key(installation_key, owner.uid)
    code = names.pin_code(key, action.revision, action.pin.digest, action.pin.resolved)
    order = PinOrder(revision=action.revision, pin=action.pin, code=code)
    host = f"[{action.address}]" if ":" in action.address else action.address
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as session,
            session.put(
                f"http://{host}:{pod.AGENT_PORT}/pin",
                data=order.model_dump_json(by_alias=True),
                allow_redirects=False,
            ) as response,
        ):
            response.raise_for_status()
    except (aiohttp.ClientError, TimeoutError) as error:
        _log.info("agent did not take its pin", pod=action.pod, error=str(error) or type(error).__name__)
