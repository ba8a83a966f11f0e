"""From a listing to files on disk: many ranges at once, resumed where they broke off, hashed as they come.

Files are cut into parts, and a few workers take one part after the other, so that neither one huge file nor ten
thousand small ones leave the network idle. In memory is one chunk per worker, whatever the model's size. A journal
remembers which parts are there: a restart of the agent goes on from it.
"""

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conch.api.reasons import Reason
from conch.store.errors import StoreError, storage_error
from conch.store.incoming_file import IncomingFile
from conch.store.journal import Journal, Known
from conch.store.listing_checks import check_listing, too_large
from conch.store.remote import ChangedError, Chunk, Listing, Remote, RemoteFile, TransientError
from conch.store.threads import Checkpoint, Interrupted, in_thread

PART_BYTES: Final = 16 << 20
WORKERS: Final = 16
ATTEMPTS_WITHOUT_PROGRESS: Final = 3
PATIENCE_SECONDS: Final = 4.0
"""Without a byte for so long a person is told why; the agent tries again anyhow."""
SMALL_BYTES: Final = 1 << 20
"""Up to this size a file is one chunk: it is written and hashed in one go."""
_LOOK_SECONDS: Final = 0.2
_MORE: Final = "the server sent more than was asked for"


@dataclass(slots=True)
class Progress:
    """How far a fetch is; read by whoever shows it."""

    bytes: int = 0
    total_bytes: int | None = None
    files: int = 0


async def transfer(
    remote: Remote,
    listing: Listing,
    folder: Path,
    *,
    shown: str,
    limit_bytes: int,
    progress: Progress,
    abort: Callable[[], None] = lambda: None,
) -> Mapping[str, str]:
    """Bring every file of the listing below `folder`/files; returns path -> sha256 in hex.

    `folder` may hold what an earlier transfer left, and keeps what this one brought if it fails. Raises StoreError, or
    ChangedError when the store no longer has what it listed. `abort` ends the remote's connections, from any thread,
    where a chunk that trickles in would keep this from ending.
    """
    check_listing(listing, shown=shown, limit_bytes=limit_bytes)
    work = Transfer(remote, folder, shown=shown, limit_bytes=limit_bytes, progress=progress, abort=abort)
    return await in_thread(lambda checkpoint: work.run(listing, checkpoint))


class _File:
    """One file of the listing: where it goes, and how many of its parts are still to come."""

    def __init__(self, remote: RemoteFile, path: Path, arrived: dict[int, int], checkpoint: Checkpoint) -> None:
        self.remote = remote
        self.incoming = IncomingFile(path, arrived, checkpoint)
        self.parts_left = 0


@dataclass(frozen=True, slots=True)
class _Part:
    file: _File
    start: int
    end: int | None
    """None: to the end, wherever that is; such a part cannot be resumed."""


