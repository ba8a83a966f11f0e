"""A model repository of the Hugging Face Hub: the library lists its files, our own client reads their bytes.

The library has no connections of its own: its requests are answered by our client, in the event loop, so that policy,
certificates, timeouts and credentials are the same as of every other store. It sees no token, and nothing of the
environment or of a login on disk.
"""

import asyncio
import re
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import wait
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import aiohttp

from conch.api.reasons import Reason
from conch.api.source import HuggingFaceSource
from conch.store.errors import StoreError
from conch.store.http_client import HttpClient, bearer
from conch.store.remote import Chunk, Listing, RemoteFile, Surroundings
from conch.store.threads import Checkpoint, in_thread

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoSibling

TOKEN_ENTRY: Final = "HF_TOKEN"  # noqa: S105 - its name
METADATA_BYTES_MOST: Final = 16 << 20
"""Some fifty thousand files."""

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_FORWARDED: Final = ("Content-Type", "X-Error-Code", "X-Error-Message")
_CHECK_SECONDS: Final = 0.1

_installing = threading.Lock()
_installed = False
_answering: ContextVar[Callable[["httpx2.Request"], "httpx2.Response"]] = ContextVar("hugging_face_answering")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class HuggingFaceRemote:
    """A repository at a revision, with the Secret's entry `HF_TOKEN`, if it has that."""

    def __init__(self, source: HuggingFaceSource, surroundings: Surroundings) -> None:
        self._source = source
        self._surroundings = surroundings
        self._client = HttpClient(surroundings, carrier=True)

    async def list(self) -> Listing:
        """The files of the commit that the revision stands for, or of the pinned one."""
        pinned = self._surroundings.pinned
        revision = pinned if _COMMIT.fullmatch(pinned) else self._source.revision
        loop = asyncio.get_running_loop()
        commit, everything = await in_thread(lambda checkpoint: self._ask(revision, loop, checkpoint))
        path = self._source.path
        below = f"{path}/" if path else ""
        single = [replace(file, path=path.rpartition("/")[2]) for file in everything if path and file.path == path]
        files = single or [
            replace(file, path=file.path.removeprefix(below)) for file in everything if file.path.startswith(below)
        ]
        if not files:
            what = f"no file or folder {path}" if path else "no files"
            raise self._client.error(Reason.SOURCE_NOT_FOUND, f"there is {what} at {revision}; check the URI")
        return Listing(files=tuple(files), resolved=commit, folder=not single)

    def read(self, file: RemoteFile, start: int, end: int | None) -> AsyncGenerator[Chunk, None]:
        """The file's bytes, as `Remote` says; a commit's files never change."""
        from huggingface_hub import hf_hub_url

        commit, _, path = file.key.partition(":")
        url = hf_hub_url(self._source.repository, path, revision=commit, endpoint=self._source.endpoint)
        return self._client.read_part(lambda headers: self._get_file(url, headers), file, start, end)

    async def close(self) -> None:
        """End all connections."""
        await self._client.close()

    @asynccontextmanager
    async def _get_file(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        async with self._client.get(url, headers, bearer(self._surroundings, TOKEN_ENTRY)) as response:
            if response.headers.get("X-Error-Code") == "GatedRepo":
                raise self._gated()
            yield response

    def _ask(
        self, revision: str, loop: asyncio.AbstractEventLoop, checkpoint: Checkpoint
    ) -> tuple[str, tuple[RemoteFile, ...]]:
        """Let the library ask for the commit and its files. Blocks, while the loop answers the library's requests."""
        from huggingface_hub import errors

        _answering.set(lambda request: self._answered(request, loop, checkpoint))
        try:
            info = _api(self._source.endpoint).model_info(
                self._source.repository, revision=revision, files_metadata=True
            )
            commit = info.sha or ""
            if not _COMMIT.fullmatch(commit):
                raise ValueError("no commit")
            return commit, tuple(_file(commit, sibling) for sibling in info.siblings or ())
        except errors.GatedRepoError as error:
            raise self._gated() from error
        except errors.RepositoryNotFoundError as error:
            raise self._client.error(
                Reason.SOURCE_NOT_FOUND,
                "there is no such repository, or it is private (both look the same without access); check the URI, and "
                f"{TOKEN_ENTRY} in the Secret of model.source.credentialsSecretRef",
            ) from error
        except errors.RevisionNotFoundError as error:
            raise self._client.error(
                Reason.SOURCE_NOT_FOUND, f"the repository has no revision {revision}; check the URI"
            ) from error
        except errors.HFValidationError as error:
            raise self._client.error(
                Reason.INVALID_SPEC, "the Hub has no repositories of such a name; check the URI"
            ) from error
        except errors.HfHubHTTPError as error:
            self._client.refuse_status(error.response.status_code)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._client.error(
                Reason.SOURCE_UNREACHABLE,
                f"{self._source.host} does not answer like a Hugging Face Hub; check model.source.endpoint",
            ) from error

    def _answered(
        self, request: "httpx2.Request", loop: asyncio.AbstractEventLoop, checkpoint: Checkpoint
    ) -> "httpx2.Response":
        import httpx2

        answering = asyncio.run_coroutine_threadsafe(self._answer(str(request.url)), loop)
        try:
            while not wait([answering], timeout=_CHECK_SECONDS).done:
                checkpoint()
        finally:
            answering.cancel()
        answer = answering.result()
        return httpx2.Response(answer.status, headers=answer.headers, content=answer.body, request=request)

    async def _answer(self, url: str) -> _Answer:
        async with self._client.get(url, authorization=bearer(self._surroundings, TOKEN_ENTRY)) as response:
            headers = {name: response.headers[name] for name in _FORWARDED if name in response.headers}
            body = await self._client.read_whole(response, METADATA_BYTES_MOST, "the list of its files")
            return _Answer(response.status, headers, body)

    def _gated(self) -> StoreError:
        return self._client.error(
            Reason.SOURCE_ACCESS_DENIED,
            "the repository is gated; accept its terms on the Hub, and put a token of that account as "
            f"{TOKEN_ENTRY} into the Secret of model.source.credentialsSecretRef",
        )


def _file(commit: str, sibling: "RepoSibling") -> RemoteFile:
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    # The library hands on whatever the JSON held.
    size, version = sibling.size, sha256 or sibling.blob_id or commit
    if not isinstance(size, int | None) or (size or 0) < 0 or not isinstance(version, str):
        raise TypeError("not a file's metadata")
    return RemoteFile(
        path=str(sibling.rfilename),
        key=f"{commit}:{sibling.rfilename}",
        size=size,
        version=version,
        sha256=sha256,
    )


def _api(endpoint: str) -> "HfApi":
    global _installed  # the library has one client for the whole process
    import httpx2
    from huggingface_hub import HfApi, set_client_factory

    class Transport(httpx2.BaseTransport):
        """Whatever the library asks is answered by the remote on whose behalf this thread runs."""

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            return _answering.get()(request)

    with _installing:
        if not _installed:
            set_client_factory(lambda: httpx2.Client(transport=Transport(), trust_env=False))
            _installed = True
    return HfApi(endpoint=endpoint, token=False)
