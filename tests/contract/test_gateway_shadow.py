"""Copies of requests through the real Envoy: they reach both revisions and no client, and tell the two apart."""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from conch.api import names
from conch.api.gateway_report import ObjectTraffic, ShadowTraffic
from conch.gateway import projections, shadow
from conch.gateway.envoy.shadow import COPIES_MOST
from tests.support.async_waiting import until
from tests.support.doubling_server import (
    DoublingServer,
    Values,
    binary_request,
    doubled,
    grpc_request,
    json_request,
)
from tests.support.gateway_sidecar import NAMESPACE, UNARY, Sidecar, running_sidecar, workload_slice

pytestmark = pytest.mark.contract

SHADOW: Final = {"percent": 100}


class Fleet:
    """A stable revision and a candidate, each with one server, behind one gateway."""

    def __init__(self, sidecar: Sidecar) -> None:
        self.sidecar = sidecar
        self.stable = DoublingServer("127.0.0.2", sidecar.ports)
        self.candidate = DoublingServer("127.0.0.3", sidecar.ports)

    async def start(self, stack: AsyncExitStack) -> None:
        for workload, server in (("m1", self.stable), ("m2", self.candidate)):
            await server.start(stack)
            service = names.workload_service("m", workload)
            target = {"kind": "Pod", "name": f"{service}-x"}
            endpoint = {"addresses": [server.address], "conditions": {"ready": True}, "targetRef": target}
            self.sidecar.api.put("endpointslices", workload_slice("m", service, [endpoint]))

    async def share(self, copies: dict[str, Any] | None, **gateway: Any) -> ObjectTraffic:
        """All traffic to the stable revision, and copies to the candidate."""
        self.sidecar.put_object("m", gateway=gateway)
        live = self.sidecar.api._objects["modeldeployments"][(NAMESPACE, "m")]
        live["status"]["traffic"].append(
            {"revision": "r2", "workload": "m2", "weight": 0, **({"shadow": copies} if copies else {})}
        )
        live["status"]["gateway"]["generation"] += "-shadow"
        self.sidecar.api.put("modeldeployments", live)
        return await self.sidecar.until_done("m", live["status"]["gateway"]["generation"])

    async def traffic(self) -> ObjectTraffic:
        traffic = await self.sidecar.traffic("m")
        assert traffic
        return traffic

    async def told(
        self, holds: Callable[[ShadowTraffic], bool], what: str = "the copies to be counted"
    ) -> ShadowTraffic:
        async def true() -> ShadowTraffic | None:
            told = (await self.traffic()).shadows.get("m2")
            return told if told and holds(told) else None

        return await until(what, true)

    async def post(self, x: Values, **parameters: Any) -> Any:
        async with self.sidecar.session.post(self.sidecar.url("m"), json=json_request(x, **parameters)) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def post_raw(self, headers: dict[str, str], body: bytes) -> int:
        """Status of the whole answer."""
        data = io.BytesIO(body)
        async with self.sidecar.session.post(self.sidecar.url("m"), data=data, headers=headers) as response:
            await response.read()
            return int(response.status)

    async def all_three(self, x: Values) -> None:
        """One request each: JSON, binary, gRPC."""
        assert (await self.post(x))["outputs"][0]["data"] == [float(each) for each in doubled(x)]
        headers, body = binary_request(x)
        async with self.sidecar.session.post(self.sidecar.url("m"), data=io.BytesIO(body), headers=headers) as response:
            assert (await response.read()).endswith(doubled(x).tobytes())
        async with self.sidecar.channel("m") as channel:
            assert doubled(x).tobytes() in await channel.unary_unary(UNARY)(grpc_request(x))


@asynccontextmanager
async def running_fleet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    """On addresses that no gateway in a cluster would send to."""
    monkeypatch.setattr(projections, "is_reachable", lambda _address: True)
    # What it may do per second is another test's.
    monkeypatch.setattr(shadow, "PAIRS_PER_SECOND", 1e6)
    monkeypatch.setattr(shadow, "BURST", 1e6)
    async with running_sidecar(folder) as sidecar, AsyncExitStack() as stack:
        fleet = Fleet(sidecar)
        await fleet.start(stack)
        yield fleet


def without_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """All copies are compared, however late."""
    for bound in ("PAIRS_MOST", "PAIRS_MOST_OF_ONE"):
        monkeypatch.setattr(shadow, bound, 1000)


async def test_a_candidate_that_agrees_gets_copies_and_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_bounds(monkeypatch)
    async with running_fleet(tmp_path, monkeypatch) as fleet:
        await fleet.share(SHADOW)
        for number in range(5):
            await fleet.all_three(np.arange(4, dtype=np.float32) + number)
        told = await fleet.told(lambda told: told.compared == 15)
        assert (told.disagreed, told.failed, told.skipped, told.dropped) == (0, 0, 0, 0)
        assert (sum(told.stable_latency), sum(told.candidate_latency)) == (15, 15)
        # The client's own and the copy's; the candidate has seen nothing but copies.
        assert (fleet.stable.requests, fleet.candidate.requests) == (30, 15)

        traffic = await fleet.traffic()
        assert (traffic.arrivals, traffic.held, traffic.workloads["m2"].arrivals) == (15, 0, 0)
        assert traffic.workloads["m1"].arrivals == 15
        copied = fleet.candidate.headers
        assert not any("authorization" in headers or "x-conch-route" in headers for headers in copied)

        # Without the shadow nothing more is copied, and nothing of it is told.
        await fleet.share(None)
        await fleet.all_three(np.arange(4, dtype=np.float32))
        await asyncio.sleep(0.5)
        assert fleet.candidate.requests == 15
        assert (await fleet.traffic()).shadows == {}


