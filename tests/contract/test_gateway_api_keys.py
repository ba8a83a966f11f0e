"""Clients' API keys with a real Envoy: who is let in, what servers and logs see, and keys that change."""

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import aiohttp
import grpc
import pytest

from conch.api.gateway_report import ObjectTraffic
from conch.gateway.envoy.admission import NO_KEY, NOT_THIS_NAMESPACE
from conch.gateway.envoy.restricted_apis import REFUSAL
from tests.support.async_waiting import until
from tests.support.gateway_sidecar import UNARY, Sidecar, first_wake, running_sidecar
from tests.support.mounted_secret import MountedSecret

pytestmark = pytest.mark.contract

WEB: Final = "key-of-web-0123456789"
BATCH: Final = "key-of-batch-0123456789"
ENTRIES: Final = {"web": WEB, "batch": f"{BATCH}\nnamespaces: elsewhere other\n"}


@pytest.fixture
def secret(tmp_path: Path) -> MountedSecret:
    return MountedSecret(tmp_path / "keys", ENTRIES)


async def _http(sidecar: Sidecar, **headers: str) -> tuple[int, str, dict[str, str]]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with sidecar.session.post(sidecar.url("m"), data=b"12", headers=sent) as response:
        return response.status, await response.text(), {key.lower(): value for key, value in response.headers.items()}


async def _grpc(sidecar: Sidecar, **metadata: str) -> Any:
    sent = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
    async with sidecar.channel("m") as channel:
        return await channel.unary_unary(UNARY)(b"123", metadata=sent)


async def _served(sidecar: Sidecar) -> None:
    sidecar.put_server("m")
    await sidecar.until_done("m", sidecar.put_object("m"))


async def _until_status(sidecar: Sidecar, key: str, status: int) -> None:
    async def answered() -> bool:
        return (await _http(sidecar, x_api_key=key))[0] == status

    await until(f"{status} for {key}", answered)


async def _metrics(sidecar: Sidecar) -> list[str]:
    async with sidecar.get("/metrics") as response:
        return str(await response.text()).splitlines()


async def test_a_client_is_let_in_by_its_key_over_http_and_grpc_and_told_what_is_missing_without(
    tmp_path: Path, secret: MountedSecret
) -> None:
    async with running_sidecar(tmp_path, api_keys_folder=secret.folder) as sidecar:
        await _served(sidecar)
        for headers in ({"authorization": f"Bearer {WEB}"}, {"x_api_key": WEB}):
            assert (await _http(sidecar, **headers))[:2] == (200, "2")
            assert await _grpc(sidecar, **headers) == b"3"
        # Some clients send credentials of their own to everybody.
        assert (await _http(sidecar, x_api_key=WEB, authorization="Basic Zm9vOmJhcg=="))[0] == 200

        for headers in ({}, {"authorization": "Bearer wrong-key-0123456789"}, {"x_api_key": ""}, {"cookie": WEB}):
            status, text, answer = await _http(sidecar, **headers)
            assert (status, answer["www-authenticate"], answer["content-type"]) == (401, "Bearer", "application/json")
            assert "send it as 'authorization: Bearer KEY' or as 'x-api-key: KEY'" in json.loads(text)["error"]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _grpc(sidecar)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "over gRPC as metadata" in refused.value.details()

        status, text, _ = await _http(sidecar, x_api_key=BATCH)
        assert (status, "may not call models of this namespace" in json.loads(text)["error"]) == (403, True)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _grpc(sidecar, x_api_key=BATCH)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED

        traffic = await sidecar.traffic("m")
        assert traffic is not None
        assert (traffic.arrivals, traffic.unauthorized, traffic.workloads["m1"].arrivals) == (5, 7, 5)
        assert traffic.workloads["m1"].failures == {}


