"""What each command does to a rollout, and with which words it is refused."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from conch.api.command import Command, UnreadableCommand, Verb, parse_command
from conch.api.rollout import (
    CommandStatus,
    RejectedRevision,
    RollbackCause,
    RolloutPhase,
    RolloutStatus,
    Step,
    Strategy,
)
from conch.api.status import ModelDeploymentStatus
from conch.core.rollout.commands import Obeyed, answer_due_after, obey

NOW: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
REJECTED: Final = RejectedRevision(revision="new", cause=RollbackCause.ABORTED, at="2026-01-01T00:00:00Z")
OTHER: Final = RejectedRevision(revision="other", cause=RollbackCause.ABORTED, at="2026-01-01T00:00:00Z")
OVER: Final = (RolloutPhase.DRAINING, RolloutPhase.DONE, RolloutPhase.HALTED)


def a_rollout(phase: RolloutPhase = RolloutPhase.SHIFTING, **fields: Any) -> RolloutStatus:
    common: dict[str, Any] = {
        "id": "w2",
        "revision": "new",
        "from_revision": "old",
        "strategy": Strategy.SURGE,
        "steps": (Step(weight=10), Step(weight=50)),
        "phase": phase,
        "observed_since": "2026-01-01T00:00:00Z",
        "started_at": "2026-01-01T00:00:00Z",
    }
    return RolloutStatus(**{**common, **fields})


def order(
    verb: Verb, *, rollout: str = "w2", nonce: str = "n1", full: bool = False, revision: str | None = None
) -> Command:
    return Command(command=verb, rollout=rollout, nonce=nonce, full=full, revision=revision)


def after(
    command: Command | UnreadableCommand | None,
    rollout: RolloutStatus | None,
    *rejected: RejectedRevision,
    told: CommandStatus | None = None,
    rolled_back_to: str | None = None,
    past: tuple[str, ...] = (),
    asked: str | None = "new",
    seconds: float = 0,
) -> Obeyed:
    """What comes of a command where the spec asks for revision `new`."""
    status = ModelDeploymentStatus(rollout=rollout, rejected=rejected, command=told, rolled_back_to=rolled_back_to)
    return obey(command, status, asked=asked, past=past, now=NOW + timedelta(seconds=seconds))


def changed(obeyed: Obeyed, before: RolloutStatus) -> dict[str, Any]:
    """What of the rollout is another than it was; the command must have been accepted."""
    assert obeyed.command is not None
    assert obeyed.command.accepted, obeyed.command.message
    assert obeyed.rollout is not None
    old, new = before.model_dump(by_alias=False), obeyed.rollout.model_dump(by_alias=False)
    return {name: value for name, value in new.items() if value != old[name]}


def refusal(obeyed: Obeyed, before: RolloutStatus | None, *rejected: RejectedRevision) -> str:
    """The words; nothing else may have happened."""
    assert (obeyed.rollout, obeyed.rejected) == (before, rejected)
    assert obeyed.command is not None
    assert not obeyed.command.accepted
    return obeyed.command.message


def test_promote_ends_the_comparison_of_copies_and_a_pause() -> None:
    before = a_rollout(RolloutPhase.SHADOWING, observed_since=None, paused=True)
    assert changed(after(order(Verb.PROMOTE), before), before) == {"phase": RolloutPhase.SHIFTING, "paused": False}


@pytest.mark.parametrize("step", [0, 1])
def test_promote_ends_the_step_and_a_pause(step: int) -> None:
    before = a_rollout(step=step, paused=True)
    assert changed(after(order(Verb.PROMOTE), before), before) == {"promoted": step + 1, "paused": False}


def test_what_is_on_its_way_to_all_of_the_traffic_has_no_step_to_be_promoted_from() -> None:
    """Else a second click would also end the time in which it is judged with the old pods still there."""
    for steps in ((Step(weight=10), Step(weight=50)), ()):
        before = a_rollout(step=len(steps), steps=steps, observed_since=None, paused=True)
        words = "It is on its way to all of the traffic already."
        assert refusal(after(order(Verb.PROMOTE), before), before) == words


def test_promote_ends_the_time_that_old_pods_are_kept_warm() -> None:
    before = a_rollout(RolloutPhase.BAKING, step=2)
    assert changed(after(order(Verb.PROMOTE), before), before) == {"promoted": 3}


@pytest.mark.parametrize("phase", [RolloutPhase.PROVISIONING, RolloutPhase.VERIFYING])
def test_what_has_no_traffic_has_no_step_to_be_promoted_from(phase: RolloutPhase) -> None:
    before = a_rollout(phase)
    words = f"The new revision has no traffic yet ({phase}), so there is no step to promote it from."
    assert refusal(after(order(Verb.PROMOTE), before), before) == words


@pytest.mark.parametrize("phase", [RolloutPhase.PROVISIONING, RolloutPhase.VERIFYING, RolloutPhase.SHIFTING])
def test_promote_full_skips_all_steps_and_observes_anew(phase: RolloutPhase) -> None:
    before = a_rollout(phase, paused=True)
    expected = {"promoted": 3, "step": 2, "paused": False, "observed_since": None}
    assert changed(after(order(Verb.PROMOTE, full=True), before), before) == expected


@pytest.mark.parametrize("phase", [RolloutPhase.SHIFTING, RolloutPhase.BAKING])
def test_promote_full_at_the_end_goes_on_from_what_is_observed(phase: RolloutPhase) -> None:
    observed = "2026-01-01T00:00:00Z" if phase is RolloutPhase.BAKING else None
    before = a_rollout(phase, step=2, observed_since=observed)
    assert changed(after(order(Verb.PROMOTE, full=True), before), before) == {"promoted": 3}


@pytest.mark.parametrize(
    "phase",
    [RolloutPhase.PROVISIONING, RolloutPhase.VERIFYING, RolloutPhase.SHIFTING, RolloutPhase.BAKING],
)
def test_abort_goes_back_from_anywhere(phase: RolloutPhase) -> None:
    before = a_rollout(phase)
    assert changed(after(order(Verb.ABORT), before), before) == {
        "phase": RolloutPhase.ROLLING_BACK,
        "cause": RollbackCause.ABORTED,
        "message": "by command",
        "observed_since": None,
    }


def test_pause_and_resume() -> None:
    before = a_rollout()
    assert changed(after(order(Verb.PAUSE), before), before) == {"paused": True}
    paused = a_rollout(paused=True)
    assert changed(after(order(Verb.RESUME), paused), paused) == {"paused": False}
    assert changed(after(order(Verb.RESUME), before), before) == {}


@pytest.mark.parametrize("verb", [Verb.PROMOTE, Verb.ABORT, Verb.PAUSE, Verb.RESUME])
@pytest.mark.parametrize("phase", OVER)
def test_a_rollout_that_is_over_obeys_nothing(phase: RolloutPhase, verb: Verb) -> None:
    before = a_rollout(phase)
    assert refusal(after(order(verb), before), before) == f"The rollout is over ({phase})."


@pytest.mark.parametrize("verb", [Verb.PROMOTE, Verb.ABORT, Verb.ROLLBACK, Verb.PAUSE, Verb.RESUME])
def test_a_rollout_on_its_way_back_cannot_be_turned(verb: Verb) -> None:
    before = a_rollout(RolloutPhase.ROLLING_BACK, cause=RollbackCause.GOLDEN_SET_FAILED)
    assert refusal(after(order(verb), before), before) == "It is rolled back already (GoldenSetFailed)."


# Back to a revision of before, once a rollout is over.


def gone_back(target: str) -> RejectedRevision:
    """What is noted of the spec's own revision."""
    return RejectedRevision(
        revision="new",
        cause=RollbackCause.ABORTED,
        message=f"rolled back to revision {target} by command",
        at="2026-01-01T12:00:00Z",
    )


