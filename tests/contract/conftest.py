"""A model pod without Kubernetes: Triton and the agent as processes, and a file server, all on loopback."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from conch.api.assignment import Assignment
from conch.api.model import ModelSource
from conch.api.source_policy import SourcePolicy
from tests.contract.processes import Agent, Triton
from tests.images.triton import assemble
from tests.support.async_waiting import until

POLICY = SourcePolicy(http_hosts=("127.0.0.1",), private_hosts=("127.0.0.1",))


@dataclass(slots=True)
class FileServer:
    """Serves `files` by path and counts the requests for each."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    looks: Counter[str] = field(default_factory=Counter)
    """For the size and the version alone, which comes before every fetch."""

    async def answer(self, request: web.Request) -> web.Response:
        (self.looks if request.headers.get("Range") == "bytes=0-0" else self.requests)[request.path] += 1
        content = self.files.get(request.path)
        if content is None:
            return web.Response(status=404)
        return web.Response(body=content, headers={"ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

    def assignment(self, path: str, **changes: Any) -> Assignment:
        """An assignment of the model at `path`."""
        fields: dict[str, Any] = {"revision": "r1", "name": "classifier", "version": 1, "source_policy": POLICY}
        source = ModelSource(uri=f"{self.url}{path}", digest=changes.pop("digest", None))
        return Assignment(**(fields | {"source": source} | changes))


@pytest.fixture
async def files() -> AsyncIterator[FileServer]:
    server = FileServer()
    application = web.Application()
    application.router.add_get("/{path:.*}", server.answer)
    async with TestServer(application, host="127.0.0.1") as running:
        server.url = f"http://127.0.0.1:{running.port}"
        yield server


@dataclass(slots=True)
class Pod:
    """The two containers of a model pod, and the operator's part in it."""

    agent: Agent
    triton: Triton
    pinning: asyncio.Task[None] | None = None

    async def start(self, *, pins: bool = True) -> None:
        """As the kubelet does: the agent first, Triton once the agent's startup probe is good."""
        self.agent.start(self.triton)

        async def there() -> bool | None:
            return (self.agent.volume / "repository").is_dir() or None

        await until("the repository folder", there)
        self.triton.start()
        if pins:
            self.pinning = asyncio.create_task(self.agent.pin_what_is_fetched())


@pytest.fixture(scope="session", autouse=True)
def server_tree() -> Path:
    """Assemble the server once, before any test's clock runs."""
    return assemble.cached_server()


@pytest.fixture
async def pod(tmp_path: Path) -> AsyncIterator[Pod]:
    agent = Agent(tmp_path)
    pod = Pod(agent=agent, triton=Triton(tmp_path, agent.volume / "repository"))
    yield pod
    if pod.pinning:
        pod.pinning.cancel()
        await asyncio.wait({pod.pinning})
        if not pod.pinning.cancelled():
            pod.pinning.result()
    agent.stop()
    pod.triton.stop(9)
