"""The tests' own writes to buckets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import obstore
from obstore.store import AzureStore, S3Store

if TYPE_CHECKING:
    from obstore.store import ClientConfig

CLIENT_OPTIONS: ClientConfig = {"allow_http": True, "allow_invalid_certificates": True}
"""Certificates are the business of the clients under test."""


def put(client: S3Store | AzureStore, path: str, content: bytes) -> None:
    """Make or replace one object."""
    obstore.put(client, path, content)


def delete(client: S3Store | AzureStore, path: str) -> None:
    """Remove an object, or all below a prefix."""
    below = [meta["path"] for page in obstore.list(client, prefix=path) for meta in page]
    obstore.delete(client, below or [path])
