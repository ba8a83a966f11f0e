"""The two processes of a model pod on loopback: the real Triton with the pod's command line, and the agent."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from conch.api import names
from conch.api.agent_orders import PinOrder, TurnOrder
from conch.api.agent_report import AgentPhase, AgentReport
from conch.api.assignment import Assignment, Pin
from conch.api.pod import POD_NAME_ENV, TRITON_CPUS_ENV
from conch.api.triton_arguments import triton_arguments
from tests.cluster.ports import free_port
from tests.images.triton import assemble
from tests.support.async_waiting import until

ADMIN_KEY = "0123456789abcdef-test-key"
POD_NAME = "classifier-w1-abcde"
WAIT_SECONDS = 60
AGENT = (
    "import asyncio; from conch.agent.main import run; from conch.agent.settings import AgentSettings; "
    "asyncio.run(run(AgentSettings.from_env()))"
)
IMAGE_ENVIRONMENT = {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}
"""As operator/Dockerfile sets it."""
T = TypeVar("T")


class Process:
    """A child process with its output in a file."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self, command: list[str], env: dict[str, str]) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                command, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Signal, and wait for the end; returns the seconds it took."""
        if self.process is None:
            return 0.0
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout=40)
        if number == signal.SIGKILL:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # Triton's Python stubs outlive a killed parent for a while
        self.process = None
        return time.monotonic() - started

    def resident_mib(self, *, peak: bool = False) -> float:
        """Resident memory now, or the most it ever was."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:" if peak else "VmRSS:")[1].split()[0]) / 1024


class Triton(Process):
    """tritonserver 2.51."""

    backends: Path | None = None
    """Other backends than the stand-in's own."""

    def __init__(self, folder: Path, repository: Path) -> None:
        super().__init__(folder / "triton.log")
        self.http, self.grpc, self.metrics = free_port(), free_port(), free_port()
        self._repository = repository

    def start(self) -> None:
        tree = assemble.cached_server()
        arguments = triton_arguments(
            repository=str(self._repository),
            admin_key=ADMIN_KEY,
            exit_timeout_seconds=5,
            http_port=self.http,
            grpc_port=self.grpc,
            metrics_port=self.metrics,
            address="127.0.0.1",
        )
        own = assemble.server_arguments(tree) if self.backends is None else (f"--backend-directory={self.backends}",)
        command = [str(tree / "bin" / "tritonserver"), *arguments, *own]
        self.spawn(command, os.environ | assemble.environment(tree))


class Agent(Process):
    """The agent on its own volume, told by an assignment file as the kubelet mounts it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "agent.log")
        self.port = free_port()
        self.volume = folder / "volume"
        self.claim = folder / "claim"
        self.further_claims = folder / "further-claims"
        self.cache: Path | None = None
        """Shared with other agents."""
        self.credentials = folder / "credentials"
        self.assignment = folder / "assignment" / "assignment.json"
        self.assignment.parent.mkdir()
        self.cpus = ""
        """What a pod without a GPU tells of its limit; empty: nothing, as with one."""

    def start(self, triton: Triton) -> None:
        cached = {"CONCH_CACHE_FOLDER": str(self.cache), "CONCH_CACHE_BYTES_MOST": str(1 << 30)} if self.cache else {}
        self.spawn(
            [sys.executable, "-c", AGENT],
            os.environ
            | cached
            | {
                **IMAGE_ENVIRONMENT,
                POD_NAME_ENV: POD_NAME,
                "CONCH_ADMIN_KEY": ADMIN_KEY,
                "CONCH_ASSIGNMENT_FILE": str(self.assignment),
                "CONCH_MODEL_FOLDER": str(self.volume),
                "CONCH_CLAIM_FOLDER": str(self.claim),
                "CONCH_FURTHER_CLAIMS_FOLDER": str(self.further_claims),
                "CONCH_CREDENTIALS_FOLDER": str(self.credentials),
                "CONCH_AGENT_HOST": "127.0.0.1",
                "CONCH_AGENT_PORT": str(self.port),
                "CONCH_TRITON_ADDRESS": f"127.0.0.1:{triton.grpc}",
                "CONCH_TRITON_METRICS_ADDRESS": f"127.0.0.1:{triton.metrics}",
                **({TRITON_CPUS_ENV: self.cpus} if self.cpus else {}),
            },
        )

    def assign(self, assignment: Assignment) -> None:
        """Swap the file atomically, as the kubelet does."""
        fresh = self.assignment.with_suffix(".new")
        fresh.write_text(assignment.model_dump_json(by_alias=True))
        fresh.rename(self.assignment)

    def events(self) -> list[dict[str, Any]]:
        """What the agent logged; every line must be JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    async def report(self) -> AgentReport | None:
        """Its report, or None while it does not listen."""
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {names.status_key(ADMIN_KEY)}"}) as session:
            try:
                async with session.get(f"http://127.0.0.1:{self.port}/status") as response:
                    assert response.status == 200, response.status
                    return AgentReport.model_validate_json(await response.text())
            except aiohttp.ClientConnectionError:
                return None

    async def pin_what_is_fetched(self) -> None:
        """What the operator does for a lone pod: what it fetched is pinned, and anew as long as it does not serve."""
        while True:
            report = await self.report()
            if report and report.digest and report.phase in (AgentPhase.FETCHED, AgentPhase.FAILED):
                pin = Pin(digest=report.digest, resolved=report.resolved)
                if report.pin != pin:
                    await self.tell(report.revision, pin)
            change = report.change if report else None
            if change and change.digest and change.phase in (AgentPhase.FETCHED, AgentPhase.FAILED):
                pin = Pin(digest=change.digest, resolved=change.resolved)
                if change.pin != pin:
                    await self.tell(change.revision, pin)
            await asyncio.sleep(0.1)

    async def tell(self, revision: str, pin: Pin, *, key: str = ADMIN_KEY) -> int:
        """Send a pin as the operator does; returns the answer's status."""
        code = names.pin_code(key, revision, pin.digest, pin.resolved)
        order = PinOrder(revision=revision, pin=pin, code=code)
        async with (
            aiohttp.ClientSession() as session,
            session.put(f"http://127.0.0.1:{self.port}/pin", data=order.model_dump_json(by_alias=True)) as response,
        ):
            return response.status

    async def turn(self, change: str, turn: int, revision: str, *, key: str = ADMIN_KEY) -> int:
        """Say whose turn it is as the operator does; returns the answer's status."""
        code = names.turn_code(key, POD_NAME, change, turn, revision)
        order = TurnOrder(change=change, turn=turn, revision=revision, code=code)
        async with (
            aiohttp.ClientSession() as session,
            session.put(f"http://127.0.0.1:{self.port}/turn", data=order.model_dump_json(by_alias=True)) as response,
        ):
            return response.status

    async def until_phase(self, phase: AgentPhase, seconds: float = WAIT_SECONDS) -> AgentReport:
        """Wait for a phase."""
        return await self.until(lambda report: report.phase is phase, seconds)

    async def until(self, wanted: Callable[[AgentReport], bool], seconds: float = WAIT_SECONDS) -> AgentReport:
        """Wait for a report."""
        last: AgentReport | None = None

        async def ask() -> AgentReport | None:
            nonlocal last
            last = await self.report()
            return last if last and wanted(last) else None

        try:
            return await until("the agent's report", ask, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; last: {last}; log: {self.log.read_text()[-3000:]}") from None
