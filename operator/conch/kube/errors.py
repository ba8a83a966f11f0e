"""What can go wrong between Conch and the API server."""


class ApiError(Exception):
    """The API server's refusal of one call, with its own words."""

    def __init__(self, status: int, reason: str, message: str, *, what: str) -> None:
        super().__init__(f"{what}: {status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def not_found(self) -> bool:
        """The object, or the whole resource, is not there."""
        return self.status == 404

    @property
    def conflict(self) -> bool:
        """A precondition did not hold, or an object of this name exists."""
        return self.status == 409

    @property
    def expired(self) -> bool:
        """The resource version is too old to go on from."""
        return self.status == 410

    @property
    def permanent(self) -> bool:
        """The same call will be refused again: the object itself is invalid or forbidden."""
        return self.status in (400, 403, 422)


class ApiUnavailableError(Exception):
    """The API server could not be reached or did not answer in time."""


class KubeconfigError(Exception):
    """A person's kubeconfig does not say how to connect; the message says what is wrong with it."""
