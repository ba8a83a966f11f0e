"""Model sources: fetch, unpack safely, verify."""

from conch.store.composed import fetch_all
from conch.store.digest import tree_digest
from conch.store.errors import StorageError, StoreError, without_query
from conch.store.fetch import Fetched, Request, allowed_place, fetch
from conch.store.threads import in_thread
from conch.store.transfer import Progress

__all__ = [
    "Fetched",
    "Progress",
    "Request",
    "StorageError",
    "StoreError",
    "allowed_place",
    "fetch",
    "fetch_all",
    "in_thread",
    "tree_digest",
    "without_query",
]