@pytest.mark.parametrize("phase", OVER)
@pytest.mark.parametrize(("revision", "target"), [(None, "r3"), ("r3", "r3"), ("r1", "r1")])
def test_rollback_gives_the_specs_revision_up_for_the_newest_or_the_one_that_is_named(
    phase: RolloutPhase, revision: str | None, target: str
) -> None:
    before = a_rollout(phase)
    command = order(Verb.ROLLBACK, revision=revision)
    obeyed = after(command, before, OTHER, REJECTED, past=("r3", "r2", "r1"))
    assert changed(obeyed, before) == {}
    assert (obeyed.rolled_back_to, obeyed.rejected) == (target, (OTHER, gone_back(target)))
    assert obeyed.command is not None
    assert obeyed.command.message == f"Revision {target} takes over again."


def test_the_oldest_rejected_revisions_are_forgotten() -> None:
    many = tuple(OTHER.model_copy(update={"revision": f"r{number}"}) for number in range(10))
    obeyed = after(order(Verb.ROLLBACK), a_rollout(RolloutPhase.DONE), *many, past=("r90",))
    assert obeyed.rejected == (*many[1:], gone_back("r90"))


@pytest.mark.parametrize(
    ("revision", "past", "words"),
    [
        (None, (), "No earlier revision is remembered (rollout.revisionHistoryLimit)."),
        ("r9", (), "Revision r9 is no earlier one that is remembered (none)."),
        ("r9", ("r2", "r1"), "Revision r9 is no earlier one that is remembered (r2, r1)."),
    ],
)
def test_what_is_not_remembered_cannot_be_gone_back_to(revision: str | None, past: tuple[str, ...], words: str) -> None:
    before = a_rollout(RolloutPhase.DONE)
    assert refusal(after(order(Verb.ROLLBACK, revision=revision), before, past=past), before) == words


