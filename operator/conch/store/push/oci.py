"""An OCI artefact as ModelPack specifies it: every file a blob, whose names other tools (`oras pull`) read as well."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urljoin

import aiohttp
import yarl

from conch.api.reasons import Reason
from conch.api.source import OciSource
from conch.store.push.http import Body, UploadClient
from conch.store.push.meter import Step
from conch.store.push.policy import EVERYTHING
from conch.store.push.settings import PushSettings
from conch.store.push.tree import Tree, TreeFile
from conch.store.registry_login import RegistryLogin, repository_url
from conch.store.remote import Surroundings
from conch.store.sources.oci import MANIFEST_BYTES_MOST

BLOBS_AT_ONCE: Final = 6

_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_MODEL: Final = "application/vnd.cncf.model.manifest.v1+json"
_CONFIG: Final = "application/vnd.cncf.model.config.v1+json"
_FILE: Final = "application/vnd.cncf.model.weight.v1.raw"
_SAID_MOST: Final = 300
_ANSWER_BYTES_MOST: Final = 64 << 10


def push(source: OciSource, tree: Tree, settings: PushSettings) -> str:
    """Make the artefact, with the tag if the source has one; returns its manifest's digest. Raises StoreError."""
    return asyncio.run(_pushed(source, tree, settings))


async def _pushed(source: OciSource, tree: Tree, settings: PushSettings) -> str:
    client = UploadClient(source.scheme, settings)
    try:
        return await _Push(source, tree, settings, client).run()
    finally:
        await client.close()


