"""Model sources: fetch, unpack safely, verify."""

from conch.store.digest import tree_digest
from conch.store.errors import StoreError, without_query
from conch.store.fetch import Request, fetch
from conch.store.threads import in_thread

__all__ = ["Request", "StoreError", "fetch", "in_thread", "tree_digest", "without_query"]
