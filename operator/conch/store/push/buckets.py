"""Objects in Amazon S3 (and stores like it), Google Cloud Storage and Azure Blob Storage, by obstore."""

import threading
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Final

import obstore
from obstore.exceptions import BaseError, NotFoundError

from conch.api.reasons import Reason
from conch.api.source import BucketSource
from conch.store.errors import StoreError
from conch.store.push.environment import ADVICE
from conch.store.push.meter import Step
from conch.store.push.policy import EVERYTHING
from conch.store.push.settings import PushSettings
from conch.store.push.tree import Tree, TreeFile
from conch.store.sources.buckets import AnyStore, Remedies, explained, open_store
from conch.store.threads import Interrupted

FILES_AT_ONCE: Final = 8
PART_BYTES: Final = 8 << 20
PARTS_AT_ONCE: Final = 3
"""Of one file. All files' parts together are what a push takes of memory: some 200 MiB."""
PARTS_MOST: Final = 9_500
"""S3 has at most 10,000 parts in an upload."""


def push(source: BucketSource, tree: Tree, settings: PushSettings) -> None:
    """Make the objects; what else is below the prefix is refused, or with `overwrite` removed. Raises StoreError."""
    _Push(source, tree, settings).run()


class _Push:
    def __init__(self, source: BucketSource, tree: Tree, settings: PushSettings) -> None:
        advice = ADVICE[source.scheme]
        self._remedies = Remedies(
            credentials=advice,
            denied=f"{advice}; they need the right to list, write and delete in the bucket {source.bucket}",
            certificate="to trust a private authority, name its certificate with --ca-certificate",
        )
        if source.scheme == "gs" and not any(name.startswith("GOOGLE_") for name in settings.credentials):
            # obstore would ask the cloud's metadata address for a token, for minutes.
            raise StoreError(
                Reason.SOURCE_ACCESS_DENIED, f"{settings.shown}: there are no credentials for Google Cloud; {advice}"
            )
        self._source = source
        self._tree = tree
        self._settings = settings
        self._store: AnyStore = open_store(
            source, settings.credentials, policy=EVERYTHING, upload=True, remedies=self._remedies
        )
        self._stop = threading.Event()

    def run(self) -> None:
        shown, wanted = self._settings.shown, self._tree.at(self._source.path)
        try:
            present = self._present()
            if present and not self._settings.overwrite:
                raise StoreError(
                    Reason.SOURCE_NOT_ALLOWED,
                    f"{shown}: there is something already ({_some(present)}); push to a place of its own, such as one "
                    "with a version in its name, or replace all of it with --overwrite",
                )
            stale = [key for key in present if key not in wanted]
            in_the_way = _in_the_way(stale, wanted)
            self._remove(in_the_way)
            with self._settings.meter.step(f"uploading {self._tree} to {shown}", self._tree.bytes) as step:
                self._upload(wanted, step)
            # At the end: who fetches meanwhile may still need them.
            self._remove([key for key in stale if key not in in_the_way])
        except (BaseError, FileNotFoundError, ValueError) as error:
            raise self._explained(error) from error

    def _present(self) -> list[str]:
        path = self._source.path
        found = [meta["path"] for page in obstore.list(self._store, prefix=path) for meta in page]
        with suppress(NotFoundError, FileNotFoundError):
            found.append(obstore.head(self._store, path)["path"])
        return found

    def _remove(self, keys: Collection[str]) -> None:
        if keys:
            obstore.delete(self._store, list(keys))
            self._settings.meter.say(f"removed what was there before and is not pushed: {_some(keys)}")

    def _upload(self, wanted: Mapping[str, TreeFile], step: Step) -> None:
        with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="upload") as pool:
            # The largest first: none of them is left alone at the end.
            largest_first = sorted(wanted.items(), key=lambda item: -item[1].size)
            running = [pool.submit(self._put, key, file, step) for key, file in largest_first]
            try:
                ended = wait(running, return_when=FIRST_EXCEPTION).done
                for each in ended:
                    each.result()
            finally:
                self._stop.set()
                pool.shutdown(cancel_futures=True)

    def _put(self, key: str, file: TreeFile, step: Step) -> None:
        chunks = self._chunks(file, step)
        if file.size <= PART_BYTES:
            # One request, where the beginning, middle and end of a multipart upload are three.
            obstore.put(self._store, key, b"".join(chunks), use_multipart=False)
            return
        part_bytes = max(PART_BYTES, -(-file.size // PARTS_MOST))
        at_once = max(1, PARTS_AT_ONCE * PART_BYTES // part_bytes)
        obstore.put(self._store, key, chunks, chunk_size=part_bytes, max_concurrency=at_once)

    def _chunks(self, file: TreeFile, step: Step) -> Iterator[bytes]:
        for chunk in file.chunks():
            if self._stop.is_set():
                raise Interrupted
            step.advance(len(chunk))
            yield chunk

    def _explained(self, error: Exception) -> StoreError:
        meant = explained(error, self._settings.shown, self._source, self._remedies)
        if isinstance(meant, StoreError):
            return meant
        return StoreError(
            Reason.SOURCE_UNREACHABLE,
            f"{self._settings.shown} cannot be pushed: {meant}; check the address and the network, then push again",
        )


def _in_the_way(stale: Collection[str], wanted: Mapping[str, TreeFile]) -> set[str]:
    """Objects that some stores must not have beside others: a file cannot be a folder as well."""
    folders = {str(folder) for key in wanted for folder in PurePosixPath(key).parents}
    return {key for key in stale if key in folders or any(str(each) in wanted for each in PurePosixPath(key).parents)}


def _some(keys: Collection[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(sorted(keys)[:3]) + more
