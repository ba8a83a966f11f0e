"""Amazon S3's API: versitygw, whose objects are files in a folder."""

from __future__ import annotations

import secrets
from pathlib import Path

from obstore.store import S3Store

from tests.cluster import binaries
from tests.stores import objects
from tests.stores.store import BUCKET, ProcessStore
from tests.stores.tls import Tls


class S3(ProcessStore):
    """One bucket, `models`, of the region us-east-1."""

    region = "us-east-1"

    def __init__(
        self, folder: Path, *, address: str = "127.0.0.1", host: str | None = None, tls: Tls | None = None
    ) -> None:
        super().__init__(folder, address=address, host=host, tls=tls)
        self._access_key = f"key{secrets.token_hex(8)}"
        self._secret_key = secrets.token_hex(20)

    def uri(self, path: str) -> str:
        return f"s3://{BUCKET}/{path}"

    def command(self) -> list[str]:
        program = binaries.ensure("versitygw") / "versitygw"
        tls = ["--cert", str(self.tls.pair.certificate), "--key", str(self.tls.pair.key)] if self.tls else []
        objects_folder, metadata = self.folder / "objects", self.folder / "metadata"
        # A folder on the top is a bucket. Metadata beside it, because tmpfs has no extended attributes.
        (objects_folder / BUCKET).mkdir(parents=True, exist_ok=True)
        metadata.mkdir(exist_ok=True)
        listen = ["--port", f"{self.address}:{self.port}", "--region", self.region, "--keep-alive"]
        return [str(program), *listen, *tls, "posix", "--sidecar", str(metadata), str(objects_folder)]

    def environment(self) -> dict[str, str]:
        return {"ROOT_ACCESS_KEY": self._access_key, "ROOT_SECRET_KEY": self._secret_key}

    def put(self, path: str, content: bytes) -> None:
        objects.put(self._client(), path, content)

    def delete(self, path: str) -> None:
        objects.delete(self._client(), path)

    def _login(self, *, right: bool) -> dict[str, str]:
        secret = self._secret_key if right else secrets.token_hex(20)
        return {"AWS_ACCESS_KEY_ID": self._access_key, "AWS_SECRET_ACCESS_KEY": secret}

    def _client(self) -> S3Store:
        return S3Store(
            BUCKET,
            endpoint=self.local_endpoint,
            region=self.region,
            access_key_id=self._access_key,
            secret_access_key=self._secret_key,
            virtual_hosted_style_request=False,
            client_options=objects.CLIENT_OPTIONS,
        )
