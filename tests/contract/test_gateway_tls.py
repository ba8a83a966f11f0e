"""TLS at models' ports with a real Envoy: what is spoken, and a certificate that is renewed, broken and mended."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Final

import aiohttp
import grpc
import pytest

from tests.cluster.pki import Authority
from tests.support.async_waiting import until
from tests.support.gateway_sidecar import UNARY, Sidecar, running_sidecar
from tests.support.mounted_secret import MountedSecret

pytestmark = pytest.mark.contract

HOST: Final = "m.team.svc"


class Certificates:
    """A CA, and the Secret with what it issued."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "ca")
        self.secret = MountedSecret(folder / "mounted", self.issued("first"))

    def issued(self, user: str) -> dict[str, str]:
        """The entries of a Secret of type kubernetes.io/tls; `user` is the certificate's common name."""
        pair = self.authority.issue(user, user, hosts=["*.team.svc"])
        return {"tls.crt": pair.certificate.read_text(), "tls.key": pair.key.read_text()}

    def context(self, *alpn: str) -> ssl.SSLContext:
        """A client's: it verifies chain and name."""
        context = ssl.create_default_context(cafile=str(self.authority.pair.certificate))
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "pki")


async def _connected(
    sidecar: Sidecar, context: ssl.SSLContext, host: str = HOST
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = sidecar.model_ports["m"]
    return await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)


async def _shown(sidecar: Sidecar, certificates: Certificates) -> str:
    """Common name of the certificate that a new connection is shown; empty if none comes about."""
    try:
        _, writer = await _connected(sidecar, certificates.context())
    except (ConnectionError, ssl.SSLError):
        return ""
    subject = writer.get_extra_info("peercert")["subject"]
    writer.close()
    return str(dict(part[0] for part in subject)["commonName"])


async def _until_shown(sidecar: Sidecar, certificates: Certificates, name: str) -> None:
    async def shown() -> bool:
        return await _shown(sidecar, certificates) == name

    await until(f"the certificate {name}", shown)


async def _text(sidecar: Sidecar, path: str) -> str:
    """Empty while the sidecar does not listen yet."""
    try:
        async with sidecar.get(path) as response:
            return str(await response.text())
    except aiohttp.ClientConnectorError:
        return ""


async def _until_metric(sidecar: Sidecar, line: str) -> None:
    async def there() -> bool:
        return line in (await _text(sidecar, "/metrics")).splitlines()

    await until(line, there)


async def _served(sidecar: Sidecar) -> None:
    sidecar.put_server("m")
    await sidecar.until_done("m", sidecar.put_object("m"))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
async def test_clients_speak_http_1_http_2_and_grpc_over_tls_and_nothing_without(
    tmp_path: Path, certificates: Certificates
) -> None:
    async with running_sidecar(tmp_path, tls_folder=certificates.secret.folder) as sidecar:
        await _served(sidecar)
        async with sidecar.session.post(
            sidecar.url("m"), data=b"12", ssl=certificates.context(), server_hostname=HOST
        ) as response:
            assert (response.status, await response.read()) == (200, b"2")
        for alpn, agreed in ((("h2", "http/1.1"), "h2"), (("http/1.1",), "http/1.1")):
            _, writer = await _connected(sidecar, certificates.context(*alpn))
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == agreed
            writer.close()
        credentials = grpc.ssl_channel_credentials(certificates.authority.pair.certificate.read_bytes())
        options = [("grpc.ssl_target_name_override", HOST)]
        async with grpc.aio.secure_channel(f"127.0.0.1:{sidecar.model_ports['m']}", credentials, options) as channel:
            assert await channel.unary_unary(UNARY)(b"123") == b"3"

        with pytest.raises(aiohttp.ClientError):
            await sidecar.session.post(sidecar.url("m").replace("https", "http"), data=b"12")
        stranger = Authority(tmp_path / "other").pair.certificate
        with pytest.raises(ssl.SSLCertVerificationError):
            await _connected(sidecar, ssl.create_default_context(cafile=str(stranger)))
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            await _connected(sidecar, certificates.context(), host="m.other.svc")
        old = certificates.context()
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await _connected(sidecar, old)


