"""The sidecar's port: for the kubelet, for Prometheus, and (with the gateways' token) for the operator."""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from conch.api.gateway_report import COUNTED_AT_HEADER, REPORT_PATH, WAKES_PATH, GatewayReport
from conch.gateway.envoy.admin import EnvoyAwayError
from conch.gateway.leaving import Departure, Leaving
from conch.gateway.metrics import exposition
from conch.gateway.wakes import Wakes

LEAVE_PATH = "/leave"
METRICS_SECONDS = 1.0
"""How old what `/metrics` answers may be: anybody may ask, and it costs Envoy and this process a good deal."""

_DEPARTURES = {
    Departure.SAFE: (200, "nothing is in flight\n"),
    Departure.LATE: (200, "the time is over; requests are still in flight\n"),
    Departure.NOT_DELETED: (409, "this pod is not being deleted\n"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the port tells, and where it comes from."""

    token_file: Path
    report: Callable[[], Awaitable[GatewayReport]]
    """Raises EnvoyAwayError."""
    not_ready: Callable[[], Awaitable[str]]
    """Why this gateway is not to get clients; empty if it is."""
    wakes: Wakes
    leaving: Leaving
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    """Metrics of the gateway's own, besides those of its process and of what it routes."""
    clock: Callable[[], float] = time.monotonic
    """In seconds; only grows."""


class _Metrics:
    """The text of `/metrics`, made once per METRICS_SECONDS for all who ask."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._lock = asyncio.Lock()
        self._made: tuple[float, bytes] | None = None

    async def text(self) -> bytes:
        async with self._lock:
            if self._made is None or self._told.clock() - self._made[0] >= METRICS_SECONDS:
                try:
                    of_objects = exposition(await self._told.report())
                except EnvoyAwayError:
                    of_objects = b""
                self._made = self._told.clock(), generate_latest() + generate_latest(self._told.registry) + of_objects
            return self._made[1]


def make_application(told: Told) -> web.Application:
    """`/report` and `/wakes` need the token; `/healthz`, `/readyz`, `/metrics` are open, `/leave` sees for itself."""

    def is_known(request: web.Request) -> bool:
        """Read anew each time: the kubelet replaces the file when the Secret changes."""
        try:
            token = told.token_file.read_bytes().strip()
        except OSError:
            return False
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        return bool(token) and hmac.compare_digest(given, b"Bearer " + token)

    async def report(request: web.Request) -> web.Response:
        if not is_known(request):
            return _unauthorised()
        try:
            answer = await told.report()
        except EnvoyAwayError as error:
            return web.Response(status=503, text=f"Envoy does not answer: {error}\n")
        headers = {COUNTED_AT_HEADER: repr(answer.counted_at_seconds)} if answer.counted_at_seconds is not None else {}
        return web.json_response(text=answer.model_dump_json(by_alias=True), headers=headers)

    async def wakes(request: web.Request) -> web.StreamResponse:
        if not is_known(request):
            return _unauthorised()
        response = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
        await response.prepare(request)
        async with aclosing(told.wakes.follow()) as each:
            async for wake in each:
                try:
                    await response.write(wake.model_dump_json(by_alias=True).encode() + b"\n")
                except ConnectionError:
                    break
        return response

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        if problem := await told.not_ready():
            return web.Response(status=503, text=f"{problem}\n")
        return web.Response(text="ready\n")

    made_metrics = _Metrics(told)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=await made_metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def leave(_request: web.Request) -> web.Response:
        status, text = _DEPARTURES[await told.leaving.leave()]
        return web.Response(status=status, text=text)

    application = web.Application(client_max_size=4096)
    application.add_routes(
        [
            web.get(REPORT_PATH, report),
            web.get(WAKES_PATH, wakes),
            web.get(LEAVE_PATH, leave),
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", metrics),
        ]
    )
    return application


def _unauthorised() -> web.Response:
    return web.Response(status=401, text="the gateways' token is needed: Authorization: Bearer TOKEN\n")


async def serve(told: Told, *, host: str, port: int) -> web.AppRunner:
    """Start to listen; the caller cleans the runner up."""
    runner = web.AppRunner(make_application(told), access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
