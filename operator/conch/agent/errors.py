"""The ways in which a step of the agent fails."""

from conch.api.reasons import Reason


class RefusedError(Exception):
    """This pod cannot be changed to the other revision of a change; the message says why."""


class StepError(Exception):
    """A step that failed for a reason its user must know."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class ServerEndedError(StepError):
    """Triton ended over what was tried, and the model that served with it."""
