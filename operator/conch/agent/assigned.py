"""What this pod is assigned: the mounted file, with what the operator has told sooner than the kubelet brings it."""

from dataclasses import dataclass

from conch.agent.assignment_file import AssignmentFile
from conch.agent.turn import Turns
from conch.api.agent_orders import PinOrder, TurnOrder
from conch.api.assignment import Assignment, Pin


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """Which revision to serve, and the other one where a change brings two; neither bears the change itself."""

    target: Assignment
    other: Assignment | None = None
    change_id: str = ""
    beside: bool = False
    is_turn: bool = False
    """Whether the target is the change's revision."""


class Assignments:
    """Follows the file, pins and turns."""

    def __init__(self, file: AssignmentFile, turns: Turns) -> None:
        self._file = file
        self._turns = turns
        self._read: Assignment | None = None
        self._pins: dict[str, Pin] = {}
        """By revision; those that the file says, and since then those that were ordered."""
        self.problem: str | None = None
        """With the file as it is now."""

    async def recall(self) -> None:
        """What an earlier life of this agent was told."""
        await self._turns.recall()

    def look(self) -> Assigned | None:
        """What is assigned now; None as long as there was no assignment."""
        read = self._file.read()
        self.problem = read.problem
        # Without a file the last assignment stays: a mount that is gone for a moment must not stop the serving.
        if read.assignment is not None and read.assignment != self._read:
            self._follow(read.assignment)
        if self._read is None:
            return None
        own, change = self._with_pin(self._read), self._read.change
        if change is None:
            return Assigned(target=own)
        new, is_turn = self._with_pin(change.assignment), self._turns.is_to_serve(change)
        return Assigned(
            target=new if is_turn else own,
            other=own if is_turn else new,
            change_id=change.id,
            beside=change.beside,
            is_turn=is_turn,
        )

    def take_pin(self, order: PinOrder) -> str:
        """The operator says which files a revision has, sooner than the kubelet brings the assignment that says it.

        It holds until the assignment's file brings another one. Returns why it is not taken, or nothing.
        """
        if self._read is None:
            return "this pod knows of no assignment yet"
        known = {each.revision for each in _revisions(self._read)}
        if order.revision not in known:
            return f"this pod is assigned revision {' and '.join(sorted(known))}"
        self._pins[order.revision] = order.pin
        return ""

    async def take_turn(self, order: TurnOrder) -> str:
        """The operator says which of a change's revisions to serve; returns why it is not taken, or nothing."""
        self.look()
        return await self._turns.take(order, self._read)

    def _follow(self, assignment: Assignment) -> None:
        # An assignment never takes a pin back: one without it was written before it was known.
        pins = {each.revision: each.pin or self._pins.get(each.revision) for each in _revisions(assignment)}
        self._read, self._pins = assignment, {revision: pin for revision, pin in pins.items() if pin}

    def _with_pin(self, assignment: Assignment) -> Assignment:
        update = {"change": None, "pin": self._pins.get(assignment.revision)}
        return assignment.model_copy(update=update)


def _revisions(assignment: Assignment) -> tuple[Assignment, ...]:
    return (assignment, assignment.change.assignment) if assignment.change else (assignment,)
