"""The model that is pushed: its files with their hashes, all of them such that they can be fetched again."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conch.api.reasons import Reason
from conch.store.archive import is_archive
from conch.store.digest import file_sha256, listing_digest, regular_files
from conch.store.errors import StoreError
from conch.store.listing_checks import check_listing
from conch.store.push.meter import Meter
from conch.store.remote import Listing, RemoteFile
from conch.store.threads import CHUNK_BYTES, Interrupted

READ_BYTES: Final = 1 << 20
_HASHING: Final = 4
_ANY_SIZE: Final = 1 << 62
"""How much fits is the business of the pods that fetch it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeFile:
    """One file, as it was when it was hashed."""

    path: str
    """Below the model's folder, with slashes."""
    local: Path
    size: int
    sha256: str

    def chunks(self) -> Iterator[bytes]:
        """Its bytes; raises StoreError before the last of them when they are others than those that were hashed.

        So a store that is sent them never has the whole of something else.
        """
        digest, left = hashlib.sha256(), self.size
        try:
            with self.local.open("rb", buffering=0) as stream:
                while left:
                    chunk = stream.read(min(READ_BYTES, left))
                    left -= len(chunk)
                    digest.update(chunk)
                    if not chunk or (not left and (digest.hexdigest() != self.sha256 or stream.read(1))):
                        raise self._changed()
                    yield chunk
        except OSError as error:
            raise self._changed() from error

    def _changed(self) -> StoreError:
        return StoreError(
            Reason.SOURCE_CHANGED, f"{self.local} was changed while it was pushed; push again when nothing writes to it"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """All of them."""

    files: tuple[TreeFile, ...]
    """Sorted by path."""
    digest: str
    bare: bool
    """Whether it is a file that was named itself, not a folder."""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files)

    def at(self, path: str) -> Mapping[str, TreeFile]:
        """Key -> file, for a store that keeps files by their whole path, below `path`.

        A bare file keeps its name, which is part of the digest: it is at `path` where that ends in the name.
        """
        if self.is_at(path):
            return {path: self.files[0]}
        return {f"{path}/{file.path}".lstrip("/"): file for file in self.files}

    def is_at(self, path: str) -> bool:
        """Whether this is a bare file of which `path` is the whole key."""
        return self.bare and path.rpartition("/")[2] == self.files[0].path

    def __str__(self) -> str:
        return "1 file" if len(self.files) == 1 else f"{len(self.files)} files"


def read_tree(path: Path, meter: Meter) -> Tree:
    """Hash every file. Raises StoreError for what could not be fetched again."""
    bare = not path.is_dir()
    try:
        if path.is_symlink():
            raise _refused(f"{path} is a symbolic link; name the folder or file that it leads to")
        found = [path] if bare else regular_files(path)
        sizes = [file.stat().st_size for file in found]
    except OSError as error:
        raise _refused(f"{error.filename or path} cannot be read ({error.strerror}); check its mode") from error
    root = path.parent if bare else path
    names = [file.relative_to(root).as_posix() for file in found]
    if not found:
        raise _refused(f"{path} has no files; a model has at least one")
    _check_names(path, names)
    if len(found) == 1 and is_archive(found[0], names[0]):
        raise _refused(
            f"{found[0]} is an archive, which is unpacked when it is fetched, and a digest is of what is in it; unpack "
            "it here and push the folder"
        )
    with meter.step(f"reading {path}", sum(sizes)) as step:
        hashes = _hashes(found, lambda: step.advance(CHUNK_BYTES))
        step.show(sum(sizes), sum(sizes))
    files = tuple(
        TreeFile(path=name, local=file, size=size, sha256=sha256)
        for name, file, size, sha256 in sorted(zip(names, found, sizes, hashes, strict=True))
    )
    return Tree(files=files, digest=listing_digest({file.path: file.sha256 for file in files}), bare=bare)


def _hashes(files: list[Path], checkpoint: Callable[[], None]) -> list[str]:
    stop = threading.Event()

    def advance() -> None:
        if stop.is_set():
            raise Interrupted
        checkpoint()

    with ThreadPoolExecutor(_HASHING, thread_name_prefix="hash") as pool:
        running = [pool.submit(file_sha256, file, advance) for file in files]
        try:
            return [each.result() for each in running]
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _check_names(path: Path, names: list[str]) -> None:
    # As the agent checks a listing, which it refuses.
    listed = tuple(RemoteFile(path=name, key=name, size=0) for name in names)
    check_listing(Listing(files=listed, resolved="", folder=True), shown=str(path), limit_bytes=_ANY_SIZE)


def _refused(message: str) -> StoreError:
    return StoreError(Reason.INVALID_MODEL, message)
