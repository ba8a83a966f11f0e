"""A variant that cannot be made or does not work."""

from conch.packaging.errors import PackagingError


class NotMade(PackagingError):
    """Why this one variant is left out; packaging goes on without it and shows the reason beside the others."""
