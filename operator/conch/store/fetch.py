"""From a source URI to a verified file tree on the model volume, whatever kind of source it is."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from aiohttp.abc import AbstractResolver

from conch.api.reasons import Reason
from conch.api.source import ClaimSource, HttpSource, SourcePolicy, SourceUriError, parse_source_uri
from conch.store.archive import ArchiveLimits, extract, is_archive
from conch.store.claim import copy_claim
from conch.store.digest import refused_name, tree_digest
from conch.store.errors import StoreError, storage_error, without_query
from conch.store.https import Download, Progress, download
from conch.store.threads import Checkpoint, in_thread


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A model to fetch."""

    uri: str
    digest: str | None
    policy: SourcePolicy
    claim_mount: Path
    limit_bytes: int
    progress: Progress


async def fetch(request: Request, folder: Path, *, resolver: AbstractResolver | None = None) -> tuple[Path, str]:
    """Fetch into `folder` (fresh, ours to fill); returns the tree's folder and its digest.

    The tree holds the artefact's files: an archive's content, a claim's folder, or a bare file under its own name.
    Raises StoreError; the caller removes the folder then. A declared digest that does not match is such an error.
    """
    try:
        source = parse_source_uri(request.uri)
    except SourceUriError as error:
        raise StoreError(Reason.INVALID_SPEC, str(error)) from error
    if refusal := request.policy.refusal(source):
        raise StoreError(Reason.SOURCE_NOT_ALLOWED, f"{without_query(request.uri)}: {refusal}")
    name = _file_name(source)
    fetched, tree = folder / "fetched", folder / "tree"
    match source:
        case HttpSource():
            await download(
                Download(
                    source=source,
                    destination=fetched,
                    policy=request.policy,
                    limit_bytes=request.limit_bytes,
                    progress=request.progress,
                ),
                resolver=resolver,
            )
        case ClaimSource():
            await in_thread(_claim_copier(request, source, fetched))
    digest = await in_thread(lambda checkpoint: _unpack(request, name, fetched, tree, checkpoint))
    if request.digest and digest != request.digest:
        raise StoreError(
            Reason.DIGEST_MISMATCH,
            f"{without_query(request.uri)} has the digest {digest}, declared is {request.digest}; nothing was loaded. "
            "Either the file was changed or the declaration is wrong",
        )
    return tree, digest


def _claim_copier(request: Request, source: ClaimSource, fetched: Path) -> Callable[[Checkpoint], None]:
    return lambda checkpoint: copy_claim(
        source,
        request.claim_mount,
        fetched,
        limit_bytes=request.limit_bytes,
        progress=request.progress,
        checkpoint=checkpoint,
    )


def _unpack(request: Request, name: str, fetched: Path, tree: Path, checkpoint: Checkpoint) -> str:
    try:
        if fetched.is_dir():
            fetched.rename(tree)
        elif is_archive(fetched, name):
            # The archive lies beside its content until that is whole.
            left = request.limit_bytes - fetched.stat().st_size
            limits = ArchiveLimits(bytes=min(left, shutil.disk_usage(tree.parent).free))
            extract(fetched, tree, name=name, limits=limits, checkpoint=checkpoint)
            fetched.unlink()
        else:
            if not name or refused_name(name.encode(errors="surrogateescape")):
                raise StoreError(
                    Reason.INVALID_MODEL,
                    f"{without_query(request.uri)} does not end in a usable file name; rename the file",
                )
            tree.mkdir()
            fetched.rename(tree / name)
    except OSError as error:
        raise storage_error(error, without_query(request.uri)) from error
    return tree_digest(tree, checkpoint)


def _file_name(source: HttpSource | ClaimSource) -> str:
    path = (
        unquote(urlsplit(source.url).path, errors="surrogateescape") if isinstance(source, HttpSource) else source.path
    )
    name = path.rpartition("/")[2]
    return "" if name in (".", "..") or "\0" in name else name
