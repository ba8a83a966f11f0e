"""Pods that change their model in place, whatever happens in whatever order, with a crash at any write."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conch.api.agent_report import AgentPhase, GoldenOutcome, GoldenReport
from conch.api.assignment import Assignment
from conch.api.command import Command, Verb
from conch.api.gateway_report import ShadowTraffic
from conch.api.reasons import Reason
from conch.api.rollout import RollbackCause, RolloutPhase, Strategy
from conch.api.status import ConditionStatus, ConditionType, ModelDeploymentStatus
from conch.core.analysis.samples import Samples
from conch.core.observed import ObservedWindow
from conch.core.observed_child import ObservedRoute
from tests.sim.world import World

CHECKS = [{"successRate": {"minimumPercent": 99}}]
GOOD = Samples(requests=2000, failures=1, latency=(0, 0, 0, 2000))
BAD = Samples(requests=2000, failures=100)
WRONG = GoldenReport(outcome=GoldenOutcome.FAILED, samples=3, mismatches=1, message="SCORE is 0.1, not 0.9")


def spec(version: int, *, replicas: int = 2, strategy: str = "InPlace", **rollout: Any) -> dict[str, Any]:
    return {
        "model": {"version": version, "source": {"uri": f"https://models/{version}.onnx"}},
        "replicas": replicas,
        "gpu": {"count": 0},
        "rollout": {"keepWarmSeconds": 0, "strategy": strategy, **rollout},
    }


def serving(replicas: int = 2, **fields: Any) -> World:
    """A world in which version 1 serves, by agents that can change it."""
    world = World(spec=spec(1, replicas=replicas, **fields), changes_in_place=True)
    for _ in range(3):
        world.settle()
        world.serve()
    world.settle()
    assert served(world) == 1
    return world


def served(world: World) -> int | None:
    return world.status.stable.version if world.status.stable else None


def served_by(world: World) -> dict[str, str]:
    """Revision by pod, of those that are ready."""
    return {name: pod.report.revision for name, pod in world.pods.items() if pod.report and pod.ready}


def live(world: World, samples: Samples = GOOD, *, rounds: int = 60) -> None:
    for _ in range(rounds):
        world.serve()
        if world.window and world.status.candidate and world.status.stable:
            both = {world.status.candidate.workload: samples, world.status.stable.workload: GOOD}
            world.window = ObservedWindow(name=world.window.name, samples=both)
        world.step()


def watched(world: World) -> list[int]:
    """At every status that is written, how many pods could be sent something by what it says of the weighted shares."""
    open_pods: list[int] = []

    def look(_status: object) -> None:
        weighted = [share for share in world.status.traffic if share.weight]
        could = [
            {
                pod.name
                for pod in world.pods.values()
                if pod.ready and pod.workload == share.home and pod.name not in share.draining
                if share.pods is None or pod.name in share.pods
            }
            for share in weighted
        ]
        # Gateways go on as before while one that is to get something has no server.
        open_pods.append(len(set[str]().union(*could)) if all(could) else 0)

    world.on_status = look
    return open_pods


def command(world: World, verb: Verb, nonce: str, **fields: Any) -> None:
    assert world.status.rollout
    world.command = Command(command=verb, rollout=world.status.rollout.id, nonce=nonce, **fields)


@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("steps", [[], [{"weight": 50}]])
def test_the_same_pods_serve_the_new_version(replicas: int, steps: list[Any]) -> None:
    world = serving(replicas)
    pods = {name: pod.uid for name, pod in world.pods.items()}
    before = world.status.stable
    assert before
    could = watched(world)
    world.edit(**spec(2, replicas=replicas, steps=steps))
    live(world, rounds=120)
    assert served(world) == 2
    assert world.status.rollout
    assert (world.status.rollout.strategy, world.status.rollout.phase) == (Strategy.IN_PLACE, RolloutPhase.DONE)
    assert {name: pod.uid for name, pod in world.pods.items()} == pods
    assert world.status.stable
    assert world.status.stable.home == before.workload
    assert set(served_by(world).values()) == {world.status.stable.revision}
    assert len(served_by(world)) == replicas
    assert not world.changed_with_traffic
    assert min(could) >= max(1, replicas - 1), "never more than one is away, and the only one never"
    assert world.plan().actions == ()
    ready = world.status.condition(ConditionType.READY)
    assert ready
    assert ready.reason is Reason.SERVING


def test_agents_are_told_both_revisions_and_whose_turn_it_is() -> None:
    world = serving(2)
    world.edit(**spec(2, steps=[{"weight": 50, "pause": "UntilPromoted"}]), runtime={"instances": 2})
    live(world, rounds=30)
    assert world.status.stable
    assert world.status.candidate
    (assigned,) = (Assignment.model_validate(each) for each in world.assignments.values())
    assert assigned.change
    assert (assigned.revision, assigned.version) == (world.status.stable.revision, 1)
    assert (assigned.change.assignment.revision, assigned.change.assignment.version) == (
        world.status.candidate.revision,
        2,
    )
    assert world.status.rollout
    assert (assigned.change.id, assigned.change.pods) == (world.status.rollout.id, world.status.rollout.turned)
    assert len(assigned.change.pods) == 1
    assert not assigned.change.beside
    assert assigned.change.assignment.instances == assigned.instances == 2
    live(world, rounds=1)
    command(world, Verb.PROMOTE, "on")
    live(world, rounds=60)
    (assigned,) = (Assignment.model_validate(each) for each in world.assignments.values())
    assert (assigned.version, assigned.change) == (2, None)


def test_version_after_version_and_back_in_the_same_pods() -> None:
    world = serving(2)
    pods = {name: pod.uid for name, pod in world.pods.items()}
    could = watched(world)
    for version in (2, 1, 2, 3):
        world.edit(**spec(version, steps=[{"weight": 50, "pauseSeconds": 3}]))
        live(world, rounds=90)
        assert served(world) == version
        assert min(could) >= 1
        assert {name: pod.uid for name, pod in world.pods.items()} == pods
        assert len([child for child in world.children if child.kind == "Deployment"]) == 1
    assert not world.changed_with_traffic
    assert world.status.rejected == ()


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_version_that_fails_requests_goes_back_in_the_same_pods(replicas: int) -> None:
    world = serving(replicas)
    pods = {name: pod.uid for name, pod in world.pods.items()}
    could = watched(world)
    world.edit(**spec(2, replicas=replicas, steps=[{"weight": 50}], analysis=CHECKS))
    live(world, BAD, rounds=150)
    assert served(world) == 1
    assert world.status.candidate is None
    assert [each.cause for each in world.status.rejected] == [RollbackCause.ANALYSIS_FAILED]
    assert {name: pod.uid for name, pod in world.pods.items()} == pods
    assert world.status.stable
    assert set(served_by(world).values()) == {world.status.stable.revision}
    assert not world.changed_with_traffic
    assert min(could) >= max(1, replicas - 1)
    assert world.plan().actions == ()


def test_a_wrong_version_at_one_replica_is_found_before_it_has_the_name() -> None:
    world = serving(1)
    world.golden_of_change = WRONG
    world.edit(**spec(2, replicas=1))
    revisions = set()
    for _ in range(60):
        live(world, rounds=1)
        revisions |= set(served_by(world).values())
    assert served(world) == 1
    assert world.status.stable
    assert revisions == {world.status.stable.revision}
    assert [each.cause for each in world.status.rejected] == [RollbackCause.GOLDEN_SET_FAILED]
    assert "SCORE" in world.status.rejected[0].message


def test_a_pod_that_answers_otherwise_than_recorded_gets_no_request_and_changes_back() -> None:
    world = serving(2)
    world.edit(**spec(2))
    world.golden = WRONG
    weights = set()
    for _ in range(90):
        live(world, rounds=1)
        weights |= {share.weight for share in world.status.traffic}
        if world.status.rejected:
            world.golden = GoldenReport(outcome=GoldenOutcome.PASSED, samples=3)
    assert weights == {0, 100}
    assert served(world) == 1
    assert [each.cause for each in world.status.rejected] == [RollbackCause.GOLDEN_SET_FAILED]
    assert world.status.stable
    assert set(served_by(world).values()) == {world.status.stable.revision}
    assert len(served_by(world)) == 2


def test_a_pod_that_has_turned_answers_copies_before_it_answers_anybody() -> None:
    world = serving(3)
    world.copied = ShadowTraffic(epoch="1", compared=9)
    told: list[tuple[RolloutPhase, int, int]] = []

    def look(status: ModelDeploymentStatus) -> None:
        if status.rollout:
            told.append((status.rollout.phase, status.rollout.weight, len(status.rollout.turned)))

    world.on_status = look
    world.edit(**spec(2, replicas=3, shadow={"percent": 20, "minSamples": 100}))
    live(world, rounds=30)
    assert set(told) >= {(RolloutPhase.SHADOWING, 0, 1)}
    assert {weight for _, weight, _ in told} == {0}
    (copied,) = [share for share in world.status.traffic if share.shadow]
    assert world.status.rollout
    assert copied.pods == world.status.rollout.turned
    assert copied.draining == ()
    world.copied = ShadowTraffic(epoch="1", compared=60)
    live(world, rounds=60)
    assert served(world) == 2
    assert world.status.rollout
    assert world.status.rollout.strategy is Strategy.IN_PLACE
    assert not world.changed_with_traffic


def test_a_pod_that_has_turned_and_disagrees_changes_back_before_it_answers_anybody() -> None:
    world = serving(2)
    world.copied = ShadowTraffic(epoch="1", compared=60, disagreed=9, example="y: 3 of 3 values differ")
    weights = set()
    world.edit(**spec(2, shadow={"percent": 20, "minSamples": 100}))
    for _ in range(90):
        live(world, rounds=1)
        weights |= {share.weight for share in world.status.traffic}
    assert weights == {0, 100}
    assert served(world) == 1
    assert [each.cause for each in world.status.rejected] == [RollbackCause.SHADOW_DISAGREED]
    assert world.status.stable
    assert list(served_by(world).values()) == [world.status.stable.revision] * 2


def test_more_than_the_model_needs_other_pods_and_says_so() -> None:
    world = serving(2)
    world.edit(**{**spec(2), "runtime": {"env": [{"name": "A", "value": "b"}]}})
    live(world, rounds=5)
    assert world.status.rollout
    assert world.status.rollout.strategy is Strategy.SURGE
    assert "more than the model changes" in world.status.rollout.strategy_reason
    live(world, rounds=90)
    assert served(world) == 2


@pytest.mark.parametrize(
    ("replicas", "spoil", "why"),
    [
        (2, {"changes_in_place": False}, "earlier version"),
        (2, {"changed": 20}, "due to be made anew"),
        (1, {"fetched_bytes": 2**31}, "do not fit into runtime.resources.memory"),
    ],
)
def test_pods_that_cannot_be_changed_are_replaced(replicas: int, spoil: dict[str, Any], why: str) -> None:
    world = serving(replicas)
    for name, pod in world.pods.items():
        assert pod.report
        world.pods[name] = replace(pod, report=pod.report.model_copy(update=spoil))
    world.edit(**spec(2, replicas=replicas))
    world.step()
    assert world.status.rollout
    assert world.status.rollout.strategy is Strategy.SURGE
    assert why in world.status.rollout.strategy_reason
    live(world, rounds=90)
    assert served(world) == 2


def test_what_an_agent_refuses_is_done_with_new_pods() -> None:
    world = serving(1)
    world.refuses_change = "an ensemble cannot be loaded beside another one"
    world.edit(**spec(2, replicas=1))
    live(world, rounds=90)
    assert served(world) == 2
    assert world.status.rollout
    assert world.status.rollout.strategy is Strategy.SURGE
    assert "an ensemble" in world.status.rollout.strategy_reason
    assert world.status.stable
    assert world.status.stable.host is None
    assert len([child for child in world.children if child.kind == "Deployment"]) == 1


def test_nobody_is_taken_from_the_traffic_before_it_has_prepared_the_new_version() -> None:
    world = serving(2)
    world.brings_changes = False
    world.edit(**spec(2))
    live(world, rounds=30)
    assert world.status.rollout
    assert world.status.rollout.turned == ()
    assert [(share.weight, share.draining) for share in world.status.traffic] == [(100, ())]
    assert {pod.shown_change for pod in world.pods.values()} == {world.status.rollout.id}, "the kubelets are told"
    world.brings_changes = True
    live(world, rounds=90)
    assert served(world) == 2


def test_nothing_begins_before_the_agents_are_heard() -> None:
    world = serving(2)
    heard = dict(world.pods)
    world.pods = {name: replace(pod, report=None) for name, pod in world.pods.items()}
    world.edit(**spec(2))
    for _ in range(5):
        world.step()
    assert world.status.candidate is None
    world.pods = heard
    live(world, rounds=90)
    assert world.status.rollout
    assert world.status.rollout.strategy is Strategy.IN_PLACE
    assert served(world) == 2


def test_auto_changes_pods_in_place_where_there_is_no_room_for_others() -> None:
    world = serving(2, strategy="Auto")
    pods = set(world.pods)
    world.edit(**spec(2, strategy="Auto"))
    for _ in range(150):
        world.fetch()
        for name, pod in world.pods.items():
            if name not in pods:
                # Nothing else is free.
                world.pods[name] = replace(
                    pod, report=None, scheduled=False, unschedulable_message="0/1 nodes: Insufficient nvidia.com/gpu"
                )
        world.step()
        world.load()
    assert served(world) == 2
    assert world.status.rollout
    assert world.status.rollout.strategy is Strategy.IN_PLACE
    assert set(world.pods) == pods


def test_a_pod_that_comes_while_versions_change_ends_with_the_new_one() -> None:
    world = serving(3)
    world.edit(**spec(2, replicas=3, steps=[{"weight": 50, "pause": "UntilPromoted"}]))
    live(world, rounds=30)
    assert world.status.rollout
    turned = world.status.rollout.turned
    assert len(turned) == 2
    del world.pods[turned[0]]
    live(world, rounds=30)
    assert world.status.rollout.turn > 0
    assert len(world.status.rollout.turned) == 2
    command(world, Verb.PROMOTE, "on")
    live(world, rounds=60)
    assert served(world) == 2
    assert world.status.stable
    assert set(served_by(world).values()) == {world.status.stable.revision}
    assert not world.changed_with_traffic


def test_a_pod_that_has_not_changed_yet_gets_nothing_of_the_version_that_is_promoted() -> None:
    world = serving(3)
    world.edit(**spec(2, replicas=3, steps=[{"weight": 50}]))
    live(world, rounds=9)
    assert world.status.rollout
    assert len(world.status.rollout.turned) == 2
    del world.pods[sorted(world.pods.keys() - set(world.status.rollout.turned))[0]]
    world.edit(replicas=1)
    live(world, rounds=30)
    assert served(world) == 2
    assert not world.changed_with_traffic


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3), (3, 2)])
def test_another_number_of_replicas_in_the_middle(before: int, after: int) -> None:
    world = serving(before)
    world.edit(**spec(2, replicas=before, steps=[{"weight": 50, "pause": "UntilPromoted"}]))
    live(world, rounds=40)
    world.edit(**spec(2, replicas=after, steps=[{"weight": 50, "pause": "UntilPromoted"}]))
    live(world, rounds=40)
    command(world, Verb.PROMOTE, "on")
    live(world, rounds=60)
    assert served(world) == 2
    assert len(world.pods) == after
    assert len(served_by(world)) == after
    assert world.plan().actions == ()


@pytest.mark.parametrize("before", [2, 3])
@pytest.mark.parametrize("back", [False, True])
def test_fewer_replicas_while_a_pod_changes_take_none_that_serves(before: int, back: bool) -> None:
    world = serving(before)
    world.edit(**spec(2, replicas=before, steps=[{"weight": 50, "pause": "UntilPromoted"}]))
    if back:
        live(world, rounds=40)
        command(world, Verb.ABORT, "back")
    for _ in range(30):
        world.fetch()
        world.step()
        if any(pod.report and pod.report.phase is AgentPhase.LOADING for pod in world.pods.values()):
            break
        world.load()
    could = watched(world)
    world.edit(replicas=1)
    world.command = None
    for _ in range(5):
        # What is on its way takes its time.
        world.step()
        world.run_pods()
    live(world, rounds=60)
    if not back:
        command(world, Verb.PROMOTE, "on")
        live(world, rounds=60)
    assert min(could) >= 1
    assert served(world) == (1 if back else 2)
    assert len(world.pods) == 1
    assert not world.changed_with_traffic


def test_a_pod_that_was_refused_once_is_not_asked_again() -> None:
    world = serving(1, strategy="Auto")
    old = set(world.pods)
    world.refuses_change = "an ensemble cannot be loaded beside another one"
    world.edit(**spec(2, replicas=1, strategy="Auto"))
    for _ in range(300):
        world.fetch()
        for name, pod in world.pods.items():
            if name not in old and old & world.pods.keys():
                world.pods[name] = replace(
                    pod, report=None, scheduled=False, unschedulable_message="0/1 nodes: Insufficient nvidia.com/gpu"
                )
        world.step()
        world.load()
    assert served(world) == 2
    assert world.status.rollout
    assert world.status.rollout.strategy is Strategy.RECREATE
    assert "an ensemble" in world.status.rollout.strategy_reason


def test_a_drained_node_takes_nobody_while_another_pod_changes_however_old_it_is() -> None:
    world = serving(2)
    world.pods = {name: replace(pod, created="2025-12-31T00:00:00Z") for name, pod in world.pods.items()}
    world.edit(**spec(2))
    for _ in range(30):
        world.fetch()
        world.step()
        if any(pod.report and pod.report.phase is AgentPhase.LOADING for pod in world.pods.values()):
            break
        world.load()
    world.golden_of = dict.fromkeys(world.pods)
    world.load()
    world.step()
    (serves,) = (name for name in world.pods if world.status.rollout and name not in world.status.rollout.turned)
    assert all(pod.ready for pod in world.pods.values())
    assert not world.evict(serves), "the other one has yet to be verified"


def test_an_aborted_change_is_over_once_all_pods_have_changed_back() -> None:
    world = serving(2)
    world.edit(**spec(2, steps=[{"weight": 50, "pause": "UntilPromoted"}]))
    live(world, rounds=30)
    command(world, Verb.ABORT, "back")
    for _ in range(20):
        # No order and no assignment gets through.
        world.step()
    assert world.status.rollout
    assert world.status.rollout.turned == ()
    assert world.status.rollout.phase is RolloutPhase.ROLLING_BACK
    live(world, rounds=20)
    assert world.status.rejected
    assert world.status.candidate is None
    assert world.status.stable
    assert list(served_by(world).values()) == [world.status.stable.revision] * 2


def test_a_failing_load_goes_back_and_its_pod_serves_again() -> None:
    world = serving(2)
    world.edit(**spec(2))
    for _ in range(60):
        world.fetch()
        world.step()
        stuck = {
            name: pod
            for name, pod in world.pods.items()
            if pod.report and world.status.candidate and pod.report.revision == world.status.candidate.revision
        }
        world.load()
        for name, pod in stuck.items():
            assert pod.report
            failed = {"phase": AgentPhase.FAILED, "message": "no", "attempts": 4, "reason": Reason.MODEL_LOAD_FAILED}
            world.pods[name] = replace(pod, ready=False, report=pod.report.model_copy(update=failed))
    live(world, rounds=30)
    assert served(world) == 1
    assert [each.cause for each in world.status.rejected] == [RollbackCause.CANDIDATE_FAILED]
    assert world.status.stable
    assert list(served_by(world).values()) == [world.status.stable.revision] * 2


_EVENTS = st.sampled_from(["live", "crash", "kill", "unheard", "edit", "back", "scale", "fetch", "bad", "abort"])


@settings(max_examples=20)
@given(replicas=st.integers(1, 3), events=st.lists(st.tuples(_EVENTS, st.integers(0, 5)), max_size=25))
def test_whatever_happens_ends_with_what_is_asked_for(replicas: int, events: list[tuple[str, int]]) -> None:
    world = serving(replicas)
    world.edit(**spec(2, replicas=replicas, steps=[{"weight": 50}]))
    version = 2
    for number, (event, how) in enumerate(events):
        match event:
            case "live":
                live(world, rounds=how)
            case "bad":
                live(world, BAD, rounds=how)
            case "crash":
                world.serve()
                world.step(crash_after=how)
            case "kill" if world.pods:
                del world.pods[sorted(world.pods)[how % len(world.pods)]]
            case "unheard":
                heard = {name: pod.report for name, pod in world.pods.items()}
                world.pods = {name: replace(pod, report=None) for name, pod in world.pods.items()}
                world.step()
                world.pods = {name: replace(pod, report=heard.get(name)) for name, pod in world.pods.items()}
            case "edit":
                version += 1
                world.edit(**spec(version, replicas=replicas, steps=[{"weight": 50}]))
            case "back":
                version = 1
                world.edit(**spec(1, replicas=replicas))
            case "scale":
                replicas = 1 + how % 3
                world.edit(replicas=replicas)
            case "fetch":
                world.fetch()
                world.step()
            case "abort" if world.status.rollout:
                command(world, Verb.ABORT, f"n{number}")
                world.step()
    world.command = None
    live(world, rounds=150)
    rejected = {each.revision for each in world.status.rejected}
    assert world.status.stable
    if served(world) != version:
        assert rejected, "only a revision that was given up is not served"
    assert world.status.candidate is None
    assert len(world.pods) == replicas
    assert list(served_by(world).values()) == [world.status.stable.revision] * replicas
    assert not world.changed_with_traffic
    assert world.plan().actions == ()


@pytest.mark.parametrize("after_rounds", [2, 4, 6])
def test_an_edit_to_mode_gateway_api_half_way_leaves_no_request_without_a_server(after_rounds: int) -> None:
    world = serving(2)
    world.edit(**spec(2, steps=[{"weight": 50}]))
    live(world, rounds=after_rounds)
    gateway = {"mode": "GatewayAPI", "parentRefs": [{"name": "public"}]}
    world.edit(**spec(2, strategy="Auto", steps=[{"weight": 50}], analysis=[]), gateway=gateway)
    for _ in range(120):
        live(world, rounds=1)
        world.now += timedelta(seconds=5)
        for route in (child for child in world.children.values() if isinstance(child, ObservedRoute)):
            assert sum(route.weights.values()) == 100
    assert served(world) == 2
    assert world.status.gateway is None
    ready = world.status.condition(ConditionType.READY)
    assert ready
    assert ready.status is ConditionStatus.TRUE, ready.message
