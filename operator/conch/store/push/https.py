"""One file, sent by PUT to a web server: a bare file as it is, a folder as an archive."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from conch.api.reasons import Reason
from conch.api.source import HttpSource
from conch.store.errors import StoreError, without_query
from conch.store.http_client import basic
from conch.store.push.http import UploadClient
from conch.store.push.meter import Step
from conch.store.push.pack import SUFFIXES, pack
from conch.store.push.settings import PushSettings
from conch.store.push.tree import READ_BYTES, Tree


def push(source: HttpSource, tree: Tree, settings: PushSettings) -> str:
    """Make the file; returns its URI. Raises StoreError."""
    name = unquote(urlsplit(source.url).path).rpartition("/")[2]
    _check_name(name, tree, settings.shown)
    if tree.bare:
        asyncio.run(_sent(source, tree.files[0].local, tree.files[0].size, settings))
    else:
        with tempfile.TemporaryDirectory(prefix="conch-push-") as folder:
            archive = Path(folder) / "archive"
            with settings.meter.step(f"packing {tree}", tree.bytes) as step:
                pack(tree, archive, name, step)
            asyncio.run(_sent(source, archive, archive.stat().st_size, settings))
    plain = without_query(source.url)
    if plain != source.url.partition("#")[0]:
        settings.meter.say(
            "the URI printed is without its query string, which may be a signature for uploads; if the model is not "
            "public, add one for reading, or name a Secret in credentialsSecretRef"
        )
    return plain


def _check_name(name: str, tree: Tree, shown: str) -> None:
    if not tree.bare and not name.endswith(SUFFIXES):
        raise StoreError(
            Reason.INVALID_SPEC,
            f"{shown}: a folder is pushed as an archive, so the URI must end in one of {', '.join(SUFFIXES)}; add that",
        )
    if tree.bare and name != tree.files[0].path:
        raise StoreError(
            Reason.INVALID_SPEC,
            f"{shown}: the URI must end in /{tree.files[0].path}, since the file's name is part of its digest; correct "
            "it or rename the file",
        )


async def _sent(source: HttpSource, file: Path, size: int, settings: PushSettings) -> None:
    client = UploadClient(source.scheme, settings)
    authorization = _authorization(settings)
    try:
        if not settings.overwrite:
            await client.patiently(lambda: _refuse_what_is_there(client, source, authorization))
        with settings.meter.step(f"uploading to {settings.shown}", size) as step:
            await client.patiently(lambda: _put(client, source, authorization, file, size, settings, step))
    finally:
        await client.close()


async def _refuse_what_is_there(client: UploadClient, source: HttpSource, authorization: str | None) -> None:
    async with client.request("HEAD", source.url, authorization=authorization) as response:
        status = response.status
    if status in (404, 410):
        return
    if 200 <= status < 300:
        raise _taken(client)
    if status == 401:
        client.refuse(status)
    raise client.error(
        Reason.SOURCE_NOT_ALLOWED,
        f"the server does not say whether there is something already (HTTP {status}); --overwrite uploads anyhow",
    )


async def _put(
    client: UploadClient,
    source: HttpSource,
    authorization: str | None,
    file: Path,
    size: int,
    settings: PushSettings,
    step: Step,
) -> None:
    async def body() -> AsyncIterator[bytes]:
        step.show(0, size)
        with file.open("rb") as stream:
            while chunk := await asyncio.to_thread(stream.read, READ_BYTES):
                yield chunk
                step.advance(len(chunk))

    # For servers that know it, so that two pushes at once do not both find the place free.
    headers = {"Content-Type": "application/octet-stream", **({} if settings.overwrite else {"If-None-Match": "*"})}
    async with client.request(
        "PUT", source.url, headers=headers, authorization=authorization, body=body, size=size
    ) as response:
        if response.status == 412:
            raise _taken(client)
        if response.status not in (200, 201, 202, 204):
            client.refuse(response.status)


def _taken(client: UploadClient) -> StoreError:
    return client.error(
        Reason.SOURCE_NOT_ALLOWED,
        "there is something already; push to a name of its own, such as one with a version in it, or replace it with "
        "--overwrite",
    )


def _authorization(settings: PushSettings) -> str | None:
    entries = settings.credentials
    if "token" in entries:
        return f"Bearer {entries['token']}"
    return basic(entries["username"], entries["password"]) if "username" in entries else None
