"""From a model's source to a verified file tree on the model volume, whatever kind of source it is."""

import asyncio
import functools
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from aiohttp.abc import AbstractResolver

from conch.api.model import ModelSource
from conch.api.reasons import Reason
from conch.api.source import BucketSource, ClaimSource, HttpSource, HuggingFaceSource, OciSource, SourceUriError
from conch.api.source_policy import SourcePolicy
from conch.store.addresses import PolicyResolver
from conch.store.archive import ArchiveLimits, extract, is_archive
from conch.store.credentials import Credentials
from conch.store.digest import listing_digest
from conch.store.egress_proxy import EgressProxy
from conch.store.errors import StorageError, StoreError, storage_error, without_query
from conch.store.listing_checks import FILES_MOST
from conch.store.remote import Bridged, ChangedError, Listing, Remote, Surroundings, TransientError
from conch.store.sources.claim import link_claim
from conch.store.threads import Checkpoint, in_thread
from conch.store.transfer import ATTEMPTS_WITHOUT_PROGRESS, PATIENCE_SECONDS, Progress, transfer, unreachable

LISTINGS_MOST: Final = 3
REFETCH_BYTES_MOST: Final = 64 << 20
"""Up to this size a model is fetched anew where only that tells whether its source was mended."""
_REASONS_OF_A_CONNECTION: Final = (
    Reason.SOURCE_UNREACHABLE,
    Reason.SOURCE_ACCESS_DENIED,
    Reason.SOURCE_NOT_FOUND,
)
"""What a client may make of a proxy that did not connect it."""
_Result = TypeVar("_Result")
Place = HttpSource | BucketSource | HuggingFaceSource | OciSource | ClaimSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A model to fetch."""

    source: ModelSource
    policy: SourcePolicy
    claim_mount: Path
    credentials_folder: Path
    limit_bytes: int
    progress: Progress
    credentials: Credentials | None = None
    """In place of the Secret's, for whom a person gives them to."""
    pinned: str = ""
    """What the source's name stood for when another pod fetched it: that is fetched where the store still has it."""
    known: str = ""
    """What it stood for when this pod fetched it; the same is not fetched again."""
    admit: Callable[[Listing, int], int] | None = None
    """Asked in a thread before the first byte of a listing, in place of `limit_bytes`: how much of it may be stored
    beside so many bytes of the other parts."""
    beside_bytes: int = 0
    """What the other parts take that were fetched before."""
    parts: Mapping[str, "Request"] = field(default_factory=dict)
    """Models that lie in one tree, each in a folder of its name (see composed.py); empty: one, which is the tree."""

    @property
    def shown(self) -> str:
        """The URI for people."""
        return without_query(self.source.uri)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A verified tree."""

    digest: str
    resolved: str
    bytes: int
    fingerprint: str = ""
    """Of files that were left where they are and linked to; see `in_place.fingerprint`."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Of every file, in hex, by its path in the tree; empty where no file was fetched, for it was in a cache."""


async def fetch(
    request: Request, partial: Path, folder: Path, *, resolver: AbstractResolver | None = None
) -> Fetched | None:
    """Fetch into `folder`/tree (`folder` is fresh); None when the source still is what `request.known` says.

    The tree holds the artefact's files: a folder's, an archive's content, or a bare file under its own name. `partial`
    keeps what arrived when it fails, and is emptied when it succeeds. Whether these are the files that somebody
    declared or pinned is for the caller to see. Raises StoreError.
    """
    place = allowed_place(request)
    if isinstance(place, ClaimSource):
        return await in_thread(_from_claim(request, place, folder))
    return await _from_remote(request, place, partial, folder, resolver)


def allowed_place(request: Request) -> Place:
    """Where the source is; raises StoreError where the policy does not allow it."""
    try:
        place = request.source.place
    except SourceUriError as error:
        raise StoreError(Reason.INVALID_SPEC, str(error)) from error
    if refusal := request.policy.refusal(place):
        raise StoreError(Reason.SOURCE_NOT_ALLOWED, f"{request.shown}: {refusal}")
    return place


