"""What can be wrong between a model, its files and Triton."""


class ModelNotAllowedError(Exception):
    """The model is of a kind that the installation does not allow; the message says which."""


class InvalidModelError(Exception):
    """The model's files cannot be served as they are; the message says why and what to change."""


class TritonRefusedError(Exception):
    """Triton answered with an error; the message is Triton's own."""


class TritonUnavailableError(Exception):
    """Triton does not answer: not started yet, gone, or hanging."""
