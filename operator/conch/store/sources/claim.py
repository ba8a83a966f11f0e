"""A model on a PersistentVolumeClaim that is mounted read-only: verified where it lies, linked to, not copied."""

from pathlib import Path

from conch.api.reasons import Reason
from conch.api.source import ClaimSource
from conch.store.errors import StoreError, storage_error
from conch.store.in_place import InPlace, link_in_place
from conch.store.threads import Checkpoint
from conch.store.transfer import Progress


def link_claim(source: ClaimSource, mount: Path, tree: Path, *, progress: Progress, checkpoint: Checkpoint) -> InPlace:
    """Make `tree` (which must not exist) of links to the file or folder that `source` names below `mount`.

    As `link_in_place`, with an operating system's errors in words for whoever wrote the files. Raises StoreError.
    """
    shown = f"pvc://{source.claim}/{source.path}"
    try:
        return link_in_place(
            mount / source.path, tree, root=mount, shown=shown, progress=progress, checkpoint=checkpoint
        )
    except FileNotFoundError as error:
        raise StoreError(
            Reason.SOURCE_NOT_FOUND, f"{shown}: there is no such file or folder on the claim; check the path"
        ) from error
    except PermissionError as error:
        raise StoreError(
            Reason.SOURCE_ACCESS_DENIED, f"{shown}: the claim's files are not readable by uid 1000; change their mode"
        ) from error
    except OSError as error:
        raise storage_error(error, shown) from error
