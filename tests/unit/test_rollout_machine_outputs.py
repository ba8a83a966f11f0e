"""Whatever the machine and commands say next is a status that the API server takes: one it refuses blocks an object.

They change a status by copies, which nothing validates.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from hypothesis import example, given, settings
from hypothesis import strategies as st

from conch.api.command import Command, UnreadableCommand, Verb
from conch.api.rollout import CheckResult, Pause, RollbackCause, Rollout, RolloutPhase, RolloutStatus, Step, Strategy
from conch.api.shadow import Shadow
from conch.api.status import ModelDeploymentStatus
from conch.core.analysis.copies import Copies
from conch.core.analysis.judgement import Verdict
from conch.core.rollout.capacity import Fleet
from conch.core.rollout.commands import obey
from conch.core.rollout.machine import advance, begin
from conch.core.rollout.phases import UNDER_WAY
from conch.core.rollout.sight import Sight

NOW: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
WORDS: Final = st.sampled_from(["", "m", "x" * 1500])
"""What sight.py lets others say is as long at most."""
COUNTS: Final = st.integers(0, 1000)
STEPS: Final = st.lists(
    st.builds(
        Step,
        weight=st.integers(1, 99),
        pause_seconds=st.sampled_from([None, 0, 60]),
        pause=st.none() | st.just(Pause.UNTIL_PROMOTED),
    ),
    max_size=20,
).map(tuple)
CHECKS: Final = st.lists(
    st.builds(
        CheckResult,
        name=st.sampled_from(["successRate", "goldenSet"]),
        verdict=st.sampled_from([verdict.value for verdict in Verdict]),
        message=st.sampled_from(["", "m" * 2048]),
    ),
    max_size=12,
).map(tuple)
SHADOWS: Final = st.none() | st.builds(Shadow, percent=st.integers(1, 100))
MANY: Final = st.sampled_from([0, 1, 2**40])
COPIES: Final = st.builds(
    Copies,
    compared=MANY,
    disagreed=MANY,
    failed=MANY,
    skipped=MANY,
    dropped=MANY,
    stable_latency=st.sampled_from([(), (0, 2**40), (0,) * 46 + (9,)]),
    candidate_latency=st.sampled_from([(), (7,), (0,) * 46 + (9,)]),
    example=WORDS,
)
COMMANDS: Final = st.one_of(
    st.builds(
        Command,
        command=st.sampled_from(list(Verb)),
        rollout=st.sampled_from(["w2", "r" * 256]),
        nonce=st.text(min_size=1, max_size=256),
        revision=st.sampled_from([None, "old", "r" * 256]),
        full=st.booleans(),
    ),
    st.builds(UnreadableCommand, nonce=st.text(max_size=256), message=st.sampled_from(["m" * 256])),
)


@st.composite
def sights(draw: st.DrawFn) -> Sight:
    """Anything that may be seen, possible or not."""
    checks = draw(CHECKS)
    failed = any(check.verdict == Verdict.FAIL for check in checks)
    return Sight(
        policy=Rollout(
            strategy=draw(st.sampled_from(list(Strategy))), paused=draw(st.booleans()), shadow=draw(SHADOWS)
        ),
        copies=draw(COPIES),
        replicas=draw(COUNTS),
        fleet=Fleet(
            stable_ready=draw(COUNTS),
            stable_left=draw(COUNTS),
            candidate_ready=draw(COUNTS),
            candidate_left=draw(COUNTS),
        ),
        candidate_started=draw(COUNTS),
        trouble=draw(WORDS),
        trouble_lasts=draw(st.booleans()),
        no_room=draw(WORDS),
        no_room_for_long=draw(st.booleans()),
        golden_failure=draw(WORDS),
        verdict=Verdict.FAIL if failed else draw(st.sampled_from([Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.ERROR])),
        checks=checks,
        superseded=draw(st.booleans()),
        acknowledged=draw(st.booleans()),
        through_gateways=draw(st.booleans()),
        stable_lost_patience=timedelta(seconds=draw(st.integers(1, 10_000))),
        now=NOW + timedelta(seconds=draw(st.integers(0, 10_000))),
    )


@st.composite
def rollouts(draw: st.DrawFn) -> RolloutStatus:
    """One that begins now, or anywhere in its middle."""
    steps = draw(STEPS)
    begun = begin(
        id_="w2",
        revision="new",
        from_revision="old",
        policy=Rollout(strategy=draw(st.sampled_from(list(Strategy))), steps=steps),
        replicas=draw(COUNTS),
        now=NOW,
    )
    if draw(st.booleans()):
        return begun
    phase = draw(st.sampled_from(sorted(UNDER_WAY)))
    middle: dict[str, Any] = {
        "phase": phase,
        "step": draw(st.integers(0, len(begun.steps))),
        "weight": draw(st.integers(0, 100)),
        "stable_replicas": draw(COUNTS),
        "candidate_replicas": draw(COUNTS),
        "ready": draw(COUNTS),
        "observed_since": draw(st.sampled_from([None, "2026-01-01T11:59:00Z"])),
        "deadline": draw(st.sampled_from([None, "2026-01-01T12:00:30Z"])),
        "stable_lost_since": draw(st.sampled_from([None, "2026-01-01T11:00:00Z"])),
        "cause": RollbackCause.ABORTED if phase is RolloutPhase.ROLLING_BACK else None,
    }
    return RolloutStatus(**{**dict(begun), **middle})


ONE_READY: Final = Sight(
    policy=Rollout(),
    replicas=1,
    fleet=Fleet(stable_ready=0, stable_left=0, candidate_ready=1, candidate_left=0),
    candidate_started=0,
    trouble="",
    trouble_lasts=False,
    no_room="",
    no_room_for_long=False,
    golden_failure="",
    verdict=Verdict.PASS,
    checks=(),
    superseded=False,
    acknowledged=False,
    through_gateways=False,
    stable_lost_patience=timedelta(seconds=1),
    now=NOW,
)
OBSERVED_WITHOUT_STEPS: Final = begin(
    id_="w2", revision="new", from_revision="old", policy=Rollout(), replicas=1, now=NOW
).model_copy(update={"observed_since": "2026-01-01T11:59:00Z", "stable_replicas": 0, "candidate_replicas": 0})


@settings(max_examples=500, deadline=None)
@example(rollout=OBSERVED_WITHOUT_STEPS, seen=[ONE_READY] * 2)
@given(rollouts(), st.lists(sights(), min_size=1, max_size=6))
def test_whatever_is_seen_the_next_status_keeps_to_its_schema(rollout: RolloutStatus, seen: list[Sight]) -> None:
    for sight in seen:
        if rollout.phase not in UNDER_WAY:
            break
        rollout = advance(rollout, sight)
        assert RolloutStatus.model_validate(rollout.to_wire()) == rollout


@settings(max_examples=300, deadline=None)
@given(rollouts(), st.lists(COMMANDS, min_size=1, max_size=5), st.booleans())
def test_whatever_is_asked_for_the_next_status_keeps_to_its_schema(
    rollout: RolloutStatus, commands: list[Command | UnreadableCommand], readable: bool
) -> None:
    status = ModelDeploymentStatus(rollout=rollout)
    past = tuple(f"{number:010}" for number in range(50))
    for number, command in enumerate(commands):
        now = NOW + timedelta(minutes=number)
        obeyed = obey(command, status, asked="new" if readable else None, past=past, now=now)
        told: dict[str, Any] = {
            "rollout": obeyed.rollout,
            "rejected": obeyed.rejected,
            "rolled_back_to": obeyed.rolled_back_to,
            "command": obeyed.command,
        }
        status = status.model_copy(update=told)
        assert ModelDeploymentStatus.model_validate(status.to_wire()) == status
