"""A change in place: whose turn it is, what is done for it in which order, and that any crash ends in one revision."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.agent.assigned import Assigned, Assignments
from conch.agent.assignment_file import AssignmentFile
from conch.agent.changes import Changes, Counted, counted_on
from conch.agent.decide import next_step
from conch.agent.errors import ServerEndedError, StepError
from conch.agent.preparation import Preparation
from conch.agent.state import Changing, Disk, Failure, Golden, LoadedVersion, Resizing, Server, serves
from conch.agent.step_kinds import (
    CleanUp,
    Fetch,
    Idle,
    LayOut,
    Load,
    MakeWay,
    Preparing,
    Refuse,
    Remove,
    Replay,
    Resize,
    Restore,
    Step,
    Unload,
)
from conch.agent.turn import Turns
from conch.agent.volume import Record, Volume
from conch.agent.wanted import Wanted
from conch.api.agent_orders import PinOrder, TurnOrder
from conch.api.agent_report import AgentPhase, GoldenOutcome, GoldenReport
from conch.api.assignment import AssignedModel, Assignment, Change, Pin
from conch.api.model import ModelSource
from conch.api.reasons import Reason

PIN_A, PIN_B = Pin(digest=f"sha256:{'a' * 64}"), Pin(digest=f"sha256:{'b' * 64}", resolved="etag b")
OLD = Assignment(revision="ra", name="mlp", version=1, source=ModelSource(uri="https://h.example/a"), pin=PIN_A)
NEW = Assignment(revision="rb", name="mlp", version=1, source=ModelSource(uri="https://h.example/b"), pin=PIN_B)
A, B = Wanted.of(OLD), Wanted.of(NEW)
TRIAL = B.trial
PASSED = Golden(report=GoldenReport(outcome=GoldenOutcome.PASSED), due_at=None)
READY = Idle(phase=AgentPhase.READY)
A_FETCHED = {A.fetch_key: PIN_A.digest}
BOTH_FETCHED = {**A_FETCHED, B.fetch_key: PIN_B.digest}
A_LAID_OUT, B_LAID_OUT = ("mlp", A.layout_key), ("mlp", B.layout_key)
TRIAL_LAID_OUT = (TRIAL.name, TRIAL.layout_key)
FAILURE = Failure(stage=AgentPhase.LOADING, reason=Reason.MODEL_LOAD_FAILED, message="why", attempts=1, retry_at=10.0)


def loaded(wanted: Wanted, state: str = "READY") -> LoadedVersion:
    layout = wanted.layout_key if state == "READY" else None
    return LoadedVersion(name=wanted.name, version="1", state=state, ready=state == "READY", layout=layout)


def server(*versions: LoadedVersion) -> Server:
    return Server(live=True, versions=versions)


def decide(
    wanted: Wanted,
    changing: Changing | None,
    disk: Disk,
    seen: Server,
    *,
    golden: Golden = PASSED,
    failure: Failure | None = None,
    now: float = 0.0,
) -> Step:
    return next_step(
        wanted=wanted,
        disk=disk,
        server=seen,
        failure=failure,
        golden=golden,
        resizing=Resizing(),
        now=now,
        changing=changing,
    )


def preparing(beside: bool = True, **known: object) -> Changing:
    return Changing(other=B, beside=beside, prepares=True, **known)  # type: ignore[arg-type]  # fields as the test gives them


@pytest.mark.parametrize(
    ("beside", "known", "disk", "versions", "expected"),
    [
        (False, {}, Disk(fetched=A_FETCHED, layouts=(A_LAID_OUT,)), (), Fetch(wanted=B, kept=frozenset({A.fetch_key}))),
        (False, {}, Disk(fetched=BOTH_FETCHED, layouts=(A_LAID_OUT,)), (), READY),
        (True, {}, Disk(fetched=BOTH_FETCHED, layouts=(A_LAID_OUT,)), (), LayOut(wanted=TRIAL)),
        (True, {}, Disk(fetched=BOTH_FETCHED, layouts=(A_LAID_OUT, TRIAL_LAID_OUT)), (), Load(wanted=TRIAL)),
        (
            True,
            {},
            Disk(fetched=BOTH_FETCHED, layouts=(A_LAID_OUT, TRIAL_LAID_OUT)),
            (loaded(TRIAL, "LOADING"),),
            Idle(phase=AgentPhase.LOADING, message="Triton is loading the model under a name of its own"),
        ),
        (
            True,
            {},
            Disk(fetched=BOTH_FETCHED, layouts=(A_LAID_OUT, TRIAL_LAID_OUT)),
            (loaded(TRIAL),),
            Replay(wanted=TRIAL),
        ),
        (
            True,
            {"golden": PASSED},
            Disk(fetched=BOTH_FETCHED, layouts=(A_LAID_OUT, TRIAL_LAID_OUT)),
            (loaded(TRIAL),),
            Unload(name=TRIAL.name),
        ),
        (
            True,
            {"golden": PASSED},
            Disk(fetched=BOTH_FETCHED, layouts=(A_LAID_OUT, TRIAL_LAID_OUT)),
            (loaded(TRIAL, "UNLOADING"),),
            Idle(phase=AgentPhase.LOADING, message="Triton unloads what was tried"),
        ),
        (
            True,
            {"golden": PASSED},
            Disk(fetched=BOTH_FETCHED, layouts=(A_LAID_OUT, TRIAL_LAID_OUT)),
            (),
            Remove(wanted=TRIAL),
        ),
        (True, {"golden": PASSED}, Disk(fetched=BOTH_FETCHED, layouts=(A_LAID_OUT,)), (), READY),
        (
            True,
            {"failure": FAILURE},
            Disk(fetched=BOTH_FETCHED, layouts=(A_LAID_OUT, TRIAL_LAID_OUT)),
            (),
            Idle(phase=AgentPhase.FAILED, message="why"),
        ),
        (
            True,
            {"refused": "an ensemble"},
            Disk(fetched=BOTH_FETCHED, layouts=(A_LAID_OUT,)),
            (),
            Refuse(message="an ensemble"),
        ),
    ],
)
def test_the_other_revision_is_prepared_while_the_pod_serves(
    beside: bool, known: dict[str, object], disk: Disk, versions: tuple[LoadedVersion, ...], expected: Step
) -> None:
    step = decide(A, preparing(beside, **known), disk, server(loaded(A), *versions))
    assert step == Preparing(step=expected, meanwhile=READY)  # type: ignore[arg-type]  # fields as the test gives them


def test_what_serves_comes_first() -> None:
    disk = Disk(fetched=A_FETCHED, layouts=(A_LAID_OUT,))
    assert decide(A, preparing(), disk, server(loaded(A)), golden=Golden()) == Replay(wanted=A)
    assert decide(A, preparing(), disk, server()) == Load(wanted=A)
    waiting = Idle(phase=AgentPhase.LOADING, message="waiting for Triton to start")
    fetch = Fetch(wanted=B, kept=frozenset({A.fetch_key}))
    assert decide(A, preparing(), disk, Server()) == Preparing(step=fetch, meanwhile=waiting)
    tried = Disk(fetched=BOTH_FETCHED, layouts=(A_LAID_OUT,))
    step = decide(A, preparing(), tried, Server())
    assert isinstance(step, Preparing)
    assert step.step == Idle(
        phase=AgentPhase.LOADING, message="it is tried beside the model that serves, once that does"
    )


def test_nothing_is_tried_before_it_is_pinned() -> None:
    unpinned = Wanted.of(NEW.model_copy(update={"pin": None}))
    changing = Changing(other=unpinned, beside=True, prepares=True)
    disk = Disk(fetched=BOTH_FETCHED, layouts=(A_LAID_OUT,))
    step = decide(A, changing, disk, server(loaded(A)))
    assert isinstance(step, Preparing)
    assert isinstance(step.step, Idle)
    assert step.step.phase is AgentPhase.FETCHED


def test_files_that_would_take_the_place_of_those_that_serve_are_refused() -> None:
    same = Wanted.of(NEW.model_copy(update={"source": OLD.source}))
    changing = Changing(other=same, beside=False, prepares=True)
    step = decide(A, changing, Disk(fetched=A_FETCHED, layouts=(A_LAID_OUT,)), server(loaded(A)))
    assert isinstance(step, Preparing)
    assert isinstance(step.step, Refuse)


def test_several_models_are_refused_beside_and_make_way() -> None:
    further = AssignedModel(name="tokenizer", version=1, source=ModelSource(uri="https://h.example/t"))
    several = Wanted.of(NEW.model_copy(update={"models": (further,)}))
    disk = Disk(fetched={**A_FETCHED, several.fetch_key: PIN_B.digest}, layouts=(A_LAID_OUT,))
    for changing, is_refused in (
        (Changing(other=several, beside=True, prepares=True), True),
        (Changing(other=several, beside=False, prepares=True), False),
    ):
        step = decide(A, changing, disk, server(loaded(A)))
        assert isinstance(step, Preparing)
        assert isinstance(step.step, Refuse) is is_refused
    member = replace(loaded(A), name="step")
    ensemble = decide(A, preparing(), replace(disk, fetched=BOTH_FETCHED), server(loaded(A), member))
    assert isinstance(ensemble, Preparing)
    assert isinstance(ensemble.step, Refuse)
    back = Changing(other=A, beside=True, prepares=False)
    assert decide(several, back, disk, server(loaded(A))) == MakeWay(names=("mlp",))
    assert decide(B, back, Disk(fetched=BOTH_FETCHED), server(loaded(A), member)) == MakeWay(names=("mlp", "step"))


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize(("target", "other"), [(A, B), (B, A)])
def test_its_turn(beside: bool, target: Wanted, other: Wanted) -> None:
    changing = Changing(other=other, beside=beside, prepares=target is A)
    before = Disk(fetched=BOTH_FETCHED, layouts=(("mlp", other.layout_key),))
    after = Disk(fetched=BOTH_FETCHED, layouts=(("mlp", target.layout_key),))
    both = server(loaded(other))
    assert decide(target, changing, before, both) == (LayOut(wanted=target) if beside else MakeWay(names=("mlp",)))
    leaving = server(loaded(other, "UNLOADING"))
    assert decide(target, changing, before, leaving) == LayOut(wanted=target)
    unloads = Idle(phase=AgentPhase.LOADING, message="Triton unloads the model that was served")
    step = decide(target, changing, after, leaving)
    assert (step.meanwhile if isinstance(step, Preparing) else step) == unloads
    assert decide(target, changing, after, server()) == Load(wanted=target)
    if beside:
        assert decide(target, changing, after, both) == Load(wanted=target)


def test_what_is_tried_leaves_before_the_real_one_is_loaded() -> None:
    changing = Changing(other=A, beside=True, prepares=False)
    disk = Disk(fetched=BOTH_FETCHED, layouts=(A_LAID_OUT, TRIAL_LAID_OUT))
    step = decide(B, changing, disk, server(loaded(A), loaded(TRIAL)))
    assert step == Unload(name=TRIAL.name, phase=AgentPhase.LOADING)
    step = decide(B, changing, disk, server(loaded(A), loaded(TRIAL, "LOADING")))
    assert step == Idle(phase=AgentPhase.LOADING, message="Triton unloads what was tried")
    # And it is no model of the pod once it serves.
    done = replace(disk, layouts=(B_LAID_OUT, TRIAL_LAID_OUT))
    assert decide(B, changing, done, server(loaded(B), loaded(TRIAL))) == Unload(name=TRIAL.name)
    assert decide(B, changing, done, server(loaded(B))) == CleanUp(wanted=B, kept=frozenset({A.fetch_key}))
    assert decide(B, None, replace(done, layouts=(B_LAID_OUT,)), server(loaded(B))) == CleanUp(wanted=B)


def test_a_model_that_serves_is_laid_out_again_where_another_was_refused() -> None:
    disk = Disk(fetched=BOTH_FETCHED, layouts=(B_LAID_OUT,))
    assert decide(A, preparing(golden=PASSED), disk, server(loaded(A))) == Restore(wanted=A)
    assert decide(A, None, replace(disk, fetched=A_FETCHED), server(loaded(A))) == Restore(wanted=A)
    assert decide(A, None, Disk(layouts=(B_LAID_OUT,)), server(loaded(A))) == CleanUp(wanted=A)


def change(turn: int = 0, *pods: str, beside: bool = False, new: Assignment = NEW) -> Change:
    return Change(id="c1", assignment=new, turn=turn, pods=pods, beside=beside)


def order(turn: int, revision: str = "rb", name: str = "c1") -> TurnOrder:
    return TurnOrder(change=name, turn=turn, revision=revision, code="checked before")


ASSIGNED = OLD.model_copy(update={"change": change(2, "other-pod")})


async def test_the_later_word_counts_and_a_restarted_agent_knows_it(tmp_path: Path) -> None:
    volume = Volume(tmp_path, boot="b")
    turns = Turns(volume, "me")
    assert not turns.is_to_serve(change(2, "other-pod"))
    assert turns.is_to_serve(change(2, "other-pod", "me"))
    assert await turns.take(order(3), ASSIGNED) == ""
    again = Turns(volume, "me")
    await again.recall()
    for each in (turns, again):
        assert each.is_to_serve(change(2, "other-pod")), "the file is older than the order"
        assert each.is_to_serve(change(3, "me"))
        assert not each.is_to_serve(change(4, "other-pod")), "turned back by the file"
        assert not each.is_to_serve(change(2).model_copy(update={"id": "c2"})), "of another change"


async def test_a_note_that_was_torn_says_nothing(tmp_path: Path) -> None:
    volume = Volume(tmp_path, boot="b")
    for name in ("turn", "changes"):
        volume.note(name, '{"change": "c')
    turns, changes = Turns(volume, "me"), Changes(volume)
    await turns.recall()
    await changes.recall()
    assert (turns.is_to_serve(change(1)), changes.changed) == (False, 0)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (order(1), "turn 1 of the change c1 is over: this pod knows of turn 2"),
        (order(3, name="c2"), "brings the change c1, and not c2"),
        (order(3, revision="rc"), "rc is neither"),
    ],
)
async def test_orders_that_are_not_taken(tmp_path: Path, given: TurnOrder, why: str) -> None:
    turns = Turns(Volume(tmp_path, boot="b"), "me")
    assert why in await turns.take(given, ASSIGNED)
    assert "brings no change" in await turns.take(order(9), OLD)
    assert "brings no change" in await turns.take(order(9), None)
    assert await turns.take(order(5), ASSIGNED) == ""
    assert "knows of turn 5" in await turns.take(order(4, revision="ra"), ASSIGNED)
    assert await turns.take(order(6, revision="ra"), ASSIGNED) == ""
    assert not turns.is_to_serve(change(2))


def assignments(folder: Path, assignment: Assignment) -> Assignments:
    folder.mkdir(exist_ok=True)
    (folder / "assignment.json").write_text(assignment.model_dump_json(by_alias=True))
    return Assignments(AssignmentFile(folder / "assignment.json"), Turns(Volume(folder, boot="b"), "me"))


async def test_each_revision_has_its_own_pin_and_a_promotion_keeps_it(tmp_path: Path) -> None:
    unpinned = NEW.model_copy(update={"pin": None})
    given = assignments(tmp_path, OLD.model_copy(update={"change": change(1, new=unpinned)}))
    assert given.take_pin(PinOrder(revision="ra", pin=PIN_A, code="")) != "", "nothing is known yet"
    assert given.look() == Assigned(target=OLD, other=unpinned, change_id="c1")
    assert "ra and rb" in given.take_pin(PinOrder(revision="rc", pin=PIN_B, code=""))
    assert given.take_pin(PinOrder(revision="rb", pin=PIN_B, code="")) == ""
    assert given.look() == Assigned(target=OLD, other=NEW, change_id="c1")
    assert await given.take_turn(order(2)) == ""
    assert given.look() == Assigned(target=NEW, other=OLD, change_id="c1", is_turn=True)
    fresh = tmp_path / "new"
    fresh.write_text(unpinned.model_dump_json(by_alias=True))
    fresh.rename(tmp_path / "assignment.json")
    assert given.look() == Assigned(target=NEW)


def test_what_is_changed_in_place_is_counted_once_and_from_tritons_start() -> None:
    counted = counted_on(Counted(), server(loaded(A)), A)
    assert counted == Counted(changed=0, layout=A.layout_key)
    for seen, wanted, expected in (
        (server(loaded(A)), A, 0),
        (server(), B, 0),
        (server(loaded(B)), B, 1),
        (server(loaded(B)), B, 1),
        (Server(), B, 1),
        (server(loaded(A)), A, 2),
        (Server(live=True, is_fresh=True), A, 0),
        (server(loaded(B)), B, 0),
    ):
        counted = counted_on(counted, seen, wanted)
        assert counted.changed == expected


async def test_the_count_outlives_the_agent(tmp_path: Path) -> None:
    volume = Volume(tmp_path, boot="b")
    changes = Changes(volume)
    await changes.see(server(loaded(A)), A)
    await changes.see(server(loaded(B)), B)
    again = Changes(volume)
    await again.recall()
    assert (changes.changed, again.changed) == (1, 1)


def test_a_preparation_that_fails_is_reported_until_all_is_ready_and_waits_longer_each_time() -> None:
    now = 0.0
    known = Preparation(lambda: now)
    assert known.follow(Assigned(target=OLD, other=NEW, change_id="c1", beside=True))
    report = known.report(Golden(), None)
    assert report is not None
    assert (report.phase, report.revision, report.pin) == (AgentPhase.STARTING, "rb", PIN_B)
    pauses = []
    for _ in range(3):
        known.decided(Preparing(step=Load(wanted=TRIAL), meanwhile=READY))
        known.failed(Load(wanted=TRIAL), ServerEndedError(Reason.MODEL_LOAD_FAILED, "it ended"), may_be_repaired=False)
        assert known.retry_at is not None
        pauses.append(known.retry_at - now)
        known.done(LayOut(wanted=TRIAL))
    assert pauses[0] >= 7.5
    assert pauses[0] < pauses[1] < pauses[2]
    report = known.report(Golden(), Record(digest=PIN_B.digest, bytes=9, resolved="etag b"))
    assert report is not None
    assert (report.phase, report.attempts, report.message) == (AgentPhase.FAILED, 3, "it ended")
    assert (report.digest, report.fetched_bytes, report.total_bytes) == (PIN_B.digest, 9, 9)
    # Its turn and back: nothing is forgotten, and nothing is said while it is the pod's turn.
    assert not known.follow(Assigned(target=NEW, other=OLD, change_id="c1", beside=True, is_turn=True))
    assert known.report(Golden(), None) is None
    assert not known.follow(Assigned(target=OLD, other=NEW, change_id="c1", beside=True))
    assert known.retry_at is not None
    known.decided(Preparing(step=READY, meanwhile=READY))
    report = known.report(PASSED, None)
    assert report is not None
    assert (report.phase, report.attempts, report.golden) == (AgentPhase.READY, 0, PASSED.report)
    known.decided(Preparing(step=Refuse(message="an ensemble"), meanwhile=READY))
    report = known.report(PASSED, None)
    assert report is not None
    assert (report.phase, report.refused, report.attempts) == (AgentPhase.FAILED, "an ensemble", 0)
    known.failed(Fetch(wanted=B), StepError(Reason.SOURCE_UNREACHABLE, "away"), may_be_repaired=True)
    known.done(Fetch(wanted=B))
    assert known.retry_at is None
    # Another change, or the same one the other way round.
    assert known.follow(Assigned(target=OLD, other=NEW, change_id="c2", beside=True))
    assert known.follow(Assigned(target=OLD, other=NEW, change_id="c2"))
    assert known.follow(Assigned(target=OLD))
    assert known.report(Golden(), None) is None


class Pod:
    """A pod in which steps do what they say, in halves between which it may be killed."""

    def __init__(self, beside: bool, broken: frozenset[str]) -> None:
        self.beside, self.broken = beside, broken
        self.disk, self.server = Disk(), server()
        self.golden, self.trial_golden = Golden(), Golden()
        self.failures = 0

    def step(self, target: Wanted, other: Wanted) -> Step:
        changing = Changing(other=other, beside=self.beside, prepares=target is A, golden=self.trial_golden)
        step = decide(target, changing, self.disk, self.server, golden=self.golden)
        self.do(step)
        return step

    def do(self, step: Step) -> None:
        match step:
            case Preparing(step=Load(wanted=wanted)) if wanted.assignment.revision in self.broken:
                self.trial_golden = Golden(report=GoldenReport(outcome=GoldenOutcome.ERROR), due_at=None)
            case Preparing(step=Replay()):
                self.trial_golden = PASSED
            case Preparing(step=Remove(wanted=wanted)):
                self.disk = replace(self.disk, layouts=tuple(x for x in self.disk.layouts if x[0] != wanted.name))
            case Preparing(step=Idle() | Refuse()) | Idle():
                # Triton goes on by itself.
                self.finish()
            case Preparing(step=Fetch() | LayOut() | Load() | Unload() as inner):
                self.do(inner)
            case Fetch(wanted=wanted):
                digest = wanted.expected_digest or ""
                self.disk = replace(self.disk, fetched={**self.disk.fetched, wanted.fetch_key: digest})
            case LayOut(wanted=wanted) | Restore(wanted=wanted):
                assert wanted.fetch_key in self.disk.fetched
                others = tuple(x for x in self.disk.layouts if x[0] != wanted.name)
                self.disk = replace(self.disk, layouts=(*others, (wanted.name, wanted.layout_key)))
            case Load(wanted=wanted):
                assert (wanted.name, wanted.layout_key) in self.disk.layouts
                if not wanted.is_trial:
                    self.golden = Golden()
                    assert all(v.name == wanted.name for v in self.server.versions), "no trial is in memory"
                    assert self.beside or not self.server.versions, "the old one is gone"
                if wanted.assignment.revision in self.broken:
                    self.failures += 1
                    return
                kept = tuple(v for v in self.server.versions if v.name != wanted.name)
                self.server = replace(self.server, versions=(*kept, loaded(wanted)))
            case Unload(name=name):
                self.unload(name)
            case MakeWay(names=names):
                assert not self.beside
                for name in names:
                    self.unload(name)
            case Replay(wanted=wanted):
                assert serves(self.server, wanted)
                self.golden = PASSED
            case CleanUp(wanted=wanted, kept=kept_keys, kept_layout=kept_layout):
                fetched = {k: v for k, v in self.disk.fetched.items() if k in {wanted.fetch_key, *kept_keys}}
                layouts = tuple(x for x in self.disk.layouts if x[1] in (wanted.layout_key, kept_layout))
                self.disk = Disk(fetched=fetched, layouts=layouts)
            case Resize():
                raise AssertionError("nobody has assigned a number of instances")

    def unload(self, name: str) -> None:
        versions = tuple(
            replace(v, state="UNLOADING", ready=False, layout=None) if v.name == name else v
            for v in self.server.versions
        )
        self.server = replace(self.server, versions=versions)

    def finish(self) -> None:
        self.server = replace(
            self.server, versions=tuple(v for v in self.server.versions if v.state not in ("UNLOADING", "LOADING"))
        )

    def kill(self, who: str) -> None:
        if who in ("agent", "both"):
            self.golden, self.trial_golden = Golden(), Golden()
        if who in ("triton", "both"):
            self.server = server()


EVENTS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 9), st.sampled_from(["nothing", "agent", "triton", "both"])), max_size=8
)


@given(events=EVENTS, is_turn=st.booleans(), beside=st.booleans())
def test_whatever_was_ordered_and_killed_the_pod_ends_in_exactly_one_revision(
    events: list[tuple[bool, int, str]], is_turn: bool, beside: bool
) -> None:
    pod = Pod(beside, frozenset())
    for turned, count, killed in events:
        for _ in range(count):
            answered = [v for v in pod.server.versions if v.name == "mlp" and v.ready]
            pod.step(*((B, A) if turned else (A, B)))
            still = [v for v in pod.server.versions if v.name == "mlp" and v.ready]
            assert not (beside and answered) or still, "beside, somebody answers all the time"
        pod.kill(killed)
    target, other = (B, A) if is_turn else (A, B)
    for _ in range(20):
        step = pod.step(target, other)
    assert step == (READY if is_turn else Preparing(step=READY, meanwhile=READY))
    assert pod.server.versions == (loaded(target),)
    assert pod.disk.layouts == (("mlp", target.layout_key),)
    assert pod.disk.fetched.keys() >= {target.fetch_key}
    assert pod.golden == PASSED
    # Promoted, nothing is loaded anew, and the other's files go.
    before = pod.server
    for _ in range(4):
        pod.do(decide(target, None, pod.disk, pod.server, golden=pod.golden))
    assert (pod.server, set(pod.disk.fetched)) == (before, {target.fetch_key})


@given(count=st.integers(0, 12), killed=st.sampled_from(["nothing", "agent"]))
def test_a_revision_that_cannot_be_loaded_never_takes_the_old_one_away_beside(count: int, killed: str) -> None:
    pod = Pod(True, frozenset({"rb"}))
    for _ in range(12):
        pod.step(A, B)
    for _ in range(count):
        pod.step(B, A)
        assert serves(pod.server, A)
    pod.kill(killed)
    for _ in range(12):
        pod.step(A, B)
    assert pod.server.versions == (loaded(A),)
    assert pod.disk.layouts == (A_LAID_OUT,)


def test_the_volume_makes_room_only_of_what_nobody_needs(tmp_path: Path) -> None:
    volume = Volume(tmp_path, boot="b")
    volume.prepare()
    for key in ("a", "b", "c"):
        (volume.partial(key)).mkdir()
        with volume.scratch() as folder:
            (folder / "tree").mkdir()
            volume.keep_fetched(key, folder, Record(digest="sha256:d", bytes=1))
        with volume.scratch() as folder:
            (folder / key / "1").mkdir(parents=True)
            volume.keep_layout(f"layout-{key}", folder, [key])
    volume.note("turn", "{}")
    volume.clean_up(fetched="a", layout="layout-a", kept={"b"}, kept_layout="layout-c")
    assert set(volume.disk().fetched) == {"a", "b"}
    assert [name for name, _ in volume.disk().layouts] == ["a", "c"]
    assert [volume.partial(key).exists() for key in ("a", "b", "c")] == [False, True, False]
    volume.remove_layout("c")
    volume.remove_layout("c")
    assert [name for name, _ in volume.disk().layouts] == ["a"]
    volume.prepare()
    assert (volume.noted("turn"), volume.noted("nothing")) == ("{}", "")


async def test_orders_that_come_at_the_same_time_are_taken_one_after_the_other(tmp_path: Path) -> None:
    turns = Turns(Volume(tmp_path, boot="b"), "me")
    answers = await asyncio.gather(*(turns.take(order(turn), ASSIGNED) for turn in (7, 3, 5)))
    assert [bool(answer) for answer in answers] == [False, True, True]
