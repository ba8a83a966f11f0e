"""The digest of what a source's name stands for now, for a person: what `conch digest URI` does."""

import asyncio
import shutil
import tempfile
from pathlib import Path

from conch.api.model import ModelSource
from conch.api.reasons import Reason
from conch.api.source import BucketSource, ClaimSource, Source
from conch.store.credentials import CA_CERTIFICATE, Credentials
from conch.store.errors import StoreError
from conch.store.fetch import Fetched, Request, fetch
from conch.store.push.environment import ADVICE
from conch.store.push.meter import Meter, Step
from conch.store.push.policy import EVERYTHING
from conch.store.sources.buckets import IDENTITY_FILES
from conch.store.transfer import Progress

_SHOW_SECONDS = 0.2


def source_digest(source: ModelSource, credentials: Credentials, meter: Meter) -> Fetched:
    """Fetch everything into a temporary folder, as the agent does. Raises StoreError."""
    place = source.place
    if isinstance(place, ClaimSource):
        raise StoreError(
            Reason.INVALID_SPEC,
            "a claim is read where it is mounted: run conch digest with the path, for example in a pod that mounts it",
        )
    with tempfile.TemporaryDirectory(prefix="conch-digest-") as folder:
        try:
            return asyncio.run(_fetched(source, credentials, meter, Path(folder)))
        except StoreError as error:
            # Its words are for those who write a ModelDeployment; this person has neither a Secret nor a volume.
            match error.reason:
                case Reason.SOURCE_ACCESS_DENIED | Reason.SOURCE_NOT_FOUND:
                    here = f"Here credentials come from the environment: {ADVICE[place.scheme]}"
                case Reason.SOURCE_TOO_LARGE:
                    here = f"Here it has to fit into {folder}: set TMPDIR to a larger disk"
                case Reason.SOURCE_UNREACHABLE:
                    here = "Here a private authority's certificate is named with --ca-certificate"
                case _:
                    raise
            raise StoreError(error.reason, f"{error.message}. {here}") from error


async def _fetched(source: ModelSource, credentials: Credentials, meter: Meter, folder: Path) -> Fetched:
    progress = Progress()
    request = Request(
        source=source,
        policy=EVERYTHING,
        claim_mount=folder,
        credentials_folder=folder,
        limit_bytes=shutil.disk_usage(folder).free,
        progress=progress,
        credentials=_as_pods_have_them(source.place, credentials),
    )
    fresh = folder / "fresh"
    fresh.mkdir()
    with meter.step(f"reading {request.shown}", None) as step:
        showing = asyncio.create_task(_show(progress, step))
        try:
            fetched = await fetch(request, folder / "partial", fresh)
        finally:
            showing.cancel()
        step.show(progress.bytes, progress.total_bytes)
    assert fetched is not None  # noqa: S101 - nothing was known before
    return fetched


def _as_pods_have_them(place: Source, credentials: Credentials) -> Credentials:
    """Without entries that name files, which a Secret must not: those are taken from the environment itself."""
    if not isinstance(place, BucketSource) or place.endpoint or IDENTITY_FILES.isdisjoint(credentials):
        return credentials
    return Credentials({name: value for name, value in credentials.items() if name == CA_CERTIFICATE})


async def _show(progress: Progress, step: Step) -> None:
    while True:
        step.show(progress.bytes, progress.total_bytes)
        await asyncio.sleep(_SHOW_SECONDS)
