"""An artefact in an OCI registry, by the distribution specification: a manifest, and a blob for each of its layers."""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import yarl
from pydantic import BaseModel, Field, ValidationError

from conch.api.reasons import Reason
from conch.api.source import OciSource
from conch.store.http_client import HttpClient
from conch.store.registry_login import RegistryLogin, repository_url
from conch.store.remote import Chunk, Listing, RemoteFile, Surroundings

MANIFEST_BYTES_MOST: Final = 4 << 20
TOKEN_BYTES_MOST: Final = 1 << 20

_MANIFESTS: Final = ", ".join(
    (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_NAMES: Final = ("org.opencontainers.image.title", "org.cncf.model.filepath")
_ORAS_FOLDER: Final = "io.deis.oras.content.unpack"
_MODEL_PACK_TAR: Final = re.compile(r"application/vnd\.cncf\.model\..+\.v1\.tar(\+gzip|\+zstd)?")
_ARCHIVES: Final = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip")


class _Descriptor(BaseModel):
    media_type: str = Field(default="", alias="mediaType")
    digest: str
    size: int = Field(ge=0)
    annotations: dict[str, str] | None = None


class _Manifest(BaseModel):
    layers: list[_Descriptor] | None = None
    manifests: list[_Descriptor] | None = None


class OciRemote:
    """One artefact, with the Secret's entries `.dockerconfigjson`, or `username` and `password`, if it has them."""

    def __init__(self, source: OciSource, surroundings: Surroundings) -> None:
        self._source = source
        self._surroundings = surroundings
        self._client = HttpClient(surroundings, carrier=True)
        self._login = RegistryLogin(source, surroundings, self._ask)
        self._base = repository_url(source)
        self._authorization: str | None = None
        self._authorizing = asyncio.Lock()

    async def list(self) -> Listing:
        """The layers of the manifest that the reference stands for, or of the pinned one."""
        pinned = self._surroundings.pinned
        digest, manifest = await self._manifest(pinned if _DIGEST.fullmatch(pinned) else self._source.reference)
        if manifest.manifests is not None:
            if len(manifest.manifests) != 1:
                raise self._client.error(
                    Reason.INVALID_MODEL,
                    f"it is an index of {len(manifest.manifests)} artefacts; name one of them by its digest "
                    "(oci://REGISTRY/REPOSITORY@sha256:DIGEST)",
                )
            digest, manifest = await self._manifest(self._checked_digest(manifest.manifests[0].digest))
        if not manifest.layers:
            raise self._client.error(
                Reason.INVALID_MODEL, "its manifest has no layers; push the model's files, for example with oras push"
            )
        files = tuple(self._file(layer) for layer in manifest.layers)
        archive = len(files) == 1 and not files[0].unpack and files[0].path.lower().endswith(_ARCHIVES)
        return Listing(files=files, resolved=digest, folder=not archive)

    def read(self, file: RemoteFile, start: int, end: int | None) -> AsyncGenerator[Chunk, None]:
        """A blob's bytes, as `Remote` says; a digest's bytes never change."""
        return self._client.read_part(
            lambda headers: self._get(f"{self._base}/blobs/{file.key}", headers), file, start, end
        )

    async def close(self) -> None:
        """End all connections."""
        await self._client.close()

    async def _manifest(self, reference: str) -> tuple[str, _Manifest]:
        async with self._get(f"{self._base}/manifests/{reference}", {"Accept": _MANIFESTS}) as response:
            if response.status != 200:
                self._client.refuse_status(response.status)
            declared = response.headers.get("Docker-Content-Digest", "")
            content = await self._client.read_whole(response, MANIFEST_BYTES_MOST, "its manifest")
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        for wanted in (reference, declared):
            if _DIGEST.fullmatch(wanted) and wanted != digest:
                raise self._client.error(
                    Reason.DIGEST_MISMATCH,
                    f"the registry sent a manifest with the digest {digest} for {wanted}; nothing was loaded. "
                    "The registry or something on the way to it changes manifests",
                )
        try:
            return digest, _Manifest.model_validate_json(content)
        except ValidationError as error:
            raise self._client.error(
                Reason.INVALID_MODEL, "its manifest is not one of an OCI artefact; push the model again"
            ) from error

    def _file(self, layer: _Descriptor) -> RemoteFile:
        digest = self._checked_digest(layer.digest)
        annotations = layer.annotations or {}
        unpack = annotations.get(_ORAS_FOLDER) == "true" or bool(_MODEL_PACK_TAR.fullmatch(layer.media_type))
        name = next((annotations[annotation] for annotation in _NAMES if annotations.get(annotation)), "")
        sha256 = digest.removeprefix("sha256:")
        if not name and not unpack:
            raise self._client.error(
                Reason.INVALID_MODEL,
                f"its layer {digest} has no file name (annotation {_NAMES[0]}), as in a container image; push the "
                "model's files as an artefact, for example with oras push or modctl",
            )
        # A tar's own name is often that of the folder inside it.
        path = sha256 if unpack else name
        return RemoteFile(path=path, key=digest, size=layer.size, version=digest, sha256=sha256, unpack=unpack)

    def _checked_digest(self, digest: str) -> str:
        if not _DIGEST.fullmatch(digest):
            raise self._client.error(
                Reason.INVALID_MODEL, "its manifest names content by another digest than sha256; push the model again"
            )
        return digest

    @asynccontextmanager
    async def _get(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Like the client's, with one attempt more where the registry asks for a (new) authorization."""
        used = self._authorization
        async with self._client.get(url, headers, used) as response:
            asked = response.status == 401 and response.url.origin() == yarl.URL(url).origin()
            challenges = response.headers.getall("WWW-Authenticate", [])
            if not asked:
                yield response
                return
        async with self._authorizing:
            if self._authorization == used:  # else another read has renewed it meanwhile
                self._authorization = await self._login.authorization(challenges)
                if self._authorization is None:
                    self._client.refuse_status(401)
        async with self._client.get(url, headers, self._authorization) as response:
            yield response

    async def _ask(self, url: str, authorization: str | None) -> bytes:
        async with self._client.get(url, authorization=authorization) as response:
            if response.status != 200:
                self._client.refuse_status(response.status)
            return await self._client.read_whole(response, TOKEN_BYTES_MOST, "the token for it")