class _Push:
    def __init__(self, source: OciSource, tree: Tree, settings: PushSettings, client: UploadClient) -> None:
        self._source = source
        self._tree = tree
        self._settings = settings
        self._client = client
        self._base = repository_url(source)
        surroundings = Surroundings(shown=settings.shown, policy=EVERYTHING, credentials=settings.credentials)
        self._login = RegistryLogin(source, surroundings, self._ask, actions="pull,push")
        self._authorization: str | None = None
        self._authorizing = asyncio.Lock()
        self._slots = asyncio.Semaphore(BLOBS_AT_ONCE)

    async def run(self) -> str:
        if self._source.reference.startswith("sha256:"):
            raise self._client.error(
                Reason.INVALID_SPEC,
                "a digest is what a push makes; name a tag instead, as in oci://HOST/REPOSITORY:TAG",
            )
        config = _json(_config(self._source, self._tree))
        manifest = _json(_manifest(config, self._tree))
        if len(manifest) > MANIFEST_BYTES_MOST:
            raise self._client.error(
                Reason.INVALID_MODEL, f"{self._tree} are too many for one manifest; use another kind of store"
            )
        shown, unique = self._settings.shown, {file.sha256: file for file in self._tree.files}
        total = sum(file.size for file in unique.values())
        with self._settings.meter.step(f"uploading {self._tree} to {shown}", total) as step:
            try:
                async with asyncio.TaskGroup() as group:
                    for file in unique.values():
                        group.create_task(self._push_file(file, step))
            except ExceptionGroup as failed:
                # The first ends the others: it says why.
                raise failed.exceptions[0] from failed
        await self._push_blob(_digest(config), config, len(config))
        return await self._client.patiently(lambda: self._put_manifest(manifest))

    async def _push_file(self, file: TreeFile, step: Step) -> None:
        sent = 0

        async def body() -> AsyncIterator[bytes]:
            nonlocal sent
            step.advance(-sent)
            sent = 0
            chunks = file.chunks()
            while chunk := await asyncio.to_thread(next, chunks, b""):
                yield chunk
                sent += len(chunk)
                step.advance(len(chunk))

        async with self._slots:
            await self._push_blob(f"sha256:{file.sha256}", body, file.size)
            step.advance(file.size - sent)

    async def _push_blob(self, digest: str, body: Body | bytes, size: int) -> None:
        async def attempt() -> None:
            async with self._send("HEAD", f"{self._base}/blobs/{digest}") as response:
                if response.status == 200:
                    return
                if response.status != 404:
                    self._client.refuse(response.status)
            async with self._send("POST", f"{self._base}/blobs/uploads/") as response:
                if response.status != 202:
                    self._client.refuse(response.status, await _said(response))
                location = urljoin(str(response.url), response.headers.get("Location", ""))
            # Joined as text: its query is the registry's own state.
            url = f"{location}{'&' if '?' in location else '?'}digest={digest}"
            headers = {"Content-Type": "application/octet-stream"}
            async with self._send("PUT", url, headers=headers, body=body, size=size) as response:
                if response.status != 201:
                    self._client.refuse(response.status, await _said(response))

        await self._client.patiently(attempt)

    async def _put_manifest(self, manifest: bytes) -> str:
        digest = _digest(manifest)
        url = f"{self._base}/manifests/{self._source.reference}"
        async with self._send("PUT", url, headers={"Content-Type": _MANIFEST}, body=manifest) as response:
            if response.status != 201:
                self._client.refuse(response.status, await _said(response))
            kept = response.headers.get("Docker-Content-Digest", digest)
        if kept != digest:
            raise self._client.error(
                Reason.DIGEST_MISMATCH,
                f"the registry keeps the manifest {digest} as {kept}: it changes manifests, so that the model cannot "
                "be fetched by its digest; use another registry",
            )
        return digest

    @asynccontextmanager
    async def _send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | bytes | None = None,
        size: int = 0,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send, with one attempt more where the registry asks for a (new) authorization."""
        # Uploads may lead to a storage of somebody else.
        own = yarl.URL(url).origin() == yarl.URL(self._base).origin()
        used = self._authorization if own else None
        async with self._client.request(
            method, url, headers=headers, authorization=used, body=body, size=size
        ) as response:
            if response.status != 401 or not own:
                yield response
                return
            challenges = response.headers.getall("WWW-Authenticate", [])
        async with self._authorizing:
            if self._authorization == used:  # else another upload has renewed it meanwhile
                self._authorization = await self._login.authorization(challenges)
                if self._authorization is None:
                    self._client.refuse(401)
        async with self._client.request(
            method, url, headers=headers, authorization=self._authorization, body=body, size=size
        ) as response:
            yield response

    async def _ask(self, url: str, authorization: str | None) -> bytes:
        async with self._client.request("GET", url, authorization=authorization) as response:
            if response.status != 200:
                self._client.refuse(response.status)
            return await response.content.read()


def _manifest(config: bytes, tree: Tree) -> Mapping[str, Any]:
    layers = [
        {
            "mediaType": _FILE,
            "digest": f"sha256:{file.sha256}",
            "size": file.size,
            "annotations": {"org.cncf.model.filepath": file.path, "org.opencontainers.image.title": file.path},
        }
        for file in tree.files
    ]
    return {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "artifactType": _MODEL,
        "config": {"mediaType": _CONFIG, "digest": _digest(config), "size": len(config)},
        "layers": layers,
    }


def _config(source: OciSource, tree: Tree) -> Mapping[str, Any]:
    """No time in it: the same files are the same artefact."""
    return {
        "descriptor": {"name": source.repository.rpartition("/")[2]},
        "config": {},
        "modelfs": {"type": "layers", "diffIds": [f"sha256:{file.sha256}" for file in tree.files]},
    }


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


async def _said(response: aiohttp.ClientResponse) -> str:
    """The registry's own reason, if it gives one as the specification says."""
    try:
        [first, *_] = json.loads(await response.content.read(_ANSWER_BYTES_MOST))["errors"]
        said = f"{first['code']}: {first['message']}"
    except (ValueError, LookupError, TypeError):
        return ""
    return "".join(character for character in said if character.isprintable())[:_SAID_MOST]
