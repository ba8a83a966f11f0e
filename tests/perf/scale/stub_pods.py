"""One process that answers for every fake pod, agent or gateway: they all are this machine (loopback.py).

SIGUSR1 makes all agents silent, SIGUSR2 lets them speak again.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from conch.api import gateway_pod, pod
from conch.kube.client import KubeClient
from tests.perf.scale.stub_agents import StubAgents
from tests.perf.scale.stub_gateways import StubGateways


async def main(kubeconfig: Path, token_file: Path) -> None:
    """Answer until SIGTERM. `token_file` holds what the operator shows to gateways."""
    assert pod.AGENT_PORT == gateway_pod.REPORT_PORT, "one server is enough"
    client = await KubeClient.connect(kubeconfig)
    try:
        await serve(StubAgents(client), StubGateways(client, token_file=token_file))
    finally:
        await client.close()


async def serve(agents: StubAgents, gateways: StubGateways, *more: web.RouteDef) -> None:
    """Answer for them, and on further routes, until SIGTERM."""
    application = web.Application()
    application.add_routes([*agents.routes, *gateways.routes, *more, web.get("/healthz", _healthz)])
    # With cancellation a stream ends with its reader, and not when it next has something to say.
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", pod.AGENT_PORT, backlog=4096).start()  # noqa: S104 - only loopback is there
    work = asyncio.gather(agents.run(), gateways.run())
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, work.cancel)
    loop.add_signal_handler(signal.SIGUSR1, agents.speaking.clear)
    loop.add_signal_handler(signal.SIGUSR2, agents.speaking.set)
    try:
        with suppress(asyncio.CancelledError):
            await work
    finally:
        await runner.cleanup()


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


if __name__ == "__main__":
    asyncio.run(main(*(Path(each) for each in sys.argv[1:])))
