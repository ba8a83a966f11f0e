"""Azure Blob Storage's API: azurite-blob, in memory."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from email.utils import formatdate
from pathlib import Path

import httpx
from obstore.store import AzureStore

from tests.stores import objects, programs
from tests.stores.store import BUCKET, ProcessStore
from tests.stores.tls import Tls

ACCOUNT = "devstoreaccount1"
_VERSION = "3.37.0"
_INSTALL_SECONDS = 60
_API_VERSION = "2023-11-03"


class Azure(ProcessStore):
    """One container, `models`, of the account `devstoreaccount1`, which is in the path of every URL."""

    def __init__(
        self, folder: Path, *, address: str = "127.0.0.1", host: str | None = None, tls: Tls | None = None
    ) -> None:
        super().__init__(folder, address=address, host=host, tls=tls)
        self._key = _new_key()

    @property
    def endpoint(self) -> str:
        return f"{super().endpoint}/{ACCOUNT}"

    @property
    def local_endpoint(self) -> str:
        return f"{super().local_endpoint}/{ACCOUNT}"

    def uri(self, path: str) -> str:
        return f"az://{ACCOUNT}/{BUCKET}/{path}"

    def command(self) -> list[str]:
        modules = programs.npm("azurite", _VERSION, expected_seconds=_INSTALL_SECONDS) / "node_modules"
        tls = ["--cert", str(self.tls.pair.certificate), "--key", str(self.tls.pair.key)] if self.tls else []
        # Product style would take the account from the first label of a DNS name.
        options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableProductStyleUrl", "--disableTelemetry"]
        program = modules / "azurite" / "dist" / "src" / "blob" / "main.js"
        return ["node", str(program), "--blobHost", self.address, "--blobPort", str(self.port), *options, *tls]

    def environment(self) -> dict[str, str]:
        return {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{self._key}"}

    def prepare(self) -> None:
        """Make the container; obstore can write blobs, but make no containers."""
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": _API_VERSION}
        lines = [*("" for _ in range(11)), *(f"{name}:{value}" for name, value in headers.items())]
        # The account twice: it is also the first part of the path.
        signed = "\n".join(["PUT", *lines, f"/{ACCOUNT}/{ACCOUNT}/{BUCKET}", "restype:container"])
        signature = hmac.digest(base64.b64decode(self._key), signed.encode(), hashlib.sha256)
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}"
        verify = self.tls.client_context() if self.tls else False
        with httpx.Client(verify=verify, trust_env=False, timeout=60) as client:
            client.put(
                f"{self.local_endpoint}/{BUCKET}", params={"restype": "container"}, headers=headers
            ).raise_for_status()

    def put(self, path: str, content: bytes) -> None:
        objects.put(self._client(), path, content)

    def delete(self, path: str) -> None:
        objects.delete(self._client(), path)

    def _login(self, *, right: bool) -> dict[str, str]:
        return {"AZURE_STORAGE_ACCOUNT_KEY": self._key if right else _new_key()}

    def _client(self) -> AzureStore:
        return AzureStore(
            BUCKET,
            endpoint=self.local_endpoint,
            account_name=ACCOUNT,
            account_key=self._key,
            client_options=objects.CLIENT_OPTIONS,
        )


def _new_key() -> str:
    return base64.b64encode(secrets.token_bytes(64)).decode()
