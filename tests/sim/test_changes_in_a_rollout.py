"""What else may change in the middle of a rollout: there are no replicas, the mode, a spec that nobody can read."""

from dataclasses import replace
from typing import Any

import pytest

from conch.api.agent_report import GoldenOutcome, GoldenReport
from conch.api.command import Verb
from conch.api.names import workload_object
from conch.api.reasons import Reason
from conch.api.rollout import RollbackCause, RolloutPhase
from conch.api.status import ConditionStatus, ConditionType
from conch.core.observed_child import ChildId, ChildKind, ObservedService, ObservedSlice
from tests.sim.test_rollouts import command, live, served, serving, spec, until, weights
from tests.sim.world import World

HALF = [{"weight": 50, "pause": "UntilPromoted"}]
SERVICE = ChildId(kind=ChildKind.SERVICE, name="sentiment")
SLICE = ChildId(kind=ChildKind.ENDPOINT_SLICE, name="sentiment-gateways")


# Without replicas.


@pytest.mark.parametrize("none", [{"replicas": 0}, {"suspend": True}], ids=["no replicas", "suspended"])
@pytest.mark.parametrize("strategy", ["Auto", "Replace", "Recreate"])
@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
def test_a_version_that_came_while_there_were_no_replicas_has_to_prove_itself(
    none: dict[str, Any], strategy: str, good: bool
) -> None:
    world = serving()
    stable = world.status.stable
    world.edit(**none)
    live(world, rounds=10)
    assert world.pods == {}
    world.edit(**{**spec(2, strategy=strategy), **none})
    live(world, rounds=10)
    assert world.status.stable == stable, "it has proven itself, the other has not"
    assert world.pods == {}
    ready = world.status.condition(ConditionType.READY)
    assert ready is not None
    assert ready.status is ConditionStatus.TRUE, "nothing is waited for"
    world.golden = GoldenReport(outcome=GoldenOutcome.PASSED if good else GoldenOutcome.FAILED, message="other answers")
    if not good:
        # The old version's pods answer as recorded.
        assert stable is not None
        world.golden_of = {
            f"{workload_object('sentiment', stable.workload)}-{number}": GoldenReport(outcome=GoldenOutcome.PASSED)
            for number in range(3)
        }
    world.edit(**{**spec(2, strategy=strategy), "suspend": False})
    live(world, rounds=90)
    assert served(world) == (2 if good else 1)
    assert [each.cause for each in world.status.rejected] == ([] if good else [RollbackCause.GOLDEN_SET_FAILED])
    assert sum(pod.ready for pod in world.pods.values()) == 2
    assert [share.weight for share in world.status.traffic] == [100]


# From gateways to none.


def _public(world: World) -> tuple[bool, bool]:
    """Whether the Service selects pods by itself, and whether it lists the gateways."""
    service = world.children[SERVICE]
    assert isinstance(service, ObservedService)
    return service.selects, isinstance(world.children.get(SLICE), ObservedSlice)


def test_an_edit_to_mode_direct_waits_for_the_end_of_a_rollout() -> None:
    world = serving(replicas=4)
    world.edit(**spec(2, replicas=4, strategy="Replace", steps=HALF))
    until(world, lambda: len(weights(world)) == 2)
    live(world, rounds=20)
    direct = {**spec(2, replicas=4, strategy="Replace"), "gateway": {"mode": "Direct"}}
    world.port = None
    world.edit(**direct)
    for _ in range(20):
        live(world, rounds=1)
        assert _public(world) == (False, True), "neither revision has enough pods for all requests"
        assert sorted(weight for weight, _ in weights(world)) == [50, 50]
    routed = world.status.condition(ConditionType.ROUTING_SYNCED)
    assert routed is not None
    assert (routed.status, routed.reason) == (ConditionStatus.FALSE, Reason.ROUTING)
    assert "Direct" in routed.message
    command(world, Verb.PROMOTE, "1")
    live(world, rounds=90)
    world.now += world.policy.endpoint_propagation
    live(world, rounds=5)
    assert (served(world), _public(world), world.status.gateway) == (2, (True, False), None)
    assert world.plan().actions == ()


