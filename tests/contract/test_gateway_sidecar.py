"""The whole gateway against a small API server: it serves what appears, tells the truth, and leaves without a loss."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from conch.api.gateway_report import FailureClass, ObjectTraffic
from tests.support.async_waiting import until
from tests.support.gateway_sidecar import OWN_ADDRESS, UNARY, Sidecar, running_sidecar

pytestmark = pytest.mark.contract


async def _until(sidecar: Sidecar, name: str, what: str, holds: Any) -> ObjectTraffic:
    async def true() -> ObjectTraffic | None:
        traffic = await sidecar.traffic(name)
        return traffic if traffic and holds(traffic) else None

    return await until(what, true)


async def _status(sidecar: Sidecar, path: str) -> int:
    async with sidecar.get(path) as response:
        await response.read()
        return int(response.status)


async def test_an_object_that_appears_is_served_and_its_traffic_told(tmp_path: Path) -> None:
    async with running_sidecar(tmp_path) as sidecar:
        sidecar.put_server("m")
        traffic = await sidecar.until_done("m", sidecar.put_object("m"))
        assert (traffic.endpoints, traffic.waits_for, traffic.arrivals) == (1, "", 0)

        async with sidecar.channel("m") as channel:
            for _ in range(3):
                assert await channel.unary_unary(UNARY)(b"1234") == b"4"
                async with sidecar.session.post(sidecar.url("m"), data=b"12") as response:
                    assert await response.read() == b"2"
            sidecar.server.status = 500
            async with sidecar.session.post(sidecar.url("m"), data=b"12") as response:
                assert response.status == 500
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(UNARY)(b"1234")
            sidecar.server.status = 200

        def is_counted(traffic: ObjectTraffic) -> bool:
            return traffic.arrivals == 8 and sum(traffic.workloads["m1"].latency) == 8

        # Envoy brings its histograms up to date once a second.
        workload = (await _until(sidecar, "m", "what was sent", is_counted)).workloads["m1"]
        assert (workload.arrivals, workload.in_flight) == (8, 0)
        assert workload.failures == {FailureClass.SERVER: 2}

        sidecar.server.gate.clear()
        request = asyncio.create_task(sidecar.session.post(sidecar.url("m"), data=b"12"))
        await _until(
            sidecar, "m", "a request in flight", lambda now: now.in_flight == now.workloads["m1"].in_flight == 1
        )
        sidecar.server.gate.set()
        (await request).release()

        async with sidecar.get("/metrics") as response:
            text = await response.text()
        assert (
            'conch_gateway_workload_failures_total{class="server",name="m",namespace="team",workload="m1"} 2.0' in text
        )

        sidecar.api.delete("modeldeployments", "team", "m")

        async def gone() -> bool:
            return await sidecar.traffic("m") is None

        await until("the object to go", gone)

        async def forgotten() -> bool:
            async with sidecar.get("/metrics") as response:
                return 'name="m"' not in await response.text()

        await until("the metrics to forget it", forgotten)


async def test_failures_that_no_server_answered_are_told_by_their_cause(tmp_path: Path) -> None:
    async with running_sidecar(tmp_path) as sidecar:
        sidecar.put_server("m")
        await sidecar.until_done("m", sidecar.put_object("m", gateway={"timeoutSeconds": 1}))
        sidecar.server.seconds = 30
        async with sidecar.session.post(sidecar.url("m"), data=b"12") as response:
            assert response.status == 504
        traffic = await _until(sidecar, "m", "the time-out", lambda now: now.workloads["m1"].failures)
        assert traffic.workloads["m1"].failures == {FailureClass.TIMEOUT: 1}
        assert traffic.workloads["m1"].arrivals == 1


async def test_leaving_is_for_pods_that_are_deleted_and_loses_no_request_of_busy_clients(tmp_path: Path) -> None:
    async with running_sidecar(tmp_path) as sidecar:
        sidecar.put_server("m")
        sidecar.list_gateway("m", [OWN_ADDRESS, "10.9.8.6"])
        await sidecar.until_done("m", sidecar.put_object("m"))
        sidecar.delete_pod(deleting=False)
        assert await _status(sidecar, "/leave") == 409
        assert await _status(sidecar, "/readyz") == 200

        sidecar.server.seconds = 0.005
        left = asyncio.Event()
        answers: list[int | str] = []

        async def client() -> None:
            """One connection that is kept, as long as the gateway is where clients are sent."""
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
                while not left.is_set():
                    try:
                        async with session.post(sidecar.url("m"), data=b"12") as response:
                            await response.read()
                            answers.append(response.status)
                    except aiohttp.ClientError as error:
                        answers.append(repr(error))

        async def grpc_client() -> None:
            async with sidecar.channel("m") as channel:
                while not left.is_set():
                    answers.append(200 if await channel.unary_unary(UNARY)(b"12") == b"2" else "wrong")

        clients = [asyncio.create_task(each()) for each in (client, client, client, grpc_client)]

        async def working() -> bool:
            return len(answers) > 50

        await until("clients to work", working)
        sidecar.delete_pod(deleting=True)
        leaving = asyncio.create_task(_status(sidecar, "/leave"))
        again = asyncio.create_task(_status(sidecar, "/leave"))

        async def is_leaving() -> bool:
            return (await sidecar.report()).leaving

        await until("the gateway to say that it leaves", is_leaving)
        assert await _status(sidecar, "/readyz") == 503
        # Clients that use it keep it, as long as it is listed.
        assert not leaving.done()
        sidecar.list_gateway("m", ["10.9.8.6"])

        async def is_draining() -> bool:
            return "DRAINING" in await sidecar.envoy.admin("/ready")

        await until("Envoy to end connections", is_draining)
        before = len(answers)

        async def goes_on() -> bool:
            return len(answers) > before + 20

        await until("late clients to be served", goes_on)
        left.set()
        await asyncio.gather(*clients)
        assert await leaving == await again == 200
        sidecar.envoy.stop()
        assert set(answers) == {200}


async def test_without_the_api_server_requests_go_on_and_what_it_says_later_is_done(tmp_path: Path) -> None:
    async with running_sidecar(tmp_path) as sidecar:
        sidecar.put_server("m")
        await sidecar.until_done("m", sidecar.put_object("m"))
        await sidecar.api.stop()
        for _ in range(20):
            async with sidecar.session.post(sidecar.url("m"), data=b"12") as response:
                assert await response.read() == b"2"
        assert await _status(sidecar, "/readyz") == 200
        generation = sidecar.put_object("m", gateway={"timeoutSeconds": 9})
        await sidecar.api.start()
        await sidecar.until_done("m", generation)


async def test_a_sidecar_that_restarts_loses_neither_what_flows_nor_what_it_held(tmp_path: Path) -> None:
    async with running_sidecar(tmp_path) as sidecar:
        sidecar.put_server("busy")
        await sidecar.until_done("busy", sidecar.put_object("busy"))
        generation = sidecar.put_object("cold", gateway={"hold": {"seconds": 60}})
        await sidecar.until_done("cold", generation)
        answers: list[int] = []
        is_over = asyncio.Event()

        async def post(name: str) -> int:
            async with sidecar.session.post(sidecar.url(name), data=b"12") as response:
                await response.read()
                return int(response.status)

        async def client() -> None:
            while not is_over.is_set():
                answers.append(await post("busy"))

        flowing = asyncio.create_task(client())
        held = [asyncio.create_task(post("cold")) for _ in range(20)]
        await _until(sidecar, "cold", "requests to be held", lambda now: now.held == 20)

        await sidecar.stop()
        before = len(answers)

        async def goes_on() -> bool:
            return len(answers) > before + 20

        await until("requests to flow without a sidecar", goes_on)
        # Whoever comes while nobody is there to hold it waits as well.
        held.append(asyncio.create_task(post("cold")))
        sidecar.start()
        await sidecar.until_ready()
        await _until(sidecar, "cold", "all to be held again", lambda now: now.held == 21)
        sidecar.put_server("cold")
        assert await asyncio.gather(*held) == [200] * 21
        is_over.set()
        await flowing
        assert set(answers) == {200}
