"""Several sources into one tree, each in a folder of its own: what a pod with several models serves from.

    <folder>/tree/<name>/...                one verified tree, with one digest
    <partial>/<name>/partial/...            what has arrived of a source
    <partial>/<name>/fetched/tree/...       a source that is whole;  .../fetched/record.json  what is known of it

A source that is whole waits for the others: when one of them fails, the next attempt fetches only that one.
"""

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from aiohttp.abc import AbstractResolver

from conch.api.reasons import Reason
from conch.store.digest import listing_digest
from conch.store.errors import StoreError, storage_error
from conch.store.fetch import REFETCH_BYTES_MOST, Fetched, Request, fetch
from conch.store.in_place import fingerprint
from conch.store.threads import in_thread
from conch.store.transfer import Progress

_RECORD: Final = "record.json"


async def fetch_all(
    request: Request, partial: Path, folder: Path, *, resolver: AbstractResolver | None = None
) -> Fetched | None:
    """Fetch what `fetch` does, or the request's parts in turn, by folder name, into one tree.

    Of parts, `pinned` and `known` are of all together: the `resolved` of what an earlier call returned. A part with a
    declared digest must have it. Raises StoreError, which names the part.
    """
    if not request.parts:
        return await fetch(request, partial, folder, resolver=resolver)
    before, kept = _split(request.known), _split(request.pinned)
    whole: dict[str, Fetched] = {}
    unchanged: list[str] = []
    for name, part in request.parts.items():
        asked = replace(part, pinned=kept.get(name, ""), known=before.get(name, ""))
        fetched = await _part(name, asked, request, whole, partial, resolver)
        if fetched is None:
            unchanged.append(name)
        else:
            whole[name] = fetched
    if len(unchanged) == len(request.parts):
        return None
    for name in unchanged:
        # Its tree goes with those that are not what they were.
        asked = replace(request.parts[name], pinned=before[name])
        fetched = await _part(name, asked, request, whole, partial, resolver)
        assert fetched is not None  # noqa: S101 - only what is known can be found unchanged
        whole[name] = fetched
    return await in_thread(lambda _checkpoint: _compose(whole, request.parts, partial, folder))


class _PartOfProgress(Progress):
    """How far one part is, shown as progress of the whole: what came before it is counted already."""

    def __init__(self, whole: Progress, *, is_last: bool) -> None:
        self._whole = whole
        self._is_last = is_last
        self._bytes_before, self._files_before = whole.bytes, whole.files
        super().__init__()

    @property
    def bytes(self) -> int:
        return self._whole.bytes - self._bytes_before

    @bytes.setter
    def bytes(self, value: int) -> None:
        self._whole.bytes = self._bytes_before + value

    @property
    def files(self) -> int:
        return self._whole.files - self._files_before

    @files.setter
    def files(self, value: int) -> None:
        self._whole.files = self._files_before + value

    @property
    def total_bytes(self) -> int | None:
        return None if self._whole.total_bytes is None else self._whole.total_bytes - self._bytes_before

    @total_bytes.setter
    def total_bytes(self, value: int | None) -> None:
        # Of a part that was not asked yet nobody knows.
        self._whole.total_bytes = self._bytes_before + value if self._is_last and value is not None else None