async def test_calls_that_need_the_admin_key_are_refused_to_clients_too_and_count_as_let_in(
    tmp_path: Path, secret: MountedSecret
) -> None:
    """Two filters of one kind: what limits clients to namespaces, and what knows Triton's restricted calls."""
    secret.put(ENTRIES | {"batch": f"{BATCH}\nnamespaces: team"})
    async with running_sidecar(tmp_path, api_keys_folder=secret.folder) as sidecar:
        await _served(sidecar)
        async with sidecar.channel("m") as channel:
            index = channel.unary_unary("/inference.GRPCInferenceService/RepositoryIndex")
            for metadata, code, words in (
                ((("x-api-key", BATCH),), grpc.StatusCode.PERMISSION_DENIED, REFUSAL),
                ((), grpc.StatusCode.UNAUTHENTICATED, NO_KEY),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await index(b"", metadata=metadata)
                assert (refused.value.code(), refused.value.details()) == (code, words)
            assert await channel.unary_unary(UNARY)(b"123", metadata=(("x-api-key", BATCH),)) == b"3"
        traffic = await until("what was counted", lambda: _counted(sidecar, arrivals=2))
        assert (traffic.unauthorized, traffic.workloads["m1"].arrivals) == (1, 1)
        assert traffic.workloads["m1"].failures == {}
        # What Envoy refuses before any filter is not taken for a client of another namespace.
        upgrade = {"connection": "upgrade", "upgrade": "websocket"}
        assert NOT_THIS_NAMESPACE not in (await _http(sidecar, **upgrade))[1]


async def _counted(sidecar: Sidecar, *, arrivals: int) -> ObjectTraffic | None:
    traffic = await sidecar.traffic("m")
    return traffic if traffic and traffic.arrivals == arrivals else None


async def test_servers_and_logs_see_the_clients_name_which_nobody_can_forge_and_never_the_key(
    tmp_path: Path, secret: MountedSecret
) -> None:
    async with running_sidecar(tmp_path, api_keys_folder=secret.folder, access_log=True) as sidecar:
        await _served(sidecar)
        await _http(sidecar, authorization=f"Bearer {WEB}", x_api_key=WEB, x_conch_client="admin")
        await _http(sidecar, x_api_key=BATCH)
        await _http(sidecar, x_conch_client="admin")
        (seen,) = [request for request in sidecar.server.headers if "x-conch-client" in request]
        assert seen["x-conch-client"] == "web"
        assert not {"authorization", "x-api-key"} & seen.keys()

        async def logged() -> list[dict[str, Any]] | None:
            lines = [json.loads(line) for line in sidecar.envoy.log_text().splitlines() if line.startswith("{")]
            return lines if len(lines) == 3 else None

        lines = await until("the access log", logged)
        assert [(line["client_name"], line["status"]) for line in lines] == [("web", 200), ("batch", 403), (None, 401)]
        report = (await sidecar.report()).model_dump_json()
        everything = sidecar.envoy.log_text() + report + "\n".join(await _metrics(sidecar))
        assert WEB not in everything
        assert BATCH not in everything
        # Nor does Envoy's administration show them, to whoever reaches it.
        dump = await sidecar.envoy.admin("/config_dump")
        assert "api_key_auth" in dump
        assert WEB not in dump


async def test_keys_that_change_are_taken_over_without_a_lost_connection(tmp_path: Path, secret: MountedSecret) -> None:
    async with running_sidecar(tmp_path, api_keys_folder=secret.folder) as sidecar:
        await _served(sidecar)
        reader, writer = await asyncio.open_connection("127.0.0.1", sidecar.model_ports["m"])

        async def on_the_open_connection(key: str) -> str:
            head = f"POST / HTTP/1.1\r\nhost: m\r\nx-api-key: {key}\r\ncontent-length: 0\r\n\r\n"
            writer.write(head.encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(answer.split("content-length: ")[1].split("\r\n")[0]))
            return answer.split(" ")[1]

        assert await on_the_open_connection(WEB) == "200"
        new = "key-of-web-9876543210"
        secret.put(ENTRIES | {"web": new})
        await _until_status(sidecar, new, 200)
        assert await on_the_open_connection(new) == "200"
        assert await on_the_open_connection(WEB) == "401"
        secret.put(ENTRIES | {"batch": f"{BATCH}\nnamespaces: team"})
        await _until_status(sidecar, BATCH, 200)
        assert await on_the_open_connection(BATCH) == "200"
        writer.close()
        assert not (await sidecar.envoy.stats("listener_manager.listener_modified")).get(
            "listener_manager.listener_modified"
        )


@pytest.mark.parametrize("entries", [{}, {"web": ""}, {"web": WEB, "other": WEB}, {"web": f"{WEB}\nnonsense"}])
async def test_a_secret_that_is_emptied_or_malformed_opens_nothing(
    tmp_path: Path, secret: MountedSecret, entries: dict[str, str]
) -> None:
    async with running_sidecar(tmp_path, api_keys_folder=secret.folder) as sidecar:
        await _served(sidecar)
        assert (await _http(sidecar, x_api_key=WEB))[0] == 200
        secret.put(entries)
        await _until_status(sidecar, WEB, 401)
        assert (await _http(sidecar))[0] == 401
        metrics = await _metrics(sidecar)
        assert "conch_gateway_clients 0.0" in metrics
        assert f"conch_gateway_client_entries_unusable {float(len(entries))}" in metrics
        # Clients are told why; without a gateway they would not be.
        async with sidecar.get("/readyz") as response:
            assert response.status == 200


async def test_a_gateway_that_knows_no_client_from_its_start_is_not_ready(
    tmp_path: Path, secret: MountedSecret
) -> None:
    secret.put({"web": "short"})
    async with running_sidecar(tmp_path, waits=False, api_keys_folder=secret.folder) as sidecar:

        async def says_why() -> bool:
            try:
                async with sidecar.get("/readyz") as response:
                    return response.status == 503 and "gateway.apiKeys.secretName" in await response.text()
            except aiohttp.ClientConnectorError:
                return False

        await until("the reason", says_why)
        await _served(sidecar)
        assert (await _http(sidecar, x_api_key="short"))[0] == 401
        secret.put(ENTRIES)
        await sidecar.until_ready()
        await _until_status(sidecar, WEB, 200)


async def test_who_is_not_let_in_is_not_held_and_wakes_nobody(tmp_path: Path, secret: MountedSecret) -> None:
    async with running_sidecar(tmp_path, api_keys_folder=secret.folder) as sidecar:
        gateway = {"hold": {"seconds": 60, "maxRequests": 1}}
        await sidecar.until_done("m", sidecar.put_object("m", gateway=gateway))
        async with sidecar.get("/wakes") as wakes:
            assert [(await _http(sidecar))[0] for _ in range(3)] == [401] * 3
            assert (await _http(sidecar, x_api_key=BATCH))[0] == 403
            # The one place is free, and the first sign of life is of who is let in.
            held = asyncio.create_task(_http(sidecar, x_api_key=WEB))
            assert await first_wake(wakes) == {"object": "team/m", "held": 1}
        traffic = await sidecar.traffic("m")
        assert traffic is not None
        assert (traffic.arrivals, traffic.held, traffic.refused, traffic.unauthorized) == (1, 1, 0, 4)
        sidecar.put_server("m")
        assert (await held)[0] == 200


async def test_a_sidecar_that_restarts_leaves_nobody_in_or_out_meanwhile(tmp_path: Path, secret: MountedSecret) -> None:
    async with running_sidecar(tmp_path, api_keys_folder=secret.folder) as sidecar:
        await _served(sidecar)
        await sidecar.stop()
        assert [(await _http(sidecar, x_api_key=key))[0] for key in (WEB, BATCH, "wrong")] == [200, 403, 401]
        sidecar.start()
        await sidecar.until_ready()
        assert [(await _http(sidecar, x_api_key=key))[0] for key in (WEB, BATCH, "wrong")] == [200, 403, 401]
