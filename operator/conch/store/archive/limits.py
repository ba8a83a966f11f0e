"""What an archive from a stranger may grow to, and the two ways of refusing it."""

from dataclasses import dataclass

from conch.api.reasons import Reason
from conch.store.errors import StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """Bounds of one archive."""

    files: int = 20_000
    bytes: int = 1 << 40
    ratio: int = 200
    """Unpacked per packed byte, above `ratio_from_bytes`; weights compress two- or threefold, bombs a thousandfold."""
    ratio_from_bytes: int = 256 << 20


class ByteBudget:
    """How much may still come out of an archive of this size."""

    def __init__(self, limits: ArchiveLimits, packed_bytes: int) -> None:
        self._most = min(limits.bytes, max(limits.ratio_from_bytes, packed_bytes * limits.ratio))
        self._spent = 0

    def spend(self, count: int) -> None:
        """Account for unpacked bytes; raises StoreError (SourceTooLarge) when they are too many."""
        self._spent += count
        if self._spent > self._most:
            raise too_large(f"the archive unpacks to more than {self._most} bytes")


def invalid(message: str) -> StoreError:
    """The archive itself is at fault."""
    return StoreError(Reason.INVALID_MODEL, message)


def too_large(message: str) -> StoreError:
    """The archive is more than is allowed here."""
    return StoreError(Reason.SOURCE_TOO_LARGE, f"{message}, which this installation does not allow")
