"""The agent's HTTP server: its report for the operator and the orders that it takes, the probe that lets Triton start,
and when it may end.
"""

import hmac
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web
from pydantic import ValidationError

from conch.agent.settings import AgentSettings
from conch.api import names, pod
from conch.api.agent_orders import PinOrder, TurnOrder
from conch.api.agent_report import AgentReport


class Orders(Protocol):
    """Takes what the operator says sooner than the kubelet does; what is returned says why it is not taken."""

    def take_pin(self, order: PinOrder, /) -> str:
        """Which files a revision has."""

    async def take_turn(self, order: TurnOrder, /) -> str:
        """Which revision of a change to serve. Raises OSError when it cannot be kept."""


def make_application(
    settings: AgentSettings,
    report: Callable[[], AgentReport],
    orders: Orders,
    leave: Callable[[], Awaitable[str]],
) -> web.Application:
    """`GET /status` (with the key derived from the admin key), `PUT /pin` and `PUT /turn` (with their codes); open:
    `/healthz`, `/leave`.

    `/leave` changes nothing: whoever asks waits until nobody uses the pod, and so do the kubelet's preStop hooks.
    """
    expected = f"Bearer {names.status_key(settings.admin_key)}".encode()

    async def status(request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if not hmac.compare_digest(given, expected):
            return web.Response(status=401, text="the status key is needed: Authorization: Bearer KEY\n")
        return web.json_response(text=report().model_dump_json(by_alias=True, exclude_none=True))

    async def pin(request: web.Request) -> web.Response:
        try:
            order = PinOrder.model_validate_json(await request.read())
        except ValidationError:
            return web.Response(status=400, text="this is no pin\n")
        code = names.pin_code(settings.admin_key, order.revision, order.pin.digest, order.pin.resolved)
        if not hmac.compare_digest(order.code.encode(), code.encode()):
            return web.Response(status=401, text="the pin's code is not this object's\n")
        return _taken(orders.take_pin(order))

    async def turn(request: web.Request) -> web.Response:
        try:
            order = TurnOrder.model_validate_json(await request.read())
        except ValidationError:
            return web.Response(status=400, text="this is no turn\n")
        code = names.turn_code(settings.admin_key, settings.pod_name, order.change, order.turn, order.revision)
        if not hmac.compare_digest(order.code.encode(), code.encode()):
            return web.Response(status=401, text="the turn's code is not for this pod of this object\n")
        try:
            return _taken(await orders.take_turn(order))
        except OSError as error:
            words = f"the order cannot be kept on the model volume: {error.strerror or error}\n"
            return web.Response(status=503, text=words)

    async def healthz(_request: web.Request) -> web.Response:
        if settings.repository.is_dir():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="the model repository is not there yet\n")

    async def leaving(_request: web.Request) -> web.Response:
        return web.Response(text=f"{await leave()}\n")

    application = web.Application(client_max_size=4096)
    application.add_routes(
        [
            web.get("/status", status),
            web.put("/pin", pin),
            web.put("/turn", turn),
            web.get("/healthz", healthz),
            web.get(pod.LEAVE_PATH, leaving),
        ]
    )
    return application


async def serve(
    settings: AgentSettings,
    report: Callable[[], AgentReport],
    orders: Orders,
    leave: Callable[[], Awaitable[str]],
) -> web.AppRunner:
    """Start to listen; the caller cleans the runner up."""
    application = make_application(settings, report, orders, leave)
    # Who has gone away while waiting to leave is not waited for.
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, settings.host, settings.port).start()
    return runner


def _taken(refusal: str) -> web.Response:
    return web.Response(status=409, text=f"{refusal}\n") if refusal else web.Response(status=204)
