"""One process that answers for the agent of every fake pod: they all are this machine (loopback.py).

A question tells by the address it was sent to which pod it is for. SIGUSR1 makes all of them silent (they take the
connection and never answer), SIGUSR2 lets them speak again.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from conch.api import names, pod
from conch.api.assignment import AgentPhase, AgentReport
from conch.kube.client import KubeClient
from conch.kube.reflector import ObjectKey, Reflector
from conch.kube.resources import CONFIG_MAPS, PODS

_DIGEST = "sha256:" + "0" * 64
_SELECTOR = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"

_Pod = tuple[str, str]
"""(address, workload)"""


class StubAgents:
    """Knows which pod has which address, and which revision its workload was assigned."""

    def __init__(self, client: KubeClient) -> None:
        self._workload_by_address: dict[str, str] = {}
        self._pods: Reflector[_Pod] = Reflector(
            client, PODS, project=_pod, on_change=self._pod_changed, label_selector=_SELECTOR
        )
        self._revision_by_workload: dict[str, str] = {}
        self._assignments: Reflector[_Pod] = Reflector(
            client, CONFIG_MAPS, project=_assignment, on_change=self._assignment_changed, label_selector=_SELECTOR
        )
        self._speaking = asyncio.Event()
        self._speaking.set()

    async def run(self) -> None:
        """Answer until SIGTERM."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGUSR1, self._speaking.clear)
        loop.add_signal_handler(signal.SIGUSR2, self._speaking.set)
        application = web.Application()
        application.add_routes([web.get("/status", self._status), web.get("/healthz", self._healthz)])
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", pod.AGENT_PORT, backlog=4096).start()  # noqa: S104 - only loopback is there
        work = [asyncio.ensure_future(reflector.run()) for reflector in (self._pods, self._assignments)]
        await stop.wait()
        for task in work:
            task.cancel()
        await runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _status(self, request: web.Request) -> web.Response:
        await self._speaking.wait()
        assert request.transport is not None
        address = request.transport.get_extra_info("sockname")[0]
        revision = self._revision_by_workload.get(self._workload_by_address.get(address, ""))
        if revision is None:
            return web.Response(status=503)
        report = AgentReport(phase=AgentPhase.READY, revision=revision, digest=_DIGEST)
        return web.json_response(report.to_wire())

    def _pod_changed(self, key: ObjectKey, before: _Pod | None, after: _Pod | None) -> None:
        del key
        if before is not None:
            self._workload_by_address.pop(before[0], None)
        if after is not None:
            self._workload_by_address[after[0]] = after[1]

    def _assignment_changed(self, key: ObjectKey, before: _Pod | None, after: _Pod | None) -> None:
        del key
        if after is not None:
            self._revision_by_workload[after[0]] = after[1]
        elif before is not None:
            self._revision_by_workload.pop(before[0], None)


def _pod(live: Mapping[str, Any]) -> _Pod:
    return live.get("status", {}).get("podIP", ""), live["metadata"]["labels"][names.LABEL_WORKLOAD]


def _assignment(live: Mapping[str, Any]) -> tuple[str, str]:
    return live["metadata"]["labels"][names.LABEL_WORKLOAD], json.loads(live["data"][pod.ASSIGNMENT_FILE])["revision"]


async def main(kubeconfig: Path) -> None:
    """Connect and answer."""
    client = await KubeClient.connect(kubeconfig)
    try:
        await StubAgents(client).run()
    finally:
        await client.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
