"""What a listing from a stranger's store may hold: plain relative names, each once, no more than fits."""

import os
from pathlib import PurePosixPath
from typing import Final

from conch.api.reasons import Reason
from conch.store.digest import refused_name
from conch.store.errors import StoreError
from conch.store.remote import Listing

FILES_MOST: Final = 20_000
PATH_MAX_LENGTH: Final = 1024
PATH_MAX_DEPTH: Final = 32


def check_listing(listing: Listing, *, shown: str, limit_bytes: int) -> None:
    """Refuse a listing that cannot become a model. Raises StoreError."""
    if not listing.files:
        raise StoreError(Reason.INVALID_MODEL, f"{shown} has no files; upload the model there")
    if len(listing.files) > FILES_MOST:
        raise StoreError(
            Reason.SOURCE_TOO_LARGE, f"{shown} has more than {FILES_MOST} files; pack them into an archive"
        )
    paths = {file.path for file in listing.files}
    if len(paths) < len(listing.files):
        raise StoreError(Reason.INVALID_MODEL, f"{shown} lists a file twice; remove one")
    for path in paths:
        if reason := _refused_path(path):
            raise StoreError(Reason.INVALID_MODEL, f"{shown}: the file name {path[:80]!r} {reason}; rename it")
        if both := next((str(parent) for parent in PurePosixPath(path).parents if str(parent) in paths), None):
            raise StoreError(
                Reason.INVALID_MODEL, f"{shown} has {both!r} both as a file and as a folder; rename one of them"
            )
    total = sum(file.size or 0 for file in listing.files)
    if total > limit_bytes:
        raise too_large(shown, total, limit_bytes)


def too_large(shown: str, total: int | None, limit_bytes: int) -> StoreError:
    """More bytes than fit."""
    size = f"{total} bytes" if total is not None else "more bytes than allowed"
    return StoreError(
        Reason.SOURCE_TOO_LARGE,
        f"{shown}: it has {size}; at most {limit_bytes} fit on the pod's model volume. Set model.storage.size, or use "
        "a smaller model",
    )


def _refused_path(path: str) -> str | None:
    plain = PurePosixPath(path)
    if not plain.parts or plain.is_absolute() or ".." in plain.parts or "\0" in path or str(plain) != path:
        return "is not a plain relative path"
    if len(os.fsencode(path)) > PATH_MAX_LENGTH:
        return "is too long"
    if len(plain.parts) > PATH_MAX_DEPTH:
        return "is too deep"
    return refused_name(os.fsencode(path))