async def test_what_differs_is_found_and_told_without_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_bounds(monkeypatch)
    async with running_fleet(tmp_path, monkeypatch) as fleet:
        await fleet.share(SHADOW)
        # Wrong for every fourth input, beyond the tolerance; for the others within it.
        fleet.candidate.answer = lambda x: doubled(x) + np.float32(0.5 if x[0] % 4 == 0 else 1e-5)
        for number in range(8):
            await fleet.all_three(np.full(3, number, dtype=np.float32))
        told = await fleet.told(lambda told: told.compared == 24)
        assert (told.disagreed, told.failed) == (6, 0)
        assert told.example == "y: 3 of 3 values differ, by up to 0.5"

        # Errors of the candidate are no fault of the request; errors of both say nothing.
        fleet.candidate.status = 500
        await fleet.all_three(np.full(3, 1, dtype=np.float32))
        told = await fleet.told(lambda told: told.failed == 3)
        assert told.compared == 24
        fleet.stable.status = 500
        async with fleet.sidecar.session.post(
            fleet.sidecar.url("m"), json=json_request(np.ones(3, dtype=np.float32))
        ) as response:
            assert response.status == 500
        await fleet.told(lambda told: told.skipped == 1)
        fleet.candidate.status = fleet.stable.status = 200
        # Nor is what cannot be compared sent to anybody.
        seen = fleet.candidate.requests
        await fleet.post(np.ones(3, dtype=np.float32), sequence_id=7)
        async with fleet.sidecar.channel("m") as channel:
            await channel.unary_unary(UNARY)(grpc_request(np.ones(3, dtype=np.float32), sequence_id=7))
        large = np.ones(shadow.BODY_BYTES_MOST // 4, dtype=np.float32)
        headers, body = binary_request(large)
        async with fleet.sidecar.session.post(
            fleet.sidecar.url("m"), data=io.BytesIO(body), headers=headers
        ) as response:
            assert response.status == 200
        await fleet.told(lambda told: told.skipped == 4)
        assert fleet.candidate.requests == seen

        # Another way to compare begins anew.
        before = (await fleet.told(lambda _told: True)).epoch
        await fleet.share({**SHADOW, "absolute": 1.0})
        await fleet.all_three(np.full(3, 4, dtype=np.float32))
        told = await fleet.told(lambda told: told.compared == 3)
        assert told.epoch != before
        assert told.disagreed == 0


async def test_a_share_of_the_requests_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_fleet(tmp_path, monkeypatch) as fleet:
        await fleet.share({"percent": 20})
        for _ in range(400):
            await fleet.post(np.ones(2, dtype=np.float32))
        told = await fleet.told(lambda told: told.compared + told.dropped >= 40)
        assert 40 <= told.compared + told.dropped <= 130


async def test_a_candidate_that_hangs_touches_no_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "ANSWER_SECONDS_MOST", 1.0)
    async with running_fleet(tmp_path, monkeypatch) as fleet:
        await fleet.share(None)
        body = np.ones(50_000, dtype=np.float32)
        headers, content = binary_request(body)

        async def seconds_of(number: int) -> list[float]:
            async def one() -> float:
                started = time.monotonic()
                assert await fleet.post_raw(headers, content) == 200
                return time.monotonic() - started

            return sorted([await one() for _ in range(number)])

        alone = await seconds_of(100)
        await fleet.share(SHADOW)
        fleet.candidate.gate.clear()
        beside = await seconds_of(300)
        assert fleet.candidate.waiting <= shadow.PAIRS_MOST_OF_ONE
        told = await fleet.told(lambda told: told.failed > 0)
        assert told.dropped > 0
        assert told.compared == 0
        assert told.example == "no answer within 1 s"
        # The sidecar, the servers and the client share this process, so there is noise; who waits would wait a second.
        assert beside[150] < alone[50] + 0.5
        assert beside[-10] < 1
        # Nothing is left of it once it answers again.
        fleet.candidate.gate.set()
        await fleet.post(np.ones(2, dtype=np.float32))
        await fleet.told(lambda told: told.compared > 0)


async def test_a_sidecar_that_reads_no_copies_touches_no_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Envoy bounds what it keeps of copies: large bodies, and nobody who reads them."""

    async def never(_self: object, _key: object, _copy: object, _read: Callable[[], Awaitable[bytes | None]]) -> bool:
        await asyncio.Event().wait()
        return True

    monkeypatch.setattr(shadow.Shadow, "take", never)
    async with running_fleet(tmp_path, monkeypatch) as fleet:
        await fleet.share(SHADOW, timeoutSeconds=60)
        headers, content = binary_request(np.ones(500_000, dtype=np.float32))
        before = await allocated(fleet)
        for _ in range(3 * COPIES_MOST):
            assert await fleet.post_raw(headers, content) == 200
        stats = await fleet.sidecar.envoy.stats("cluster.shadow.upstream_rq")
        assert stats["cluster.shadow.upstream_rq_active"] <= COPIES_MOST
        assert stats["cluster.shadow.upstream_rq_pending_overflow"] > 0
        # Of 192 MB that were sent.
        assert await allocated(fleet) - before < 64e6
        assert fleet.stable.requests == 3 * COPIES_MOST


async def allocated(fleet: Fleet) -> int:
    """Bytes that Envoy has of the heap."""
    return int(json.loads(await fleet.sidecar.envoy.admin("/memory"))["allocated"])
