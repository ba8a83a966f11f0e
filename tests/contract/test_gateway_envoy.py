"""What is rendered, in a real Envoy on loopback, with real servers behind it and a stand-in for the hold."""

import asyncio
import io
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings

from conch.api.gateway import Gateway, Retries
from conch.gateway.envoy import cluster, naming
from conch.gateway.envoy.admin import EnvoyAdmin
from conch.gateway.envoy.cluster import ServerPorts
from conch.gateway.envoy.delivery import FileDelivery
from conch.gateway.envoy.files import ResourceFiles
from conch.gateway.envoy.hold_refusals import UNAVAILABLE_STATUS
from conch.gateway.envoy.listener import AccessLog, ListenerOptions
from conch.gateway.envoy.render import Renderer, RenderOptions, render
from conch.gateway.envoy.restricted_apis import REFUSAL, RESTRICTED_METHODS
from conch.gateway.routed import Endpoint, ObjectKey, RoutedObject, RoutedShare, Snapshot
from conch.gateway.sync import Synchroniser, SyncTimes
from tests.cluster.ports import free_port
from tests.support.async_waiting import until
from tests.support.envoy import MEMORY_BYTES, Envoy, running_envoy, validation_errors
from tests.support.snapshots import snapshots

KEY = ("team", "a")
DEPARTURE_SECONDS = 10
WORKERS = 2
_HEALTHY = "cluster.team/w1/http.membership_healthy"
UNARY = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


class Server:
    """A model server's two ports on an address of its own; says who it is and what it was asked."""

    def __init__(self, address: str, ports: ServerPorts) -> None:
        self.address = address
        self.requests: list[web.Request] = []
        self.gate = asyncio.Event()
        self.gate.set()
        """Closed, requests wait."""
        self.waiting = 0
        self.status = 200
        self.hangs = False
        """It takes every request, its life's included, and answers none."""
        self._ports = ports
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{path:.*}", self._http)
        runner = web.AppRunner(application, shutdown_timeout=0.1, max_field_size=100_000)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self.address, self._ports.http).start()
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Any(self),))
        server.add_insecure_port(f"{self.address}:{self._ports.grpc}")
        await server.start()
        self._stack.push_async_callback(server.stop, None)

    async def stop(self) -> None:
        self.gate.set()
        await self._stack.aclose()

    async def pass_gate(self) -> None:
        self.waiting += 1
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1

    async def _http(self, request: web.Request) -> web.StreamResponse:
        if self.hangs:
            await asyncio.Event().wait()
        if request.path == "/v2/health/live":
            return web.Response()
        self.requests.append(request)
        body = await request.read()
        await self.pass_gate()
        return web.json_response({"server": self.address, "bytes": len(body)}, status=self.status)


class _Any(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no annotations
    def __init__(self, server: Server) -> None:
        self._server = server

    def service(self, details: Any) -> Any:
        if details.method == STREAM:
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._unary)

    async def _unary(self, _request: bytes, _context: Any) -> bytes:
        await self._server.pass_gate()
        return self._server.address.encode()

    async def _stream(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        async for each in requests:
            await self._server.pass_gate()
            yield each


@dataclass
class Hold:
    """Stands in for the sidecar."""

    asked: list[dict[str, str]] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    answer: Callable[[web.Request], web.Response] = lambda _request: web.Response()

    async def check(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.headers) | {"path": request.path_qs})
        await self.release.wait()
        return self.answer(request)


