"""A real Envoy as a process on loopback, with the bootstrap that gateway pods have.

async with running_envoy(tmp_path) as envoy:
    ...  # envoy.admin_port, envoy.hold_port, envoy.folder (the dynamic files), await envoy.admin("/stats")
"""

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final

import aiohttp

from conch.gateway.envoy import bootstrap
from conch.gateway.envoy.external_authorization import ExternalAuthorization
from conch.gateway.envoy.files import ResourceFiles
from tests.cluster.ports import free_port
from tests.support.async_waiting import until

PROGRAM: Final = Path(str(resources.files("envoy") / "_bin" / "envoy"))
MEMORY_BYTES: Final = 1 << 30
"""As the chart's default has it."""


class Envoy:
    """One Envoy; `stop` and `start` again leave the dynamic files as they are, as a container's restart does."""

    def __init__(
        self,
        folder: Path,
        *,
        concurrency: int = 1,
        memory_bytes: int = MEMORY_BYTES,
        authorization: ExternalAuthorization | None = None,
    ) -> None:
        """Prepare the folder; two of them need two folders."""
        self.folder = folder / "dynamic"
        self.folder.mkdir(parents=True)
        ResourceFiles(self.folder).prepare()
        self.log = folder / "envoy.log"
        self.admin_port, self.hold_port = free_port("127.0.0.1"), free_port("127.0.0.1")
        self.bootstrap = folder / "bootstrap.json"
        self._concurrency = concurrency
        self._process: subprocess.Popen[bytes] | None = None
        options = bootstrap.BootstrapOptions(
            gateway="gateway-test",
            dynamic_folder=self.folder,
            admin_port=self.admin_port,
            hold_port=self.hold_port,
            memory_bytes=memory_bytes,
            authorization=authorization,
        )
        self.bootstrap.write_text(bootstrap.render_bootstrap(options))

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process; it listens a little later, see `until_ready`."""
        assert self._process is None, "it runs already"
        # The kernel ends it with the test's process at the latest.
        command = [*("setpriv", "--pdeathsig", "KILL", "--", str(PROGRAM)), *bootstrap.arguments(self.bootstrap)]
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [*command, "--concurrency", str(self._concurrency)], stdout=out, stderr=subprocess.STDOUT
            )

    async def until_ready(self) -> None:
        """Wait until it is live, which it is once it has read its listeners and clusters."""

        async def live() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, f"Envoy ended: {self.log_text()[-3000:]}"
            try:
                return (await self.admin("/ready")).strip() == "LIVE"
            except aiohttp.ClientError:
                return False

        await until("Envoy to be live", live)

    async def admin(self, path: str, method: str = "GET") -> str:
        """The administration's answer, whatever its status."""
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"http://127.0.0.1:{self.admin_port}{path}") as response,
        ):
            return await response.text()

    async def stats(self, pattern: str) -> dict[str, Any]:
        """Counters, gauges and texts whose whole names the regular expression finds."""
        text = await self.admin(f"/stats?filter={pattern}")
        pairs = (line.partition(": ") for line in text.splitlines() if ": " in line)
        return {name: int(value) if value.isdigit() else value.strip('"') for name, _, value in pairs}

    def log_text(self) -> str:
        """Everything it has printed: warnings, and access logs where they are on."""
        return self.log.read_text(errors="replace")

    def stop(self) -> None:
        """Kill it, as the end of a container does at the latest."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@asynccontextmanager
async def running_envoy(
    folder: Path, *, concurrency: int = 1, memory_bytes: int = MEMORY_BYTES
) -> AsyncIterator[Envoy]:
    """A live Envoy without any listener, until the block ends."""
    envoy = Envoy(folder, concurrency=concurrency, memory_bytes=memory_bytes)
    envoy.start()
    try:
        await envoy.until_ready()
        yield envoy
    finally:
        envoy.stop()


def validation_errors(folder: Path, static_resources: dict[str, Any]) -> str:
    """What `envoy --mode validate` says against listeners and clusters; empty if nothing.

    It looks at static resources only: files of dynamic ones are not read in that mode.
    """
    file = folder / "validate.json"
    file.write_text(json.dumps({"static_resources": static_resources}))
    command = [str(PROGRAM), "--mode", "validate", "--log-level", "error", "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stderr or done.stdout
