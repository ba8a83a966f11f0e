"""Requests that are held, with a real Envoy: they wait, go on, and are refused."""

import asyncio
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest

from conch.gateway import hold
from tests.support.async_waiting import until
from tests.support.gateway_sidecar import UNARY, Sidecar, first_wake, running_sidecar

pytestmark = pytest.mark.contract

LARGE = b"x" * 2_000_000


async def _http(sidecar: Sidecar, name: str, body: bytes = b"x") -> tuple[int, str, dict[str, str]]:
    async with sidecar.session.post(sidecar.url(name), data=io.BytesIO(body)) as response:
        return response.status, await response.text(), {key.lower(): value for key, value in response.headers.items()}


async def _until_held(sidecar: Sidecar, name: str, number: int) -> None:
    async def held() -> bool:
        traffic = await sidecar.traffic(name)
        return traffic is not None and traffic.held == number

    await until(f"{number} held requests", held)


async def test_what_is_held_is_answered_once_there_is_a_server_and_what_is_beyond_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An Envoy that is paused counts what was let go only afterwards; the server takes longer than that.
    monkeypatch.setattr(hold, "UNSEEN_SECONDS", 0.5)
    async with running_sidecar(tmp_path) as sidecar:
        await sidecar.until_done("m", sidecar.put_object("m", gateway={"hold": {"seconds": 60, "maxRequests": 150}}))
        async with sidecar.channel("m") as channel:
            call = channel.unary_unary(UNARY)
            bodies = [LARGE if number % 10 == 0 else b"x" * number for number in range(75)]
            https = [asyncio.create_task(_http(sidecar, "m", body)) for body in bodies]
            grpcs = [asyncio.ensure_future(call(body, timeout=60)) for body in bodies]
            await _until_held(sidecar, "m", 150)

            for status, text, headers in [await _http(sidecar, "m") for _ in range(10)]:
                assert status == 429
                assert text.startswith('{"error":"no server of this model is ready yet'), text
                assert int(headers["retry-after"]) > 0
            for _ in range(10):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call(b"x", timeout=60)
                assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert (
                    refused.value.details() == "no server of this model is ready yet, and as many requests wait as may"
                )

            sidecar.server.seconds = 0.7
            sidecar.put_server("m")
            assert [(status, text) for status, text, _ in await asyncio.gather(*https)] == [
                (200, str(len(body))) for body in bodies
            ]
            assert [answer.decode() for answer in await asyncio.gather(*grpcs)] == [str(len(body)) for body in bodies]

        # The report tells it too.
        traffic = await sidecar.traffic("m")
        assert traffic is not None
        assert (traffic.held, traffic.refused) == (0, 20)
        assert 1 < sidecar.server.most <= 32


async def test_at_the_deadline_clients_are_told_to_come_back(tmp_path: Path) -> None:
    async with running_sidecar(tmp_path) as sidecar:
        await sidecar.until_done("m", sidecar.put_object("m", gateway={"hold": {"seconds": 1}}))
        async with sidecar.channel("m") as channel:
            over_grpc = asyncio.ensure_future(channel.unary_unary(UNARY)(b"x", timeout=60))
            status, text, headers = await _http(sidecar, "m")
            assert (status, json.loads(text)) == (503, {"error": "no server of this model was ready within 1 s"})
            assert headers["content-type"] == "application/json"
            assert int(headers["retry-after"]) > 0
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await over_grpc
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert refused.value.details() == "no server of this model was ready within 1 s"
        metadata = [*(refused.value.initial_metadata() or ()), *(refused.value.trailing_metadata() or ())]
        assert int(dict(metadata)["retry-after"]) > 0

        # A refusal is no failure of a server.
        traffic = await sidecar.traffic("m")
        assert traffic is not None
        assert (traffic.arrivals, traffic.refused) == (2, 2)
        assert (traffic.workloads["m1"].arrivals, traffic.workloads["m1"].failures) == (0, {})


async def test_nothing_is_held_where_nobody_will_come(tmp_path: Path) -> None:
    async with running_sidecar(tmp_path) as sidecar:
        await sidecar.until_done("suspended", sidecar.put_object("suspended", desired=0))
        await sidecar.until_done("never", sidecar.put_object("never", gateway={"hold": {"seconds": 0}}))
        answers: Counter[Any] = Counter()
        for name in ("suspended", "never"):
            status, text, headers = await _http(sidecar, name)
            answers[name, status, "retry-after" in headers] += 1
            assert ("no replicas" in text) is (name == "suspended"), text
        assert answers == {("suspended", 503, True): 1, ("never", 503, True): 1}


async def test_a_client_that_goes_away_frees_its_place_and_the_object_wakes(tmp_path: Path) -> None:
    async with running_sidecar(tmp_path) as sidecar:
        await sidecar.until_done("m", sidecar.put_object("m", gateway={"hold": {"seconds": 60, "maxRequests": 1}}))
        async with sidecar.get("/wakes") as wakes:
            impatient = asyncio.create_task(_http(sidecar, "m"))
            assert await first_wake(wakes) == {"object": "team/m", "held": 1}
            assert (await _http(sidecar, "m"))[0] == 429
            impatient.cancel()
            await _until_held(sidecar, "m", 0)
            patient = asyncio.create_task(_http(sidecar, "m"))
            await _until_held(sidecar, "m", 1)
            sidecar.put_server("m")
            assert (await patient)[0] == 200
