"""What a person's command does to a rollout, or why it does nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from conch.api.command import Command, UnreadableCommand, Verb
from conch.api.rollout import CommandStatus, RejectedRevision, RollbackCause, RolloutPhase, RolloutStatus
from conch.api.status import ModelDeploymentStatus
from conch.api.types import timestamp
from conch.core.rollout.machine import roll_back
from conch.core.rollout.phases import UNDER_WAY

_WITH_TRAFFIC: Final = (RolloutPhase.SHIFTING, RolloutPhase.BAKING)

_REJECTED_MOST: Final = 10

ANSWER_INTERVAL: Final = timedelta(seconds=1)
REFUSAL_INTERVAL: Final = timedelta(seconds=5)
"""How soon after another command one is answered; refused, after one that was refused. An answer is a write and an
Event, and whoever may edit an object may write a new command a hundred times a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obeyed:
    """What a command may change, after it, and what became of it."""

    rollout: RolloutStatus | None
    rejected: tuple[RejectedRevision, ...]
    rolled_back_to: str | None
    command: CommandStatus | None


def as_it_is(status: ModelDeploymentStatus) -> Obeyed:
    """Without a command."""
    return Obeyed(
        rollout=status.rollout,
        rejected=status.rejected,
        rolled_back_to=status.rolled_back_to,
        command=status.command,
    )


def obey(
    command: Command | UnreadableCommand | None,
    status: ModelDeploymentStatus,
    *,
    asked: str | None,
    past: Sequence[str],
    now: datetime,
) -> Obeyed:
    """Heed a command that was not heeded yet.

    `asked` is the revision of the spec, None if that cannot be read: then what needs it waits. `past` are those that
    can be gone back to, newest first.
    """
    before = as_it_is(status)
    if asked and before.rolled_back_to and all(each.revision != asked for each in before.rejected):
        # The spec has changed since.
        before = replace(before, rolled_back_to=None)
    if command is None or (status.command is not None and status.command.nonce == command.nonce):
        return before
    if _is_too_soon(status.command, ANSWER_INTERVAL, now):
        return before
    after = _answered(command, status, before, asked=asked, past=past, now=now)
    refused = after.command is not None and not after.command.accepted
    last_refused = status.command is not None and not status.command.accepted
    if refused and last_refused and _is_too_soon(status.command, REFUSAL_INTERVAL, now):
        return before
    return after


def answer_due_after(
    command: Command | UnreadableCommand | None, told: CommandStatus | None, now: datetime
) -> timedelta | None:
    """How long a command that is not answered yet waits for its answer at most; None if it waits for none.

    `told` is the last answer.
    """
    if command is None or told is None or told.nonce == command.nonce:
        return None
    interval = ANSWER_INTERVAL if told.accepted else REFUSAL_INTERVAL
    return interval if _is_too_soon(told, interval, now) else None


def _is_too_soon(told: CommandStatus | None, interval: timedelta, now: datetime) -> bool:
    if told is None or told.at is None:
        return False
    # A clock that was set back holds nothing up.
    return timedelta() <= now - datetime.fromisoformat(told.at) < interval


def _answered(
    command: Command | UnreadableCommand,
    status: ModelDeploymentStatus,
    before: Obeyed,
    *,
    asked: str | None,
    past: Sequence[str],
    now: datetime,
) -> Obeyed:
    answered = _heeded(command, status, before, asked=asked, past=past, now=now)
    told = answered.command
    if told is None or told == before.command:
        return answered
    return replace(answered, command=told.model_copy(update={"at": timestamp(now)}))


