"""Mode GatewayAPI under load: a real API server, a controller's translator, a real Envoy; pods are played."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import grpc
import pytest

from conch.kube.client import KubeClient
from tests.cluster.apiserver import ApiServer
from tests.cluster.ports import free_port
from tests.integration.conftest import install_crd, model_deployment
from tests.support import gateway_api
from tests.support.async_waiting import until
from tests.support.envoy import running_envoy
from tests.support.gateway_api_translator import Translator
from tests.support.operator_process import OperatorProcess
from tests.support.played_pods import PlayedNode, dialled
from tests.support.waiting import until as until_sync

PARENT: Final = {"name": "public"}
GATEWAY: Final = {"mode": "GatewayAPI", "parentRefs": [PARENT]}
STEP: Final = {"weight": 50, "pause": "UntilPromoted"}


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    """An API server with the Gateway API, of these tests alone."""
    with ApiServer(controllers=True) as server:
        install_crd(server)
        gateway_api.install(server)
        server.kubectl("create", "namespace", "conch-system")
        yield server


@pytest.fixture(scope="module")
def operator(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """An operator that leads, and reaches played pods."""
    command = (sys.executable, "-m", "tests.support.operator_of_played_pods")
    with OperatorProcess(api.kubeconfig, tmp_path_factory.mktemp("operator"), command=command) as process:
        until_sync(process.leads, "the operator to lead")
        yield process


@dataclass
class Clients:
    """Clients that call all the time, by HTTP and by gRPC, until the test ends."""

    port: int
    answers: Counter[str] = field(default_factory=Counter)
    """By the version that answered."""
    failures: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Call until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(self._by_http())
                group.create_task(self._by_grpc())

    async def _by_http(self) -> None:
        url = f"http://127.0.0.1:{self.port}/v2/models/digits/infer"
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.post(url, data=b"x") as response:
                        self._note(response.status == 200, await response.text())
                except aiohttp.ClientError as error:
                    self._note(False, repr(error))

    async def _by_grpc(self) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            while True:
                try:
                    answer: Any = await infer(b"x")
                    self._note(True, answer.decode())
                except grpc.aio.AioRpcError as error:
                    self._note(False, f"{error.code()}: {error.details()}")

    def _note(self, good: bool, text: str) -> None:
        if good:
            self.answers[text] += 1
        else:
            self.failures.append(text)


@dataclass
class Scene:
    """An object, its pods, the Gateway."""

    api: ApiServer
    namespace: str
    node: PlayedNode
    translator: Translator
    port: int

    async def apply(self, version: int, *, replicas: int = 2, **rollout: Any) -> None:
        """Ask for a version."""
        digest = "sha256:" + f"{version:02x}" * 32
        spec = {
            "model": {"version": version, "source": {"uri": f"https://models/{version}.onnx", "digest": digest}},
            "gateway": GATEWAY,
            "replicas": replicas,
            "rollout": {"strategy": "Surge", "keepWarmSeconds": 1, **rollout},
        }
        body = json.dumps(model_deployment("digits", self.namespace, **spec))
        await asyncio.to_thread(self.api.kubectl, "apply", "-f", "-", input=body)

    async def status(self) -> dict[str, Any]:
        """What the object says."""
        live = await asyncio.to_thread(self.api.get, "mdep", "digits", "-n", self.namespace)
        status: dict[str, Any] = live.get("status", {})
        return status

    async def until(self, holds: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Wait for a status."""
        last: dict[str, Any] = {}

        async def met() -> bool:
            nonlocal last
            last = await self.status()
            return holds(last)

        try:
            await until(what, met, seconds=240)
        except AssertionError as error:
            raise AssertionError(f"{error}; status: {json.dumps(last)}") from error
        return last

    async def has_servers(self, replicas: int) -> None:
        """Wait until there are just so many, and all of them are ready."""

        def there(status: dict[str, Any]) -> bool:
            return bool(status["readyReplicas"] == status["replicas"] == replicas)

        await self.until(there, f"{replicas} servers")

    async def ready(self, version: int) -> dict[str, Any]:
        """Wait until this version serves, and nothing else."""

        def serves(status: dict[str, Any]) -> bool:
            conditions = {each["type"]: each["status"] for each in status.get("conditions", ())}
            stable = status.get("stable") or {}
            return (
                conditions.get("Ready") == "True"
                and stable.get("version") == version
                and "candidate" not in status
                and len(status["traffic"]) == 1
            )

        return await self.until(serves, f"version {version} to serve")


