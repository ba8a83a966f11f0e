"""Rollouts, whatever happens in whatever order: what must hold always, and how each ends, with a crash at any write."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conch.api.agent_report import AgentPhase, AgentReport, GoldenOutcome, GoldenReport
from conch.api.command import Command, Verb
from conch.api.reasons import Reason
from conch.api.rollout import RollbackCause, RolloutPhase, Strategy
from conch.api.status import ConditionStatus, ConditionType, ModelDeploymentStatus
from conch.core.analysis.samples import Samples
from conch.core.observed import ObservedWindow
from conch.core.observed_pod import ObservedContainer
from conch.core.rollout.phases import UNDER_WAY
from tests.sim.world import World

URI = "https://models/a.onnx"
STEPS = [{"weight": 10}, {"weight": 50, "pauseSeconds": 5}]
CHECKS = [{"successRate": {"minimumPercent": 99}}]
GOOD = Samples(requests=2000, failures=1, latency=(0, 0, 0, 2000))
BAD = Samples(requests=2000, failures=100)


def spec(version: int, *, replicas: int = 2, **rollout: Any) -> dict[str, Any]:
    return {
        "model": {"version": version, "source": {"uri": URI}},
        "replicas": replicas,
        "rollout": {"keepWarmSeconds": 0, **rollout},
    }


def serving(**fields: Any) -> World:
    """A world in which version 1 serves."""
    world = World(spec=spec(1, **fields))
    for _ in range(3):
        world.settle()
        world.serve()
    world.settle()
    assert served(world) == 1
    return world


def served(world: World) -> int | None:
    return world.status.stable.version if world.status.stable else None


def see(world: World, samples: Samples) -> None:
    """Let the candidate be seen doing this in the window that is open, and the stable revision well."""
    if world.window and world.status.candidate and world.status.stable:
        both = {world.status.candidate.workload: samples, world.status.stable.workload: GOOD}
        world.window = ObservedWindow(name=world.window.name, samples=both)


def live(world: World, samples: Samples = GOOD, *, rounds: int = 60) -> None:
    """Let a minute go by in a cluster where everything works and clients send requests."""
    for _ in range(rounds):
        world.serve()
        see(world, samples)
        world.step()


def until(world: World, holds: Callable[[], bool]) -> None:
    for _ in range(60):
        if holds():
            return
        live(world, rounds=1)
    raise AssertionError("it never came")


def weights(world: World) -> list[tuple[int, int]]:
    """(version of the workload by its order, weight) of everything that gets requests."""
    return [(share.weight, share.workload == _candidate(world)) for share in world.status.traffic if share.weight]


def _candidate(world: World) -> str:
    return world.status.candidate.workload if world.status.candidate else ""


def command(world: World, verb: Verb, nonce: str, **fields: Any) -> None:
    assert world.status.rollout
    world.command = Command(command=verb, rollout=world.status.rollout.id, nonce=nonce, **fields)


@pytest.mark.parametrize("strategy", ["Auto", "Surge", "Replace", "Recreate"])
@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_a_good_version_takes_over(strategy: str, replicas: int) -> None:
    world = serving(replicas=replicas)
    world.edit(**spec(2, replicas=replicas, strategy=strategy, steps=STEPS, analysis=CHECKS))
    live(world, rounds=120)
    assert served(world) == 2
    assert world.status.candidate is None
    assert world.status.rollout
    assert world.status.rollout.phase is RolloutPhase.DONE
    assert world.status.rejected == ()
    assert len(world.status.traffic) == 1
    assert sum(world.replicas[share.workload] for share in world.status.traffic) == replicas
    ready = world.status.condition(ConditionType.READY)
    assert ready
    assert ready.status is ConditionStatus.TRUE
    assert world.plan().actions == ()


@pytest.mark.parametrize("strategy", ["Auto", "Surge", "Replace", "Recreate"])
@pytest.mark.parametrize("replicas", [1, 3])
def test_a_version_that_fails_requests_is_rolled_back_and_not_tried_again(strategy: str, replicas: int) -> None:
    world = serving(replicas=replicas)
    world.edit(**spec(2, replicas=replicas, strategy=strategy, steps=STEPS, analysis=CHECKS))
    live(world, BAD, rounds=120)
    _is_back(world, RollbackCause.ANALYSIS_FAILED, Reason.ANALYSIS_FAILED, replicas)
    world.generation += 1
    live(world, GOOD)
    _is_back(world, RollbackCause.ANALYSIS_FAILED, Reason.ANALYSIS_FAILED, replicas)
    command(world, Verb.RETRY, "again")
    live(world, GOOD, rounds=120)
    assert served(world) == 2
    assert world.status.rejected == ()


def _is_back(world: World, cause: RollbackCause, reason: Reason, replicas: int) -> None:
    assert served(world) == 1
    assert world.status.candidate is None
    assert [(each.cause, bool(each.message)) for each in world.status.rejected] == [(cause, True)]
    assert [share.weight for share in world.status.traffic] == [100]
    assert world.replicas[world.status.traffic[0].workload] == replicas
    conditions = {condition.type: condition for condition in world.status.conditions}
    assert conditions[ConditionType.READY].reason is reason
    assert conditions[ConditionType.STALLED].status is ConditionStatus.TRUE
    assert conditions[ConditionType.AVAILABLE].status is ConditionStatus.TRUE


def test_without_analysis_a_version_that_fails_requests_is_rolled_back_too() -> None:
    world = serving()
    world.edit(**spec(2, steps=[{"weight": 10, "pauseSeconds": 60}]))
    live(world, replace(BAD, failures=1000))
    _is_back(world, RollbackCause.ANALYSIS_FAILED, Reason.ANALYSIS_FAILED, 2)


def test_what_was_compared_with_the_stable_version_is_not_any_more_once_that_gets_no_requests() -> None:
    world = serving()
    slow = {"latency": {"percentile": 95, "maxRatioToStable": 1.5}}
    world.edit(**spec(2, steps=[{"weight": 50}], analysis=[slow]))
    fast = Samples(requests=2000, latency=(0, 0, 0, 2000))
    for _ in range(60):
        live(world, fast, rounds=1)
    assert served(world) == 2


def test_too_few_samples_promote_nothing_however_long_it_takes() -> None:
    world = serving()
    world.edit(**spec(2, steps=STEPS, analysis=CHECKS))
    live(world, Samples(requests=9), rounds=600)
    assert served(world) == 1
    assert world.status.rollout
    assert (world.status.rollout.phase, world.status.rollout.step) == (RolloutPhase.SHIFTING, 0)
    ready = world.status.condition(ConditionType.READY)
    assert ready
    assert ready.reason is Reason.ANALYSING
    live(world, GOOD)
    assert served(world) == 2


@pytest.mark.parametrize("strategy", ["Surge", "Replace", "Recreate"])
def test_a_version_that_answers_otherwise_than_recorded_gets_no_traffic(strategy: str) -> None:
    world = serving()
    first = world.status.traffic[0].workload
    world.edit(**spec(2, strategy=strategy))
    world.golden = GoldenReport(outcome=GoldenOutcome.FAILED, samples=3, mismatches=1, message="SCORE is 0.1, not 0.9")
    carried = set()
    for _ in range(60):
        live(world, rounds=1)
        carried |= {share.workload for share in world.status.traffic if share.weight}
        if world.status.rejected:
            world.golden = GoldenReport(outcome=GoldenOutcome.PASSED, samples=3)
    assert carried == {first}
    _is_back(world, RollbackCause.GOLDEN_SET_FAILED, Reason.GOLDEN_SET_FAILED, 2)
    assert "SCORE" in world.status.rejected[0].message


def test_the_first_version_gets_no_traffic_before_its_golden_set_passes() -> None:
    world = World(spec=spec(1))
    world.golden = GoldenReport(outcome=GoldenOutcome.FAILED, mismatches=1, message="SCORE is 0.1, not 0.9")
    live(world)
    assert world.status.traffic == ()
    ready = world.status.condition(ConditionType.READY)
    assert ready
    assert ready.reason is Reason.GOLDEN_SET_FAILED


def test_a_version_whose_model_does_not_load_is_rolled_back_at_its_deadline() -> None:
    world = serving()
    world.edit(**spec(2, progressDeadlineSeconds=30))
    for _ in range(60):
        world.run_pods()
        _fail_candidates(world)
        world.step()
    _is_back(world, RollbackCause.CANDIDATE_FAILED, Reason.CANDIDATE_FAILED, 2)
    assert "cannot be parsed" in world.status.rejected[0].message


def _fail_candidates(world: World) -> None:
    failed = AgentReport(phase=AgentPhase.FAILED, reason=Reason.MODEL_LOAD_FAILED, message="cannot be parsed")
    for name, pod in world.pods.items():
        if pod.workload == _candidate(world):
            world.pods[name] = replace(pod, ready=False, report=failed)


def test_one_hiccup_of_a_container_runtime_ends_no_rollout() -> None:
    world = serving(replicas=4)
    world.edit(**spec(2, replicas=4, steps=STEPS))
    until(world, lambda: world.replicas.get(_candidate(world)) == 2)
    assert world.status.rollout
    assert world.status.rollout.phase is RolloutPhase.SHIFTING
    world.run_pods()
    second = next(name for name, pod in world.pods.items() if pod.workload == _candidate(world) and not pod.ready)
    failed = ObservedContainer(name="triton", waiting_reason="RunContainerError", waiting_message="timed out")
    world.pods[second] = replace(world.pods[second], containers=(failed,))
    for _ in range(5):
        world.step()
    world.pods[second] = replace(world.pods[second], containers=(replace(failed, waiting_reason="", restarts=1),))
    live(world, rounds=120)
    assert (served(world), world.status.rejected) == (2, ())


def test_where_there_is_no_room_an_automatic_rollout_replaces_pods_one_by_one() -> None:
    world = serving(replicas=3)
    world.edit(**spec(2, replicas=3))
    lowest = 3
    for _ in range(240):
        _schedule(world, room=3)
        world.step()
        lowest = min(lowest, sum(pod.ready for pod in world.pods.values()))
    assert served(world) == 2
    assert world.status.rollout
    assert world.status.rollout.strategy is Strategy.REPLACE
    assert "no room" in world.status.rollout.strategy_reason
    assert lowest == 2, "one pod at a time"


def test_where_there_is_no_room_for_a_second_pod_the_only_one_is_recreated() -> None:
    world = serving(replicas=1)
    world.edit(**spec(2, replicas=1))
    for _ in range(180):
        _schedule(world, room=1)
        world.step()
    assert served(world) == 2
    assert world.status.rollout
    assert world.status.rollout.strategy is Strategy.RECREATE


def test_where_surge_is_asked_for_and_there_is_no_room_it_waits_and_says_so() -> None:
    world = serving(replicas=2)
    world.edit(**spec(2, strategy="Surge", progressDeadlineSeconds=30))
    for _ in range(180):
        _schedule(world, room=2)
        world.step()
    assert served(world) == 1
    assert world.status.rejected == ()
    blocked = world.status.condition(ConditionType.CAPACITY_BLOCKED)
    assert blocked
    assert blocked.status is ConditionStatus.TRUE
    live(world)
    assert served(world) == 2


def _schedule(world: World, *, room: int) -> None:
    """So many pods find a node, and start there; the others say so. Who has one keeps it."""
    world.run_pods()
    taken = sum(pod.scheduled for pod in world.pods.values())
    for name, pod in sorted(world.pods.items()):
        if pod.scheduled:
            continue
        fits = taken < room
        taken += fits
        message = "" if fits else "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
        created = pod.created if pod.unschedulable_message else world.now.isoformat()
        world.pods[name] = replace(pod, scheduled=fits, unschedulable_message=message, created=created)
    waiting = {name: pod for name, pod in world.pods.items() if not pod.scheduled}
    world.fetch()
    world.load()
    world.pods |= waiting


def test_a_third_version_goes_back_to_the_first_and_then_forward() -> None:
    world = serving()
    world.edit(**spec(2, steps=[{"weight": 10, "pause": "UntilPromoted"}]))
    live(world)
    world.edit(**spec(3))
    seen = []
    for _ in range(60):
        live(world, rounds=1)
        seen.append(world.status.rollout and world.status.rollout.cause)
    assert RollbackCause.SUPERSEDED in seen
    assert served(world) == 3
    assert world.status.rejected == ()


def test_the_stable_version_asked_for_again_is_an_immediate_way_back() -> None:
    world = serving()
    world.edit(**spec(2, steps=[{"weight": 50, "pause": "UntilPromoted"}]))
    live(world)
    assert sorted(weight for weight, _ in weights(world)) == [50, 50]
    world.edit(**spec(1))
    live(world, rounds=3)
    assert [weight for weight, _ in weights(world)] == [100]
    live(world)
    assert served(world) == 1
    assert world.status.rejected == ()
    ready = world.status.condition(ConditionType.READY)
    assert ready
    assert ready.status is ConditionStatus.TRUE


def test_replicas_and_policy_edited_mid_way_restart_nothing() -> None:
    world = serving()
    world.edit(**spec(2, steps=[{"weight": 10, "pause": "UntilPromoted"}, {"weight": 50, "pause": "UntilPromoted"}]))
    live(world)
    before = world.status.rollout
    assert before
    world.edit(**spec(2, replicas=4, steps=[{"weight": 20}], progressDeadlineSeconds=77))
    live(world)
    after = world.status.rollout
    assert after
    assert (after.id, after.steps, after.step, after.weight) == (before.id, before.steps, before.step, 10)
    command(world, Verb.PROMOTE, "1")
    live(world)
    assert sorted(weight for weight, _ in weights(world)) == [50, 50]
    command(world, Verb.PROMOTE, "2")
    live(world)
    assert served(world) == 2


def test_a_command_is_heeded_once_and_only_for_its_own_rollout() -> None:
    world = serving()
    world.edit(**spec(2, steps=[{"weight": 10, "pause": "UntilPromoted"}, {"weight": 50, "pause": "UntilPromoted"}]))
    live(world)
    command(world, Verb.PROMOTE, "1")
    live(world)
    assert world.status.rollout
    assert world.status.rollout.step == 1, "one step for one command"
    world.command = Command(command=Verb.ABORT, rollout="another", nonce="2")
    live(world)
    assert world.status.command
    assert (world.status.command.accepted, world.status.command.nonce) == (False, "2")
    assert world.status.rollout.cause is None
    command(world, Verb.ABORT, "3")
    live(world)
    _is_back(world, RollbackCause.ABORTED, Reason.ROLLOUT_ABORTED, 2)


def test_paused_by_spec_or_command_it_goes_no_further_but_back() -> None:
    world = serving()
    world.edit(**spec(2, steps=STEPS, analysis=CHECKS, paused=True))
    live(world)
    assert [weight for weight, _ in weights(world)] == [100], "no traffic either"
    world.edit(**spec(2, steps=STEPS, analysis=CHECKS))
    until(world, lambda: len(weights(world)) == 2)
    world.edit(**spec(2, steps=STEPS, analysis=CHECKS, paused=True))
    live(world)
    ready = world.status.condition(ConditionType.READY)
    assert ready
    assert ready.reason is Reason.ROLLOUT_PAUSED
    assert world.status.rollout
    assert world.status.rollout.step == 0
    live(world, BAD)
    _is_back(world, RollbackCause.ANALYSIS_FAILED, Reason.ANALYSIS_FAILED, 2)


def test_a_candidate_that_serves_takes_over_when_the_stable_version_is_lost() -> None:
    world = serving()
    world.edit(**spec(2, steps=[{"weight": 10, "pause": "UntilPromoted"}], analysis=CHECKS))
    live(world)
    (stable,) = (share.workload for share in world.status.traffic if share.workload != _candidate(world))
    container = ObservedContainer(name="triton", restarts=3, waiting_reason="CrashLoopBackOff", last_exit="Error")
    for _ in range(240):
        for name, pod in world.pods.items():
            if pod.workload == stable:
                world.pods[name] = replace(pod, ready=False, containers=(container,))
        ready = {name: pod for name, pod in world.pods.items() if pod.workload == stable}
        world.serve()
        world.pods |= {name: ready[name] for name in ready if name in world.pods}
        world.step()
    assert served(world) == 2


@pytest.mark.parametrize("samples", [GOOD, BAD], ids=["forward", "back"])
def test_a_silent_gateway_holds_no_rollout_up_and_that_none_answers_does(samples: Samples) -> None:
    world = serving()
    world.edit(**spec(2, steps=STEPS, analysis=CHECKS))
    until(world, lambda: len(weights(world)) == 2)
    silent = {name: replace(gateway, heard=False) for name, gateway in world.gateways.items()}
    world.gateways, world.deaf = silent, set(silent)
    live(world, samples)
    assert (served(world), len(weights(world))) == (1, 2), "nobody tells what becomes of the requests"
    world.gateways |= {"a": replace(world.gateways["a"], heard=True)}
    world.deaf = {"b"}
    live(world, samples)
    assert served(world) == (2 if samples is GOOD else 1)
    assert [weight for weight, _ in weights(world)] == [100]
    assert world.status.candidate is None


# Whatever happens.


def _fail_one(world: World, which: int) -> None:
    if world.pods:
        name = sorted(world.pods)[which % len(world.pods)]
        report = AgentReport(phase=AgentPhase.FAILED, reason=Reason.MODEL_LOAD_FAILED, message="no")
        world.pods[name] = replace(world.pods[name], ready=False, report=report)


def _lose_one(world: World, which: int) -> None:
    if world.pods:
        del world.pods[sorted(world.pods)[which % len(world.pods)]]


def _restart(world: World, _: int) -> None:
    """Of the operator: what only its memory held is gone."""
    world.secret_known = False
    world.window = None
    world.pods = {name: replace(pod, report=None) for name, pod in world.pods.items()}


def _command(world: World, which: int) -> None:
    if world.status.rollout:
        verb = list(Verb)[which % len(Verb)]
        command(world, verb, f"{world.now.isoformat()}{which}", full=which > 5)


def _edit(world: World, which: int) -> None:
    strategies = ["Auto", "Surge", "Replace", "Recreate"]
    world.edit(
        **spec(
            1 + which % 3,
            replicas=1 + which % 4,
            strategy=strategies[which % 4],
            steps=STEPS if which % 4 < 3 else [],
            progressDeadlineSeconds=20,
        )
    )


def _deafen(world: World, which: int) -> None:
    world.deaf = {"a"} if which % 2 else set()


HAPPENINGS: list[Callable[[World, int], None]] = [
    lambda world, _: live(world, rounds=1),
    lambda world, _: live(world, rounds=5),
    lambda world, _: live(world, BAD, rounds=2),
    lambda world, writes: _crashing(world, writes),
    lambda world, _: world.run_pods(),
    _fail_one,
    _lose_one,
    _restart,
    _command,
    _edit,
    _deafen,
]


def _crashing(world: World, writes: int) -> None:
    world.serve()
    world.step(crash_after=writes % 6)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.integers(0, 11)), max_size=25))
def test_what_always_holds(history: list[tuple[Callable[[World, int], None], int]]) -> None:
    world = serving()
    for happening, argument in history:
        for before, after in _steps_of(world, happening, argument):
            _holds(world, before, after)
    world.deaf, world.command = set(), None
    live(world, rounds=5)
    version = 7
    world.edit(**spec(version))
    live(world, rounds=200)
    assert served(world) == version, "a world in which everything works ends with what was asked for"
    assert len(world.status.traffic) == 1


def _steps_of(
    world: World, happening: Callable[[World, int], None], argument: int
) -> Iterator[tuple[ModelDeploymentStatus, ModelDeploymentStatus]]:
    """Every change of the status that it makes."""
    seen = [world.status]
    world.on_status = seen.append
    happening(world, argument)
    yield from pairwise(seen)


def _holds(world: World, before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> None:
    carrying = [share for share in after.traffic if share.weight]
    assert len(carrying) <= 2, "at most two revisions carry traffic"
    assert not carrying or sum(share.weight for share in carrying) == 100
    if after.stable != before.stable and before.stable and after.stable:
        same = before.stable.workload == after.stable.workload
        assert same or (before.candidate and before.candidate.workload == after.stable.workload)
        if not same and before.rollout and before.rollout.phase in UNDER_WAY:
            assert after.rollout
            assert after.rollout.phase in (RolloutPhase.DRAINING, *UNDER_WAY)
    known = {share.workload for share in before.traffic}
    for share in carrying:
        if share.workload not in known:
            assert share.workload in {pod.workload for pod in world.pods.values()}, "no traffic without a pod"


@pytest.mark.parametrize("ends", ["well", "badly", "superseded"])
@pytest.mark.parametrize("strategy", ["Surge", "Replace", "Recreate"])
def test_a_crash_at_any_write_changes_nothing_of_how_it_ends(strategy: str, ends: str) -> None:
    undisturbed = _end_of(strategy, ends, crash_at=None)
    writes = undisturbed.pop("writes")
    assert isinstance(writes, int)
    for crash_at in range(writes):
        disturbed = _end_of(strategy, ends, crash_at=crash_at)
        del disturbed["writes"]
        assert disturbed == undisturbed, f"killed after write {crash_at}"


def _end_of(strategy: str, ends: str, *, crash_at: int | None) -> dict[str, Any]:
    world = serving()
    wanted = spec(2, strategy=strategy, steps=[{"weight": 50}], analysis=CHECKS)
    world.edit(**wanted)
    writes = 0
    samples = BAD if ends == "badly" else GOOD
    for number in range(90):
        if ends == "superseded" and number == 12:
            world.edit(**{**wanted, "model": {"version": 3, "source": {"uri": URI}}})
        world.serve()
        see(world, samples)
        planned = world.plan()
        count = len(planned.actions) + (planned.status != world.status)
        if crash_at is not None and writes <= crash_at < writes + count:
            world.step(crash_after=crash_at - writes + 1)
            _restart(world, 0)
        else:
            world.step()
        writes += count
        world.now += timedelta(seconds=1)
        if number > 15 and not count and world.status.rollout and world.status.rollout.phase not in UNDER_WAY:
            break
    status = world.status
    return {
        "writes": writes,
        "stable": status.stable and status.stable.version,
        "candidate": status.candidate,
        "rejected": [(each.revision, each.cause) for each in status.rejected],
        "weights": [share.weight for share in status.traffic],
        "created": status.workloads_created,
        "deployments": len(world.replicas_alive()),
        "ready": [json.dumps(c.to_wire()["reason"]) for c in status.conditions if c.type is ConditionType.READY],
    }


def test_an_earlier_version_is_had_again_whatever_the_spec_says() -> None:
    world = serving()
    world.edit(**spec(2))
    live(world)
    world.edit(**spec(3))
    live(world)
    assert served(world) == 3
    command(world, Verb.ROLLBACK, "back")
    live(world)
    assert served(world) == 2, "the newest before"
    ready = world.status.condition(ConditionType.READY)
    assert ready
    assert ready.reason is Reason.ROLLOUT_ABORTED
    world.generation += 1
    live(world)
    assert served(world) == 2, "the same spec applied again changes nothing"
    world.edit(**spec(3, replicas=3))
    live(world)
    assert (served(world), sum(world.replicas_alive().values())) == (2, 3), "what needs no other pods is done"
    command(world, Verb.RETRY, "again")
    live(world)
    assert served(world) == 3
    world.edit(**spec(4))
    live(world)
    assert (served(world), world.status.rolled_back_to) == (4, None)


def test_a_named_version_is_had_again_and_an_unknown_one_is_refused() -> None:
    world = serving(revisionHistoryLimit=2)
    revisions = [world.status.stable.revision] if world.status.stable else []
    for version in (2, 3, 4):
        world.edit(**spec(version, revisionHistoryLimit=2))
        live(world)
        assert world.status.stable
        revisions.append(world.status.stable.revision)
    command(world, Verb.ROLLBACK, "1", revision=revisions[0])
    live(world)
    assert world.status.command
    assert not world.status.command.accepted
    assert f"({revisions[2]}, {revisions[1]})" in world.status.command.message, "only two are remembered"
    command(world, Verb.ROLLBACK, "2", revision=revisions[1])
    live(world)
    assert served(world) == 2


def test_a_version_that_was_rolled_back_is_nothing_to_go_back_to() -> None:
    world = serving()
    world.edit(**spec(2, analysis=CHECKS))
    live(world, BAD)
    world.edit(**spec(3))
    live(world)
    command(world, Verb.ROLLBACK, "back")
    live(world)
    assert served(world) == 1