def _heeded(
    command: Command | UnreadableCommand,
    status: ModelDeploymentStatus,
    before: Obeyed,
    *,
    asked: str | None,
    past: Sequence[str],
    now: datetime,
) -> Obeyed:
    if isinstance(command, UnreadableCommand):
        return _told(before, command.nonce, "?", f"The annotation is no command: {command.message}.")
    rollout = status.rollout
    if rollout is None or rollout.id != command.rollout:
        there = f"now it is {rollout.id}" if rollout else "there is none"
        return _refused(before, command, f"It is about rollout {command.rollout}, and {there}; ask again.")
    under_way = rollout.phase in UNDER_WAY
    if asked is None and command.command.needs_spec:
        return before
    match command.command:
        case Verb.RETRY if asked:
            return _retry(before, command, asked, under_way=under_way)
        case Verb.ROLLBACK if asked and not under_way:
            return _roll_back(before, command, asked, past, now)
        case _ if not under_way:
            return _refused(before, command, f"The rollout is over ({rollout.phase}).")
        case _ if rollout.phase is RolloutPhase.ROLLING_BACK:
            return _refused(before, command, f"It is rolled back already ({rollout.cause}).")
        case Verb.ROLLBACK | Verb.RETRY:
            return _refused(before, command, "A rollout is under way: abort it first.")
        case Verb.PROMOTE:
            return _promote(before, command, rollout)
        case Verb.ABORT:
            aborted = roll_back(rollout, RollbackCause.ABORTED, "by command")
            return _done(before, command, "The traffic goes back to the stable revision.", rollout=aborted)
        case Verb.PAUSE:
            paused = rollout.model_copy(update={"paused": True})
            return _done(before, command, "It goes no further until it is resumed.", rollout=paused)
        case Verb.RESUME:
            resumed = rollout.model_copy(update={"paused": False})
            return _done(before, command, "It goes on.", rollout=resumed)


def _promote(before: Obeyed, command: Command, rollout: RolloutStatus) -> Obeyed:
    steps = len(rollout.steps)
    if command.full:
        skipped = rollout.phase is not RolloutPhase.BAKING and rollout.step < steps
        whole = rollout.model_copy(
            update={
                "promoted": steps + 1,
                "paused": False,
                "step": steps,
                "observed_since": None if skipped else rollout.observed_since,
            }
        )
        return _done(before, command, "All traffic goes to the new revision.", rollout=whole)
    if rollout.phase is RolloutPhase.SHADOWING:
        on = rollout.model_copy(update={"phase": RolloutPhase.SHIFTING, "paused": False})
        return _done(before, command, "It goes on without more copied requests.", rollout=on)
    if rollout.phase not in _WITH_TRAFFIC:
        message = f"The new revision has no traffic yet ({rollout.phase}), so there is no step to promote it from."
        return _refused(before, command, message)
    if rollout.phase is RolloutPhase.SHIFTING and rollout.step == steps:
        return _refused(before, command, "It is on its way to all of the traffic already.")
    promoted = rollout.model_copy(update={"promoted": rollout.step + 1, "paused": False})
    return _done(before, command, "It goes on to the next step.", rollout=promoted)


def _retry(before: Obeyed, command: Command, asked: str, *, under_way: bool) -> Obeyed:
    if under_way or all(each.revision != asked for each in before.rejected):
        return _refused(before, command, f"Revision {asked} was not rolled back: there is nothing to try again.")
    rejected = tuple(each for each in before.rejected if each.revision != asked)
    return _done(before, command, f"Revision {asked} is tried again.", rejected=rejected, rolled_back_to=None)


def _roll_back(before: Obeyed, command: Command, asked: str, past: Sequence[str], now: datetime) -> Obeyed:
    """Anew from the record of a revision that served before; the spec's own is given up until somebody retries it."""
    target = command.revision or next(iter(past), None)
    if target is None:
        return _refused(before, command, "No earlier revision is remembered (rollout.revisionHistoryLimit).")
    if target not in past:
        known = ", ".join(past) or "none"
        return _refused(before, command, f"Revision {target} is no earlier one that is remembered ({known}).")
    entry = RejectedRevision(
        revision=asked,
        cause=RollbackCause.ABORTED,
        message=f"rolled back to revision {target} by command",
        at=timestamp(now),
    )
    rejected = with_rejected(before.rejected, entry)
    return _done(before, command, f"Revision {target} takes over again.", rejected=rejected, rolled_back_to=target)


def with_rejected(before: tuple[RejectedRevision, ...], entry: RejectedRevision) -> tuple[RejectedRevision, ...]:
    """With one that has failed now; the oldest are forgotten."""
    return (*(each for each in before if each.revision != entry.revision), entry)[-_REJECTED_MOST:]


def _done(before: Obeyed, command: Command, message: str, **changed: Any) -> Obeyed:
    told = CommandStatus(nonce=command.nonce, command=command.command, accepted=True, message=message)
    return replace(before, command=told, **changed)


def _refused(before: Obeyed, command: Command, message: str) -> Obeyed:
    return _told(before, command.nonce, command.command, message)


def _told(before: Obeyed, nonce: str, command: str, message: str) -> Obeyed:
    told = CommandStatus(nonce=nonce, command=command, accepted=False, message=message)
    return replace(before, command=told)