@pytest.mark.parametrize(
    "phase", [RolloutPhase.PROVISIONING, RolloutPhase.VERIFYING, RolloutPhase.SHIFTING, RolloutPhase.BAKING]
)
def test_a_rollout_under_way_is_aborted_not_rolled_back(phase: RolloutPhase) -> None:
    before = a_rollout(phase)
    words = "A rollout is under way: abort it first."
    assert refusal(after(order(Verb.ROLLBACK), before, past=("r1",)), before) == words


def test_a_rollback_holds_until_the_spec_asks_for_another_revision() -> None:
    before = a_rollout(RolloutPhase.DONE)
    assert after(None, before, gone_back("r1"), rolled_back_to="r1").rolled_back_to == "r1"
    assert after(None, before, OTHER, rolled_back_to="r1").rolled_back_to is None


def test_retry_ends_a_rollback() -> None:
    before = a_rollout(RolloutPhase.DONE)
    obeyed = after(order(Verb.RETRY), before, gone_back("r1"), rolled_back_to="r1")
    assert (obeyed.rejected, obeyed.rolled_back_to) == ((), None)
    assert changed(obeyed, before) == {}


@pytest.mark.parametrize("phase", OVER)
def test_retry_forgets_that_the_wanted_revision_was_rejected(phase: RolloutPhase) -> None:
    before = a_rollout(phase)
    obeyed = after(order(Verb.RETRY), before, OTHER, REJECTED)
    assert obeyed.rejected == (OTHER,)
    assert changed(obeyed, before) == {}


@pytest.mark.parametrize(
    ("phase", "rejected"),
    [
        (RolloutPhase.HALTED, ()),
        (RolloutPhase.HALTED, (OTHER,)),
        (RolloutPhase.SHIFTING, (REJECTED,)),
        (RolloutPhase.ROLLING_BACK, (REJECTED,)),
    ],
)
def test_there_may_be_nothing_to_try_again(phase: RolloutPhase, rejected: tuple[RejectedRevision, ...]) -> None:
    before = a_rollout(phase)
    words = "Revision new was not rolled back: there is nothing to try again."
    assert refusal(after(order(Verb.RETRY), before, *rejected), before, *rejected) == words


@pytest.mark.parametrize("verb", Verb)
def test_a_command_about_another_rollout_is_stale(verb: Verb) -> None:
    before = a_rollout()
    words = "It is about rollout w1, and now it is w2; ask again."
    assert refusal(after(order(verb, rollout="w1"), before, REJECTED), before, REJECTED) == words
    assert refusal(after(order(verb, rollout="w1"), None), None) == (
        "It is about rollout w1, and there is none; ask again."
    )


@pytest.mark.parametrize("verb", Verb)
@pytest.mark.parametrize("accepted", [True, False])
def test_a_command_is_heeded_once(verb: Verb, accepted: bool) -> None:
    before, heeded = a_rollout(), CommandStatus(nonce="n1", command=verb, accepted=accepted, message="as it was told")
    assert after(order(verb), before, REJECTED, told=heeded) == Obeyed(
        rollout=before, rejected=(REJECTED,), rolled_back_to=None, command=heeded
    )
    again = after(order(verb, nonce="n2"), before, REJECTED, told=heeded).command
    assert again is not None
    assert again.nonce == "n2"


def test_what_became_of_a_command_is_told_with_its_nonce() -> None:
    assert after(order(Verb.PAUSE), a_rollout()).command == CommandStatus(
        nonce="n1",
        command="pause",
        accepted=True,
        message="It goes no further until it is resumed.",
        at="2026-01-01T12:00:00Z",
    )


STALE: Final = order(Verb.ABORT, rollout="another", nonce="n2")
AT: Final = "2026-01-01T12:00:00Z"


