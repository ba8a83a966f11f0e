"""Names the life of an Envoy: its counters begin with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from conch.gateway.envoy.admin import EnvoyAdmin

_UNSURE_SECONDS: Final = 2.0
"""Envoy tells its age in whole seconds."""


class Epoch:
    """Kept in a file beside Envoy's, so that a sidecar that restarted gives the same Envoy the same name."""

    def __init__(self, admin: EnvoyAdmin, file: Path, *, clock: Callable[[], float]) -> None:
        """`clock` is the machine's time in seconds since 1970."""
        self._admin = admin
        self._file = file
        self._clock = clock

    async def now(self) -> str:
        """The name of the Envoy that runs now; raises EnvoyAwayError."""
        born = int(self._clock()) - (await self._admin.server_info()).uptime_seconds
        known = self._known()
        if known is not None and abs(born - known) <= _UNSURE_SECONDS:
            return str(known)
        self._file.write_text(str(born))
        return str(born)

    def _known(self) -> int | None:
        try:
            return int(self._file.read_text())
        except (OSError, ValueError):
            return None
