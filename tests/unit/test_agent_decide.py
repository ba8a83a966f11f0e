"""The agent's one decision: rules one by one, and in worlds where anything restarts or fails at any time."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.agent.decide import next_step
from conch.agent.state import Disk, Failure, Golden, LoadedVersion, Resizing, Server, serves
from conch.agent.step_kinds import (
    CleanUp,
    Fetch,
    Idle,
    LayOut,
    Load,
    MakeWay,
    Preparing,
    Replay,
    Resize,
    Restore,
    Step,
    Unload,
)
from conch.agent.wanted import Wanted
from conch.api.agent_report import AgentPhase, GoldenOutcome, GoldenReport
from conch.api.assignment import AssignedModel, Assignment, Pin
from conch.api.batching import DynamicBatching
from conch.api.model import ModelConfig, ModelFormat, ModelSource, SecretReference
from conch.api.reasons import Reason
from conch.api.source_policy import SourcePolicy
from conch.triton.instances import InstanceGroups

PIN = Pin(digest=f"sha256:{'a' * 64}", resolved="etag 1")
OTHER_PIN = Pin(digest=f"sha256:{'b' * 64}")
SOURCE = ModelSource(uri="https://h.example/m.onnx")
ASSIGNMENT = Assignment(revision="r1", name="mlp", version=2, source=SOURCE, pin=PIN)
WANTED = Wanted.of(ASSIGNMENT)
FETCHED = Disk(fetched={WANTED.fetch_key: PIN.digest})
LAID_OUT = replace(FETCHED, layouts=(("mlp", WANTED.layout_key),))
AS_CONFIGURED = InstanceGroups(counts=(2,), overridden=False)
GOOD = LoadedVersion(
    name="mlp", version="2", state="READY", ready=True, layout=WANTED.layout_key, instances=AS_CONFIGURED
)
EMPTY = Server(live=True)
SERVING = Server(live=True, versions=(GOOD,))
FAILURE = Failure(stage=AgentPhase.LOADING, reason=Reason.MODEL_LOAD_FAILED, message="why", attempts=1, retry_at=10.0)
SETTLED = Golden(report=GoldenReport(outcome=GoldenOutcome.ABSENT), due_at=None)


def decide(
    disk: Disk = LAID_OUT,
    server: Server = EMPTY,
    failure: Failure | None = None,
    now: float = 0.0,
    golden: Golden = SETTLED,
    wanted: Wanted | None = WANTED,
    resizing: Resizing = Resizing(),  # noqa: B008 - immutable
) -> Step:
    return next_step(
        wanted=wanted, disk=disk, server=server, failure=failure, golden=golden, resizing=resizing, now=now
    )


def test_without_an_assignment_nothing_happens() -> None:
    step = decide(server=SERVING, wanted=None)
    assert step == Idle(phase=AgentPhase.STARTING, message="waiting for an assignment")


def test_fetch_lay_out_load_ready() -> None:
    assert decide(Disk()) == Fetch(wanted=WANTED)
    assert decide(FETCHED) == LayOut(wanted=WANTED)
    assert decide(LAID_OUT) == Load(wanted=WANTED)
    assert decide(LAID_OUT, SERVING) == Idle(phase=AgentPhase.READY)


@pytest.mark.parametrize("disk", [FETCHED, LAID_OUT])
def test_nothing_is_loaded_before_the_files_are_pinned(disk: Disk) -> None:
    unpinned = Wanted.of(ASSIGNMENT.model_copy(update={"pin": None}))
    step = decide(disk, wanted=unpinned)
    assert isinstance(step, Idle)
    assert step.phase is AgentPhase.FETCHED


@pytest.mark.parametrize("disk", [FETCHED, LAID_OUT])
def test_other_files_than_the_pinned_ones_are_fetched_anew_and_never_loaded(disk: Disk) -> None:
    wanted = Wanted.of(ASSIGNMENT.model_copy(update={"pin": OTHER_PIN}))
    assert decide(disk, wanted=wanted) == Fetch(wanted=wanted)


def test_declared_files_need_no_pin() -> None:
    source = SOURCE.model_copy(update={"digest": PIN.digest})
    wanted = Wanted.of(ASSIGNMENT.model_copy(update={"pin": None, "source": source}))
    disk = Disk(fetched={wanted.fetch_key: PIN.digest})
    assert decide(disk, wanted=wanted) == LayOut(wanted=wanted)


def test_files_are_brought_while_triton_is_not_there_yet() -> None:
    assert decide(Disk(), Server()) == Fetch(wanted=WANTED)
    assert decide(LAID_OUT, Server()) == Idle(phase=AgentPhase.LOADING, message="waiting for Triton to start")


def test_a_load_in_progress_is_waited_for() -> None:
    loading = Server(live=True, versions=(replace(GOOD, state="LOADING", ready=False),))
    assert isinstance(decide(server=loading), Idle)


@pytest.mark.parametrize(
    "version",
    [
        replace(GOOD, ready=False),
        replace(GOOD, layout=None),
        replace(GOOD, layout="another"),
        replace(GOOD, version="1"),
        replace(GOOD, state="UNLOADING"),
        replace(GOOD, name="other"),
    ],
)
def test_only_exactly_the_assigned_version_from_the_assigned_files_serves(version: LoadedVersion) -> None:
    server = Server(live=True, versions=(version,))
    assert not serves(server, WANTED)
    assert decide(server=server) == Load(wanted=WANTED)
    assert not serves(Server(live=True, versions=(GOOD, replace(GOOD, version="1"))), WANTED)
    assert not serves(replace(SERVING, live=False), WANTED)


def test_a_failure_is_waited_out_and_then_tried_again() -> None:
    assert decide(failure=FAILURE, now=9.9) == Idle(phase=AgentPhase.FAILED, message="why")
    assert decide(failure=FAILURE, now=10.0) == Load(wanted=WANTED)
    assert decide(failure=replace(FAILURE, refetch=True), now=10.0) == Fetch(wanted=WANTED)
    assert decide(server=SERVING, failure=FAILURE) == Idle(phase=AgentPhase.READY)


def test_a_model_that_serves_is_held_against_its_golden_set_once() -> None:
    assert decide(server=SERVING, golden=Golden()) == Replay(wanted=WANTED)
    assert decide(server=SERVING, golden=SETTLED) == Idle(phase=AgentPhase.READY)
    assert decide(LAID_OUT, EMPTY, golden=Golden()) == Load(wanted=WANTED)


def test_a_replay_that_triton_was_too_busy_for_is_tried_again_later_also_after_that_was_reported() -> None:
    for report in (None, GoldenReport(outcome=GoldenOutcome.ERROR)):
        busy = Golden(report=report, attempts=6, due_at=10.0)
        assert decide(server=SERVING, golden=busy, now=9.9) == Idle(phase=AgentPhase.READY)
        assert decide(server=SERVING, golden=busy, now=10.0) == Replay(wanted=WANTED)


def with_instances(assigned: int | None) -> Wanted:
    return Wanted.of(ASSIGNMENT.model_copy(update={"instances": assigned}))


def running(instances: InstanceGroups | None) -> Server:
    return Server(live=True, versions=(replace(GOOD, instances=instances),))


@pytest.mark.parametrize(
    ("instances", "assigned", "changes"),
    [
        (AS_CONFIGURED, None, False),
        (AS_CONFIGURED, 2, False),
        (AS_CONFIGURED, 3, True),
        (InstanceGroups(counts=(1, 2), overridden=False), None, False),
        (InstanceGroups(counts=(1, 2), overridden=False), 2, True),
        (InstanceGroups(counts=(3, 3), overridden=True), 3, False),
        (InstanceGroups(counts=(3, 3), overridden=True), None, True),
        (None, None, False),
        (None, 2, True),
    ],
)
def test_the_model_that_serves_gets_the_instances_that_are_assigned(
    instances: InstanceGroups | None, assigned: int | None, changes: bool
) -> None:
    wanted = with_instances(assigned)
    step = decide(server=running(instances), wanted=wanted)
    assert step == (Resize(wanted=wanted) if changes else Idle(phase=AgentPhase.READY))
    assert decide(server=running(instances), wanted=wanted, golden=Golden()) == Replay(wanted=wanted)
    assert decide(LAID_OUT, EMPTY, wanted=wanted) == Load(wanted=wanted)


def test_instances_that_were_refused_are_not_tried_again_and_unanswered_ones_later() -> None:
    refused = Resizing(refused="out of memory", due_at=None)
    wanted = with_instances(3)
    assert decide(server=SERVING, wanted=wanted, resizing=refused, now=1e9) == Idle(phase=AgentPhase.READY)
    unanswered = Resizing(attempts=1, due_at=10.0)
    assert decide(server=SERVING, wanted=wanted, resizing=unanswered, now=9.9) == Idle(phase=AgentPhase.READY)
    assert decide(server=SERVING, wanted=wanted, resizing=unanswered, now=10.0) == Resize(wanted=wanted)


def test_what_is_no_longer_assigned_goes_once_the_assigned_serves() -> None:
    stray = replace(GOOD, name="old", layout=None)
    both = Server(live=True, versions=(GOOD, stray))
    old = replace(
        LAID_OUT, layouts=(*LAID_OUT.layouts, ("old", "k")), fetched={**LAID_OUT.fetched, "old-key": "sha256:x"}
    )
    assert decide(old, both) == Unload(name="old")
    unloading = Server(live=True, versions=(GOOD, replace(stray, state="UNLOADING")))
    assert decide(old, unloading) == Idle(phase=AgentPhase.READY)
    assert decide(old, SERVING) == CleanUp(wanted=WANTED)
    assert decide(old, Server(live=True, versions=(stray,))) == Load(wanted=WANTED)


@pytest.mark.parametrize(
    ("change", "fetched_anew", "loaded_anew"),
    [
        ({"revision": "r2"}, False, False),
        ({"instances": 3}, False, False),
        ({"source_policy": SourcePolicy(allowed_hosts=("x",))}, False, False),
        ({"version": 3}, False, True),
        ({"name": "other"}, False, True),
        ({"format": ModelFormat.ONNX}, False, True),
        ({"config": ModelConfig(dynamic_batching=DynamicBatching())}, False, True),
        ({"pin": OTHER_PIN}, False, True),
        ({"source": SOURCE.model_copy(update={"credentials_secret_ref": SecretReference(name="s")})}, False, False),
        ({"source": SOURCE.model_copy(update={"uri": "https://h.example/n.onnx"})}, True, True),
        ({"source": SOURCE.model_copy(update={"endpoint": "https://e.example"})}, True, True),
        ({"source": SOURCE.model_copy(update={"digest": PIN.digest})}, True, True),
    ],
)
def test_what_a_change_of_the_assignment_costs(change: dict[str, Any], fetched_anew: bool, loaded_anew: bool) -> None:
    changed = Wanted.of(ASSIGNMENT.model_copy(update=change))
    assert (changed.fetch_key != WANTED.fetch_key) is fetched_anew
    assert (changed.layout_key != WANTED.layout_key) is loaded_anew


FURTHER = AssignedModel(name="tokenizer", version=1, source=ModelSource(uri="https://h.example/t.tar"))


def test_several_models_serve_once_each_of_them_answers() -> None:
    wanted = Wanted.of(ASSIGNMENT.model_copy(update={"models": (FURTHER,)}))
    first = replace(GOOD, layout=wanted.layout_key)
    further = replace(first, name="tokenizer", version="1")
    assert serves(Server(live=True, versions=(first, further)), wanted)
    for other in (
        (first,),
        (further,),
        (first, replace(further, ready=False)),
        (first, replace(further, version="2")),
        (first, replace(further, layout="other")),
        (replace(first, ready=False), further),
    ):
        assert not serves(Server(live=True, versions=other), wanted)


@pytest.mark.parametrize(
    ("change", "fetched_anew", "loaded_anew"),
    [
        ({"version": 2}, False, True),
        ({"config": ModelConfig(max_batch_size=4)}, False, True),
        ({"name": "other"}, True, True),
        ({"source": ModelSource(uri="https://h.example/u.tar")}, True, True),
        (
            {"source": FURTHER.source.model_copy(update={"credentials_secret_ref": SecretReference(name="s")})},
            False,
            False,
        ),
    ],
)
def test_what_a_change_of_a_further_model_costs(change: dict[str, Any], fetched_anew: bool, loaded_anew: bool) -> None:
    before = Wanted.of(ASSIGNMENT.model_copy(update={"models": (FURTHER,)}))
    after = Wanted.of(ASSIGNMENT.model_copy(update={"models": (FURTHER.model_copy(update=change),)}))
    assert (after.fetch_key != before.fetch_key) is fetched_anew
    assert (after.layout_key != before.layout_key) is loaded_anew
    assert before.fetch_key != WANTED.fetch_key


def test_what_is_declared_of_one_model_says_nothing_of_all() -> None:
    declared = ASSIGNMENT.model_copy(update={"source": SOURCE.model_copy(update={"digest": PIN.digest}), "pin": None})
    assert declared.expected_digest == PIN.digest
    several = declared.model_copy(update={"models": (FURTHER,)})
    assert several.expected_digest is None
    assert several.model_copy(update={"pin": OTHER_PIN}).expected_digest == OTHER_PIN.digest
    assert (declared.is_declared, several.is_declared) == (True, False)


def test_what_an_ensemble_is_composed_of_stays_and_nothing_else() -> None:
    key = WANTED.layout_key
    disk = replace(LAID_OUT, layouts=(("mlp", key), ("step", key)))
    step, foreign = replace(GOOD, name="step"), replace(GOOD, name="old", layout="other")
    server = Server(live=True, versions=(GOOD, step))
    assert decide(disk, server, golden=SETTLED, wanted=WANTED) == Idle(phase=AgentPhase.READY)
    with_foreign = replace(server, versions=(GOOD, step, foreign))
    assert decide(disk, with_foreign, golden=SETTLED, wanted=WANTED) == Unload(name="old")
    loading = Server(live=True, versions=(replace(step, state="LOADING", ready=False, layout=None),))
    waits = Idle(phase=AgentPhase.LOADING, message="Triton is loading the model")
    assert decide(disk, loading, golden=SETTLED, wanted=WANTED) == waits
    left = replace(disk, layouts=(*disk.layouts, ("gone", "other")))
    assert decide(left, server, golden=SETTLED, wanted=WANTED) == CleanUp(wanted=WANTED)


class World:
    """A pod in which steps do what they say."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.server = Server()
        self.golden = Golden()
        self.fetches = self.loads = self.replays = self.resizes = 0

    def do(self, step: Step) -> None:
        match step:
            case Fetch(wanted=wanted):
                self.fetches += 1
                self.disk = replace(self.disk, fetched={**self.disk.fetched, wanted.fetch_key: PIN.digest})
            case LayOut(wanted=wanted):
                name = wanted.assignment.name
                others = tuple(layout for layout in self.disk.layouts if layout[0] != name)
                self.disk = replace(self.disk, layouts=(*others, (name, wanted.layout_key)))
            case Load(wanted=wanted):
                assert (wanted.assignment.name, wanted.layout_key) in self.disk.layouts
                self.loads += 1
                self.golden = Golden()
                name, version = wanted.assignment.name, str(wanted.assignment.version)
                kept = tuple(v for v in self.server.versions if v.name != name)
                loaded = replace(GOOD, name=name, version=version, layout=wanted.layout_key, instances=_given(wanted))
                self.server = replace(self.server, versions=(*kept, loaded))
            case Unload(name=name):
                self.server = replace(self.server, versions=tuple(v for v in self.server.versions if v.name != name))
            case Replay(wanted=wanted):
                assert serves(self.server, wanted)
                self.replays += 1
                self.golden = SETTLED
            case Resize(wanted=wanted):
                assert serves(self.server, wanted)
                self.resizes += 1
                name = wanted.assignment.name
                self.server = replace(
                    self.server,
                    versions=tuple(
                        replace(v, instances=_given(wanted)) if v.name == name else v for v in self.server.versions
                    ),
                )
            case CleanUp(wanted=wanted):
                self.disk = Disk(
                    fetched={wanted.fetch_key: PIN.digest},
                    layouts=((wanted.assignment.name, wanted.layout_key),),
                )
            case Restore(wanted=wanted):
                self.do(LayOut(wanted=wanted))
            case Idle() | MakeWay() | Preparing():
                pass

    def next_step(self, wanted: Wanted) -> Step:
        return decide(self.disk, self.server, golden=self.golden, wanted=wanted)

    def settle(self, wanted: Wanted) -> None:
        for _ in range(12):
            step = self.next_step(wanted)
            self.do(step)
        assert step == Idle(phase=AgentPhase.READY)
        assert {name for name, _ in self.disk.layouts} == {wanted.assignment.name}
        assert serves(self.server, wanted)
        assert [v.instances for v in self.server.versions] == [_given(wanted)]
        assert self.golden == SETTLED


