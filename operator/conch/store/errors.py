"""The one way in which getting a model fails."""

import errno
from urllib.parse import urlsplit

from conch.api.reasons import Reason


class StoreError(Exception):
    """A model that could not be fetched or verified: the reason in the API's words, and a message for its user.

    The message says what happened, to which place (never with a query string: it may be a signature), and what to do.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def of(self, whose: str) -> "StoreError":
        """The same, said of one of several models."""
        return StoreError(self.reason, f"{whose}: {self.message}")


class StorageError(StoreError):
    """Not the source is at fault, but the place where the model was to be stored; `said` is that place's own word."""

    def __init__(self, reason: Reason, message: str, said: str) -> None:
        super().__init__(reason, message)
        self.said = said

    def of(self, whose: str) -> StoreError:
        """The same, said of one of several models."""
        return StorageError(self.reason, f"{whose}: {self.message}", self.said)


def without_query(uri: str) -> str:
    """The URI as it may be shown: a query string or fragment may carry a signature or token."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def storage_error(error: OSError, what: str) -> StoreError:
    """What an operating system error while writing `what` means for its user."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(
            Reason.SOURCE_TOO_LARGE,
            f"{what} does not fit on the pod's model volume ({error.strerror}); use a smaller model or raise the "
            "volume's size in the chart",
            error.strerror or str(error),
        )
    if error.errno == errno.ENAMETOOLONG:
        return StoreError(Reason.INVALID_MODEL, f"{what} contains a file name that is too long; shorten it")
    said = error.strerror or str(error)
    return StorageError(Reason.SOURCE_UNREACHABLE, f"{what} could not be stored: {said}; it is tried again", said)
