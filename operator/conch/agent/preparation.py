"""What the agent remembers of a change's other revision, and says of it: what has failed, and how far the files are."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from conch.agent.assigned import Assigned
from conch.agent.back_off import HARMFUL, USUAL, failed_again
from conch.agent.errors import ServerEndedError, StepError
from conch.agent.reporting import FetchMeter, agent_log
from conch.agent.state import Changing, Failure, Golden
from conch.agent.step_kinds import Fetch, Idle, Preparing, PreparingStep, Refuse, Step
from conch.agent.volume import Record
from conch.agent.wanted import Wanted
from conch.api.agent_report import AgentPhase, ChangeReport
from conch.api.assignment import Assignment
from conch.api.types import bounded

_NOTHING_YET: Final = Idle(phase=AgentPhase.STARTING)


class Preparation:
    """Of one pod."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._log = agent_log()
        self._assigned: Assigned | None = None
        self._other: Wanted | None = None
        self._failure: Failure | None = None
        self._refused = ""
        self._step: PreparingStep = _NOTHING_YET
        self.meter = FetchMeter(clock)

    @property
    def retry_at(self) -> float | None:
        """When what has failed is tried again."""
        return self._failure.retry_at if self._failure else None

    def follow(self, assigned: Assigned) -> bool:
        """Take what is assigned now; returns whether the change brings another revision, or other files of it.

        Then nothing is known of it. What was found out stays true while it is this pod's turn, and after that.
        """
        is_new = self._assigned is None or _new(self._assigned) != _new(assigned)
        self._assigned = assigned
        self._other = Wanted.of(assigned.other) if assigned.other else None
        if is_new:
            self._failure, self._refused, self._step = None, "", _NOTHING_YET
        return is_new

    def is_of(self, assigned: Assigned, step: PreparingStep) -> bool:
        """Whether a step is still of the revision that is to be prepared; a pin is most likely of what is fetched."""
        now, before = _new(assigned)[2], _new(self._assigned)[2] if self._assigned else None
        if now is None or before is None or assigned.is_turn:
            return False
        if not isinstance(step, Fetch):
            return now == before
        return now.model_copy(update={"pin": None}) == before.model_copy(update={"pin": None})

    def progress_in(self, change: ChangeReport) -> ChangeReport:
        """The report with how far the fetch is at this moment."""
        fetched = self.meter.fields()
        return change.model_copy(update={key: fetched[key] for key in ("fetched_bytes", "total_bytes")})

    def changing(self, golden: Golden) -> Changing | None:
        """What decide.py wants to know of the change; `golden` of the trial."""
        if self._assigned is None or self._other is None:
            return None
        return Changing(
            other=self._other,
            beside=self._assigned.beside,
            prepares=not self._assigned.is_turn,
            failure=self._failure,
            golden=golden,
            refused=self._refused,
        )

    def decided(self, step: Step) -> None:
        """What is done next; what is ready has not failed any more."""
        if isinstance(step, Preparing):
            self._step = step.step
            if self._step == Idle(phase=AgentPhase.READY):
                self._failure = None

    def done(self, step: PreparingStep) -> None:
        """A step has gone well; a fault of loading is over only once all is ready."""
        if self._failure is None or not isinstance(step, Fetch):
            return
        is_over = self._failure.stage is AgentPhase.FETCHING
        self._failure = None if is_over else replace(self._failure, refetch=False)

    def failed(self, step: PreparingStep, error: StepError, *, may_be_repaired: bool) -> None:
        """A step has failed."""
        before = self._failure
        self._failure = failed_again(
            before,
            stage=_phase_of(step),
            reason=error.reason,
            message=error.message,
            now=self._clock(),
            refetch=may_be_repaired,
            back_off=HARMFUL if isinstance(error, ServerEndedError) else USUAL,
        )
        if before is None or (before.reason, before.message) != (error.reason, error.message):
            self._log.warning(
                "preparing_failed", step=type(step).__name__, reason=error.reason.value, message=error.message
            )

    def refuse(self, message: str) -> None:
        """It was found out that this pod cannot be changed to the other revision."""
        self._refused = message
        self._log.warning("change_refused", message=message)

    def report(self, golden: Golden, record: Record | None) -> ChangeReport | None:
        """What the operator is told of the change's revision before it is this pod's turn."""
        assigned, other = self._assigned, self._other
        if assigned is None or other is None or assigned.is_turn:
            return None
        step, failure = self._step, self._failure
        refused = step.message if isinstance(step, Refuse) else ""
        waits_for = step.message if isinstance(step, Idle) else ""
        fetched = self.meter.fields()
        return ChangeReport(
            id=assigned.change_id,
            revision=other.assignment.revision,
            phase=AgentPhase.FAILED if failure else _phase_of(step),
            reason=failure.reason if failure else None,
            message=bounded(failure.message if failure else waits_for),
            attempts=failure.attempts if failure else 0,
            digest=record.digest if record else None,
            resolved=record.resolved if record else "",
            pin=other.assignment.pin,
            fetched_bytes=record.bytes if record else fetched["fetched_bytes"] or 0,
            total_bytes=record.bytes if record else fetched["total_bytes"],
            golden=golden.report if assigned.beside else None,
            refused=bounded(refused),
        )


def _phase_of(step: PreparingStep) -> AgentPhase:
    match step:
        case Idle(phase=phase):
            return phase
        case Fetch():
            return AgentPhase.FETCHING
        case Refuse():
            return AgentPhase.FAILED
        case _:
            return AgentPhase.LOADING


def _new(assigned: Assigned) -> tuple[str, bool, Assignment | None]:
    """The change and its revision; how many instances that is to have is no other revision."""
    new = assigned.target if assigned.is_turn else assigned.other
    if not assigned.change_id or new is None:
        return "", False, None
    return assigned.change_id, assigned.beside, new.model_copy(update={"instances": None})
