"""Whose turn it is in a change: which of the two revisions this pod is to serve.

Two words say it, the assignment that the kubelet mounts and the operator's order, which comes sooner; the later one
counts. The last order is kept on the model volume: an agent that starts again with an old assignment does not turn
back.
"""

import asyncio
from typing import Final

from pydantic import ValidationError

from conch.agent.volume import Volume
from conch.api.agent_orders import TurnOrder
from conch.api.assignment import Assignment, Change
from conch.api.types import ApiModel, ShortText

_NOTE: Final = "turn"


class Word(ApiModel, extra="ignore"):
    """An order that was taken."""

    change: ShortText
    turn: int
    revision: ShortText


class Turns:
    """The turn of one pod."""

    def __init__(self, volume: Volume, pod_name: str) -> None:
        self._volume = volume
        self._pod_name = pod_name
        self._ordered: Word | None = None
        self._taking = asyncio.Lock()

    async def recall(self) -> None:
        """What an earlier life of this agent was told."""
        text = await asyncio.to_thread(self._volume.noted, _NOTE)
        try:
            self._ordered = Word.model_validate_json(text) if text else None
        except ValidationError:
            # The machine crashed while it was written: then the assignment's word counts.
            self._ordered = None

    def is_to_serve(self, change: Change) -> bool:
        """Whether it is this pod's turn: it serves the change's revision, and else the assignment's own."""
        order = self._order_of(change)
        if order is not None and order.turn > change.turn:
            return order.revision == change.assignment.revision
        return self._pod_name in change.pods

    async def take(self, order: TurnOrder, assignment: Assignment | None) -> str:
        """Take an order that is the operator's; returns why it is not taken, or nothing. Raises OSError."""
        async with self._taking:
            change = assignment.change if assignment else None
            if assignment is None or change is None or change.id != order.change:
                brought = f"the change {change.id}" if change else "no change"
                return f"this pod's assignment brings {brought}, and not {order.change}"
            if order.revision not in (assignment.revision, change.assignment.revision):
                return (
                    f"the change {change.id} is from {assignment.revision} to {change.assignment.revision}, and "
                    f"{order.revision} is neither"
                )
            known = self._order_of(change)
            latest = max(change.turn, known.turn if known else 0)
            if order.turn < latest:
                return f"turn {order.turn} of the change {change.id} is over: this pod knows of turn {latest}"
            word = Word(change=order.change, turn=order.turn, revision=order.revision)
            if word != known:
                await asyncio.to_thread(self._volume.note, _NOTE, word.model_dump_json(by_alias=True))
            self._ordered = word
            return ""

    def _order_of(self, change: Change) -> Word | None:
        return self._ordered if self._ordered and self._ordered.change == change.id else None
