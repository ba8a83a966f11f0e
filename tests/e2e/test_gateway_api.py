"""Mode GatewayAPI on the whole cluster: real Triton, a real Envoy, and a small controller that makes it follow routes.

Alone, for the Gateway API's CRDs are the whole cluster's.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from conch.kube.client import KubeClient
from tests.cluster.client import Cluster
from tests.cluster.ports import free_port
from tests.e2e.conftest import Namespace
from tests.e2e.versioned_model import NAME, Model, lost
from tests.load import Load, Plan, Protocol, Stream, Tensor
from tests.support import gateway_api, versions
from tests.support.envoy import running_envoy
from tests.support.gateway_api_translator import Translator
from tests.support.inference import digits
from tests.support.model_store import ModelStore
from tests.support.waiting import until

GATEWAY: Final = {"mode": "GatewayAPI", "parentRefs": [{"name": "public"}]}
CHECKS: Final = [{"successRate": {"minimumPercent": 99}, "minimumSamples": 50}]


@contextmanager
def _gateway(cluster: Cluster, namespace: str, folder: Path) -> Iterator[int]:
    """The port of a Gateway that serves the namespace's routes."""
    port = free_port("127.0.0.1")
    ready, stop = threading.Event(), threading.Event()
    failure: list[BaseException] = []

    async def serve() -> None:
        client = await KubeClient.connect(cluster.kubeconfig)
        try:
            async with running_envoy(folder) as envoy:
                translator = Translator(client, envoy, namespace=namespace, port=port, dialled=lambda address: address)
                task = asyncio.create_task(translator.run())
                ready.set()
                stopped = asyncio.create_task(asyncio.to_thread(stop.wait))
                await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    task.result()
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        finally:
            await client.close()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # told by the test itself
            failure.append(error)
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(60)
        yield port
    finally:
        stop.set()
        thread.join(60)
    assert failure == []


def _load(port: int, folder: Path, *, seconds: float) -> Load:
    pixels = Tensor(name="pixels", datatype="FP32", shape=(1, 64), data=tuple(digits()[0].pixels.tolist()))
    streams = tuple(
        Stream(
            protocol=protocol,
            address=f"127.0.0.1:{port}",
            model=NAME,
            rate_per_second=20,
            poisson=True,
            inputs=(pixels,),
        )
        for protocol in (Protocol.HTTP, Protocol.GRPC)
    )
    return Load(Plan(streams=streams, duration_seconds=seconds, timeout_seconds=30, failures_kept=1000), folder)


@pytest.mark.alone
@pytest.mark.timeout(900)
def test_routes_of_the_platforms_gateways_carry_a_model_through_its_versions(
    namespace: Namespace, store: ModelStore, cluster: Cluster, tmp_path: Path
) -> None:
    gateway_api.uninstall(cluster)
    model = Model(namespace, store, gateway=GATEWAY)
    model.deploy(1, versions.MODEL)
    message = namespace.wait_reason(NAME, "GatewayAPIMissing")
    assert "install the Gateway API" in message
    try:
        gateway_api.install(cluster)
        (gateway_folder := tmp_path / "gateway").mkdir()
        with _gateway(cluster, namespace.name, gateway_folder) as port:
            namespace.wait_ready(NAME, replicas=2)
            _carry(namespace, model, port, tmp_path)
    finally:
        gateway_api.uninstall(cluster)


def _carry(namespace: Namespace, model: Model, port: int, folder: Path) -> None:
    steps: list[dict[str, Any]] = [{"weight": 50, "pause": "UntilPromoted"}]
    with _load(port, folder, seconds=600) as load:
        load.mark("promoted")
        model.deploy(2, versions.recorded(2), steps=steps, analysis=[*CHECKS, {"goldenSet": {}}])
        model.wait_until_promoted()
        assert model.weights == [50, 50]
        until(lambda: {check["verdict"] for check in model.checks.values()} == {"Pass"}, "its checks", seconds=120)
        model.conch("promote")
        model.wait_served(2)
        load.mark("aborted")
        model.deploy(3, versions.MODEL, steps=steps)
        model.wait_until_promoted()
        model.conch("abort")
        model.wait_back("Aborted")
        load.mark("more and fewer servers")
        model.deploy(2, versions.recorded(2))
        model.edit(replicas=3)
        namespace.wait_ready(NAME, replicas=3)
        model.edit(replicas=1)
        namespace.wait_ready(NAME)
        until(lambda: len(namespace.pods(NAME)) == 1, "the others to be gone", seconds=120)
        result = load.stop()
    assert lost(result) == ""
