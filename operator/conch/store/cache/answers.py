"""What the cache's file system answers, or that it does not."""

from collections.abc import Callable
from typing import Final, TypeVar

from conch.store import bounded
from conch.store.cache.errors import CacheError
from conch.store.threads import Checkpoint

PATIENCE_SECONDS: Final = 60.0
_Result = TypeVar("_Result")


async def answered(
    work: Callable[[Checkpoint], _Result],
    *,
    moved: Callable[[], object] = lambda: None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> _Result:
    """Run `work(checkpoint)` as `bounded.answered` does; its silence and its errors become CacheErrors."""
    try:
        return await bounded.answered(work, moved=moved, patience_seconds=patience_seconds)
    except bounded.NotAnsweredError as error:
        raise CacheError(str(error)) from error
    except OSError as error:
        raise CacheError(f"its file system says: {error.strerror or error}") from error
