"""The one way in which a cache fails: whoever meets it does without the cache."""


class CacheError(Exception):
    """Why the cache cannot be used now, in words for the person who looks after it."""


class DamagedError(CacheError):
    """An entry is not what its name says, and has been taken away: it can be fetched anew."""
