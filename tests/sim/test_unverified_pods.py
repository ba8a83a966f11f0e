"""No pod is sent a request before its own answers were held against the golden set, and nobody else pays for that."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from conch.api.agent_report import GoldenOutcome, GoldenReport
from conch.api.autoscaling import ScalingReason
from conch.api.reasons import Reason
from conch.api.rollout import RollbackCause
from conch.api.status import ConditionType, TrafficShare
from conch.core.observed_pod import ObservedPod
from tests.sim.autoscaled_world import serving as awake
from tests.sim.test_rollouts import live, served, serving, spec
from tests.sim.world import World

PASSED = GoldenReport(outcome=GoldenOutcome.PASSED, samples=3)
FAILED = GoldenReport(outcome=GoldenOutcome.FAILED, samples=3, mismatches=1, message="SCORE is 0.1, not 0.9")


class _Replaying(dict[str, GoldenReport | None]):
    """New pods replay their golden set until a test lets them be done."""

    def __init__(self, done: set[str]) -> None:
        super().__init__()
        self.done = done

    def get(self, name: str, _: object = None) -> GoldenReport | None:
        return super().get(name, PASSED if name in self.done else None)


def _slow(world: World) -> _Replaying:
    """From now on each new pod takes a while for its golden set."""
    world.golden_of = replaying = _Replaying(set(world.pods))
    return replaying


def _share(world: World, workload: str) -> TrafficShare | None:
    return next((share for share in world.status.traffic if share.workload == workload), None)


def _is_sent_to(world: World, pod: ObservedPod) -> bool:
    share = _share(world, pod.workload)
    return share is not None and share.weight > 0 and pod.name not in share.draining


def _unverified_in_traffic(world: World, replaying: _Replaying) -> set[str]:
    """What a gateway would send to the moment that the kubelet calls it ready: so those that start count too."""
    return {name for name, pod in world.pods.items() if name not in replaying.done and _is_sent_to(world, pod)}


@pytest.mark.parametrize("strategy", ["Surge", "Replace"])
def test_each_pod_of_a_candidate_is_verified_before_it_is_sent_anything(strategy: str) -> None:
    world = serving(replicas=3)
    replaying = _slow(world)
    steps = [{"weight": 30}, {"weight": 60}]
    world.edit(**spec(2, replicas=3, strategy=strategy, steps=steps))
    since: dict[str, int] = {}
    for second in range(200):
        live(world, rounds=1)
        assert _unverified_in_traffic(world, replaying) == set()
        for name in world.pods:
            since.setdefault(name, second)
        replaying.done |= {name for name, begun in since.items() if second - begun >= 8}
    assert served(world) == 2
    assert [share.draining for share in world.status.traffic] == [()]


def test_a_pod_in_the_place_of_one_that_crashed_is_verified_anew() -> None:
    world = serving(replicas=2)
    replaying = _slow(world)
    world.edit(**spec(2, replicas=2, steps=[{"weight": 50, "pause": "UntilPromoted"}]))
    for _ in range(20):
        live(world, rounds=1)
        replaying.done |= set(world.pods)
    candidate = world.status.candidate
    assert candidate is not None
    (lost,) = [name for name, pod in world.pods.items() if pod.workload == candidate.workload]
    del world.pods[lost]
    replaying.done.discard(lost)
    for _ in range(20):
        live(world, rounds=1)
        assert _unverified_in_traffic(world, replaying) == set()
    share = _share(world, candidate.workload)
    assert share is not None
    assert (share.draining != (), share.draining_since) == (True, None), "it does not leave, it has yet to come"
    (new,) = share.draining
    world.golden_of[new] = FAILED
    live(world, rounds=90)
    assert [each.cause for each in world.status.rejected] == [RollbackCause.GOLDEN_SET_FAILED]
    assert served(world) == 1


def test_a_restart_of_the_operator_or_of_agents_takes_nobody_out_and_lets_nobody_in() -> None:
    world = serving(replicas=2)
    replaying = _slow(world)
    world.edit(replicas=3)
    live(world, rounds=5)
    (waiting,) = [name for name in world.pods if name not in replaying.done]
    draining = [share.draining for share in world.status.traffic]
    assert draining == [(waiting,)]
    world.pods = {name: replace(pod, report=None) for name, pod in world.pods.items()}
    for _ in range(3):
        world.step()
        assert [share.draining for share in world.status.traffic] == draining
    replaying.done.clear()
    live(world, rounds=5)
    assert [share.draining for share in world.status.traffic] == draining, "agents replay once more"
    replaying.done |= set(world.pods)
    live(world, rounds=5)
    assert [share.draining for share in world.status.traffic] == [()]


def test_who_cannot_be_asked_serves_by_the_kubelets_word_once_its_revision_is_proven() -> None:
    world = serving(replicas=1)
    world.edit(replicas=2)
    live(world, rounds=3)
    first, second = sorted(world.pods)
    world.pods[second] = replace(world.pods[second], ready=False, report=None)
    world.step()
    assert [share.draining for share in world.status.traffic] == [(second,)]
    world.pods[second] = replace(world.pods[second], ready=True)
    world.step()
    assert [share.draining for share in world.status.traffic] == [(second,)], "it was not asked yet"
    world.pods[second] = replace(world.pods[second], agent_unreachable=True)
    world.step()
    assert [share.draining for share in world.status.traffic] == [()]
    assert first in world.pods


def test_where_nobody_else_is_left_an_unverified_pod_is_better_than_none() -> None:
    world = serving(replicas=2)
    replaying = _slow(world)
    world.pods.clear()
    replaying.done.clear()
    live(world, rounds=10)
    assert any(_is_sent_to(world, pod) and pod.ready for pod in world.pods.values())
    world.golden_of.update(dict.fromkeys(world.pods, FAILED))
    live(world, rounds=10)
    assert [share.draining for share in world.status.traffic] == [()]


def test_a_stable_pod_that_answers_otherwise_than_the_others_stays_out_and_is_named() -> None:
    world = serving(replicas=2)
    world.edit(replicas=3)
    before = set(world.pods)
    world.run_pods()
    world.step()
    world.run_pods()
    (bad,) = set(world.pods) - before
    world.golden_of[bad] = FAILED
    live(world, rounds=30)
    assert [share.draining for share in world.status.traffic] == [(bad,)]
    ready = world.status.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason is Reason.GOLDEN_SET_FAILED
    assert bad in ready.message
    world.edit(replicas=2)
    live(world, rounds=10)
    assert bad not in world.pods, "who is held back leaves first"
    assert world.removed[-1].marked_for_removal
    assert [share.draining for share in world.status.traffic] == [()]


def test_the_replacement_of_the_only_replica_is_waited_for_until_it_is_verified() -> None:
    world = serving(replicas=1)
    replaying = _slow(world)
    (first,) = world.pods
    world.pods[first] = replace(world.pods[first], node_cordoned=True)
    live(world, rounds=12)
    assert len(world.pods) == 2
    assert world.removed == [], "neither of the two goes meanwhile"
    replaying.done |= set(world.pods)
    live(world, rounds=20)
    assert first not in world.pods
    assert len(world.pods) == 1


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_a_drained_node_takes_nobody_whose_replacement_is_not_verified(replicas: int) -> None:
    """The kubelet calls a pod ready, and so the API server counts it, before it is sent anything."""
    world = serving(replicas=replicas)
    replaying = _slow(world)
    old = {pod.uid for pod in world.pods.values()}
    since: dict[str, int] = {}
    for second in range(20 * replicas + 40):
        for name in [name for name, pod in world.pods.items() if pod.uid in old]:
            world.pods[name] = replace(world.pods[name], node_cordoned=True)
            if world.evict(name):
                # The next one may bear its name.
                replaying.done.discard(name)
                since.pop(name, None)
        live(world, rounds=1)
        serving_now = [pod for pod in world.pods.values() if pod.ready and _is_sent_to(world, pod)]
        assert len(serving_now) >= max(1, replicas - 1)
        for name in world.pods:
            since.setdefault(name, second)
        replaying.done |= {name for name, begun in since.items() if second - begun >= 8}
    assert not old & {pod.uid for pod in world.pods.values()}
    assert len(world.pods) == replicas


def test_the_budget_opens_with_the_step_that_verifies_the_last_pod() -> None:
    """Nothing happens after it that would bring another look."""
    world = serving(replicas=2)
    replaying = _slow(world)
    world.edit(replicas=3)
    live(world, rounds=5)
    assert not world.evict(min(world.pods))
    replaying.done |= set(world.pods)
    world.serve()
    world.step()
    assert world.plan().actions == ()
    assert world.evict(min(world.pods))


def test_behind_a_queues_gate_a_replacement_is_waited_for_too() -> None:
    world = serving(replicas=1)
    (first,) = world.pods
    world.pods[first] = replace(world.pods[first], node_cordoned=True)
    world.step()
    world.run_pods()
    (second,) = world.pods.keys() - {first}
    world.pods[second] = replace(world.pods[second], gated=True, unschedulable_message="Scheduling is blocked")
    world.step()
    assert not world.evict(first)
    world.now += timedelta(minutes=16)
    world.step()
    assert world.evict(first)


def test_a_pod_that_is_never_verified_holds_a_drained_node_up_for_a_bounded_time() -> None:
    world = serving(replicas=2)
    _slow(world)
    world.edit(replicas=3)
    live(world, rounds=5)
    first = min(world.pods)
    assert not world.evict(first)
    ends = world.plan().requeue_after
    assert ends is not None
    assert timedelta(minutes=14) < ends <= timedelta(minutes=15)
    world.now += ends
    world.step()
    assert world.evict(first), "looked at when the time ends, though nothing else happens"


@pytest.mark.parametrize("policy", ["Ignored", "IfPresent"])
def test_where_the_golden_set_is_no_gate_nobody_is_held_back(policy: str) -> None:
    analysis: list[dict[str, Any]] = [{"goldenSet": {"policy": policy}}]
    world = serving(replicas=1, analysis=analysis)
    replaying = _slow(world)
    world.edit(**spec(1, replicas=2, analysis=analysis))
    live(world, rounds=5)
    waiting = {name for name in world.pods if name not in replaying.done}
    held = {name for share in world.status.traffic for name in share.draining}
    assert held == (set() if policy == "Ignored" else waiting)


def test_pods_that_a_held_request_wakes_serve_at_once_and_those_that_come_beside_them_are_verified_first() -> None:
    """Its revision is proven, and who waits has waited for a start already; a replay may take minutes."""
    world = awake(2, minimum=0)
    world.decide(0, ScalingReason.IDLE)
    world.live()
    assert world.pods == {}
    replaying = _slow(world)
    world.decide(2, ScalingReason.HELD)
    world.live(6)
    woken = set(world.pods)
    assert len(woken) == 2
    assert all(pod.ready and _is_sent_to(world, pod) for pod in world.pods.values())
    world.decide(3, ScalingReason.SURGE)
    world.live(6)
    assert {name for name, pod in world.pods.items() if _is_sent_to(world, pod)} == woken
    replaying.done |= set(world.pods)
    world.live(2)
    assert len(world.pods) == 3
    assert all(_is_sent_to(world, pod) for pod in world.pods.values())
