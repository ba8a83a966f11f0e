"""Brings the assigned files to the volume: fetches what is not there, verifies it, keeps only what is whole."""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from aiohttp.abc import AbstractResolver

from conch.agent.cached_fetch import CachedFetch
from conch.agent.errors import StepError
from conch.agent.settings import AgentSettings
from conch.agent.volume import Record, Volume
from conch.agent.wanted import Wanted
from conch.api.agent_report import CacheOutcome, CacheReport
from conch.api.assignment import Assignment
from conch.api.model import ModelSource
from conch.api.reasons import Reason
from conch.api.source import ClaimSource
from conch.api.types import bounded
from conch.store import (
    Fetched,
    Progress,
    Request,
    StoreError,
    allowed_place,
    fetch_all,
    in_thread,
    tree_digest,
    without_query,
)
from conch.store.cache import CacheError, ModelCache
from conch.store.fetch import REFETCH_BYTES_MOST
from conch.store.in_place import fingerprint
from conch.store.threads import Checkpoint


class Fetcher:
    """Fetches for one volume."""

    def __init__(
        self,
        settings: AgentSettings,
        volume: Volume,
        progress: Callable[[Wanted], Progress],
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._settings = settings
        self._volume = volume
        self._progress = progress
        self._resolver = resolver
        self._cached = _cached_fetch(settings, volume, resolver)
        self._cache_reports: dict[str, CacheReport] = {}
        """By fetch key, of this life of the agent."""

    async def fetch(self, wanted: Wanted, kept: Collection[str] = ()) -> None:
        """Bring the assigned files to the volume, beside the fetched trees of the keys `kept`.

        Raises StepError when they are not the expected ones, StoreError.
        """
        key = wanted.fetch_key
        before = self._volume.untrusted(key)
        if before is not None and await in_thread(self._verifier(wanted, before)):
            return
        known = self._volume.record(key)
        if known is not None and await in_thread(lambda _checkpoint: self._holds_nothing_new(wanted, known)):
            if wanted.expected_digest not in (None, known.digest):
                raise _other_files(wanted, known)
            return
        request = self._request(wanted, known.resolved if known else "", limit_bytes=self._room(wanted, kept))
        places = [allowed_place(part) for part in (request.parts.values() or [request])]
        if self._cached is None or any(isinstance(place, ClaimSource) for place in places):
            await self._fetch_onto_the_volume(wanted, request)
        else:
            await self._fetch_by_cache(self._cached, wanted, request, known)
        record = self._volume.record(key)
        if record is not None and wanted.expected_digest not in (None, record.digest):
            raise _other_files(wanted, record)

    def _room(self, wanted: Wanted, kept: Collection[str]) -> int:
        """How much of the volume the files may take, their archive included."""
        others = [self._volume.record(key) for key in kept if key != wanted.fetch_key]
        taken = sum(record.bytes for record in others if record is not None and not record.fingerprint)
        return max(0, self._settings.limit_bytes - taken)

    def _request(self, wanted: Wanted, known: str, *, limit_bytes: int) -> Request:
        assignment, progress = wanted.assignment, self._progress(wanted)
        requests = {
            model.name: Request(
                source=model.source,
                policy=assignment.source_policy,
                claim_mount=self._claim_mount(assignment, model.source),
                credentials_folder=self._credentials_folder(assignment, model.source),
                limit_bytes=limit_bytes,
                progress=progress,
            )
            for model in (assignment, *assignment.models)
        }
        return replace(
            requests[assignment.name],
            pinned=assignment.pin.resolved if assignment.pin else "",
            known=known,
            parts=requests if assignment.models else {},
        )

    def _claim_mount(self, assignment: Assignment, source: ModelSource) -> Path:
        """Where the claim of one model's source lies: that of the first has a place of its own."""
        claim = source.claim
        if claim is None or claim == assignment.source.claim:
            return self._settings.claim_folder
        return self._settings.further_claims_folder / claim

    def _credentials_folder(self, assignment: Assignment, source: ModelSource) -> Path:
        secret = source.credentials_secret_ref
        if secret is None or secret == assignment.source.credentials_secret_ref:
            return self._settings.credentials_folder
        return self._settings.further_credentials_folder / secret.name

    async def _fetch_onto_the_volume(self, wanted: Wanted, request: Request) -> None:
        with self._volume.scratch() as folder:
            fetched = await fetch_all(request, self._volume.partial(wanted.fetch_key), folder, resolver=self._resolver)
            if fetched is not None:
                await in_thread(lambda _checkpoint: self._keep(wanted, folder, _record(fetched)))

    async def _fetch_by_cache(
        self, cached: CachedFetch, wanted: Wanted, request: Request, known: Record | None
    ) -> None:
        digest = wanted.expected_digest
        if known is not None and known.digest == digest:
            # It cannot be served, and perhaps its source was mended: what the cache has tells nothing of that.
            digest = None
        try:
            with self._volume.scratch() as folder:
                brought = await cached.bring(request, digest=digest, source_key=wanted.fetch_key, folder=folder)
                if brought is None:
                    return
                record = _record(brought.fetched, cached=True)
                await in_thread(lambda _checkpoint: self._keep(wanted, folder, record))
            self._cache_reports[wanted.fetch_key] = CacheReport(
                outcome=brought.outcome, message=bounded(brought.message)
            )
        except CacheError as error:
            said = f"The model was fetched onto the pod's own volume, not into the model cache: {error}."
            self._cache_reports[wanted.fetch_key] = CacheReport(outcome=CacheOutcome.BYPASSED, message=bounded(said))
            request.progress.bytes = request.progress.files = 0
            await self._fetch_onto_the_volume(wanted, request)

    def cache_report(self, wanted: Wanted) -> CacheReport | None:
        """How the assigned model was come by where there is a model cache; None until it was."""
        record = self._volume.record(wanted.fetch_key)
        if self._cached is None or record is None:
            return None
        # An earlier life of this agent has found or filled it.
        before = CacheReport(outcome=CacheOutcome.HIT) if record.cached else None
        return self._cache_reports.get(wanted.fetch_key, before)

    async def keep_cache(self) -> None:
        """Keep others from taking away what is in use of the model cache, until cancelled."""
        if self._cached is not None:
            await self._cached.use(self._volume.cached())
            await self._cached.keep_renewing()

    def clean_up(self, wanted: Wanted, kept: Collection[str] = (), kept_layout: str | None = None) -> None:
        """Remove whatever is neither of the assigned model nor of these keys, and let others take away what is not in
        use any more."""
        self._volume.clean_up(fetched=wanted.fetch_key, layout=wanted.layout_key, kept=kept, kept_layout=kept_layout)
        self._leave_unused()

    def _leave_unused(self) -> None:
        if self._cached is not None:
            self._cached.leave_all_but(self._volume.cached())

    def _holds_nothing_new(self, wanted: Wanted, known: Record) -> bool:
        """Whether fetching again would be for nothing, as far as can be told without asking the store.

        Files on a claim tell whether they were written to. Where a store tells nothing of its files' versions, a large
        model that is not the expected one is not fetched again and again.
        """
        if known.is_at_its_source:
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
        if before and before.digest == record.digest and not (record.fingerprint or before.fingerprint):
            self._volume.trust(wanted.fetch_key, record)
            return
        self._volume.drop_layout(wanted.layout_key)
        self._volume.keep_fetched(wanted.fetch_key, folder, record)
        self._leave_unused()

    def check_still_verified(self, wanted: Wanted) -> None:
        """Files that are not on the pod's volume may have been written to since: then forget them; raises StepError."""
        record = self._volume.record(wanted.fetch_key)
        if record is None or (self._is_ours(record) and self.is_unchanged(wanted, record)):
            return
        self._volume.drop_layout(wanted.layout_key)
        self._volume.forget(wanted.fetch_key)
        self._leave_unused()
        where = "in the model cache" if record.cached else "on the claim"
        raise StepError(
            Reason.SOURCE_CHANGED,
            f"{shown_sources(wanted)}: the files {where} were written to or taken away after they were verified; they "
            "are verified anew",
        )

    def _is_ours(self, record: Record) -> bool:
        """Whether nobody takes the files away while Triton loads them."""
        return not record.cached or (self._cached is not None and self._cached.is_in_use(record.digest))

    def is_unchanged(self, wanted: Wanted, record: Record) -> bool:
        """Whether files that are not on the pod's volume are as they were when the record was made."""
        if not record.fingerprint:
            return True
        try:
            return fingerprint(self._volume.tree(wanted.fetch_key)) == record.fingerprint
        except OSError:
            return False


def shown_sources(wanted: Wanted) -> str:
    """The URIs for people."""
    return ", ".join(without_query(model.source.uri) for model in wanted.models)


def _record(fetched: Fetched, *, cached: bool = False) -> Record:
    return Record(
        digest=fetched.digest,
        bytes=fetched.bytes,
        resolved=fetched.resolved,
        fingerprint=fetched.fingerprint,
        cached=cached,
    )


def _cached_fetch(settings: AgentSettings, volume: Volume, resolver: AbstractResolver | None) -> CachedFetch | None:
    if settings.cache_bytes is None:
        return None
    cache = ModelCache(settings.cache_folder, limit_bytes=settings.cache_bytes, boot=volume.boot)
    return CachedFetch(cache, resolver)


def _other_files(wanted: Wanted, record: Record) -> StepError:
    """The source's files are not those that were declared, or not those that the other replicas have."""
    assignment = wanted.assignment
    source, pin = assignment.source, assignment.pin
    shown = shown_sources(wanted)
    now = _known_as(record.digest, record.resolved)
    if pin is None or (source.digest and not assignment.models):
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
