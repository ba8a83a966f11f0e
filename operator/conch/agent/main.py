"""The agent as a process: its clients, its server, its end. Called by the command `conch agent`."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver

from conch.agent.connections import client_connections
from conch.agent.leaving import Leaving, LeavingTimes
from conch.agent.loop import Agent
from conch.agent.server import serve
from conch.agent.settings import AgentSettings
from conch.agent.volume import Volume
from conch.store import in_thread
from conch.triton.client import TritonClient
from conch.triton.metrics import MetricsReader


async def run(settings: AgentSettings, *, resolver: AbstractResolver | None = None) -> None:
    """Serve until SIGTERM or SIGINT (or cancellation); raises only what a restart of the container may cure."""
    volume = Volume(settings.model_folder)
    loop = asyncio.get_running_loop()
    # Python's default grows with the node's cores; each thread costs memory beside every model.
    loop.set_default_executor(ThreadPoolExecutor(max_workers=8, thread_name_prefix="agent"))
    stop = asyncio.Event()
    with _signals(loop, stop):
        async with (
            TritonClient(settings.triton_address, settings.admin_key) as triton,
            MetricsReader(settings.triton_metrics_address) as metrics,
        ):
            agent = Agent(settings, volume, triton, metrics, resolver)
            leaving = Leaving(
                connections=client_connections,
                is_live=triton.live,
                times=LeavingTimes(
                    propagation_seconds=settings.propagation_seconds, drain_seconds=settings.drain_seconds
                ),
                clock=time.monotonic,
            )
            runner = await serve(settings, agent.report, agent, leaving.wait)
            try:
                await in_thread(lambda _checkpoint: volume.prepare())
                work = asyncio.ensure_future(agent.work())
                stopped = asyncio.ensure_future(stop.wait())
                try:
                    await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in (work, stopped):
                        task.cancel()
                    results = await asyncio.gather(work, stopped, return_exceptions=True)
                if isinstance(results[0], Exception):
                    raise results[0]
            finally:
                await runner.cleanup()


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set `stop`; in a thread that may not handle signals (tests) nothing happens."""
    taken = []
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError, RuntimeError):
            loop.add_signal_handler(number, stop.set)
            taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)
