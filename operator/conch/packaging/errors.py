"""What stops packaging."""


class PackagingError(Exception):
    """One message for the person at the command: which line, file or tensor, what is wrong with it, what to do."""
