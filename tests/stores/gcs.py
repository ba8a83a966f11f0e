"""Google Cloud Storage's API: fake-gcs-server, which checks no credentials."""

from __future__ import annotations

from urllib.parse import quote

import httpx

from tests.cluster import binaries
from tests.stores.store import BUCKET, ProcessStore


class Gcs(ProcessStore):
    """One bucket, `models`, that everybody may read."""

    authenticates = False

    def uri(self, path: str) -> str:
        return f"gs://{BUCKET}/{path}"

    def command(self) -> list[str]:
        program = binaries.ensure("fake-gcs-server") / "fake-gcs-server"
        pair = self.tls.pair if self.tls else None
        tls = ["-cert-location", str(pair.certificate), "-private-key-location", str(pair.key)] if pair else []
        listen = ["-scheme", self.scheme, "-host", self.address, "-port", str(self.port), *tls]
        # It routes by the Host header: what is read by bucket and name comes to this one.
        names = ["-public-host", f"{self.host}:{self.port}", "-external-url", self.endpoint]
        return [str(program), *listen, *names, "-backend", "memory"]

    def prepare(self) -> None:
        self._ask("POST", "/storage/v1/b", params={"project": "conch"}, json={"name": BUCKET})

    def put(self, path: str, content: bytes) -> None:
        self._ask(
            "POST", f"/upload/storage/v1/b/{BUCKET}/o", params={"uploadType": "media", "name": path}, content=content
        )

    def delete(self, path: str) -> None:
        listed = self._ask("GET", f"/storage/v1/b/{BUCKET}/o", params={"prefix": path}).json()
        for item in listed.get("items", []):
            if f"{item['name']}/".startswith(f"{path}/"):
                self._ask("DELETE", f"/storage/v1/b/{BUCKET}/o/{quote(item['name'], safe='')}")

    def _login(self, *, right: bool) -> dict[str, str]:
        del right
        return {}

    def _ask(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        json: dict[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx.Response:
        verify = self.tls.client_context() if self.tls else False
        with httpx.Client(base_url=self.local_endpoint, verify=verify, trust_env=False, timeout=60) as client:
            response = client.request(method, path, params=params, json=json, content=content)
        return response.raise_for_status()
