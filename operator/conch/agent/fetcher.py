"""Brings the assigned files to the volume: fetches what is not there, verifies it, keeps only what is whole."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from aiohttp.abc import AbstractResolver

from conch.agent.decide import Wanted
from conch.agent.errors import StepError
from conch.agent.settings import AgentSettings
from conch.agent.volume import Record, Volume
from conch.api.reasons import Reason
from conch.store import Progress, Request, StoreError, fetch, in_thread, tree_digest, without_query
from conch.store.sources.claim import fingerprint
from conch.store.threads import Checkpoint

REFETCH_BYTES_MOST = 64 << 20
"""Up to this size a model is fetched anew where only that tells whether its source was mended."""


class Fetcher:
    """Fetches for one volume."""

    def __init__(
        self,
        settings: AgentSettings,
        volume: Volume,
        progress: Callable[[], Progress],
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._settings = settings
        self._volume = volume
        self._progress = progress
        self._resolver = resolver

    async def fetch(self, wanted: Wanted) -> None:
        """Bring the assigned files to the volume; raises StepError when they are not the expected ones, StoreError."""
        assignment, key = wanted.assignment, wanted.fetch_key
        before = self._volume.untrusted(key)
        if before is not None and await in_thread(self._verifier(wanted, before)):
            return
        known = self._volume.record(key)
        if known is not None and await in_thread(lambda _checkpoint: self._holds_nothing_new(wanted, known)):
            if wanted.expected_digest not in (None, known.digest):
                raise _other_files(wanted, known)
            return
        request = Request(
            source=assignment.source,
            policy=assignment.source_policy,
            claim_mount=self._settings.claim_folder,
            credentials_folder=self._settings.credentials_folder,
            limit_bytes=self._settings.limit_bytes,
            progress=self._progress(),
            pinned=assignment.pin.resolved if assignment.pin else "",
            known=known.resolved if known else "",
        )
        with self._volume.scratch() as folder:
            fetched = await fetch(request, self._volume.partial(key), folder, resolver=self._resolver)
            if fetched is not None:
                await in_thread(lambda _checkpoint: self._keep(wanted, folder, Record(**asdict(fetched))))
        record = self._volume.record(key)
        if record is not None and wanted.expected_digest not in (None, record.digest):
            raise _other_files(wanted, record)

    def _holds_nothing_new(self, wanted: Wanted, known: Record) -> bool:
        """Whether fetching again would be for nothing, as far as can be told without asking the store.

        Files on a claim tell whether they were written to. Where a store tells nothing of its files' versions, a large
        model that is not the expected one is not fetched again and again.
        """
        if known.fingerprint:
            with suppress(OSError):
                return fingerprint(self._volume.tree(wanted.fetch_key)) == known.fingerprint
        unexpected = wanted.expected_digest not in (None, known.digest)
        return unexpected and not known.resolved and known.bytes > REFETCH_BYTES_MOST

    def _verifier(self, wanted: Wanted, before: Record) -> Callable[[Checkpoint], bool]:
        """The machine has started since: whether the tree outlived that, told by its bytes."""

        def work(checkpoint: Checkpoint) -> bool:
            key = wanted.fetch_key
            try:
                digest = tree_digest(self._volume.tree(key), checkpoint)
            except StoreError:
                digest = ""
            if digest == before.digest:
                self._volume.trust(key, before)
                return True
            self._volume.forget(key)
            return False

        return work

    def _keep(self, wanted: Wanted, folder: Path, record: Record) -> None:
        before = self._volume.record(wanted.fetch_key)
        if before is not None and before.digest == record.digest and not record.fingerprint:
            self._volume.trust(wanted.fetch_key, record)
            return
        self._volume.drop_layout(wanted.layout_key)
        self._volume.keep_fetched(wanted.fetch_key, folder, record)

    def is_still_verified(self, wanted: Wanted) -> bool:
        """Files that were left on their claim may have been written to since; then they are forgotten."""
        record = self._volume.record(wanted.fetch_key)
        if record is None or self.is_unchanged(wanted, record):
            return True
        self._volume.drop_layout(wanted.layout_key)
        self._volume.forget(wanted.fetch_key)
        return False

    def is_unchanged(self, wanted: Wanted, record: Record) -> bool:
        """Whether files that were left on their claim are as they were when the record was made."""
        if not record.fingerprint:
            return True
        try:
            return fingerprint(self._volume.tree(wanted.fetch_key)) == record.fingerprint
        except OSError:
            return False


def _other_files(wanted: Wanted, record: Record) -> StepError:
    """The source's files are not those that were declared, or not those that the other replicas have."""
    source, pin = wanted.assignment.source, wanted.assignment.pin
    shown, now = without_query(source.uri), _known_as(record.digest, record.resolved)
    if source.digest or pin is None:
        return StepError(
            Reason.DIGEST_MISMATCH,
            f"{shown} has the digest {now}, declared is {source.digest}; nothing was loaded. Either the files were "
            "changed or the declaration is wrong",
        )
    return StepError(
        Reason.SOURCE_CHANGED,
        f"{shown} has changed since this revision was first fetched: it was {_known_as(pin.digest, pin.resolved)}, now "
        f"it is {now}. Restore it, or give spec.model another version, source or digest to serve what is there now",
    )


def _known_as(digest: str, resolved: str) -> str:
    return f"{resolved} ({digest})" if resolved else digest
