"""Rollouts that begin with copies of requests, whatever happens meanwhile, with a crash at any write."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conch.api.command import Verb
from conch.api.gateway_report import ShadowTraffic
from conch.api.reasons import Reason
from conch.api.rollout import RollbackCause, RolloutPhase
from conch.api.status import ConditionType, ModelDeploymentStatus
from conch.app.copy_book import CopyBook
from conch.core.rollout.phases import UNDER_WAY
from tests.sim import test_rollouts as rollouts
from tests.sim.test_rollouts import GOOD, STEPS, URI, command, live, see, served, serving, spec
from tests.sim.world import World

SHADOW: Final = {"percent": 20, "minSamples": 100}
AGREES: Final = ShadowTraffic(epoch="1", compared=60)
DISAGREES: Final = ShadowTraffic(epoch="1", compared=60, disagreed=9, example="y: 3 of 3 values differ, by up to 0.5")


def asked(version: int, **rollout: Any) -> dict[str, Any]:
    return spec(version, **{"shadow": SHADOW, "steps": STEPS, **rollout})


def phase(world: World) -> RolloutPhase | None:
    return world.status.rollout.phase if world.status.rollout else None


def ready_reason(world: World) -> Reason | None:
    ready = world.status.condition(ConditionType.READY)
    return ready.reason if ready else None


@pytest.mark.parametrize("strategy", ["Auto", "Surge", "Replace"])
def test_copies_come_first_and_a_good_version_takes_over(strategy: str) -> None:
    world = serving(replicas=3)
    world.copied = AGREES
    world.edit(**asked(2, replicas=3, strategy=strategy))
    weights: list[tuple[RolloutPhase | None, int]] = []
    world.on_status = lambda status: weights.append(_of_candidate(status))
    live(world, rounds=150)
    assert served(world) == 2
    told = list(dict.fromkeys(weights))
    shadowing = told.index((RolloutPhase.SHADOWING, 0))
    assert {weight for _, weight in told[: shadowing + 1]} == {0}
    assert RolloutPhase.SHIFTING in [phase for phase, _ in told[shadowing:]]
    assert all(share.shadow is None for share in world.status.traffic)
    assert world.status.rollout
    assert world.status.rollout.shadow
    # Of two gateways.
    assert world.status.rollout.shadow.compared == 120


def _of_candidate(status: ModelDeploymentStatus) -> tuple[RolloutPhase | None, int]:
    rollout = status.rollout
    return (rollout.phase, rollout.weight) if rollout and rollout.phase in UNDER_WAY else (None, 0)


@pytest.mark.parametrize("strategy", ["Surge", "Replace"])
def test_a_version_that_disagrees_is_given_up_before_any_request_goes_to_it(strategy: str) -> None:
    world = serving()
    first = world.status.traffic[0].workload
    world.edit(**asked(2, strategy=strategy))
    carried: set[str] = set()
    world.on_status = lambda status: carried.update(share.workload for share in status.traffic if share.weight)
    live(world, rounds=30)
    assert phase(world) is RolloutPhase.SHADOWING
    assert ready_reason(world) is Reason.SHADOWING
    (copied,) = [share for share in world.status.traffic if share.shadow]
    assert copied.shadow
    assert (copied.weight, copied.shadow.percent) == (0, 20)
    world.copied = DISAGREES
    live(world)
    rollouts._is_back(world, RollbackCause.SHADOW_DISAGREED, Reason.SHADOW_DISAGREED, 2)
    assert carried == {first}
    assert "by up to 0.5" in world.status.rejected[0].message


def test_without_traffic_it_waits_until_somebody_promotes_it() -> None:
    world = serving()
    world.edit(**asked(2))
    live(world, rounds=900)
    assert phase(world) is RolloutPhase.SHADOWING
    command(world, Verb.PROMOTE, "on")
    live(world)
    assert served(world) == 2


def test_paused_it_stays_and_aborted_it_goes_back() -> None:
    world = serving()
    world.copied = AGREES
    world.edit(**asked(2))
    rollouts.until(world, lambda: phase(world) is RolloutPhase.SHADOWING)
    command(world, Verb.PAUSE, "1")
    live(world, rounds=60)
    assert phase(world) is RolloutPhase.SHADOWING
    assert ready_reason(world) is Reason.ROLLOUT_PAUSED
    command(world, Verb.ABORT, "2")
    live(world)
    rollouts._is_back(world, RollbackCause.ABORTED, Reason.ROLLOUT_ABORTED, 2)


@pytest.mark.parametrize(("edit", "version"), [({}, 3), ({"shadow": None}, 2), ({"steps": []}, 1)])
def test_another_spec_meanwhile(edit: dict[str, Any], version: int) -> None:
    """A third version, one without copies, the first again."""
    world = serving()
    world.edit(**asked(2))
    live(world, rounds=30)
    assert phase(world) is RolloutPhase.SHADOWING
    world.copied = AGREES
    wanted = asked(version)
    wanted["rollout"] = {name: value for name, value in {**wanted["rollout"], **edit}.items() if value is not None}
    world.edit(**wanted)
    live(world, rounds=150)
    assert served(world) == version
    assert world.status.rejected == ()
    assert len(world.status.traffic) == 1


def test_suspended_meanwhile_it_goes_on_where_it_was() -> None:
    world = serving()
    world.edit(**asked(2))
    live(world, rounds=30)
    world.edit(suspend=True)
    live(world)
    assert phase(world) is RolloutPhase.SHADOWING
    world.copied = AGREES
    world.edit(suspend=False)
    live(world, rounds=150)
    assert served(world) == 2


def test_what_a_gateway_that_is_gone_has_counted_stays_and_a_restart_of_the_operator_loses_nothing_else() -> None:
    world = serving()
    world.edit(**asked(2))
    world.copied = ShadowTraffic(epoch="1", compared=30)
    live(world, rounds=30)
    assert phase(world) is RolloutPhase.SHADOWING
    gone = world.gateways.pop("b")
    live(world, rounds=20)
    assert world.status.rollout
    assert world.status.rollout.shadow
    assert world.status.rollout.shadow.compared == 60
    # It comes back with counters of another life.
    world.gateways["b"] = gone
    world.copied = ShadowTraffic(epoch="2", compared=10)
    live(world, rounds=20)
    assert world.status.rollout.shadow.compared == 80
    world.book = CopyBook()
    live(world, rounds=20)
    assert world.status.rollout.shadow.compared == 20


@pytest.mark.parametrize("ends", ["well", "badly", "superseded"])
@pytest.mark.parametrize("strategy", ["Surge", "Replace"])
def test_a_crash_at_any_write_changes_nothing_of_how_it_ends(strategy: str, ends: str) -> None:
    undisturbed = _end_of(strategy, ends, crash_at=None)
    writes = undisturbed.pop("writes")
    assert isinstance(writes, int)
    assert undisturbed["shadowed"]
    for crash_at in range(writes):
        disturbed = _end_of(strategy, ends, crash_at=crash_at)
        del disturbed["writes"]
        assert disturbed == undisturbed, f"killed after write {crash_at}"


def _end_of(strategy: str, ends: str, *, crash_at: int | None) -> dict[str, Any]:
    world = serving()
    wanted = asked(2, strategy=strategy, steps=[{"weight": 50}])
    world.edit(**wanted)
    shadowed = False
    writes = 0
    for number in range(120):
        # Not before they are copied to.
        shadowed |= phase(world) is RolloutPhase.SHADOWING
        if shadowed and ends == "superseded" and number > 20 and world.spec["model"]["version"] == 2:
            world.edit(**{**wanted, "model": {"version": 3, "source": {"uri": URI}}})
        if ends != "superseded" or world.spec["model"]["version"] == 3:
            world.copied = DISAGREES if ends == "badly" else AGREES
        world.serve()
        see(world, GOOD)
        planned = world.plan()
        count = len(planned.actions) + (planned.status != world.status)
        if crash_at is not None and writes <= crash_at < writes + count:
            world.step(crash_after=crash_at - writes + 1)
            rollouts._restart(world, 0)
            world.book = CopyBook()
        else:
            world.step()
        writes += count
        world.now += timedelta(seconds=1)
        over = world.status.rollout and world.status.rollout.phase not in UNDER_WAY
        if number > 30 and not count and over:
            break
    status = world.status
    return {
        "writes": writes,
        "shadowed": shadowed,
        "stable": status.stable and status.stable.version,
        "candidate": status.candidate,
        "rejected": [(each.revision, each.cause) for each in status.rejected],
        "weights": [share.weight for share in status.traffic],
        "created": status.workloads_created,
        "deployments": len(world.replicas_alive()),
        "ready": [json.dumps(c.to_wire()["reason"]) for c in status.conditions if c.type is ConditionType.READY],
    }


def _compare(world: World, which: int) -> None:
    world.copied = (ShadowTraffic(), AGREES, DISAGREES)[which % 3]


def _edit(world: World, which: int) -> None:
    strategies = ["Auto", "Surge", "Replace", "Recreate"]
    rollout: dict[str, Any] = {"strategy": strategies[which % 4], "progressDeadlineSeconds": 20}
    if which % 4 == 3:
        rollout |= {"steps": []}
    if which % 3 == 2:
        rollout |= {"shadow": {"percent": 1 + which, "minSamples": 10}}
    wanted = asked(1 + which % 3, replicas=1 + which % 4, **rollout)
    if which % 4 == 3 or which % 3 == 1:
        del wanted["rollout"]["shadow"]
    world.edit(**wanted)


def _restart(world: World, which: int) -> None:
    rollouts._restart(world, which)
    world.book = CopyBook()


HAPPENINGS: list[Callable[[World, int], None]] = [
    *(happening for happening in rollouts.HAPPENINGS if happening not in (rollouts._edit, rollouts._restart)),
    _compare,
    _edit,
    _restart,
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.integers(0, 11)), max_size=25))
def test_what_always_holds(history: list[tuple[Callable[[World, int], None], int]]) -> None:
    world = serving()
    for happening, argument in history:
        for before, after in rollouts._steps_of(world, happening, argument):
            rollouts._holds(world, before, after)
            _holds(after)
    world.deaf, world.command = set(), None
    world.copied = AGREES
    live(world, rounds=5)
    world.edit(**asked(7))
    live(world, rounds=220)
    assert served(world) == 7, "a world in which everything works ends with what was asked for"
    assert len(world.status.traffic) == 1


def _holds(status: ModelDeploymentStatus) -> None:
    for share in status.traffic:
        if share.shadow:
            assert share.weight == 0, "who is compared has no traffic"
            assert status.candidate
            assert share.workload == status.candidate.workload
            assert status.rollout
            assert status.rollout.phase is RolloutPhase.SHADOWING
    if status.rollout and status.rollout.phase is RolloutPhase.SHADOWING and status.desired_replicas:
        assert status.rollout.weight == 0