@pytest.mark.parametrize(
    ("accepted", "command", "waits_seconds"),
    [
        (True, order(Verb.ABORT, nonce="n2"), 1),
        (False, order(Verb.ABORT, nonce="n2"), 1),
        (True, STALE, 1),
        (False, STALE, 5),
        (False, UnreadableCommand(nonce="n2", message="it is not JSON"), 5),
    ],
    ids=["after one", "valid after a refused", "refused after one", "refused after a refused", "unreadable"],
)
def test_commands_are_answered_now_and_then_and_what_is_valid_does_not_wait_for_what_was_not(
    accepted: bool, command: Command | UnreadableCommand, waits_seconds: int
) -> None:
    told = CommandStatus(nonce="n1", command="pause", accepted=accepted, at=AT)
    before = a_rollout()
    early = after(command, before, told=told, seconds=waits_seconds - 0.1)
    assert (early.command, early.rollout) == (told, before), "nothing is written, and the command stands"
    late = after(command, before, told=told, seconds=waits_seconds)
    assert late.command is not None
    assert late.command.nonce == "n2"
    assert after(command, before, told=told, seconds=-1).command == late.command.model_copy(
        update={"at": "2026-01-01T11:59:59Z"}
    ), "a clock that was set back"


def test_a_hundred_stale_commands_a_second_cost_one_answer_in_five_seconds() -> None:
    told: CommandStatus | None = None
    answers = 0
    for number in range(2000):
        stale = order(Verb.PAUSE, rollout="another", nonce=str(number))
        now = after(stale, a_rollout(), told=told, seconds=number / 100).command
        answers += now != told
        told = now
    assert answers == 4


def test_what_waits_for_its_answer_is_looked_at_again() -> None:
    told = CommandStatus(nonce="n1", command="pause", accepted=False, at=AT)
    assert answer_due_after(STALE, told, NOW) == timedelta(seconds=5)
    assert answer_due_after(STALE, told.model_copy(update={"accepted": True}), NOW) == timedelta(seconds=1)
    assert answer_due_after(STALE, told, NOW + timedelta(seconds=5)) is None
    assert answer_due_after(order(Verb.PAUSE, nonce="n1"), told, NOW) is None, "answered"
    assert answer_due_after(None, told, NOW) is None


@pytest.mark.parametrize("verb", list(Verb))
def test_without_a_readable_spec_what_needs_none_is_heeded_and_the_rest_waits(verb: Verb) -> None:
    before = a_rollout()
    obeyed = after(order(verb), before, asked=None)
    if verb in (Verb.ABORT, Verb.PAUSE, Verb.RESUME):
        assert obeyed.command is not None
        assert (obeyed.command.nonce, obeyed.command.accepted) == ("n1", True)
    else:
        assert (obeyed.command, obeyed.rollout) == (None, before)


def test_without_a_command_everything_stays() -> None:
    before, told = a_rollout(), CommandStatus(nonce="n0", command="pause", accepted=True)
    as_it_was = Obeyed(rollout=before, rejected=(REJECTED,), rolled_back_to=None, command=told)
    assert after(None, before, REJECTED, told=told) == as_it_was


GOOD: Final = {"command": "promote", "rollout": "w2", "nonce": "n1"}


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ("promote", "it is not JSON"),
        ("[]", "Input should be"),
        (
            json.dumps({**GOOD, "command": "destroy"}),
            "Input should be 'promote', 'abort'",
        ),
        (json.dumps({**GOOD, "nonce": ""}), "at least 1 character"),
        (json.dumps({**GOOD, "nonce": "n" * 257}), "at most 256 characters"),
        (json.dumps({**GOOD, "more": 1}), "Extra inputs"),
        ("x" * 2048, "it is not JSON"),
        ("x" * 2049, "it is too long"),
        ("x" * 300_000, "it is too long"),
        (json.dumps({**GOOD, "more": "x" * 2048}), "it is too long"),
        ("[" * 2048, "it is not JSON"),
        ('{"a":' * 400, "it is not JSON"),
        ("[" * 900 + "]" * 900, "it is not JSON|Input should be"),
    ],
)
def test_an_annotation_that_is_no_command_is_told_once(annotation: str, words: str) -> None:
    command, before = parse_command(annotation), a_rollout()
    assert isinstance(command, UnreadableCommand)
    obeyed = after(command, before)
    told = refusal(obeyed, before)
    assert told.startswith("The annotation is no command: ")
    assert any(each in told for each in words.split("|"))
    assert obeyed.command is not None
    assert obeyed.command.nonce == annotation[:256]
    assert after(command, before, told=obeyed.command) == obeyed


def test_an_annotation_is_read() -> None:
    assert parse_command(json.dumps({**GOOD, "full": True})) == order(Verb.PROMOTE, full=True)
    assert parse_command(None) is None
    assert parse_command("") is None
