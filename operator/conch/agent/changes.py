"""How often the model was changed in place since Triton started: what Triton does not give back adds up.

It is told by what Triton is seen to serve, so an agent that was killed between a load and its count counts it when it
is back; only Triton's own start begins anew.
"""

import asyncio
from typing import Annotated, Final

import structlog
from pydantic import Field, ValidationError

from conch.agent.state import Server, serves
from conch.agent.volume import Volume
from conch.agent.wanted import Wanted
from conch.api.types import ApiModel, ShortText

_NOTE: Final = "changes"
_log = structlog.get_logger(__name__)


class Counted(ApiModel, extra="ignore"):
    """What was counted in this life of Triton."""

    changed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    layout: ShortText | None = None
    """Of the model that served last."""


def counted_on(before: Counted, server: Server, wanted: Wanted) -> Counted:
    """What is counted once Triton says this of itself."""
    if server.is_fresh:
        return Counted()
    if not serves(server, wanted) or before.layout == wanted.layout_key:
        return before
    return Counted(changed=before.changed + (before.layout is not None), layout=wanted.layout_key)


class Changes:
    """Of one Triton; kept on the model volume."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._counted = Counted()

    @property
    def changed(self) -> int:
        """How often by now."""
        return self._counted.changed

    async def recall(self) -> None:
        """What an earlier life of this agent has counted."""
        text = await asyncio.to_thread(self._volume.noted, _NOTE)
        try:
            self._counted = Counted.model_validate_json(text) if text else Counted()
        except ValidationError:
            self._counted = Counted()

    async def see(self, server: Server, wanted: Wanted) -> None:
        """Count what Triton serves now; never raises."""
        counted = counted_on(self._counted, server, wanted)
        if counted == self._counted:
            return
        self._counted = counted
        try:
            await asyncio.to_thread(self._volume.note, _NOTE, counted.model_dump_json(by_alias=True))
        except OSError as error:
            # A restarted agent counts less than there was, and the pod is recycled later.
            _log.warning("changes_not_noted", error=error.strerror or str(error))