def test_a_switch_to_mode_direct_that_has_begun_is_not_taken_back_by_a_new_version() -> None:
    world = serving()
    world.port = None
    world.edit(**{**spec(1), "gateway": {"mode": "Direct"}})
    world.step()
    assert _public(world) == (True, True)
    world.edit(**{**spec(2), "gateway": {"mode": "Direct"}})
    for _ in range(60):
        live(world, rounds=1)
        assert _public(world)[0]
    assert served(world) == 2


def test_in_mode_direct_nothing_is_held_back_that_the_service_sends_to_anyway() -> None:
    world = serving(replicas=1)
    world.port = None
    world.edit(**{**spec(1, replicas=2), "gateway": {"mode": "Direct"}})
    world.now += world.policy.endpoint_propagation
    live(world, rounds=90)
    assert world.status.gateway is None
    assert [share.draining for share in world.status.traffic] == [()]
    name = sorted(world.pods)[-1]
    world.pods[name] = replace(world.pods[name], report=None, ready=False)
    world.step()
    assert [share.draining for share in world.status.traffic] == [()]


# A spec that cannot be read.


def _unreadable(world: World) -> None:
    world.edit(model={"version": 3, "source": {"uri": "ftp://nowhere/a"}})


def test_a_rollout_is_aborted_paused_and_resumed_while_the_spec_cannot_be_read() -> None:
    world = serving(replicas=3)
    world.edit(**spec(2, replicas=3, steps=HALF))
    until(world, lambda: len(weights(world)) == 2)
    live(world, rounds=10)
    before = dict(world.replicas)
    _unreadable(world)
    live(world, rounds=10)
    assert world.replicas == before, "what runs stays"
    for verb, paused in ((Verb.PAUSE, True), (Verb.RESUME, False)):
        command(world, verb, verb.value)
        live(world, rounds=3)
        assert world.status.rollout is not None
        assert world.status.rollout.paused is paused
    command(world, Verb.ABORT, "abort")
    live(world, rounds=20)
    assert world.status.rollout is not None
    assert world.status.rollout.phase is RolloutPhase.HALTED
    assert (served(world), world.status.candidate) == (1, None)
    assert [each.cause for each in world.status.rejected] == [RollbackCause.ABORTED]
    assert [share.weight for share in world.status.traffic] == [100]
    assert list(world.replicas_alive().values()) == [3]
    world.edit(**spec(2, replicas=3, steps=HALF))
    live(world, rounds=10)
    assert (served(world), world.status.candidate) == (1, None), "it stays aborted"


def test_a_rollout_that_has_just_begun_takes_no_pods_with_it_when_the_spec_becomes_unreadable() -> None:
    world = serving(replicas=3)
    world.edit(**spec(2, replicas=3))
    world.step()
    assert world.status.candidate is not None
    assert world.replicas[world.status.candidate.workload] == 0
    _unreadable(world)
    live(world, rounds=5)
    assert world.status.stable is not None
    assert world.replicas[world.status.stable.workload] == 3
    assert world.status.desired_replicas == 3


# A node that is drained.


def test_both_revisions_that_carry_traffic_are_protected_from_evictions() -> None:
    world = serving()
    world.edit(**spec(2, steps=HALF))
    budgets = set()
    for _ in range(40):
        live(world, rounds=1)
        now = {id_.name for id_ in world.children if id_.kind is ChildKind.POD_DISRUPTION_BUDGET}
        budgets.add(frozenset(now))
        carrying = [share.workload for share in world.status.traffic if share.weight]
        assert len(now) == max(1, len(carrying))
    candidate = world.status.candidate
    assert candidate is not None
    both = frozenset({"sentiment", workload_object("sentiment", candidate.workload)})
    assert budgets == {frozenset({"sentiment"}), both}
    command(world, Verb.PROMOTE, "1")
    live(world, rounds=60)
    assert [id_.name for id_ in world.children if id_.kind is ChildKind.POD_DISRUPTION_BUDGET] == ["sentiment"]