class Transfer:
    """One run of `transfer`, in threads: what moves the bytes must not wait its turn in an event loop."""

    def __init__(
        self,
        remote: Remote,
        folder: Path,
        *,
        shown: str,
        limit_bytes: int,
        progress: Progress,
        abort: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._remote = remote
        self._folder = folder / "files"
        self._shown = shown
        self._limit_bytes = limit_bytes
        self._progress = progress
        self._abort = abort
        self._clock = clock
        self._journal = Journal(folder / "journal")
        self._files: list[_File] = []
        self._parts: deque[_Part] = deque()
        self._sha256: dict[str, str] = {}
        self._state = threading.Lock()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._moved_at = clock()

    def run(self, listing: Listing, checkpoint: Checkpoint) -> Mapping[str, str]:
        """Bring everything; returns path -> sha256."""
        try:
            self._prepare(listing)
            workers = min(WORKERS, len(self._parts))
            with ThreadPoolExecutor(max(1, workers), thread_name_prefix="transfer") as pool:
                running = [pool.submit(self._work) for _ in range(workers)]
                try:
                    while wait(running, timeout=_LOOK_SECONDS, return_when=FIRST_EXCEPTION).not_done:
                        checkpoint()
                        if self._failure:
                            break
                    self._stop.set()
                    if self._failure and not isinstance(self._failure, ChangedError):
                        self._abort()
                    while wait(running, timeout=_LOOK_SECONDS).not_done:
                        checkpoint()
                except Interrupted:
                    self._stop.set()
                    self._abort()
                    raise
                finally:
                    self._stop.set()
            if self._failure:
                raise self._failure
        except OSError as error:
            raise storage_error(error, self._shown) from error
        finally:
            for file in self._files:
                file.incoming.close()
            self._journal.close()
        return self._sha256

    def _prepare(self, listing: Listing) -> None:
        """List the parts that are still to come."""
        known = self._journal.open(file for file in listing.files if (self._folder / file.path).is_file())
        self._remove_all_but(known)
        for remote in listing.files:
            path = self._folder / remote.path
            before = known.get(remote.path) or Known("", None)
            if before.sha256:
                self._sha256[remote.path] = before.sha256
                self._progress.bytes += remote.size or 0
                self._progress.files += 1
            else:
                self._add_parts(remote, path, before.parts)
        sizes = [file.size for file in listing.files]
        self._progress.total_bytes = None if None in sizes else sum(size or 0 for size in sizes)

    def _remove_all_but(self, paths: Collection[str]) -> None:
        """Remove what an earlier listing left: it would lie beside, or in the way of, what is listed now."""
        for parent, folders, files in os.walk(self._folder, topdown=False):
            for name in files:
                if (path := Path(parent, name)).relative_to(self._folder).as_posix() not in paths:
                    path.unlink()
            for name in folders:
                with suppress(OSError):  # not empty
                    Path(parent, name).rmdir()

    def _add_parts(self, remote: RemoteFile, path: Path, arrived: dict[int, int]) -> None:
        size = remote.size
        if size is None or not remote.version:
            # Without a version nothing tells that the rest belongs to the same bytes.
            spans: list[tuple[int, int | None]] = [(0, None)]
        else:
            spans = [(start, min(start + PART_BYTES, size)) for start in range(0, size, PART_BYTES)] or [(0, 0)]
        arrived = {start: end for start, end in spans if end is not None and arrived.get(start) == end}
        if len(arrived) == len(spans):
            # All but its hash: one part is taken again, so that somebody finishes the file.
            arrived = {start: end for start, end in arrived.items() if start}
        file = _File(remote, path, arrived, self._checkpoint)
        self._files.append(file)
        for start, end in spans:
            if start in arrived:
                self._progress.bytes += arrived[start] - start
            else:
                self._parts.append(_Part(file, start, end))
                file.parts_left += 1

    def _work(self) -> None:
        """Bring one part after the other until none is left."""
        while not self._stop.is_set():
            try:
                part = self._parts.popleft()
            except IndexError:
                return
            try:
                size = part.file.remote.size
                if size is not None and size <= SMALL_BYTES:
                    self._bring_small(part.file)
                else:
                    self._bring(part)
            except BaseException as error:
                # All workers meet the same store: the first that failed says why.
                with self._state:
                    self._failure = self._failure or error
                self._stop.set()
                raise

    def _bring_small(self, file: _File) -> None:
        remote, content = file.remote, bytearray()

        def attempt() -> None:
            content.clear()
            for chunk in self._chunks(remote, 0, remote.size):
                if len(content) + len(chunk) > (remote.size or 0):
                    raise unreachable(self._shown, _MORE)
                content.extend(chunk)
            _check_size(remote, len(content), remote.size)

        self._until_done(attempt)
        self._moved(len(content))
        self._finish(file, file.incoming.write_whole(content))

    def _bring(self, part: _Part) -> None:
        file, position = part.file, part.start
        stop = part.end if part.end is not None else file.remote.size

        def attempt() -> None:
            nonlocal position
            if part.end is None and position:
                self._moved(-position)
                position = 0
                file.incoming.start_again()
            if position == part.end:
                return  # it broke off behind the last byte
            for chunk in self._chunks(file.remote, position, part.end):
                if stop is not None and position + len(chunk) > stop:
                    raise unreachable(self._shown, _MORE)
                self._moved(len(chunk))
                file.incoming.write(part.start, position, chunk)
                position += len(chunk)
            _check_size(file.remote, position, stop)

        self._until_done(attempt, resumes=part.end is not None)
        with self._state:
            file.parts_left -= 1
            last = not file.parts_left
            if not last:
                self._journal.add_part(file.remote, part.start, position)
        if last:
            sha256 = file.incoming.finish()
            if file.remote.size not in (None, file.incoming.hashed_bytes):
                raise OSError(f"{file.remote.path} has a gap")
            self._finish(file, sha256)

    def _chunks(self, file: RemoteFile, start: int, end: int | None) -> Iterator[Chunk]:
        chunks = self._remote.read(file, start, end)
        try:
            for chunk in chunks:
                self._checkpoint()
                yield chunk
        finally:
            if isinstance(chunks, Generator):
                chunks.close()

    def _checkpoint(self) -> None:
        if self._stop.is_set():
            raise Interrupted

    def _finish(self, file: _File, sha256: str) -> None:
        remote = file.remote
        if remote.sha256 and sha256 != remote.sha256:
            raise StoreError(
                Reason.INVALID_MODEL,
                f"{self._shown}: {remote.path} has the sha256 {sha256}, but its store declares {remote.sha256}; upload "
                "it again",
            )
        with self._state:
            self._journal.add_file(remote, sha256)
            self._sha256[remote.path] = sha256
            self._progress.files += 1

    def _until_done(self, attempt: Callable[[], None], *, resumes: bool = True) -> None:
        """Try again after what may pass, as long as bytes come, here or for others; without a byte, not for long.

        An attempt that does not go on from where the last one ended brings no new bytes, however many it reads.
        """
        failures = 0
        while True:
            moved_before = self._moved_at
            try:
                return attempt()
            except TransientError as error:
                failures = 1 if resumes and self._moved_at > moved_before else failures + 1
                silent_seconds = self._clock() - self._moved_at
                if failures >= ATTEMPTS_WITHOUT_PROGRESS or silent_seconds >= PATIENCE_SECONDS:
                    raise unreachable(self._shown, error) from error
            if self._stop.wait(random.uniform(0.1, 0.3) * 2**failures):  # noqa: S311 - jitter
                raise Interrupted

    def _moved(self, count: int) -> None:
        with self._state:
            self._moved_at = self._clock()
            self._progress.bytes += count
            if self._progress.bytes > self._limit_bytes:
                raise too_large(self._shown, None, self._limit_bytes)


def unreachable(shown: str, error: TransientError | str) -> StoreError:
    """What has failed too often to be called passing."""
    return StoreError(
        Reason.SOURCE_UNREACHABLE,
        f"{shown} cannot be fetched: {error}; check the address and the network, it is tried again",
    )


def _check_size(file: RemoteFile, got: int, wanted: int | None) -> None:
    if wanted is not None and got != wanted:
        raise TransientError(f"the transfer ended after {got} of {file.size} bytes")
