"""The digest of a model's file tree: its identity across stores, verifiable with standard tools.

    find . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum

sha256 over the lines `<hex sha256>  <relative/posix/path>\\n` sorted by path bytes. Regular files only; modes, times
and empty folders do not count. What such a listing cannot express without ambiguity is refused.
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from conch.api.reasons import Reason
from conch.store.errors import StoreError
from conch.store.threads import CHUNK_BYTES, Checkpoint, never_interrupted


def tree_digest(path: Path, checkpoint: Checkpoint = never_interrupted) -> str:
    """`sha256:<hex>` of a folder's files, or of a bare file as if it stood alone in a folder.

    Reads every byte: run it in a thread. Raises StoreError (InvalidModel) for links, special files and bad names.
    """
    files = [path] if not path.is_dir() or path.is_symlink() else regular_files(path)
    root = path.parent if files == [path] else path
    return listing_digest({file.relative_to(root).as_posix(): file_sha256(file, checkpoint) for file in files})


def listing_digest(sha256: Mapping[str, str]) -> str:
    """The digest of a tree whose files' sha256 (hex, by relative path) are known. Raises StoreError for bad names."""
    listing = hashlib.sha256()
    for name, hexdigest in sorted((os.fsencode(path), each) for path, each in sha256.items()):
        if reason := refused_name(name):
            raise StoreError(Reason.INVALID_MODEL, f"the model's file {name!r} {reason}; rename it")
        listing.update(hexdigest.encode() + b"  " + name + b"\n")
    return f"sha256:{listing.hexdigest()}"


def regular_files(folder: Path) -> list[Path]:
    """All files below a folder; raises StoreError when something is neither a file nor a folder."""
    found: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=_raise):
        for name in (*folders, *files):
            entry = Path(parent, name)
            mode = entry.lstat().st_mode
            if stat.S_ISREG(mode):
                found.append(entry)
            elif not stat.S_ISDIR(mode):
                kind = "symbolic link" if stat.S_ISLNK(mode) else "special file"
                raise StoreError(
                    Reason.INVALID_MODEL, f"the model contains the {kind} {entry.relative_to(folder)}; use plain files"
                )
    return found


def refused_name(name: bytes) -> str | None:
    """Why a relative path may not be part of a model, or None; `sha256sum` would escape such names."""
    if b"\n" in name or b"\\" in name or b"\r" in name:
        return "has a line break or backslash in its name"
    try:
        name.decode()
    except UnicodeDecodeError:
        return "has a name that is not UTF-8"
    return None


def file_sha256(file: Path, checkpoint: Checkpoint = never_interrupted) -> str:
    """Hex sha256 of one regular file, streamed."""
    digest = hashlib.sha256()
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise StoreError(
            Reason.INVALID_MODEL, f"the model's file {file.name} cannot be read: {error.strerror}"
        ) from error
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StoreError(Reason.INVALID_MODEL, f"the model's file {file.name} is a special file; use plain files")
        while chunk := stream.read(CHUNK_BYTES):
            checkpoint()
            digest.update(chunk)
    return digest.hexdigest()


def _raise(error: OSError) -> None:
    raise error
