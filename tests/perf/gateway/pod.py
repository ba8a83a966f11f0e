"""The two processes of a gateway pod, and a small API server in this process that they watch."""

import asyncio
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import aiohttp
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryResponse

from conch.api import names
from conch.api.gateway_report import REPORT_PATH
from conch.gateway.envoy.files import Kind
from conch.gateway.settings import NAMESPACE_ENV, POD_ADDRESS_ENV, POD_NAME_ENV
from conch.gateway.sync import ROUTE_CHANGED
from tests.cluster.ports import free_port
from tests.support.async_waiting import until
from tests.support.envoy import Envoy
from tests.support.gateway_sidecar import NAMESPACE, TOKEN, FakeApi, workload_slice

_NUMBER: Final = re.compile(r"\d+$")
_WAIT_SECONDS: Final = 60
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_LOG_LOOK_SECONDS: Final = 0.005
_LOOK_SECONDS: Final = 0.02
"""Between two questions for the report, where an answer is waited for: the sidecar has other things to do too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A ModelDeployment, with the port that it has at the gateway."""

    name: str
    port: int
    workloads: tuple[str, ...]


class GatewayPod:
    """Envoy and `conch gateway`, ready or about to be."""

    def __init__(
        self,
        envoy: Envoy,
        api: FakeApi,
        session: aiohttp.ClientSession,
        report_port: int,
        env: Mapping[str, str],
    ) -> None:
        self.envoy, self.api = envoy, api
        self._env = env
        self._session, self._report_port = session, report_port
        self.sidecar: subprocess.Popen[bytes] | None = None
        self._log = envoy.folder.parent / "sidecar.log"
        self._generations = itertools.count(1)

    @property
    def sidecar_pid(self) -> int:
        """Of `conch gateway`."""
        assert self.sidecar is not None
        return self.sidecar.pid

    async def start(self) -> float:
        """Start both processes at once, as a kubelet does; returns the seconds until the gateway was ready."""
        started = time.monotonic()
        self._spawn()
        self.envoy.start()
        await self._until_ready()
        return time.monotonic() - started

    def _spawn(self) -> None:
        folder = self.envoy.folder.parent
        kubeconfig, token = folder / "kubeconfig", folder / "token"
        kubeconfig.write_text(json.dumps(_kubeconfig(self.api.url)))
        token.write_text(TOKEN)
        settings = {
            POD_NAME_ENV: "gateway-1",
            POD_ADDRESS_ENV: "10.64.0.2",
            NAMESPACE_ENV: "conch-system",
            "KUBECONFIG": str(kubeconfig),
            "CONCH_GATEWAY_TOKEN_FILE": str(token),
            "CONCH_GATEWAY_CONFIG_FOLDER": str(folder),
            "CONCH_GATEWAY_BIND_ADDRESS": "127.0.0.1",
            "CONCH_GATEWAY_REPORT_PORT": str(self._report_port),
            "CONCH_GATEWAY_ADMIN_PORT": str(self.envoy.admin_port),
            "CONCH_GATEWAY_HOLD_PORT": str(self.envoy.hold_port),
            # Single changes are told at this level.
            "CONCH_LOG_LEVEL": "debug",
        }
        command = ["setpriv", "--pdeathsig", "KILL", "--", str(Path(sys.executable).with_name("conch")), "gateway"]
        with self._log.open("wb") as out:
            self.sidecar = subprocess.Popen(
                command, env=os.environ | settings | dict(self._env), stdout=out, stderr=subprocess.STDOUT
            )

    def stop(self) -> None:
        """Kill both."""
        if self.sidecar is not None:
            self.sidecar.kill()
            self.sidecar.wait()
        self.envoy.stop()

    def put_model(self, model: Model, weights: Sequence[int]) -> str:
        """Publish a model with a weight for each workload; returns the generation that stands for that."""
        generation = f"g{next(self._generations)}"
        traffic = [
            {"revision": workload, "workload": workload, "weight": weight}
            for workload, weight in zip(model.workloads, weights, strict=True)
        ]
        gateway = {"port": model.port, "generation": generation}
        status = {"desiredReplicas": 1, "gateway": gateway, "traffic": traffic}
        metadata = {"namespace": NAMESPACE, "name": model.name, "creationTimestamp": "2026-01-01T00:00:00Z"}
        spec = {"gateway": {"hold": {"seconds": 60, "maxRequests": 1000}}}
        self.api.put("modeldeployments", {"metadata": metadata, "spec": spec, "status": status})
        return generation

    def put_servers(self, model: Model, workload: str, addresses: Sequence[str]) -> None:
        """Publish which servers of a workload are ready."""
        service = names.workload_service(model.name, workload)
        endpoints = [
            {
                "addresses": [address],
                "conditions": {"ready": True},
                "targetRef": {"kind": "Pod", "name": f"{service}-{number}"},
            }
            for number, address in enumerate(addresses)
        ]
        self.api.put("endpointslices", workload_slice(model.name, service, endpoints))

    async def report(self) -> str:
        """What the operator gets, as it is sent."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        url = f"http://127.0.0.1:{self._report_port}{REPORT_PATH}"
        async with self._session.get(url, headers=headers) as response:
            assert response.status == 200, await response.text()
            return await response.text()

    async def until_told(self, expected: Mapping[Model, Mapping[str, Any]]) -> float:
        """Wait until the report says this of the models; returns when (time.monotonic()) the answer was there."""
        end = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < end:
            objects = json.loads(await self.report())["objects"]
            if all(
                objects.get(f"{NAMESPACE}/{model.name}", {}) | fields == objects.get(f"{NAMESPACE}/{model.name}")
                for model, fields in expected.items()
            ):
                return time.monotonic()
            await asyncio.sleep(_LOOK_SECONDS)
        raise AssertionError(f"waited {_WAIT_SECONDS} s for the report to say {expected}")

    def log_bytes(self) -> int:
        """How much the sidecar has logged so far."""
        return self._log.stat().st_size

    async def until_routed(self, expected: Mapping[Model, Mapping[str, Any]], *, since: int) -> float:
        """Wait until the sidecar has logged this of the routes, after `since` bytes; returns when.

        To ask for the report instead would make the sidecar and Envoy slower than what is measured.
        """
        missing = {f"{NAMESPACE}/{model.name}": fields for model, fields in expected.items()}
        end = time.monotonic() + _WAIT_SECONDS
        with self._log.open("rb") as log:
            log.seek(since)
            while missing and time.monotonic() < end:
                if not (line := log.readline()):
                    await asyncio.sleep(_LOG_LOOK_SECONDS)
                    continue
                if not line.endswith(b"\n"):
                    log.seek(-len(line), os.SEEK_CUR)
                elif ROUTE_CHANGED.encode() in line:
                    told = json.loads(line)
                    if told | missing.get(told["object"], {"object": ""}) == told:
                        del missing[told["object"]]
        if missing:
            raise AssertionError(f"waited {_WAIT_SECONDS} s for the sidecar to log {missing}")
        return time.monotonic()

    def deliveries(self) -> int:
        """How many files the sidecar has written so far: they are numbered."""
        newest = 0
        for kind in Kind:
            content = (self.envoy.folder / kind.value).read_bytes()
            if found := _NUMBER.search(DiscoveryResponse.FromString(content).version_info):
                newest = max(newest, int(found[0]))
        return newest

    async def _until_ready(self) -> None:
        """Wait until the kubelet would send clients here."""

        async def ready() -> bool:
            assert self.sidecar is not None
            assert self.sidecar.poll() is None, "the sidecar ended"
            try:
                async with self._session.get(f"http://127.0.0.1:{self._report_port}/readyz") as response:
                    return response.status == 200
            except aiohttp.ClientError:
                return False

        await until("the gateway to be ready", ready, 120)

    @asynccontextmanager
    async def asked_each_second(self) -> AsyncIterator[None]:
        """As the operator does, for as long as the block runs."""

        async def ask() -> None:
            while True:
                await self.report()
                await asyncio.sleep(1)

        asking = asyncio.create_task(ask())
        try:
            yield
        finally:
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking


@asynccontextmanager
async def gateway_pod(folder: Path, *, concurrency: int, env: Mapping[str, str] = NOTHING) -> AsyncIterator[GatewayPod]:
    """Not started yet, so that there may be models before. `env` is what the sidecar is told besides."""
    async with AsyncExitStack() as stack:
        api = FakeApi()
        await api.start()
        stack.push_async_callback(api.stop)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        pod = GatewayPod(Envoy(folder, concurrency=concurrency), api, session, free_port("127.0.0.1"), env)
        stack.callback(pod.stop)
        yield pod


def _kubeconfig(server: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
