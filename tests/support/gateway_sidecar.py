"""A whole gateway on loopback: real Envoy, the sidecar in this process, and small stand-ins for the API server and for
model servers."""

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import grpc
from aiohttp import web
from kubernetes.aio import client as kubernetes_client

from conch.api import names
from conch.api.gateway_report import GatewayReport, ObjectTraffic
from conch.gateway.envoy.cluster import ServerPorts
from conch.gateway.main import Gateway
from conch.gateway.projections import SLICE_CONTROLLER
from conch.gateway.settings import GatewaySettings
from conch.kube.client import KubeClient
from tests.cluster.ports import free_port
from tests.support.async_waiting import until
from tests.support.envoy import Envoy

NAMESPACE: Final = "team"
POD: Final = "gateway-1"
OWN_ADDRESS: Final = "10.9.8.7"
TOKEN: Final = "token-of-the-gateways"
UNARY: Final = "/inference.GRPCInferenceService/ModelInfer"
_MESSAGE_BYTES: Final = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def machine_address() -> str:
    """An address of this machine that is not loopback: a gateway sends to no other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Nothing is sent: the kernel only looks up where from it would be.
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


async def first_wake(wakes: aiohttp.ClientResponse) -> dict[str, Any]:
    """The first line of a stream of `/wakes` that tells of an object; signs of life may come before it."""
    while line := await wakes.content.readline():
        told: dict[str, Any] = json.loads(line)
        if "object" in told:
            return told
    raise AssertionError("the stream has ended")


class FakeApi:
    """Lists and watches, like an API server with nothing but these objects."""

    def __init__(self) -> None:
        self._port = free_port("127.0.0.1")
        self._runner: web.AppRunner | None = None
        self._versions = itertools.count(1)
        self._version = 0
        self._objects: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
        self._watchers: dict[str, set[asyncio.Queue[dict[str, Any]]]] = {}

    @property
    def url(self) -> str:
        """The same after a restart."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listen."""
        application = web.Application()
        application.router.add_get("/{path:.*}", self.answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()

    async def stop(self) -> None:
        """End every connection, and refuse new ones."""
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    def put(self, plural: str, live: dict[str, Any]) -> None:
        """Create or replace an object."""
        self._version = next(self._versions)
        live = live | {"metadata": {"uid": "u-1", **live["metadata"], "resourceVersion": str(self._version)}}
        key = (live["metadata"]["namespace"], live["metadata"]["name"])
        self._objects.setdefault(plural, {})[key] = live
        self._tell(plural, "MODIFIED", live)

    def delete(self, plural: str, namespace: str, name: str) -> None:
        """Remove an object."""
        live = self._objects[plural].pop((namespace, name))
        self._version = next(self._versions)
        self._tell(plural, "DELETED", live | {"metadata": live["metadata"] | {"resourceVersion": str(self._version)}})

    def _tell(self, plural: str, kind: str, live: dict[str, Any]) -> None:
        for watcher in self._watchers.get(plural, ()):
            watcher.put_nowait({"type": kind, "object": live})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Any GET."""
        parts = request.path.split("/")
        if "namespaces" in parts:
            *_, namespace, plural, name = parts
            live = self._objects.get(plural, {}).get((namespace, name))
            return web.json_response(live) if live else web.json_response({"message": "not found"}, status=404)
        plural = parts[-1]
        if "watch" in request.query:
            return await self._watch(request, plural)
        return web.json_response(
            {"metadata": {"resourceVersion": str(self._version)}, "items": [*self._objects.get(plural, {}).values()]}
        )

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for live in self._objects.get(plural, {}).values():
            if int(live["metadata"]["resourceVersion"]) > since:
                queue.put_nowait({"type": "MODIFIED", "object": live})
        self._watchers.setdefault(plural, set()).add(queue)
        try:
            while True:
                await response.write(json.dumps(await queue.get()).encode() + b"\n")
        finally:
            self._watchers[plural].discard(queue)


class ModelServer:
    """Answers inference over both protocols; keeps how many requests it had at a time at most."""

    def __init__(self, address: str, ports: ServerPorts) -> None:
        self.address = address
        self.ports = ports
        self.seconds = 0.0
        """How long an inference takes."""
        self.gate = asyncio.Event()
        """Whether inferences are answered; they wait before it."""
        self.gate.set()
        self.status = 200
        self.now = 0
        self.most = 0
        self.answered = 0
        self.headers: list[dict[str, str]] = []
        """Of what came over HTTP, names in lower case."""

    async def start(self, stack: AsyncExitStack) -> None:
        """Until the stack is closed."""
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{path:.*}", self._http)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self.address, self.ports.http).start()
        server = grpc.aio.server(options=_MESSAGE_BYTES)
        server.add_generic_rpc_handlers((_Any(self),))
        server.add_insecure_port(f"{self.address}:{self.ports.grpc}")
        await server.start()
        stack.push_async_callback(server.stop, None)

    async def infer(self, body: bytes) -> bytes:
        """The answer is the number of bytes that came."""
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.seconds)
            await self.gate.wait()
        finally:
            self.now -= 1
        self.answered += 1
        return str(len(body)).encode()

    async def _http(self, request: web.Request) -> web.Response:
        if request.path == "/v2/health/live":
            return web.Response()
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(body=await self.infer(await request.read()), status=self.status)


class _Any(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no annotations
    def __init__(self, server: ModelServer) -> None:
        self._server = server

    def service(self, _details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._unary)

    async def _unary(self, request: bytes, context: Any) -> bytes:
        if self._server.status != 200:
            await context.abort(grpc.StatusCode.INTERNAL, "the model failed")
        return await self._server.infer(request)


class Sidecar:
    """The gateway and everything around it."""

    def __init__(
        self,
        envoy: Envoy,
        settings: GatewaySettings,
        api: FakeApi,
        session: aiohttp.ClientSession,
        client: KubeClient,
    ) -> None:
        self.envoy, self.settings, self.api, self.session = envoy, settings, api, session
        self._client = client
        self._stop = asyncio.Event()
        self.running: asyncio.Task[None] | None = None
        self.ports = ServerPorts(http=free_port("127.0.0.1"), grpc=free_port("127.0.0.1"))
        self.server = ModelServer(machine_address(), self.ports)
        self.model_ports: dict[str, int] = {}
        self._generations = itertools.count(1)

    def start(self) -> None:
        """Like the start of the sidecar's container; Envoy is not touched."""
        gateway = Gateway(self.settings, self._client, self.session, ports=self.ports)
        gateway.prepare()
        self._stop = asyncio.Event()
        self.running = asyncio.create_task(gateway.run(self._stop))

    async def stop(self) -> None:
        """Like its end; raises what ended it before."""
        self._stop.set()
        if self.running:
            await self.running

    async def until_ready(self) -> None:
        """Wait until the kubelet would call the pod ready."""

        async def ready() -> bool:
            if self.running and self.running.done():
                self.running.result()
            try:
                async with self.get("/readyz") as response:
                    return bool(response.status == 200)
            except aiohttp.ClientError:
                return False

        await until("the gateway to be ready", ready)

    def put_object(self, name: str, *, gateway: dict[str, Any] | None = None, desired: int = 1) -> str:
        """A ModelDeployment with one workload; returns the generation that its gateways are to do."""
        port = self.model_ports.setdefault(name, free_port("127.0.0.1"))
        generation = f"g{next(self._generations)}"
        status = {
            "desiredReplicas": desired,
            "gateway": {"port": port, "generation": generation},
            "traffic": [{"revision": "r1", "workload": f"{name}1", "weight": 100}],
        }
        metadata = {"namespace": NAMESPACE, "name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
        self.api.put("modeldeployments", {"metadata": metadata, "spec": {"gateway": gateway or {}}, "status": status})
        return generation

    def put_server(self, name: str) -> None:
        """The model server becomes ready for the object."""
        service = names.workload_service(name, f"{name}1")
        endpoint = {
            "addresses": [self.server.address],
            "conditions": {"ready": True},
            "targetRef": {"kind": "Pod", "name": f"{service}-x"},
        }
        self.api.put("endpointslices", workload_slice(name, service, [endpoint]))

    def list_gateway(self, name: str, addresses: list[str]) -> None:
        """The public slice of the object."""
        labels = names.object_labels(name) | {
            names.LABEL_SERVICE: name,
            names.LABEL_SLICE_MANAGED_BY: names.SLICE_MANAGED_BY,
        }
        metadata = {"namespace": NAMESPACE, "name": names.gateway_slice(name), "labels": labels}
        endpoints = [{"addresses": [address], "conditions": {"ready": True}} for address in addresses]
        self.api.put("endpointslices", {"metadata": metadata, "endpoints": endpoints})

    def delete_pod(self, *, deleting: bool) -> None:
        """The gateway's own pod, as the API server has it."""
        metadata: dict[str, Any] = {"namespace": self.settings.namespace, "name": POD}
        if deleting:
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        self.api.put("pods", {"metadata": metadata})

    async def until_done(self, name: str, generation: str) -> ObjectTraffic:
        """Wait until the gateway says that it does the generation."""

        async def done() -> ObjectTraffic | None:
            traffic = await self.traffic(name)
            return traffic if traffic and traffic.generation == generation else None

        return await until(f"generation {generation} of {name}", done)

    async def traffic(self, name: str) -> ObjectTraffic | None:
        """What the gateway reports of an object."""
        return (await self.report()).objects.get(f"{NAMESPACE}/{name}")

    async def report(self) -> GatewayReport:
        """What the operator would get."""
        async with self.get("/report") as response:
            return GatewayReport.model_validate_json(await response.text())

    def get(self, path: str) -> Any:
        """A request to the sidecar's own port."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return self.session.get(f"http://127.0.0.1:{self.settings.report_port}{path}", headers=headers)

    def url(self, name: str) -> str:
        """Where clients send inference."""
        scheme = "https" if self.settings.tls_folder else "http"
        return f"{scheme}://127.0.0.1:{self.model_ports[name]}/v2/models/{name}/infer"

    def channel(self, name: str) -> Any:
        """A gRPC channel that never tries again by itself."""
        options = [*_MESSAGE_BYTES, ("grpc.enable_retries", 0)]
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.model_ports[name]}", options=options)


def workload_slice(name: str, service: str, endpoints: list[dict[str, Any]]) -> dict[str, Any]:
    """An EndpointSlice as Kubernetes' controller makes it for a Service of ours."""
    labels = names.object_labels(name) | {
        names.LABEL_SERVICE: service,
        names.LABEL_SLICE_MANAGED_BY: SLICE_CONTROLLER,
    }
    owner = {"apiVersion": "v1", "kind": "Service", "name": service, "uid": "s-1", "controller": True}
    metadata = {"namespace": NAMESPACE, "name": f"{service}-abcde", "labels": labels, "ownerReferences": [owner]}
    return {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints}


@asynccontextmanager
async def running_sidecar(
    folder: Path, *, drain_seconds: float = 30, idle_seconds: float = 1, waits: bool = True, **settings_of: Any
) -> AsyncIterator[Sidecar]:
    """A gateway without any object; ready when the block begins, unless it `waits` for nothing.

    `settings_of` are further fields of its GatewaySettings.
    """
    async with AsyncExitStack() as stack:
        api = FakeApi()
        await api.start()
        stack.push_async_callback(api.stop)
        configuration = kubernetes_client.Configuration()
        configuration.host = api.url
        client = KubeClient(configuration)
        stack.push_async_callback(client.close)
        token = folder / "token"
        token.write_text(f"{TOKEN}\n")
        envoy = Envoy(folder, authorization=settings_of.get("authorization"))
        stack.callback(envoy.stop)
        settings = GatewaySettings(
            pod=POD,
            namespace="conch-system",
            address=OWN_ADDRESS,
            token_file=token,
            config_folder=folder,
            bind_address="127.0.0.1",
            report_port=free_port("127.0.0.1"),
            admin_port=envoy.admin_port,
            hold_port=envoy.hold_port,
            unlisted_seconds=10,
            drain_seconds=drain_seconds,
            idle_seconds=idle_seconds,
            **settings_of,
        )
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        sidecar = Sidecar(envoy, settings, api, session, client)
        await sidecar.server.start(stack)
        sidecar.start()
        stack.push_async_callback(sidecar.stop)
        envoy.start()
        if waits:
            await sidecar.until_ready()
        yield sidecar
