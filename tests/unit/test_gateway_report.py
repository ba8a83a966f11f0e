"""The sidecar's own port: who may ask what, and what is answered."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest
from aiohttp.test_utils import TestClient, TestServer

from conch.api.gateway_report import COUNTED_AT_HEADER, GatewayReport, Wake
from conch.gateway.envoy.admin import EnvoyAwayError
from conch.gateway.leaving import Leaving, LeavingTimes
from conch.gateway.report_server import METRICS_SECONDS, Told, make_application
from conch.gateway.settings import GatewaySettings
from conch.gateway.wakes import Wakes

AUTHORIZATION = {"Authorization": "Bearer secret"}


class World:
    """What the port tells."""

    def __init__(self, folder: Path) -> None:
        self.token = folder / "token"
        self.token.write_text("secret\n")
        self.is_envoy_there = True
        self.problem = ""
        self.is_pod_deleted = False
        self.ended = 0
        self.reports = 0
        self.now = 0.0
        self.held_now: dict[tuple[str, str], int] = {}
        self.wakes = Wakes(self.held, clock=monotonic)

    def held(self) -> Mapping[tuple[str, str], int]:
        return self.held_now

    async def report(self) -> GatewayReport:
        if not self.is_envoy_there:
            raise EnvoyAwayError("it starts")
        self.reports += 1
        return GatewayReport(gateway="g-1", epoch="1", version="1", counted_at_seconds=17.25)

    async def not_ready(self) -> str:
        return self.problem

    async def is_deleted(self) -> bool:
        return self.is_pod_deleted

    async def stats(self, _pattern: str) -> dict[str, int | str]:
        return {}

    async def fail_health_check(self) -> None:
        self.ended += 1

    @asynccontextmanager
    async def client(self) -> AsyncIterator[TestClient]:  # type: ignore[type-arg]  # of any request and application
        leaving = Leaving(
            self,
            is_deleted=self.is_deleted,
            listed=lambda: 0,
            times=LeavingTimes(unlisted_seconds=1, drain_seconds=5, idle_seconds=0),
            clock=monotonic,
        )
        told = Told(
            token_file=self.token,
            report=self.report,
            not_ready=self.not_ready,
            wakes=self.wakes,
            leaving=leaving,
            clock=lambda: self.now,
        )
        server = TestServer(make_application(told))
        async with TestClient(server) as client:
            yield client


@pytest.mark.parametrize("path", ["/report", "/wakes"])
@pytest.mark.parametrize(
    "header", [None, "", "Bearer ", "Bearer wrong", "secret", "bearer secret", "Bearer secret\u00e4"]
)
async def test_what_is_for_the_operator_needs_exactly_the_token(tmp_path: Path, path: str, header: str | None) -> None:
    async with World(tmp_path).client() as client:
        response = await client.get(path, headers={} if header is None else {"Authorization": header})
        assert response.status == 401
        assert "token" in await response.text()


async def test_the_token_is_the_one_that_the_file_holds_now(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.client() as client:
        answer = await client.get("/report", headers=AUTHORIZATION)
        assert (answer.status, answer.headers[COUNTED_AT_HEADER]) == (200, "17.25")
        assert "17.25" not in await answer.text(), "a gateway without traffic says the same again"
        world.token.write_text("another")
        assert (await client.get("/report", headers=AUTHORIZATION)).status == 401
        assert (await client.get("/report", headers={"Authorization": "Bearer another"})).status == 200
        for content in ("", "\n"):
            world.token.write_text(content)
            assert (await client.get("/report", headers={"Authorization": "Bearer "})).status == 401
        world.token.unlink()
        assert (await client.get("/report", headers={"Authorization": "Bearer another"})).status == 401


async def test_a_report_is_what_the_operator_reads(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.client() as client:
        response = await client.get("/report", headers=AUTHORIZATION)
        told = GatewayReport.model_validate_json(await response.text())
        assert told.model_copy(update={"counted_at_seconds": 17.25}) == await world.report()
        world.is_envoy_there = False
        assert (await client.get("/report", headers=AUTHORIZATION)).status == 503
        assert (await client.get("/metrics")).status == 200


async def test_a_flood_of_questions_for_metrics_costs_one_report_a_second(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.client() as client:
        answers = await asyncio.gather(*(client.get("/metrics") for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        assert world.reports == 1
        world.now += METRICS_SECONDS
        await client.get("/metrics")
        assert world.reports == 2


async def test_every_reader_of_wakes_is_told_of_all_that_is_held(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.held_now = {("ns", "a"): 3}
    async with world.client() as client:
        readers = [await client.get("/wakes", headers=AUTHORIZATION) for _ in range(2)]
        for reader in readers:
            assert Wake.model_validate_json(await reader.content.readline()) == Wake(object="ns/a", held=3)
        readers[0].close()
        world.held_now[("ns", "b")] = 1
        world.wakes.changed()
        assert Wake.model_validate_json(await readers[1].content.readline()) == Wake(object="ns/b", held=1)
        readers[1].close()


async def test_it_is_ready_unless_something_is_in_the_way_and_says_what(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.client() as client:
        assert (await client.get("/readyz")).status == 200
        world.problem = "Envoy is not live"
        response = await client.get("/readyz")
        assert (response.status, await response.text()) == (503, "Envoy is not live\n")
        assert (await client.get("/healthz")).status == 200


async def test_a_stranger_cannot_make_it_leave(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.client() as client:
        response = await client.get("/leave")
        assert (response.status, world.ended) == (409, 0)
        world.is_pod_deleted = True
        answers = await asyncio.gather(client.get("/leave"), client.get("/leave"))
        assert [answer.status for answer in answers] == [200, 200]
        assert world.ended == 1


def test_settings_come_from_the_pod() -> None:
    env = {"CONCH_POD_NAME": "g-1", "CONCH_POD_IP": "10.0.0.1", "CONCH_NAMESPACE": "conch-system"}
    settings = GatewaySettings.from_env(env)
    assert (settings.pod, settings.address, settings.namespace) == ("g-1", "10.0.0.1", "conch-system")
    assert settings == GatewaySettings(pod="g-1", address="10.0.0.1", namespace="conch-system")
    changed = GatewaySettings.from_env(env | {"CONCH_GATEWAY_DRAIN_SECONDS": "9", "CONCH_GATEWAY_ACCESS_LOG": "true"})
    assert (changed.drain_seconds, changed.access_log) == (9, True)
    assert settings.envoy_memory_bytes is None
    limited = GatewaySettings.from_env(env | {"CONCH_GATEWAY_ENVOY_HEAP_BYTES": "1073741824"})
    assert limited.envoy_memory_bytes == 1 << 30


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"CONCH_POD_IP": "10.0.0.1"}, "CONCH_POD_NAME, CONCH_NAMESPACE"),
        (
            {"CONCH_POD_NAME": "g", "CONCH_POD_IP": "i", "CONCH_NAMESPACE": "n", "CONCH_GATEWAY_ACCESS_LOG": "yes"},
            "CONCH_GATEWAY_ACCESS_LOG",
        ),
        (
            {"CONCH_POD_NAME": "g", "CONCH_POD_IP": "i", "CONCH_NAMESPACE": "n", "CONCH_GATEWAY_REPORT_PORT": "x"},
            "'x'",
        ),
    ],
)
def test_settings_that_cannot_be_used_are_named(env: dict[str, str], words: str) -> None:
    with pytest.raises(SystemExit, match=words):
        GatewaySettings.from_env(env)
