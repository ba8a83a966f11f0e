"""Model sources: fetch, unpack safely, verify."""

from conch.store.digest import tree_digest
from conch.store.errors import StoreError, without_query
from conch.store.fetch import Fetched, Request, fetch
from conch.store.threads import in_thread
from conch.store.transfer import Progress

__all__ = ["Fetched", "Progress", "Request", "StoreError", "fetch", "in_thread", "tree_digest", "without_query"]
