"""The one way in which a step of the agent fails."""

from conch.api.reasons import Reason


class StepError(Exception):
    """A step that failed for a reason its user must know."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
