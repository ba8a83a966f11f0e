"""What the sidecar of every fake gateway pod answers: it has taken over each route at once, and carries nothing.

A report is made as the real sidecar makes it, so that it is as long; only the statistics of Envoy are missing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from conch.api.gateway_report import COUNTED_AT_HEADER, REPORT_PATH, WAKES_PATH, GatewayReport, ObjectTraffic, Wake
from conch.gateway.projections import project_object
from conch.gateway.sync import RouteState
from conch.gateway.traffic import Counts, object_traffic
from conch.gateway.wakes import LIFE_SECONDS
from conch.kube.client import KubeClient
from conch.kube.reflector import Reflector
from conch.kube.resources import MODEL_DEPLOYMENTS

_SIGN_OF_LIFE: Final = Wake().model_dump_json(by_alias=True).encode() + b"\n"


class StubGateways:
    """Follows the ModelDeployments; all gateways say the same of them. A gateway's name is its address."""

    def __init__(self, client: KubeClient, *, token_file: Path) -> None:
        self._token_file = token_file
        self.traffic: Reflector[ObjectTraffic | None] = Reflector(
            client, MODEL_DEPLOYMENTS, project=_traffic, on_change=self._changed
        )
        self._reports: dict[str, bytes] = {}
        """The report of each gateway that was asked since anything changed."""

    async def run(self) -> None:
        """Follow until cancelled."""
        await self.traffic.run()

    @property
    def routes(self) -> list[web.RouteDef]:
        """What is answered at the gateways' port."""
        return [web.get(REPORT_PATH, self._report), web.get(WAKES_PATH, self._wakes)]

    async def _report(self, request: web.Request) -> web.Response:
        self._require_token(request)
        await self.traffic.synced.wait()
        assert request.transport is not None
        body = self.body(request.transport.get_extra_info("sockname")[0])
        headers = {COUNTED_AT_HEADER: repr(time.monotonic())}
        return web.Response(body=body, content_type="application/json", headers=headers)

    def body(self, gateway: str) -> bytes:
        """A gateway's report."""
        if gateway not in self._reports:
            objects = {"/".join(key): traffic for key, traffic in self.traffic.items() if traffic is not None}
            report = GatewayReport(gateway=gateway, epoch="stub", version="stub", objects=objects)
            self._reports[gateway] = report.model_dump_json(by_alias=True).encode()
        return self._reports[gateway]

    async def _wakes(self, request: web.Request) -> web.StreamResponse:
        """Nothing is ever held: only signs of life, until the reader goes."""
        self._require_token(request)
        response = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
        await response.prepare(request)
        while True:
            await response.write(_SIGN_OF_LIFE)
            await asyncio.sleep(LIFE_SECONDS)

    def _require_token(self, request: web.Request) -> None:
        if request.headers.get("Authorization") != f"Bearer {self._token_file.read_text()}":
            raise web.HTTPUnauthorized

    def _changed(self, *_: object) -> None:
        self._reports.clear()


def _traffic(live: Mapping[str, Any]) -> ObjectTraffic | None:
    """What is said of an object: what its status asks for is what is done. None while it has no port."""
    observed = project_object(live)
    if observed is None:
        return None
    state = RouteState(generation=observed.routed.generation, endpoints=1)
    return object_traffic(observed.routed, Counts(), state=state, held=0, refused=0)