def _from_claim(request: Request, source: ClaimSource, folder: Path) -> Callable[[Checkpoint], Fetched]:
    def work(checkpoint: Checkpoint) -> Fetched:
        tree, path = folder / "tree", request.claim_mount / source.path
        linked = link_claim(source, request.claim_mount, tree, progress=request.progress, checkpoint=checkpoint)
        only = tree / path.name
        if not path.is_dir() and is_archive(only, path.name):
            archive = only.resolve()
            shutil.rmtree(tree)
            sha256 = _extract(request, archive, path.name, tree, 0, 0, checkpoint)
            return _fetched(request, sha256, tree, "")
        digest = listing_digest(linked.sha256)
        return Fetched(
            digest=digest,
            resolved="",
            bytes=request.progress.bytes,
            sha256=linked.sha256,
            fingerprint=linked.fingerprint,
        )

    return work


async def _from_remote(
    request: Request,
    place: HttpSource | BucketSource | HuggingFaceSource | OciSource,
    partial: Path,
    folder: Path,
    resolver: AbstractResolver | None,
) -> Fetched | None:
    async with _remote(request, place, resolver) as (remote, proxy):
        try:
            for _ in range(LISTINGS_MOST):
                listing = await _patiently(remote.list, request.shown)
                if listing.resolved and listing.resolved == request.known:
                    return None
                admitted = await _admitted(request, listing)
                try:
                    sha256 = await transfer(
                        remote,
                        listing,
                        partial,
                        shown=request.shown,
                        limit_bytes=admitted.limit_bytes,
                        progress=request.progress,
                        abort=proxy.close,
                    )
                except ChangedError:
                    request.progress.bytes = request.progress.files = 0
                    continue
                arrange = functools.partial(_arrange, admitted, listing, sha256, partial, folder)
                return await in_thread(arrange)
        except StoreError as error:
            raise _with_proxy_words(error, proxy, request.shown) from error
    raise StoreError(
        Reason.SOURCE_CHANGED,
        f"{request.shown} changes while it is fetched; write a new version to a place of its own, then point to it",
    )


async def _admitted(request: Request, listing: Listing) -> Request:
    """The request with the bytes that this listing may have."""
    admit = request.admit
    if admit is None:
        return request
    return replace(request, limit_bytes=await in_thread(lambda _checkpoint: admit(listing, request.beside_bytes)))


@asynccontextmanager
async def _remote(
    request: Request,
    place: HttpSource | BucketSource | HuggingFaceSource | OciSource,
    resolver: AbstractResolver | None,
) -> AsyncIterator[tuple[Remote, EgressProxy]]:
    proxy = EgressProxy(PolicyResolver(request.policy, resolver), request.policy)
    proxy.start()
    try:
        surroundings = Surroundings(
            shown=request.shown,
            policy=request.policy,
            credentials=_credentials(request),
            pinned=request.pinned,
            resolver=resolver,
            proxy_url=proxy.url,
        )
        remote = open_remote(place, surroundings)
        try:
            yield remote, proxy
        finally:
            await remote.close()
    finally:
        proxy.close()


def _credentials(request: Request) -> Credentials:
    secret = request.source.credentials_secret_ref
    if request.credentials is not None:
        return request.credentials
    return Credentials.read(request.credentials_folder, secret.name) if secret else Credentials()


def open_remote(place: HttpSource | BucketSource | HuggingFaceSource | OciSource, surroundings: Surroundings) -> Remote:
    """The client for a kind of source; each is imported when it is first needed, since it stays in memory."""
    match place:
        case HttpSource():
            from conch.store.sources.https import HttpsRemote

            return Bridged(HttpsRemote(place, surroundings))
        case BucketSource():
            from conch.store.sources.buckets import BucketRemote

            return BucketRemote(place, surroundings)
        case HuggingFaceSource():
            from conch.store.sources.hugging_face import HuggingFaceRemote

            return Bridged(HuggingFaceRemote(place, surroundings))
        case OciSource():
            from conch.store.sources.oci import OciRemote

            return Bridged(OciRemote(place, surroundings))