class Stage:
    """An Envoy, what drives it, and servers."""

    def __init__(self, envoy: Envoy, session: aiohttp.ClientSession, hold: Hold) -> None:
        self.envoy, self.session, self.hold = envoy, session, hold
        self.ports = ServerPorts(http=free_port("127.0.0.1"), grpc=free_port("127.0.0.1"))
        self.admin = EnvoyAdmin(session, envoy.admin_port)
        self.listener = ListenerOptions(
            dynamic_folder=envoy.folder, bind_address="127.0.0.1", access_log=AccessLog.JSON
        )
        self.sync = self.new_sync("one")
        self.servers: dict[str, Server] = {}
        self.snapshot = Snapshot()

    def new_sync(self, run: str) -> Synchroniser:
        clock = asyncio.get_running_loop().time
        return Synchroniser(
            Renderer(RenderOptions(listener=self.listener, ports=self.ports)),
            FileDelivery(ResourceFiles(self.envoy.folder), self.admin, run=run, clock=clock),
            clock=clock,
            times=SyncTimes(
                settle_seconds=0.01, look_seconds=0.1, departure_seconds=DEPARTURE_SECONDS, retry_seconds=0.5
            ),
        )

    async def server(self, number: int) -> Server:
        server = Server(f"127.0.0.{number}", self.ports)
        await server.start()
        self.servers[server.address] = server
        return server

    async def put(
        self,
        name: str = "a",
        *,
        namespace: str = "team",
        port: int | None = None,
        gateway: Gateway | None = None,
        created: str = "2026",
        waits: bool = True,
        **shares: tuple[int, list[int]],
    ) -> int:
        """Want an object with shares (weight, its servers' numbers); returns its port once that is done."""
        key = (namespace, name)
        before = self.snapshot.objects.get(key)
        port = port or (before.port if before else free_port("127.0.0.1"))
        generation = f"g{len(str(self.snapshot))}-{asyncio.get_running_loop().time()}"
        object_ = RoutedObject(
            namespace=namespace,
            name=name,
            uid=f"{namespace}-{name}",
            created=created,
            port=port,
            generation=generation,
            gateway=gateway or Gateway(),
            shares=tuple(RoutedShare(workload=each, weight=weight) for each, (weight, _) in shares.items()),
            desired_replicas=1,
        )
        endpoints = {
            (namespace, each): frozenset(Endpoint(pod=f"p{n}", address=f"127.0.0.{n}") for n in numbers)
            for each, (_, numbers) in shares.items()
        }
        self.want(
            replace(
                self.snapshot,
                objects={**self.snapshot.objects, key: object_},
                endpoints={**self.snapshot.endpoints, **endpoints},
            )
        )
        if waits:
            await self.until_done(key)
        return port

    def want(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.sync.want(snapshot)

    async def until_done(self, key: ObjectKey = KEY) -> None:
        wanted = self.snapshot.objects[key].generation

        async def done() -> bool:
            return self.sync.state(key).generation == wanted

        await until(f"{key} to be done", done)

    async def ask(
        self, port: int, path: str = "/v2/models/m/infer", *, data: bytes = b"x", headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and body of one request."""
        url = f"http://127.0.0.1:{port}{path}"
        async with self.session.post(url, data=io.BytesIO(data), headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def spread(self, port: int, requests: int) -> Counter[str]:
        """Who answers so many requests; each must be answered well."""
        answers = [await self.ask(port) for _ in range(requests)]
        assert {status for status, _ in answers} == {200}
        return Counter(answer["server"] for _, answer in answers)

    async def until_answered_by(self, port: int, server: str, requests: int = 5) -> None:
        """Wait until it is; each of Envoy's workers may answer what it has just taken as before the change was done."""
        others = 0

        async def is_alone() -> bool:
            nonlocal others
            answers = await self.spread(port, requests)
            others += answers.total() - answers[server]
            assert others <= WORKERS, f"{others} requests went elsewhere after the change was acknowledged"
            return answers.total() == answers[server]

        await until(f"{server} to get every request", is_alone)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with running(tmp_path) as stage:
        yield stage


@asynccontextmanager
async def running(folder: Path, *, memory_bytes: int = MEMORY_BYTES) -> AsyncIterator[Stage]:
    hold = Hold()
    async with (
        running_envoy(folder, concurrency=2, memory_bytes=memory_bytes) as envoy,
        aiohttp.ClientSession() as session,
    ):
        application = web.Application()
        application.router.add_route("*", "/hold{path:.*}", hold.check)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", envoy.hold_port).start()
        stage = Stage(envoy, session, hold)
        task = asyncio.create_task(stage.sync.run())
        try:
            yield stage
        finally:
            task.cancel()
            await asyncio.wait({task})
            hold.release.set()
            for server in stage.servers.values():
                await server.stop()
            await runner.cleanup()
        if not task.cancelled():
            task.result()


async def until_true(what: str, look: Callable[[], bool]) -> None:
    async def ask() -> bool:
        return look()

    await until(what, ask)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(snapshots(hostile=False))
def test_envoy_takes_whatever_is_rendered(tmp_path: Path, snapshot: Snapshot) -> None:
    options = RenderOptions(listener=ListenerOptions(dynamic_folder=tmp_path, access_log=AccessLog.JSON))
    config = render(snapshot, options)
    routes = {
        "name": naming.ROUTE_CONFIGURATION,
        "vhost_header": naming.ROUTE_HEADER,
        "virtual_hosts": [json.loads(text)["virtual_hosts"][0] for text in config.routes.values()],
    }
    listeners = [json.loads(text) for text in config.listeners.values()]
    hold = {"name": naming.HOLD, "type": "STATIC", "load_assignment": {"cluster_name": naming.HOLD}}
    clusters = [hold, *(json.loads(text) for text in config.clusters.values())]
    for each in [*listeners, *clusters]:
        each.pop("@type", None)  # where a bootstrap has them, their types are known
    for each in listeners:
        manager = each["filter_chains"][0]["filters"][-1]["typed_config"]
        del manager["rds"]
        manager["route_config"] = routes
    assert validation_errors(tmp_path, {"listeners": listeners, "clusters": clusters}) == ""


async def test_requests_follow_the_weights_and_a_share_without_servers_gets_none(stage: Stage) -> None:
    await stage.server(11)
    await stage.server(12)
    port = await stage.put(w1=(90, [11]), w2=(10, []), waits=False)
    await until_true("servers", lambda: stage.sync.servers(KEY) == 1)
    await until_true("its route", lambda: "w2" in stage.sync.state(KEY).waits_for)
    await stage.until_answered_by(port, "127.0.0.11", 50)
    await stage.put(w1=(50, [11]), w2=(50, [12]))
    assert set(await stage.spread(port, 50)) == {"127.0.0.11", "127.0.0.12"}
    await stage.put(w1=(0, [11]), w2=(100, [12]))
    await stage.until_answered_by(port, "127.0.0.12", 20)


async def test_what_a_client_says_of_host_and_route_changes_nothing(stage: Stage) -> None:
    first, second = await stage.server(11), await stage.server(12)
    port = await stage.put(w1=(100, [11]))
    await stage.put(namespace="other", w2=(100, [12]))
    hostile = {
        "Host": "other.a",
        naming.ROUTE_HEADER: "other.a",
        naming.CLUSTER_HEADER: "other/w2/http",
        naming.CLIENT_HEADER: "admin",
        naming.AUTHORIZED_HEADER: "yes",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-envoy-decorator-operation": "x",
        "x-request-id": "mine",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    assert await stage.ask(port, headers=hostile) == (200, {"server": "127.0.0.11", "bytes": 1})
    assert second.requests == []
    seen = first.requests[0].headers
    assert (seen["x-request-id"], seen["traceparent"]) == ("mine", hostile["traceparent"])
    assert seen["Host"] == "other.a"
    ours = {name.lower() for name in seen if name.lower().startswith(("x-conch", "x-envoy"))}
    assert ours == {"x-envoy-external-address"}, "that is Envoy's word for who the client is"


async def test_two_objects_of_one_name_are_two(stage: Stage) -> None:
    await stage.server(11)
    await stage.server(12)
    port = await stage.put(w1=(100, [11]))
    other = await stage.put(namespace="other", w1=(100, [12]))
    await stage.until_answered_by(port, "127.0.0.11")
    await stage.until_answered_by(other, "127.0.0.12")


async def test_headers_beyond_the_limit_are_refused(stage: Stage) -> None:
    await stage.server(11)
    port = await stage.put(w1=(100, [11]))
    assert (await stage.ask(port, headers={"x-big": "x" * 30_000}))[0] == 200
    async with stage.session.post(
        f"http://127.0.0.1:{port}/", headers={f"x-big-{n}": "x" * 8_000 for n in range(9)}
    ) as response:
        assert response.status == 431


async def test_over_the_limit_in_flight_clients_are_told_to_come_back(stage: Stage) -> None:
    server = await stage.server(11)
    port = await stage.put(w1=(100, [11]), gateway=Gateway(max_in_flight=2, retries=Retries(attempts=0)))
    server.gate.clear()
    waiting = [asyncio.create_task(stage.ask(port)) for _ in range(2)]
    await until_true("both to run", lambda: server.waiting == 2)
    async with stage.session.post(f"http://127.0.0.1:{port}/v2/models/m/infer") as response:
        assert response.status == 429
        assert response.headers["retry-after"] == "1"
        assert "in flight" in (await response.json())["error"]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(UNARY)
        waiting_grpc = [asyncio.ensure_future(call(b"")) for _ in range(2)]
        await until_true("gRPC, which has a limit of its own", lambda: server.waiting == 4)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"")
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "in flight" in refused.value.details()
        server.gate.set()
        assert await asyncio.gather(*waiting_grpc) == [b"127.0.0.11"] * 2
    assert [status for status, _ in await asyncio.gather(*waiting)] == [200, 200]


async def test_streams_outlive_the_time_limit_that_ends_others(stage: Stage) -> None:
    server = await stage.server(11)
    port = await stage.put(w1=(100, [11]), gateway=Gateway(timeout_seconds=1, retries=Retries(attempts=0)))
    server.gate.clear()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        generate = asyncio.create_task(stage.ask(port, "/v2/models/m/versions/1/generate_stream"))
        stream = channel.stream_stream(STREAM)()
        await stream.write(b"hello")
        status, answer = await stage.ask(port)
        assert (status, "timeout" in answer["error"]) == (504, True)
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await channel.unary_unary(UNARY)(b"")
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert not generate.done()
        server.gate.set()
        assert (await generate)[0] == 200
        assert await stream.read() == b"hello"
        stream.cancel()


async def test_a_deadline_of_a_grpc_client_ends_the_request_at_the_server_too(stage: Stage) -> None:
    server = await stage.server(11)
    port = await stage.put(w1=(100, [11]))
    server.gate.clear()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await channel.unary_unary(UNARY)(b"", timeout=0.5)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until_true("the server to be let off", lambda: server.waiting == 0)


async def test_a_request_whose_server_is_gone_or_full_is_served_by_another(stage: Stage) -> None:
    await stage.server(11)
    full = await stage.server(12)
    full.status = 503
    port = await stage.put(w1=(100, [11, 12, 13]))

    async def left_out() -> bool:
        assert (await stage.ask(port))[1]["server"] == "127.0.0.11"
        return len(full.requests) >= 10

    await until("the full server to be left out", left_out)
    big = await asyncio.gather(*(stage.ask(port, data=b"x" * 3_000_000) for _ in range(10)))
    assert big == [(200, {"server": "127.0.0.11", "bytes": 3_000_000})] * 10


async def test_a_server_that_only_errs_is_left_out_for_a_while_and_comes_back(stage: Stage) -> None:
    await stage.server(11)
    bad = await stage.server(12)
    bad.status = 500
    port = await stage.put(w1=(100, [11, 12]))

    async def left_out() -> bool:
        # Of two idle servers the one is as good as the other: it must have had its chance.
        return {(await stage.ask(port))[0] for _ in range(10)} == {200} and len(bad.requests) >= 10

    await until("the bad server to be left out", left_out)
    assert len(bad.requests) < 40
    bad.status = 200

    async def back() -> bool:
        return bool((await stage.ask(port))[1]["server"] == bad.address)

    await until("it to come back", back)


async def test_calls_that_need_the_admin_key_reach_no_server_and_are_no_failures_of_one(stage: Stage) -> None:
    await stage.server(11)
    port = await stage.put(w1=(100, [11]))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for method in RESTRICTED_METHODS:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(b"")
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert refused.value.details() == REFUSAL
        await channel.unary_unary(UNARY)(b"")
    stats = await stage.admin.stats(r"upstream_rq_total$|^conch\.failed")
    assert stats["cluster.team/w1/grpc.upstream_rq_total"] == 1
    assert not [name for name, count in stats.items() if name.startswith("conch.failed") and count]


async def test_a_server_that_hangs_is_left_out_by_its_health_check_and_comes_back(stage: Stage) -> None:
    await stage.server(11)
    hanging = await stage.server(12)
    port = await stage.put(w1=(100, [11, 12]), gateway=Gateway(timeout_seconds=1))
    hanging.hangs = True

    async def healthy() -> int:
        # Envoy looks more often where requests come; those to the one that hangs are answered late and badly.
        await stage.ask(port)
        return int((await stage.envoy.stats(_HEALTHY))[_HEALTHY])

    async def left_out() -> bool:
        # Envoy's workers hear of it a moment after it is counted.
        good = [await stage.ask(port) for _ in range(20)] if await healthy() == 1 else []
        return {(status, answer.get("server")) for status, answer in good} == {(200, "127.0.0.11")}

    await until("it to be left out", left_out)
    hanging.hangs = False

    async def back() -> bool:
        return await healthy() == 2

    await until("it to come back", back)


async def test_a_slow_server_gets_no_more_while_others_are_idle(stage: Stage) -> None:
    await stage.server(11)
    slow = await stage.server(12)
    port = await stage.put(w1=(100, [11, 12]))
    slow.gate.clear()
    asked: list[asyncio.Task[tuple[int, Any]]] = []
    for _ in range(40):
        asked.append(asyncio.create_task(stage.ask(port)))
        await until_true("an answer", lambda: sum(each.done() for each in asked) + slow.waiting == len(asked))
    assert slow.waiting == 1
    slow.gate.set()
    assert {status for status, _ in await asyncio.gather(*asked)} == {200}


async def test_no_object_waits_for_anothers_server_that_hangs_at_its_first_health_check(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = cluster._health_check()
    monkeypatch.setattr(cluster, "_health_check", lambda: check | {"timeout": "60s"})
    await stage.server(11)
    hanging = await stage.server(12)
    hanging.hangs = True
    port = await stage.put(w1=(100, [11]))
    await stage.put(w1=(100, [11, 12]), waits=False)

    async def warms_up() -> bool:
        return "team/w1/http" in await stage.admin.warming_clusters()

    await until("the health check to begin", warms_up)
    warmed_up = asyncio.create_task(stage.until_done())
    other_done = asyncio.create_task(stage.put("b", w2=(100, [11])))
    await asyncio.wait({warmed_up, other_done}, return_when=asyncio.FIRST_COMPLETED)
    assert other_done.done(), "it did not wait for the one that warms up"
    other = await other_done
    for each in (other, port):
        await stage.until_answered_by(each, "127.0.0.11")
    # That ends its check.
    await hanging.stop()
    await warmed_up


async def test_an_envoy_that_runs_out_of_memory_refuses_requests_and_lives(tmp_path: Path) -> None:
    # Less than it has at its start.
    async with running(tmp_path, memory_bytes=4 << 20) as stage:
        await stage.server(11)
        port = await stage.put(w1=(100, [11]))

        async def refused() -> bool:
            try:
                async with stage.session.post(f"http://127.0.0.1:{port}/", data=b"x") as response:
                    return response.status == 503
            except aiohttp.ClientError:
                return False

        await until("a refusal", refused)
        assert await stage.admin.is_ready()


async def test_with_no_server_requests_are_held_and_go_where_the_permission_says(stage: Stage) -> None:
    port = await stage.put(w1=(100, []))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        held = [asyncio.create_task(stage.ask(port, data=b"y" * 2_000_000)) for _ in range(3)]
        held_grpc = asyncio.ensure_future(channel.unary_unary(UNARY)(b""))
        await until_true("all to be held", lambda: len(stage.hold.asked) == 4)
        assert {each[naming.ROUTE_HEADER] for each in stage.hold.asked} == {"team.a"}
        # The version they waited for never comes; the next one does.
        server = await stage.server(11)
        await stage.put(w2=(100, [11]))
        ((workload, _),) = stage.sync.serving(KEY)

        def permit(request: web.Request) -> web.Response:
            protocol = "grpc" if request.headers["content-type"].startswith("application/grpc") else "http"
            return web.Response(headers={naming.CLUSTER_HEADER: f"team/{workload}/{protocol}"})

        stage.hold.answer = permit
        stage.hold.release.set()
        assert await asyncio.gather(*held) == [(200, {"server": server.address, "bytes": 2_000_000})] * 3
        assert await held_grpc == b"127.0.0.11"
    asked = len(stage.hold.asked)
    assert (await stage.ask(port))[0] == 200
    assert len(stage.hold.asked) == asked, "nobody is asked while servers are ready"
    assert naming.CLUSTER_HEADER not in server.requests[0].headers


async def test_the_sidecars_word_that_nobody_will_come_is_503(stage: Stage) -> None:
    port = await stage.put(w1=(100, []))
    stage.hold.answer = lambda _request: web.Response(
        status=UNAVAILABLE_STATUS, headers={"retry-after": "3"}, text="scaled to zero"
    )
    stage.hold.release.set()
    async with stage.session.post(f"http://127.0.0.1:{port}/v2/models/m/infer", data=b"x") as response:
        assert (response.status, response.headers["retry-after"]) == (503, "3")
        assert await response.json() == {"error": "scaled to zero"}


async def test_a_sidecar_that_gives_no_answer_is_503_and_clients_are_told_to_come_back(stage: Stage) -> None:
    port = await stage.put(w1=(100, []))
    stage.hold.answer = lambda _request: web.Response(status=500)
    stage.hold.release.set()
    async with stage.session.post(f"http://127.0.0.1:{port}/v2/models/m/infer", data=b"x") as response:
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert "no server" in (await response.json())["error"]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(UNARY)(b"")
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "no server" in refused.value.details()


async def test_a_refusal_of_the_hold_reaches_http_and_grpc_clients_each_in_their_way(stage: Stage) -> None:
    port = await stage.put(w1=(100, []))

    def refuse(request: web.Request) -> web.Response:
        headers = {"retry-after": "7"}
        if request.headers["content-type"].startswith("application/grpc"):
            headers["grpc-status"] = "8"
        return web.Response(status=429, headers=headers, text='too many "held"')

    stage.hold.answer = refuse
    stage.hold.release.set()
    async with stage.session.post(f"http://127.0.0.1:{port}/v2/models/m/infer", data=b"x") as response:
        assert (response.status, response.headers["retry-after"]) == (429, "7")
        assert await response.json() == {"error": 'too many "held"'}
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(UNARY)(b"")
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.value.details() == 'too many "held"'


async def test_a_port_that_somebody_else_has_holds_only_its_object_back(stage: Stage) -> None:
    await stage.server(11)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        await stage.put("b", port=taken.getsockname()[1], w2=(100, [11]), waits=False)
        port = await stage.put(w1=(100, [11]))
        await stage.until_answered_by(port, "127.0.0.11", 3)
        await until_true("a word of it", lambda: stage.sync.state(("team", "b")).rejected)
        assert "Address already in use" in stage.sync.state(("team", "b")).waits_for
        await stage.put(w1=(50, [11]))
    await stage.until_done(("team", "b"))


async def test_a_cluster_that_envoy_refuses_holds_only_its_object_back(stage: Stage) -> None:
    await stage.server(11)
    port = await stage.put(w1=(100, [11]))
    broken = {("team", "w1"): frozenset({Endpoint(pod="p", address="no address")})}
    object_ = replace(stage.snapshot.objects[KEY], generation="broken")
    stage.snapshot = replace(stage.snapshot, objects={KEY: object_}, endpoints={**stage.snapshot.endpoints, **broken})
    await stage.put("b", w2=(100, [11]))
    assert stage.sync.state(KEY).rejected
    assert "team/w1/" in stage.sync.state(KEY).waits_for
    await stage.until_answered_by(port, "127.0.0.11")
    await stage.put(w1=(100, [11]))
    assert not stage.sync.state(KEY).rejected


async def raw_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """Head of the answer to one request on a connection that stays open."""
    writer.write(b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.split("content-length: ")[1].split("\r\n")[0])
    await reader.readexactly(length)
    return head


async def test_new_objects_disconnect_nobody_and_one_that_leaves_serves_its_open_connections(stage: Stage) -> None:
    await stage.server(11)
    port = await stage.put(w1=(100, [11]))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert "200 ok" in await raw_request(reader, writer)
    for number in range(3):
        await stage.put("a", namespace=f"other-{number}", w1=(100, [11]))
    await stage.put(w1=(100, [11]), gateway=Gateway(timeout_seconds=9))
    head = await raw_request(reader, writer)
    assert "200 ok" in head
    assert "connection: close" not in head
    objects = {key: each for key, each in stage.snapshot.objects.items() if key != KEY}
    stage.want(replace(stage.snapshot, objects=objects))

    async def refused() -> bool:
        try:
            _, other = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            return True
        other.close()
        return False

    await until("the listener to be gone", refused)
    head = await raw_request(reader, writer)
    assert "200 ok" in head
    assert "connection: close" in head
    writer.close()

    async def forgotten() -> bool:
        return "team/w1/http" not in await stage.admin.cluster_versions()

    await until("its clusters to be gone", forgotten)


async def test_a_port_may_go_from_one_object_to_the_next(stage: Stage) -> None:
    await stage.server(11)
    await stage.server(12)
    port = await stage.put(w1=(100, [11]))
    stage.snapshot = Snapshot()
    await stage.put("b", port=port, w2=(100, [12]))
    async with aiohttp.ClientSession() as session:
        stage.session = session
        await stage.until_answered_by(port, "127.0.0.12")


async def test_an_envoy_that_starts_anew_does_what_it_did_and_hears_of_changes(stage: Stage) -> None:
    await stage.server(11)
    await stage.server(12)
    port = await stage.put(w1=(100, [11]))
    stage.envoy.stop()
    changing = asyncio.create_task(stage.put(w1=(100, [12])))
    stage.envoy.start()
    await stage.envoy.until_ready()
    await changing
    await stage.until_answered_by(port, "127.0.0.12")


async def test_traffic_is_counted_by_workload_and_object_and_logged_without_secrets(stage: Stage) -> None:
    await stage.server(11)
    port = await stage.put(w1=(100, [11]))
    await stage.ask(port, "/v2/models/m/infer?token=secret-1", headers={"Authorization": "Bearer secret-2"})
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.unary_unary(UNARY)(b"")

    async def counted() -> bool:
        histograms = await stage.admin.histograms(r"^cluster\..*upstream_rq_time$")
        counts = {naming.parse_cluster_stat(name): sum(each.counts) for name, each in histograms.items()}
        return {parsed[0].protocol.value: n for parsed, n in counts.items() if parsed} == {"http": 1, "grpc": 1}

    await until("the histograms", counted)
    stats = await stage.admin.stats(r"upstream_rq_total$|^http\.team.*rq_total$")
    assert stats["cluster.team/w1/http.upstream_rq_total"] == 1
    assert stats["cluster.team/w1/grpc.upstream_rq_total"] == 1
    assert stats["http.team.a.downstream_rq_total"] == 2

    async def logged() -> dict[str, Any] | None:
        lines = [json.loads(line) for line in stage.envoy.log_text().splitlines() if line.startswith("{")]
        return next((line for line in lines if line["protocol"] == "HTTP/1.1"), None)

    line = await until("the log", logged)
    assert (line["route"], line["path"], line["status"]) == ("team.a", "/v2/models/m/infer", 200)
    assert "secret" not in stage.envoy.log_text()


async def test_a_gateway_that_leaves_says_so_and_serves_on(stage: Stage) -> None:
    await stage.server(11)
    port = await stage.put(w1=(100, [11]))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await raw_request(reader, writer)
    assert await stage.admin.is_ready()
    await stage.admin.fail_health_check()
    assert not await stage.admin.is_ready()
    head = await raw_request(reader, writer)
    assert "200 ok" in head
    assert "connection: close" in head
    writer.close()
