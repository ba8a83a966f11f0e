"""Follows the mounted Secret with clients' API keys."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Gauge

from conch.gateway.clients import Clients, parse_clients

_log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 2.0
"""How often the files are looked at. A kubelet takes up to a minute or two to bring a Secret's change."""
_ENTRY_BYTES_MOST: Final = 64 * 1024


class ApiKeys:
    """What the Secret says now. Whatever cannot be read lets nobody in: there is no last good state to fall back to."""

    def __init__(self, mounted: Path, *, registry: CollectorRegistry, on_change: Callable[[], None]) -> None:
        """`mounted` is the Secret's folder; `on_change` is called when its clients are others."""
        self._mounted = mounted
        self._on_change = on_change
        self._was_usable = False
        self.clients = Clients()
        """The newest."""
        self._known = Gauge("conch_gateway_clients", "Clients whose API keys are known.", registry=registry)
        self._unusable = Gauge(
            "conch_gateway_client_entries_unusable", "Entries of the Secret that let nobody in.", registry=registry
        )
        self._look(is_first=True)

    async def run(self) -> None:
        """Follow the files, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._look()

    def not_ready(self) -> str:
        """Why no client could be let in since the start; empty once one could.

        Later it refuses all if the Secret says so, and they shall be told by a gateway and not be left without any.
        """
        self._was_usable = self._was_usable or bool(self.clients.known)
        return "" if self._was_usable else "no entry of the Secret of gateway.apiKeys.secretName is a usable API key"

    def _look(self, *, is_first: bool = False) -> None:
        clients = parse_clients(_read(self._mounted))
        if clients == self.clients and not is_first:
            return
        self.clients = clients
        self._known.set(len(clients.known))
        self._unusable.set(len(clients.problems))
        for name, problem in clients.problems.items():
            _log.error("an entry of the Secret with API keys lets nobody in", entry=name, problem=problem)
        if not clients.known:
            _log.error("no client is known: every request is refused")
        else:
            _log.info("clients' API keys are read", clients=len(clients.known))
        if not is_first:
            self._on_change()


def _read(folder: Path) -> dict[str, bytes]:
    """The entries; one that cannot be read is as good as empty."""
    try:
        files = [each for each in folder.iterdir() if not each.name.startswith("..")]
    except OSError:
        return {}
    entries = {}
    for file in files:
        try:
            with file.open("rb") as opened:
                entries[file.name] = opened.read(_ENTRY_BYTES_MOST)
        except OSError:
            entries[file.name] = b""
    return entries
