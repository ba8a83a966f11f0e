"""What a model cache is used for in tests, without an agent and without a store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from conch.store import Fetched, Progress, tree_digest
from conch.store.cache import Cached, ModelCache
from conch.store.remote import Listing, RemoteFile
from conch.store.threads import never_interrupted

KEY = "0123456789abcdef" * 2


def listing(files: Mapping[str, bytes]) -> Listing:
    """A folder with these files, as a store lists it."""
    listed = tuple(RemoteFile(path=name, key=name, size=len(content)) for name, content in files.items())
    return Listing(files=listed, resolved="v1", folder=True)


def written(folder: Path, files: Mapping[str, bytes]) -> Path:
    """The folder, with these files in it."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def digest_of(files: Mapping[str, bytes], folder: Path) -> str:
    """The digest of these files."""
    return tree_digest(written(folder / f"digest-{len(list(folder.glob('digest-*')))}", files))


def fill(
    cache: ModelCache, files: Mapping[str, bytes], tree: Path, *, digest: str | None = None, key: str = KEY
) -> Cached | None:
    """What a fetch does with the cache; None where the entry was there, or another process fetches."""
    cache.prepare()
    filling = cache.begin(digest, key)
    if filling is None:
        return None
    try:
        room = cache.make_room(filling, listing(files))
        arrived = written(filling.partial / "files", files)
        filling.show(Progress(bytes=room, total_bytes=room))
        made = filling.folder / "tree"
        arrived.rename(made)
        filling.partial.rmdir()
        fetched = Fetched(digest=tree_digest(made), resolved="v1", bytes=sum(map(len, files.values())))
        return filling.put(fetched, tree)
    finally:
        filling.close(keeps_partial=True)


def link(cache: ModelCache, digest: str, tree: Path) -> Cached | None:
    """Find an entry, verify it and use it."""
    cache.prepare()
    return cache.link(digest, tree, Progress(), never_interrupted)


def content(tree: Path) -> dict[str, bytes]:
    """The files of a tree, through its links."""
    return {
        Path(parent, name).relative_to(tree).as_posix(): Path(parent, name).read_bytes()
        for parent, _, names in os.walk(tree)
        for name in names
    }