async def _patiently(attempt: Callable[[], Awaitable[_Result]], shown: str) -> _Result:
    """Try again what may pass, but a person is told why within seconds."""
    clock = asyncio.get_running_loop().time
    began, failures = clock(), 0
    while True:
        try:
            return await attempt()
        except TransientError as error:
            failures += 1
            if failures >= ATTEMPTS_WITHOUT_PROGRESS or clock() - began >= PATIENCE_SECONDS:
                raise unreachable(shown, error) from error
        await asyncio.sleep(random.uniform(0.1, 0.3) * 2**failures)  # noqa: S311 - jitter


def _with_proxy_words(error: StoreError, proxy: EgressProxy, shown: str) -> StoreError:
    """The proxy knows what its clients do not say: that an address is not allowed, or why it could not be reached."""
    problem = proxy.take_problem()
    if error.reason not in _REASONS_OF_A_CONNECTION or isinstance(error, StorageError) or problem is None:
        return error
    if isinstance(problem, StoreError):
        return StoreError(problem.reason, f"{shown}: {problem.message}")
    return unreachable(shown, problem)


def _arrange(
    request: Request,
    listing: Listing,
    sha256: Mapping[str, str],
    partial: Path,
    folder: Path,
    checkpoint: Checkpoint,
) -> Fetched:
    """Make the tree of what was transferred; `partial` stays whole until that is done."""
    files, tree = partial / "files", folder / "tree"
    archives = [file.path for file in listing.files if file.unpack]
    only = listing.files[0].path
    if not listing.folder and is_archive(files / only, only):
        archives = [only]
    try:
        if archives:
            hashes = _unpacked(request, sha256, archives, files, tree, checkpoint)
        else:
            hashes = sha256
            files.rename(tree)
    except OSError as error:
        raise storage_error(error, request.shown) from error
    shutil.rmtree(partial, ignore_errors=True)
    return _fetched(request, hashes, tree, listing.resolved)


def _unpacked(
    request: Request,
    sha256: Mapping[str, str],
    archives: Sequence[str],
    files: Path,
    tree: Path,
    checkpoint: Checkpoint,
) -> Mapping[str, str]:
    """The archives' content, and beside it the files that are none; returns path -> sha256 of all of it."""
    hashes: dict[str, str] = {}
    packed_bytes = _size(files)
    for path in archives:
        hashes |= _extract(request, files / path, path, tree, packed_bytes + _size(tree), len(hashes), checkpoint)
    for path in sha256.keys() - set(archives):
        place = tree / path
        if path in hashes or place.exists():
            raise StoreError(Reason.INVALID_MODEL, f"{request.shown} has {path!r} twice; remove one")
        place.parent.mkdir(parents=True, exist_ok=True)
        (files / path).rename(place)
        hashes[path] = sha256[path]
    return hashes


def _extract(
    request: Request, archive: Path, name: str, tree: Path, taken_bytes: int, taken_files: int, checkpoint: Checkpoint
) -> Mapping[str, str]:
    # The archive lies beside its content until that is whole.
    left = min(request.limit_bytes - taken_bytes, shutil.disk_usage(tree.parent).free)
    limits = ArchiveLimits(bytes=left, files=FILES_MOST - taken_files)
    return extract(archive, tree, name=name, limits=limits, checkpoint=checkpoint)


def _fetched(request: Request, sha256: Mapping[str, str], tree: Path, resolved: str) -> Fetched:
    there = {file.relative_to(tree).as_posix() for file in tree.rglob("*") if not file.is_dir()}
    if there != sha256.keys():
        # The digest vouches for all that is in the tree: nothing else may be.
        raise StorageError(
            Reason.SOURCE_UNREACHABLE,
            f"{request.shown}: what lies on the model volume is not what was fetched; it is fetched again",
            "there are other files than were fetched",
        )
    return Fetched(digest=listing_digest(sha256), resolved=resolved, bytes=_size(tree), sha256=dict(sha256))


def _size(tree: Path) -> int:
    return sum(file.stat().st_size for file in tree.rglob("*") if file.is_file())
