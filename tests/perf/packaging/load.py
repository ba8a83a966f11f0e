"""Sends texts to one service, in closed or open loop: `python -m tests.perf.packaging.load < WISH.json`.

It is a process of its own, on the same cores as the service, and prints what it found as JSON.

Open loop: requests go at the times of independent clients (Poisson), whatever the answers do, by tests.load; a latency
counts from when the request was due. Closed loop: so many clients, each sends its next request once it has its answer.
"""

import asyncio
import gc
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Final

import aiohttp
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tests.cluster.constants import REPOSITORY
from tests.load.plan import Plan, Protocol, Stream
from tests.load.recorder import RequestFailedError, Sending
from tests.load.runner import Run

WARM_SECONDS: Final = 2.0
"""In which connections and threads are made; not counted."""
_TIMEOUT_SECONDS: Final = 20.0
_PRIORITY: Final = -10
"""Where it may be had (root): its schedule is kept first."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Service(_Part):
    """Takes a text as JSON between two pieces of its request's body."""

    url: str
    before: str
    after: str
    answered_with: str
    """What an answer contains."""

    def body(self, text: str) -> bytes:
        """Of one request."""
        return f"{self.before}{json.dumps(text)}{self.after}".encode()


class Wish(_Part):
    """One load; either `clients` or `rate_per_second`."""

    service: Service
    texts: tuple[str, ...]
    seconds: Annotated[float, Field(gt=0, le=600)]
    clients: Annotated[int, Field(ge=0, le=256)] = 0
    rate_per_second: Annotated[float, Field(ge=0, le=5000)] = 0
    seed: int = 0


class Found(_Part):
    """What came of it, after the warm-up."""

    per_second: float
    """Answers."""
    p50_ms: float
    p95_ms: float
    p99_ms: float
    failed: int
    """Not answered well, or not within 20 s; of the warm-up too."""
    generator_cores: float
    """That this process took."""


def measure(wish: Wish) -> Found:
    """Run it in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.perf.packaging.load"],
        input=wish.model_dump_json(),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=wish.seconds + _TIMEOUT_SECONDS + 60,
    )
    if done.returncode:
        raise SystemExit(f"the load failed: {done.stderr[-2000:]}")
    return Found.model_validate_json(done.stdout)


class TextSender:
    """A tests.load.sender.Sender: the texts in turn, on connections that are kept, as many as are needed at a time."""

    def __init__(self, service: Service, texts: Sequence[str]) -> None:
        self.latencies: list[tuple[float, float]] = []
        """(when it was due, seconds to the answer from then)."""
        self._url, self._answered_with = service.url, service.answered_with.encode()
        self._bodies = itertools.cycle([service.body(text) for text in texts])
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"Content-Type": "application/json"},
            trust_env=False,
        )

    async def send(self, sending: Sending) -> None:
        """One request, whose answer is looked at."""
        sending.goes()
        async with self._session.post(self._url, data=next(self._bodies)) as response:
            content = await response.read()
        if response.status != 200 or self._answered_with not in content:
            raise RequestFailedError(f"HTTP {response.status}", content[:300].decode(errors="replace"))
        self.latencies.append((sending.due, time.monotonic() - sending.due))

    async def close(self) -> None:
        """End the connections."""
        await self._session.close()


async def _open(wish: Wish) -> Found:
    senders: list[TextSender] = []

    def make_sender(_stream: Stream) -> TextSender:
        senders.append(TextSender(wish.service, wish.texts))
        return senders[0]

    # `address` and `model` are the sender's own business here.
    stream = Stream(protocol=Protocol.HTTP, address="-", model="-", rate_per_second=wish.rate_per_second, poisson=True)
    plan = Plan(
        streams=(stream,),
        duration_seconds=WARM_SECONDS + wish.seconds,
        timeout_seconds=_TIMEOUT_SECONDS,
        seed=wish.seed,
        in_flight_most=2000,
    )
    began = time.monotonic()
    cpu = time.process_time()
    result = await Run(plan, make_sender=make_sender).run()
    cores = (time.process_time() - cpu) / (time.monotonic() - began)
    return _found(senders[0].latencies, began + WARM_SECONDS, wish.seconds, failed=result.failed, cores=cores)


async def _closed(wish: Wish) -> Found:
    sender = TextSender(wish.service, wish.texts)
    began = time.monotonic()
    cpu = time.process_time()
    end = began + WARM_SECONDS + wish.seconds
    failures: list[Exception] = []

    async def client() -> None:
        while (now := time.monotonic()) < end:
            try:
                async with asyncio.timeout(_TIMEOUT_SECONDS):
                    await sender.send(Sending(protocol="http", due=now))
            except (RequestFailedError, TimeoutError, aiohttp.ClientError) as error:
                failures.append(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(wish.clients):
            group.create_task(client())
    await sender.close()
    cores = (time.process_time() - cpu) / (time.monotonic() - began)
    return _found(sender.latencies, began + WARM_SECONDS, wish.seconds, failed=len(failures), cores=cores)


def _found(
    latencies: Sequence[tuple[float, float]], begin: float, seconds: float, *, failed: int, cores: float
) -> Found:
    """Latencies are of what was due in the span; `per_second` counts what was answered within it."""
    counted = [latency for due, latency in latencies if due >= begin]
    answered = sum(begin <= due + latency < begin + seconds for due, latency in latencies)
    if not counted:
        raise SystemExit("no request was answered")
    p50, p95, p99 = (np.percentile(counted, [50, 95, 99], method="inverted_cdf") * 1000).tolist()
    return Found(
        per_second=answered / seconds, p50_ms=p50, p95_ms=p95, p99_ms=p99, failed=failed, generator_cores=cores
    )


def main() -> None:
    """Entry point."""
    wish = Wish.model_validate_json(sys.stdin.read())
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
    # What is there now lives until the end; a collection need not look at it.
    gc.freeze()
    print(asyncio.run(_closed(wish) if wish.clients else _open(wish)).model_dump_json())


if __name__ == "__main__":
    main()