@pytest.fixture
async def scene(api: ApiServer, operator: OperatorProcess, namespace: str, tmp_path: Path) -> AsyncIterator[Scene]:
    """The first version serves."""
    del operator

    def remove(name: str) -> None:
        api.kubectl("delete", "pod", name, "-n", namespace, "--grace-period=0", "--force", check=False)

    client = await KubeClient.connect(api.kubeconfig)
    port = free_port("127.0.0.1")
    try:
        async with running_envoy(tmp_path) as envoy:
            translator = Translator(client, envoy, namespace=namespace, port=port, dialled=dialled)
            node = PlayedNode(client, namespace, remove=remove)
            async with _running(translator.run(), node.run()):
                made = Scene(api=api, namespace=namespace, node=node, translator=translator, port=port)
                await made.apply(1)
                await made.ready(1)
                yield made
    finally:
        await client.close()


@asynccontextmanager
async def _running(*work: Any) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run beside the block; what breaks meanwhile fails it."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield tasks
        for task in tasks:
            assert not task.done(), task.exception()
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


def _weights(status: dict[str, Any]) -> dict[int, int]:
    versions = {each["workload"]: each["version"] for each in (status.get("stable"), status.get("candidate")) if each}
    return {
        versions[share["workload"]]: share["weight"] for share in status["traffic"] if share["workload"] in versions
    }


async def test_a_rollout_goes_half_way_to_the_end_and_back_without_a_failed_request(scene: Scene) -> None:
    clients = Clients(scene.port)
    async with _running(clients.run()):
        await scene.apply(2, steps=[STEP])
        half = await scene.until(
            lambda status: bool((status.get("rollout") or {}).get("observedSince")), "half of the requests to move"
        )
        assert _weights(half) == {1: 50, 2: 50}
        before = Counter(clients.answers)

        async def enough() -> bool:
            # Of so many, one of 100,000 draws is outside of what is asked for below.
            return (Counter(clients.answers) - before).total() >= 2000

        await until("2000 answers", enough, seconds=120)
        during = Counter(clients.answers) - before
        # Back, and at it again without a step.
        await scene.apply(1, steps=[STEP])
        await scene.ready(1)
        await scene.apply(2)
        await scene.ready(2)
        after = Counter(clients.answers)
        await asyncio.sleep(1)
        # And back once all of it has moved.
        await scene.apply(1)
        last = await scene.ready(1)
        await asyncio.sleep(1)
    assert clients.failures == []
    assert 0.45 < during["2"] / during.total() < 0.55, during
    assert set(clients.answers) == {"1", "2"}
    assert clients.answers["2"] > after["2"]
    workload = last["stable"]["workload"]
    assert scene.translator.weights[-1] == {f"digits-{workload}": 100}

    # A rollout has left nothing of the versions before: neither servers nor Services.
    def services() -> set[str]:
        return {each["metadata"]["name"] for each in scene.api.get("services", "-n", scene.namespace)["items"]}

    await asyncio.to_thread(
        until_sync, lambda: services() == {"digits", f"digits-{workload}"}, "the versions before to be gone"
    )
    print("requests:", dict(clients.answers), "weights:", scene.translator.weights)


async def test_more_and_fewer_servers_cost_no_request(scene: Scene) -> None:
    clients = Clients(scene.port)
    async with _running(clients.run()):
        for replicas in (4, 1, 2):
            await scene.apply(1, replicas=replicas)
            await scene.has_servers(replicas)
            await asyncio.sleep(3)
    assert clients.failures == []
    assert clients.answers.total() > 500


async def test_a_version_whose_requests_fail_is_taken_back_by_what_triton_counts(scene: Scene) -> None:
    scene.node.failing_versions.add(2)
    clients = Clients(scene.port)
    async with _running(clients.run()):
        await scene.apply(2, steps=[{"weight": 10, "pauseSeconds": 600}])
        status = await scene.until(
            lambda status: bool(status.get("rejected")) and len(status["traffic"]) == 1, "the version to be rolled back"
        )
        failed = len(clients.failures)
        await asyncio.sleep(1)
    assert status["rejected"][0]["cause"] == "AnalysisFailed"
    assert failed == len(clients.failures)
    assert set(clients.answers) == {"1"}


async def test_triton_s_other_apis_are_not_served_through_the_gateway(scene: Scene) -> None:
    paths = (
        "/v2/repository/index",
        "/v2/repository/models/digits/load",
        "/v2/models/digits/config",
        "/v2/models/digits/trace/setting",
        "/v2/models/digits/versions/1/trace/setting",
        "/v2/logging",
        "/v2/systemsharedmemory/status",
        "/metrics",
    )
    async with aiohttp.ClientSession() as session:
        for path in paths:
            async with session.post(f"http://127.0.0.1:{scene.port}{path}", data=b"") as response:
                assert (path, response.status) == (path, 404)
        for path in ("/v2/models/digits/infer", "/v2/models/digits/versions/1/infer"):
            async with session.post(f"http://127.0.0.1:{scene.port}{path}", data=b"") as response:
                assert (path, response.status) == (path, 200)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{scene.port}") as channel:
        for method in ("RepositoryModelLoad", "ModelConfig", "TraceSetting", "LogSettings"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(b"")
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
