"""An authorisation service beside the hold, with a real Envoy: up, refusing, slow, away, and over TLS."""

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from conch.gateway.envoy.external_authorization import ExternalAuthorization
from tests.cluster.ports import free_port
from tests.stores import tls
from tests.support.async_waiting import until
from tests.support.authorization_service import AuthorizationService, allowed, denied, serving
from tests.support.gateway_sidecar import UNARY, Sidecar, first_wake, running_sidecar
from tests.support.mounted_secret import MountedSecret

pytestmark = pytest.mark.contract

PATIENT = 30_000
IMPATIENT = 200


def at(port: int, *, timeout_milliseconds: int = PATIENT, **fields: Any) -> ExternalAuthorization:
    return ExternalAuthorization(host="127.0.0.1", port=port, timeout_milliseconds=timeout_milliseconds, **fields)


async def _http(sidecar: Sidecar, **headers: str) -> tuple[int, dict[str, Any] | str, dict[str, str]]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with sidecar.session.post(sidecar.url("m"), data=b"12", headers=sent) as response:
        text = await response.text()
        told = json.loads(text) if response.content_type == "application/json" else text
        return response.status, told, {key.lower(): value for key, value in response.headers.items()}


async def _grpc_refusal(sidecar: Sidecar) -> tuple[grpc.StatusCode, str]:
    async with sidecar.channel("m") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(UNARY)(b"123")
    return refused.value.code(), refused.value.details()


async def _served(sidecar: Sidecar) -> None:
    sidecar.put_server("m")
    await sidecar.until_done("m", sidecar.put_object("m"))


async def test_the_service_lets_in_and_refuses_in_its_own_words_and_chooses_no_model(tmp_path: Path) -> None:
    service, port = AuthorizationService(), free_port("127.0.0.1")
    async with serving(service, port), running_sidecar(tmp_path, authorization=at(port)) as sidecar:
        await _served(sidecar)
        service.answer = lambda _headers: allowed(x_conch_route="other.model", x_conch_client="admin", x_user="ann")
        assert (await _http(sidecar, authorization="Bearer token"))[0] == 200
        assert (service.asked[-1]["authorization"], service.asked[-1]["x-conch-route"]) == ("Bearer token", "team.m")
        seen = sidecar.server.headers[-1]
        assert seen["x-user"] == "ann"
        assert not [name for name in seen if name.startswith("x-conch")]
        async with sidecar.channel("m") as channel:
            assert await channel.unary_unary(UNARY)(b"123") == b"3"

        for status, code in ((403, grpc.StatusCode.PERMISSION_DENIED), (401, grpc.StatusCode.UNAUTHENTICATED)):
            service.answer = lambda _headers, status=status: denied(status, "not you")  # type: ignore[misc]  # mypy infers no lambda's default
            assert (await _http(sidecar))[:2] == (status, {"error": "not you"})
            assert await _grpc_refusal(sidecar) == (code, "not you")
        # Its own 503 is no missing server.
        service.answer = lambda _headers: denied(503, "closed for today")
        assert (await _http(sidecar))[:2] == (503, {"error": "closed for today"})
        traffic = await sidecar.traffic("m")
        assert traffic is not None
        assert (traffic.arrivals, traffic.unauthorized) == (2, 5)
        assert traffic.workloads["m1"].failures == {}


async def test_a_service_that_is_away_or_slow_lets_nobody_in(tmp_path: Path) -> None:
    service, port = AuthorizationService(), free_port("127.0.0.1")
    service_at = at(port, timeout_milliseconds=IMPATIENT)
    async with running_sidecar(tmp_path, authorization=service_at) as sidecar:
        await _served(sidecar)
        no_answer = {"error": "the authorisation service does not answer; try again later"}
        status, told, headers = await _http(sidecar)
        assert (status, told, headers["retry-after"]) == (503, no_answer, "1")
        assert await _grpc_refusal(sidecar) == (grpc.StatusCode.UNAVAILABLE, no_answer["error"])
        async with serving(service, port):
            service.release.clear()

            async def was_asked() -> bool:
                assert (await _http(sidecar))[:2] == (503, no_answer)
                return bool(service.asked)

            await until("it to be asked, and to be slow", was_asked)
        assert sidecar.server.answered == 0


