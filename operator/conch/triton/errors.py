"""What can be wrong between a model, its files and Triton."""

from typing import Final, Self

THIS_MODEL: Final = "spec.model"
"""The field of the object that a model is of, in messages of who does not know that there are others."""


class UnservableModelError(Exception):
    """A model is not loaded; the message says why and what to change."""

    def of(self, role: str, field: str | None) -> Self:
        """The same, said of one of several models: which, and of which field of the object, if it is of one."""
        said = str(self) if field is None else str(self).replace(f"{THIS_MODEL}.", f"{field}.")
        return type(self)(f"{role}: {said}")


class ModelNotAllowedError(UnservableModelError):
    """The model is of a kind that the installation does not allow; the message says which."""


class InvalidModelError(UnservableModelError):
    """The model's files cannot be served as they are; the message says why and what to change."""


class TritonRefusedError(Exception):
    """Triton answered with an error; the message is Triton's own."""


class TritonUnavailableError(Exception):
    """Triton does not answer: not started yet, gone, or hanging."""
