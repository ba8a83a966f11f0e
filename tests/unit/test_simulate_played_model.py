"""What the benchmark of the real HPA plays: a real one that does as the rule says must come out as in simulation."""

import numpy as np

from conch.core.scaling.service_curve import ServiceCurve
from conch.simulate import loads
from conch.simulate.fleet import FleetSettings
from conch.simulate.outcome import Outcome
from conch.simulate.replay import simulate
from conch.simulate.rules.bounds import Bounds
from conch.simulate.rules.hpa import SYNC_SECONDS, PodMetric
from tests.perf.scale.played_model import Play, PlayedModel, apart, counts, simulated

PLAY = Play(
    name="bursts-in-flight",
    load="bursts",
    trace=loads.bursts(2, 30, 900, seed=3, quiet_seconds=100, burst_seconds=60),
    fleet=FleetSettings(
        curve=ServiceCurve(base_seconds=0.1, per_item_seconds=0.1, max_batch=4),
        objective_seconds=2,
        cold_start_seconds=30,
        replicas=2,
    ),
    bounds=Bounds(minimum=1, maximum=20),
    metric=PodMetric.IN_FLIGHT,
    target=3,
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Pods:
    """A Deployment whose pods run when the simulated servers are ready."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.model = PlayedModel(PLAY, compression=10, clock=self.clock)
        self.born = [(-1000.0, number) for number in range(PLAY.fleet.replicas)]
        self.next = PLAY.fleet.replicas

    def show(self) -> None:
        now = self.model.now
        running = [pod for pod in self.born if now - pod[0] >= 30]
        self.model.running = tuple(str(number) for _, number in running)
        self.model.pending = len(self.born) - len(running)

    def scale(self, desired: int) -> None:
        while len(self.born) < desired:
            self.born.append((self.model.now, self.next))
            self.next += 1
        # Those that do not run yet go first, and the young: the newest ones in any case.
        del self.born[desired:]
        self.model.scaled(desired)


def played(*, obey: bool) -> tuple[PlayedModel, Outcome]:
    """A real HPA every 15 s of the trace that does what the rule says (`obey`), or nothing."""
    pods = Pods()
    rule = PLAY.rule()
    assert pods.model.measured() == ()
    pods.model.begin()
    for number in range(1, int(PLAY.trace.span_seconds / SYNC_SECONDS) + 2):
        # Ten times as fast.
        pods.clock.now = 100.0 + number * SYNC_SECONDS / 10
        pods.show()
        measured = pods.model.measured()
        assert [name for name, _ in measured] == list(pods.model.running)
        if obey:
            pods.scale(rule.desired(pods.model.last_look))
    return pods.model, pods.model.finish()


def test_one_that_does_as_the_rule_says_comes_out_as_in_simulation() -> None:
    model, outcome = played(obey=True)
    alone = simulate(PLAY.trace, PLAY.rule(), PLAY.fleet)
    assert (model.agreed, model.compared) == (60, 60)
    assert alone.peak > 5, "the rule had something to do"
    for other in (alone, simulated(PLAY, model.asked_at)):
        assert counts(outcome).tolist() == counts(other).tolist()
        assert outcome.late_share == other.late_share
        assert np.isclose(outcome.replica_hours, other.replica_hours)


def test_one_that_does_nothing_does_not_agree() -> None:
    model, outcome = played(obey=False)
    assert model.agreed < model.compared
    assert set(counts(outcome).tolist()) == {2}


def test_pods_that_do_not_run_yet_are_not_answered_for() -> None:
    clock = Clock()
    model = PlayedModel(PLAY, compression=10, clock=clock)
    model.begin()
    model.running, model.pending = ("a",), 1
    clock.now += 3
    assert [name for name, _ in model.measured()] == ["a"]
    assert (model.last_look.ready, model.last_look.starting) == (1, 1)


def test_counts_are_apart_by_what_no_shift_explains() -> None:
    other = np.array([1, 1, 1, 5, 5, 5])
    assert apart(np.array([1, 1, 3, 5, 5, 7]), other, shift_seconds=1).tolist() == [0, 0, 0, 0, 0, 2]
    assert apart(np.array([5, 1, 1, 1, 5, 5]), other, shift_seconds=0).tolist() == [4, 0, 0, 4, 0, 0]