async def test_who_is_refused_is_not_held_and_wakes_nobody_and_who_is_let_in_is(tmp_path: Path) -> None:
    service, port = AuthorizationService(), free_port("127.0.0.1")
    async with serving(service, port), running_sidecar(tmp_path, authorization=at(port)) as sidecar:
        gateway = {"hold": {"seconds": 60, "maxRequests": 1}}
        await sidecar.until_done("m", sidecar.put_object("m", gateway=gateway))
        async with sidecar.get("/wakes") as wakes:
            service.answer = lambda _headers: denied(403, "not you")
            assert [(await _http(sidecar))[0] for _ in range(3)] == [403] * 3
            service.answer = lambda _headers: allowed()
            held = asyncio.create_task(_http(sidecar))
            assert await first_wake(wakes) == {"object": "team/m", "held": 1}
        # Beyond the hold's places: its words and status are as ever.
        status, told, headers = await _http(sidecar)
        assert (status, int(headers["retry-after"]) > 0) == (429, True)
        assert "as many requests wait as may" in str(told)
        sidecar.put_server("m")
        assert (await held)[0] == 200


async def test_at_the_end_of_a_hold_clients_are_told_that_no_server_came(tmp_path: Path) -> None:
    service, port = AuthorizationService(), free_port("127.0.0.1")
    async with serving(service, port), running_sidecar(tmp_path, authorization=at(port)) as sidecar:
        await sidecar.until_done("m", sidecar.put_object("m", gateway={"hold": {"seconds": 0}}))
        status, told, headers = await _http(sidecar, x_conch_authorized="no")
        assert (status, int(headers["retry-after"]) > 0) == (503, True)
        assert told == {"error": "no server of this model is ready, and its requests are not held"}


async def test_keys_are_checked_first_and_the_service_is_told_the_client(tmp_path: Path) -> None:
    service, port = AuthorizationService(), free_port("127.0.0.1")
    secret = MountedSecret(tmp_path / "keys", {"web": "key-of-web-0123456789"})
    async with (
        serving(service, port),
        running_sidecar(tmp_path, authorization=at(port), api_keys_folder=secret.folder) as sidecar,
    ):
        await _served(sidecar)
        status, told, _ = await _http(sidecar)
        assert (status, "API key" in str(told)) == (401, True)
        assert service.asked == []
        assert (await _http(sidecar, x_api_key="key-of-web-0123456789"))[0] == 200
        assert (service.asked[0]["x-conch-client"], "x-api-key" in service.asked[0]) == ("web", False)
        service.answer = lambda _headers: denied(403, "not you")
        assert (await _http(sidecar, x_api_key="key-of-web-0123456789"))[:2] == (403, {"error": "not you"})


@pytest.mark.parametrize("host", ["127.0.0.1", "other.example"])
async def test_over_tls_the_service_must_show_a_certificate_that_names_it(tmp_path: Path, host: str) -> None:
    service, port = AuthorizationService(), free_port("127.0.0.1")
    server = tls.issue(tmp_path / "pki", host)
    authority = tmp_path / "ca.crt"
    authority.write_text(server.ca_certificate)
    credentials = grpc.ssl_server_credentials([(server.pair.key.read_bytes(), server.pair.certificate.read_bytes())])
    asked_at = at(port, tls=True, ca_file=authority)
    async with serving(service, port, credentials), running_sidecar(tmp_path, authorization=asked_at) as sidecar:
        await _served(sidecar)
        if host == "127.0.0.1":

            async def is_let_in() -> bool:
                # A connection that takes longer than Envoy waits for is no certificate's fault.
                return (await _http(sidecar))[0] == 200

            await until("the service to be believed", is_let_in)
        else:
            assert (await _http(sidecar))[0] == 503
        assert bool(service.asked) is (host == "127.0.0.1")
