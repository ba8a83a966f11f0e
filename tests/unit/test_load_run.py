"""Loads against servers on loopback that answer, fail and hang as they are told."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.load import Load, Plan, Protocol, Result, Stream, Tensor
from tests.load.runner import NO_ANSWER, Run
from tests.stores import tls
from tests.stores.tls import Tls
from tests.support.waiting import until

INPUTS = (Tensor(name="x", datatype="FP32", shape=(1, 2), data=(0.5, 1)),)
GRPC = (Protocol.GRPC, Protocol.GRPC_STREAM)


@dataclass
class Planned:
    """A server for all protocols that does to its n-th request (from 0) what `fates` says, and answers the others."""

    fates: dict[int, str] = field(default_factory=dict)
    default: str = "answer"
    requests: int = 0
    seen: Counter[bytes] = field(default_factory=Counter)
    clients: Counter[str] = field(default_factory=Counter)
    """By what they call themselves, in the header `x-client`."""
    addresses: dict[Protocol, str] = field(default_factory=dict)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    def next_fate(self, content: bytes) -> str:
        self.seen[content] += 1
        self.requests += 1
        return self.fates.get(self.requests - 1, self.default)

    async def infer(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        self.clients[request.headers.get("x-client", "")] += 1
        match self.next_fate(content[int(request.headers["Inference-Header-Content-Length"]) :]):
            case "refuse":
                return web.Response(status=503, text="nobody is here")
            case "drop":
                assert request.transport is not None
                request.transport.abort()
            case "hang":
                await self.release.wait()
        return web.Response(body=b"an answer")

    async def generate(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self.clients[request.headers.get("x-client", "")] += 1
        fate = self.next_fate(await request.read())
        if fate != "nothing":
            await response.write(b'data: {"text_output": "a"}\n\n')
        if fate == "drop":
            assert request.transport is not None
            request.transport.abort()
        elif fate == "refuse":
            await response.write(b'data: {"error": "no more"}\n\n')
        await response.write_eof()
        return response


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # it has no types
    """The same over gRPC."""

    def __init__(self, planned: Planned) -> None:
        self._planned = planned

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """Unary."""
        self._count_client(context)
        match self._planned.next_fate(request.raw_input_contents[0]):
            case "refuse":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "nobody is here")
            case "hang":
                await self._planned.release.wait()
        return self._answer(request)

    async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        """One answer for each request."""
        async for request in requests:
            self._count_client(context)
            match self._planned.next_fate(request.raw_input_contents[0]):
                case "refuse":
                    yield service_pb2.ModelStreamInferResponse(error_message="nobody is here")
                    continue
                case "drop":
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the server goes")
                case "hang":
                    await self._planned.release.wait()
            yield service_pb2.ModelStreamInferResponse(infer_response=self._answer(request))

    def _count_client(self, context: Any) -> None:
        self._planned.clients[dict(context.invocation_metadata()).get("x-client", "")] += 1

    def _answer(self, request: Any) -> Any:
        output = service_pb2.ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=[1])
        return service_pb2.ModelInferResponse(id=request.id, outputs=[output], raw_output_contents=[b"0000"])


@asynccontextmanager
async def serving(*, tls: Tls | None = None, **plan: Any) -> AsyncIterator[Planned]:
    planned = Planned(**plan)
    application = web.Application()
    application.router.add_post("/v2/models/m/infer", planned.infer)
    application.router.add_post("/v2/models/m/generate_stream", planned.generate)
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(planned), server)
    if tls:
        pair = (tls.pair.key.read_bytes(), tls.pair.certificate.read_bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    http = TestServer(application, scheme="https" if tls else "http", host="127.0.0.1")
    await http.start_server(ssl=tls.server_context() if tls else None)
    async with http:
        planned.addresses = dict.fromkeys((Protocol.HTTP, Protocol.SSE), f"127.0.0.1:{http.port}")
        planned.addresses |= dict.fromkeys(GRPC, f"127.0.0.1:{port}")
        try:
            yield planned
        finally:
            planned.release.set()
            await server.stop(None)


def plan(server: Planned, *protocols: Protocol, count: int = 20, **changes: Any) -> Plan:
    """So many requests of each protocol, 200 a second, on one connection."""
    streams = [
        Stream(
            protocol=protocol,
            address=server.addresses[protocol],
            model="m",
            rate_per_second=200,
            inputs=() if protocol is Protocol.SSE else INPUTS,
            generate={"text_input": "a"} if protocol is Protocol.SSE else {},
            connections=1,
            requests_per_stream=8,
        )
        for protocol in protocols
    ]
    # A busy machine shall not fail tests of anything else.
    fields = {"duration_seconds": (count - 0.5) / 200, "timeout_seconds": 20, "lateness_bound_ms": 10_000}
    return Plan.model_validate({"streams": streams} | fields | changes)


async def run(plan: Plan) -> Result:
    return await Run(plan).run()


EVERY = pytest.mark.parametrize("protocol", list(Protocol))


@EVERY
async def test_every_request_is_sent_once_and_answered(protocol: Protocol) -> None:
    async with serving() as server:
        result = await run(plan(server, protocol))
    assert (result.planned, result.scheduled, result.sent, result.answered) == (20, 20, 20, 20)
    assert (result.failed, server.requests, len(server.seen)) == (0, 20, 1), "the same message each time"
    assert result.on_schedule
    assert not result.stopped_early


@EVERY
async def test_headers_go_with_every_request(protocol: Protocol) -> None:
    async with serving() as server:
        whole = plan(server, protocol)
        named = whole.streams[0].model_copy(update={"headers": {"x-client": "web"}})
        await run(whole.model_copy(update={"streams": (named,)}))
    assert server.clients == {"web": 20}


@EVERY
async def test_over_tls_the_server_must_be_the_one_that_is_named(protocol: Protocol, tmp_path: Path) -> None:
    certificate = tls.issue(tmp_path / "pki", "m.team.svc")
    authority = tmp_path / "ca.crt"
    authority.write_text(certificate.ca_certificate)
    async with serving(tls=certificate) as server:
        whole = plan(server, protocol)
        for name, answered in (("m.team.svc", 20), ("other.team.svc", 0)):
            secure = {"ca_file": str(authority), "server_name": name}
            streams = (whole.streams[0].model_copy(update=secure),)
            assert (await run(whole.model_copy(update={"streams": streams}))).answered == answered


@EVERY
async def test_lost_requests_are_counted_and_not_repeated(protocol: Protocol) -> None:
    kinds = {
        Protocol.HTTP: "HTTP 503",
        Protocol.SSE: "SSE error",
        Protocol.GRPC: "UNAVAILABLE",
        Protocol.GRPC_STREAM: "stream error",
    }
    async with serving(fates={3: "refuse", 11: "refuse"}) as server:
        result = await run(plan(server, protocol))
    assert (result.scheduled, result.answered, server.requests) == (20, 18, 20)
    assert result.failed_by_kind == {kinds[protocol]: 2}
    assert {failure.words for failure in result.first_failures} <= {"nobody is here", "no more"}
    assert {failure.protocol for failure in result.first_failures} == {protocol}


@pytest.mark.parametrize("protocol", [Protocol.HTTP, Protocol.SSE])
async def test_a_dropped_connection_is_a_failure_that_names_its_connection(protocol: Protocol) -> None:
    async with serving(fates={1: "drop"}) as server:
        # Slow enough that one connection does.
        whole = plan(server, protocol)
        slow = whole.streams[0].model_copy(update={"rate_per_second": 1})
        result = await run(whole.model_copy(update={"streams": (slow,), "duration_seconds": 1.5}))
    (failure,) = result.first_failures
    assert (result.answered, result.failed, server.requests) == (1, 1, 2)
    assert failure.kind in ("ServerDisconnectedError", "ClientPayloadError", "ClientOSError")
    assert failure.reused_connection


async def test_a_broken_stream_fails_what_was_on_it_and_a_new_one_follows() -> None:
    async with serving(fates={2: "drop"}) as server:
        result = await run(plan(server, Protocol.GRPC_STREAM))
    assert result.answered + result.failed == 20
    assert result.failed >= 1
    assert result.answered >= 10, "the streams after it"
    assert set(result.failed_by_kind) == {"UNAVAILABLE"}
    assert "the server goes" in result.summary()


@pytest.mark.parametrize("protocol", [Protocol.HTTP, *GRPC])
async def test_a_server_that_hangs_does_not_hold_the_schedule_up(protocol: Protocol) -> None:
    async with serving(default="hang") as server:
        running = Run(plan(server, protocol))
        task = asyncio.create_task(running.run())
        await _until(lambda: running.recorder.scheduled == 20)
        assert (running.recorder.answered, running.recorder.in_flight) == (0, 20)
        server.release.set()
        result = await task
    assert (result.sent, result.answered) == (20, 20)


@pytest.mark.parametrize("protocol", [Protocol.HTTP, *GRPC])
async def test_what_is_not_answered_in_time_has_failed(protocol: Protocol) -> None:
    async with serving(default="hang") as server:
        result = await run(plan(server, protocol, count=5, timeout_seconds=0.3))
    assert (result.scheduled, result.failed_by_kind) == (5, {NO_ANSWER: 5})


async def test_beyond_the_bound_nothing_is_sent_any_more_and_that_is_said() -> None:
    async with serving(default="hang") as server:
        running = Run(plan(server, Protocol.HTTP, in_flight_most=4))
        task = asyncio.create_task(running.run())
        await _until(lambda: running.recorder.scheduled == 20)
        server.release.set()
        result = await task
    assert (result.scheduled, result.sent, result.answered, result.failed, result.on_schedule) == (20, 4, 4, 16, False)


@pytest.mark.parametrize("protocol", [Protocol.HTTP, *GRPC])
async def test_nobody_at_the_address_is_a_failure_of_each_request(protocol: Protocol) -> None:
    async with serving() as server:
        server.addresses = dict.fromkeys(Protocol, "127.0.0.1:1")
        result = await run(plan(server, protocol, count=4))
    assert (result.scheduled, result.failed) == (4, 4)
    assert set(result.failed_by_kind) <= {"ClientConnectorError", "UNAVAILABLE"}


async def test_all_protocols_go_at_the_same_time() -> None:
    async with serving() as server:
        result = await run(plan(server, *Protocol))
    assert [(group.protocol, group.answered) for group in result.groups] == [
        (protocol, 20) for protocol in sorted(Protocol)
    ]


async def test_a_stopped_load_accounts_for_what_it_had_sent() -> None:
    async with serving() as server:
        running = Run(plan(server, Protocol.HTTP, duration_seconds=600))
        task = asyncio.create_task(running.run())
        await _until(lambda: running.recorder.answered >= 5)
        running.stopped.set()
        result = await task
    assert (result.planned, result.stopped_early, result.failed) == (120_000, True, 0)
    assert result.scheduled == result.answered == server.requests < 120_000


async def test_a_process_of_its_own_is_told_phases_and_stopped(tmp_path: Path) -> None:
    async with serving() as server:
        whole = plan(server, Protocol.HTTP, Protocol.GRPC, duration_seconds=600)
        result = await asyncio.to_thread(_marked_and_stopped, whole, tmp_path)
    assert result.stopped_early
    assert result.failed == 0
    assert result.answered == result.scheduled == server.requests
    assert [group.phase for group in result.groups if group.protocol == "http"] == ["", "scaled up"]


def _marked_and_stopped(whole: Plan, folder: Path) -> Result:
    def answered_beyond(count: int) -> Callable[[], bool]:
        return lambda: load.progress()["answered"] > count

    with Load(whole, folder) as load:
        until(answered_beyond(0), "answers")
        assert os.sched_getscheduler(load.pid) == _first_that_may_be_had()
        load.mark("scaled up")
        with pytest.raises(ValueError, match="there is a phase 'scaled up' already"):
            load.mark("scaled up")
        until(answered_beyond(load.progress()["answered"]), "answers in the next phase")
        return load.stop()


def _first_that_may_be_had() -> int:
    """What a process that wants to go before all others gets here."""
    ask = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))"
    allowed = subprocess.run([sys.executable, "-c", ask], capture_output=True, check=False).returncode == 0
    return os.SCHED_RR if allowed else os.SCHED_OTHER


async def test_a_process_that_cannot_run_its_plan_says_why(tmp_path: Path) -> None:
    async with serving() as server:
        too_many = plan(server, Protocol.HTTP, requests_most=1)
        with pytest.raises(AssertionError, match="more than its own bound of 1"):
            await asyncio.to_thread(_begin, too_many, tmp_path)


def _begin(whole: Plan, folder: Path) -> None:
    with Load(whole, folder):
        raise AssertionError("it runs")


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - what it looks at has no event
            await asyncio.sleep(0.01)