async def test_a_renewed_certificate_is_shown_to_new_connections_and_disturbs_none_that_is_open(
    tmp_path: Path, certificates: Certificates
) -> None:
    async with running_sidecar(tmp_path, tls_folder=certificates.secret.folder) as sidecar:
        await _served(sidecar)
        reader, writer = await _connected(sidecar, certificates.context())
        # A request in the middle of its body.
        writer.write(b"POST /v2/models/m/infer HTTP/1.1\r\nhost: m\r\ncontent-length: 2\r\n\r\n1")
        await writer.drain()
        certificates.secret.put(certificates.issued("second"))
        await _until_shown(sidecar, certificates, "second")
        writer.write(b"2")
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("http/1.1 200")
        assert "connection: close" not in head
        writer.close()
        changed = await sidecar.envoy.stats("listener_manager.*(lds.update_attempt|listener_modified)")
        assert not changed.get("listener_manager.listener_modified")
        await _until_metric(sidecar, "conch_gateway_certificate_usable 1.0")
        await _until_metric(sidecar, "conch_gateway_certificate_days_left 364.0")


@pytest.mark.parametrize("broken", ["of another", "no PEM", "empty"])
async def test_a_certificate_that_cannot_be_used_is_told_and_the_one_before_stays(
    tmp_path: Path, certificates: Certificates, broken: str
) -> None:
    first, second = certificates.issued("first"), certificates.issued("second")
    entries = {
        "of another": {"tls.crt": second["tls.crt"], "tls.key": first["tls.key"]},
        "no PEM": {"tls.crt": "nonsense", "tls.key": first["tls.key"]},
        "empty": {"tls.crt": "", "tls.key": ""},
    }
    async with running_sidecar(tmp_path, tls_folder=certificates.secret.folder) as sidecar:
        await _served(sidecar)
        certificates.secret.put(entries[broken])
        await _until_metric(sidecar, "conch_gateway_certificate_usable 0.0")
        assert await _shown(sidecar, certificates) == "first"
        async with sidecar.get("/readyz") as response:
            assert response.status == 200
        certificates.secret.put(second)
        await _until_shown(sidecar, certificates, "second")


async def test_a_gateway_that_starts_with_a_broken_certificate_is_not_ready_and_says_why_until_it_is_mended(
    tmp_path: Path, certificates: Certificates
) -> None:
    good = certificates.issued("good")
    certificates.secret.put({"tls.crt": good["tls.crt"], "tls.key": certificates.issued("other")["tls.key"]})
    async with running_sidecar(tmp_path, waits=False, tls_folder=certificates.secret.folder) as sidecar:

        async def says_why() -> bool:
            return "tls.key in the Secret of gateway.tls.secretName" in await _text(sidecar, "/readyz")

        await until("the reason", says_why)
        await _served(sidecar)
        assert await _shown(sidecar, certificates) == ""
        certificates.secret.put(good)
        await sidecar.until_ready()
        await _until_shown(sidecar, certificates, "good")


async def test_all_models_share_one_watch_of_the_certificate(tmp_path: Path, certificates: Certificates) -> None:
    async with running_sidecar(tmp_path, tls_folder=certificates.secret.folder) as sidecar:

        def inotify_instances() -> int:
            found = 0
            for descriptor in Path(f"/proc/{sidecar.envoy.pid}/fd").iterdir():
                # Others are closed meanwhile.
                with suppress(FileNotFoundError):
                    found += "inotify" in str(descriptor.readlink())
            return found

        await sidecar.until_done("a", sidecar.put_object("a"))
        with_one = inotify_instances()
        for name in ("b", "c", "d"):
            await sidecar.until_done(name, sidecar.put_object(name))
        assert inotify_instances() == with_one