async def _part(
    name: str,
    part: Request,
    request: Request,
    others: Mapping[str, Fetched],
    partial: Path,
    resolver: AbstractResolver | None,
) -> Fetched | None:
    progress = _PartOfProgress(request.progress, is_last=len(others) == len(request.parts) - 1)
    place, declared = partial / name, part.source.digest
    there = await in_thread(lambda _checkpoint: _read(place))
    if there is not None and declared in (None, there.digest):
        progress.bytes, progress.files = there.bytes, len(there.sha256)
        return there
    if there is not None and not there.resolved and there.bytes > REFETCH_BYTES_MOST:
        raise _other_than_declared(name, part, there)
    arriving = place / "arriving"
    await in_thread(lambda _checkpoint: _empty(arriving))
    # What lies on a claim takes no room.
    beside_bytes = sum(other.bytes for other in others.values() if not other.fingerprint)
    asked = replace(
        part,
        limit_bytes=request.limit_bytes - beside_bytes,
        admit=request.admit,
        beside_bytes=beside_bytes,
        progress=progress,
        known=there.resolved if there else part.known,
    )
    try:
        fetched = await fetch(asked, place / "partial", arriving, resolver=resolver)
    except StoreError as error:
        raise error.of(f"the model {name!r}") from error
    if fetched is not None:
        await in_thread(lambda _checkpoint: _keep(place, arriving, fetched))
    elif there is None:
        return None
    found = fetched or there
    assert found is not None  # noqa: S101 - one of the two
    if declared not in (None, found.digest):
        raise _other_than_declared(name, part, found)
    return found


def _other_than_declared(name: str, part: Request, found: Fetched) -> StoreError:
    return StoreError(
        Reason.DIGEST_MISMATCH,
        f"the model {name!r}: {part.shown} has the digest {found.digest}, declared is {part.source.digest}; nothing "
        "was loaded. Either the files were changed or the declaration is wrong",
    )


def _read(place: Path) -> Fetched | None:
    """What an earlier attempt has fetched, if it is still what it was."""
    try:
        fetched = Fetched(**json.loads((place / "fetched" / _RECORD).read_text()))
        tree = place / "fetched" / "tree"
        is_there = tree.is_dir() and (not fetched.fingerprint or fingerprint(tree) == fetched.fingerprint)
    except (OSError, ValueError, TypeError):
        is_there = False
    if not is_there:
        shutil.rmtree(place / "fetched", ignore_errors=True)
        return None
    return fetched


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _keep(place: Path, arriving: Path, fetched: Fetched) -> None:
    (arriving / _RECORD).write_text(json.dumps(asdict(fetched)))
    shutil.rmtree(place / "fetched", ignore_errors=True)
    arriving.rename(place / "fetched")


def _compose(parts: Mapping[str, Fetched], requests: Mapping[str, Request], partial: Path, folder: Path) -> Fetched:
    tree = folder / "tree"
    try:
        tree.mkdir()
        for name in parts:
            (partial / name / "fetched" / "tree").rename(tree / name)
        is_linked = any(part.fingerprint for part in parts.values())
        seen = fingerprint(tree) if is_linked else ""
        for name, part in parts.items():
            # After the fingerprint of all: whatever is written to from now on shows in that.
            if part.fingerprint and fingerprint(tree / name) != part.fingerprint:
                raise StoreError(
                    Reason.SOURCE_CHANGED,
                    f"the model {name!r}: {requests[name].shown} was written to while the others were fetched; it is "
                    "fetched again",
                )
    except OSError as error:
        raise storage_error(error, ", ".join(request.shown for request in requests.values())) from error
    shutil.rmtree(partial, ignore_errors=True)
    sha256 = {f"{name}/{path}": each for name, part in parts.items() for path, each in part.sha256.items()}
    return Fetched(
        digest=listing_digest(sha256),
        resolved=_join(parts),
        bytes=sum(part.bytes for part in parts.values()),
        sha256=sha256,
        fingerprint=seen,
    )


def tells_versions(resolved: str, parts: Collection[str]) -> bool:
    """Whether each of these parts has told what its name stood for, so that only what is another one is fetched."""
    return _split(resolved).keys() >= set(parts)


def _join(parts: Mapping[str, Fetched]) -> str:
    resolved = {name: part.resolved for name, part in parts.items() if part.resolved}
    return json.dumps(resolved) if resolved else ""


def _split(resolved: str) -> Mapping[str, str]:
    """By model; empty for what is not of several models."""
    try:
        found = json.loads(resolved)
    except ValueError:
        return {}
    return {name: str(word) for name, word in found.items()} if isinstance(found, dict) else {}