def _given(wanted: Wanted) -> InstanceGroups:
    assigned = wanted.assignment.instances
    return AS_CONFIGURED if assigned is None else InstanceGroups(counts=(assigned,), overridden=True)


ASSIGNMENTS = st.builds(
    lambda name, version, file, instances: Wanted.of(
        Assignment(
            revision="r",
            name=name,
            version=version,
            source=ModelSource(uri=f"https://h.example/{file}"),
            pin=PIN,
            instances=instances,
        )
    ),
    st.sampled_from(["a", "b"]),
    st.integers(1, 2),
    st.sampled_from(["x", "y"]),
    st.sampled_from([None, 1, 3]),
)
EVENTS = st.lists(
    st.tuples(ASSIGNMENTS, st.sampled_from(["nothing", "triton", "volume"]), st.integers(0, 6)), max_size=8
)


@given(events=EVENTS, last=ASSIGNMENTS)
def test_every_history_ends_serving_just_the_last_assignment(
    events: list[tuple[Wanted, str, int]], last: Wanted
) -> None:
    world = World()
    for wanted, event, steps in events:
        for _ in range(steps):
            world.do(world.next_step(wanted))
        if event == "triton":
            world.server = Server()
        if event == "volume":
            world.disk, world.server = Disk(), Server()
    world.server = replace(world.server, live=True)
    world.settle(last)
    fetches, loads, replays, resizes = world.fetches, world.loads, world.replays, world.resizes
    world.settle(last)
    assert (world.fetches, world.loads, world.replays, world.resizes) == (fetches, loads, replays, resizes)
    world.server = EMPTY
    world.settle(last)
    assert (world.fetches, world.loads, world.replays) == (fetches, loads + 1, replays + 1)
    assert world.resizes == resizes, "a load has the assigned number at once"
