"""The strategies' moves among pods that end, start, become ready and crash in any order: what holds all the way."""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conch.api.rollout import Strategy
from conch.core.rollout.capacity import Fleet, Split, is_reached, next_split

ROUNDS_MOST: Final = 200


class Pod(Enum):
    """What a pod is doing. Crashed ones are started again by their kubelet, ending ones are gone for good."""

    STARTING = auto()
    READY = auto()
    CRASHED = auto()
    LEAVING = auto()
    """Ready, and gets nothing new: it is about to end, or may stay if it is wanted after all."""
    ENDING = auto()
    """It serves nobody, and still has its GPU."""


ALIVE: Final = (Pod.STARTING, Pod.READY, Pod.CRASHED, Pod.LEAVING)
WILL_BE: Final = {Pod.STARTING: Pod.READY, Pod.CRASHED: Pod.READY, Pod.LEAVING: Pod.ENDING}


@dataclass
class Revision:
    """The pods of one revision, and what a Deployment and its kubelets do with them."""

    pods: list[Pod] = field(default_factory=list)

    @property
    def ready(self) -> int:
        """As the operator sees it: one that leaves is still ready."""
        return self.pods.count(Pod.READY) + self.pods.count(Pod.LEAVING)

    @property
    def serving(self) -> int:
        return self.pods.count(Pod.READY)

    def ask_for(self, replicas: int) -> None:
        """Who does not serve goes first, then who is leaving already."""
        alive: list[Pod] = [Pod.READY if pod is Pod.LEAVING else pod for pod in self.pods if pod in ALIVE]
        ending: list[Pod] = [pod for pod in self.pods if pod is Pod.ENDING]
        alive.sort(key=lambda pod: pod is not Pod.READY)
        alive += [Pod.STARTING] * (replicas - len(alive))
        gone = [Pod.LEAVING if pod is Pod.READY else Pod.ENDING for pod in alive[replicas:]]
        self.pods = alive[:replicas] + gone + ending

    def go_on(self, number: int) -> None:
        """Let one of those that are on their way get a step further."""
        waiting = [index for index, pod in enumerate(self.pods) if pod is not Pod.READY]
        if not waiting:
            return
        index = waiting[number % len(waiting)]
        if self.pods[index] is Pod.ENDING:
            del self.pods[index]
        else:
            self.pods[index] = WILL_BE[self.pods[index]]

    def all_go_on(self) -> None:
        """Let every one get a step further."""
        self.pods = [WILL_BE.get(pod, pod) for pod in self.pods if pod is not Pod.ENDING]

    def crash(self) -> None:
        if Pod.READY in self.pods:
            self.pods[self.pods.index(Pod.READY)] = Pod.CRASHED


@dataclass
class Cluster:
    """Two revisions on the way to a goal, and all that must hold after every move."""

    strategy: Strategy
    replicas: int
    goal: int = 100
    split: Split = field(init=False)
    stable: Revision = field(init=False)
    candidate: Revision = field(default_factory=Revision)

    def __post_init__(self) -> None:
        self.split = Split(stable=self.replicas, candidate=0, weight=0)
        self.stable = Revision([Pod.READY] * self.replicas)

    @property
    def fleet(self) -> Fleet:
        return Fleet(
            stable_ready=self.stable.ready,
            stable_left=len(self.stable.pods),
            candidate_ready=self.candidate.ready,
            candidate_left=len(self.candidate.pods),
        )

    @property
    def serving(self) -> int:
        return self.stable.serving + self.candidate.serving

    def move(self) -> None:
        """One look of the operator, and what the Deployments make of it."""
        fleet, before, served = self.fleet, self.split, self.serving
        self.split = next_split(self.strategy, self.goal, self.replicas, fleet, before)
        self._check_move(before, fleet)
        self.stable.ask_for(self.split.stable)
        self.candidate.ask_for(self.split.candidate)
        if self.strategy is Strategy.REPLACE:
            assert self.serving >= min(served, self.replicas - 1), "it takes no more than one that serves"

    def _check_move(self, before: Split, fleet: Fleet) -> None:
        after = self.split
        assert min(after.stable, after.candidate, after.weight) >= 0
        assert after.weight <= 100
        if self.goal == 0:
            assert after.weight <= before.weight or self.strategy is Strategy.REPLACE, "back means back"
        elif fleet.candidate_ready == 0:
            assert after.weight <= before.weight, "no traffic for what is not verified"
            if self.strategy is not Strategy.RECREATE and min(fleet.stable_ready, after.stable):
                assert after.weight == 0, "what the candidate cannot carry goes back"
        match self.strategy:
            case Strategy.SURGE | Strategy.AUTO:
                assert after.stable == self.replicas, "no stable pod is taken before the end"
                assert after.weight <= max(self.goal, before.weight)
            case Strategy.REPLACE:
                assert after.stable + after.candidate <= self.replicas, "no GPU beside"
                if after.candidate > before.candidate:
                    assert fleet.stable_left <= before.stable, "the GPU is free"
                if after.stable > before.stable:
                    assert fleet.candidate_left <= before.candidate, "the GPU is free"
            case Strategy.RECREATE:
                if after.candidate > before.candidate and self.goal:
                    assert fleet.stable_left == 0, "the GPUs are free"
                if after.stable > before.stable and self.goal == 0:
                    assert fleet.candidate_left == 0, "the GPUs are free"

    def settles(self) -> Split:
        """What is asked for in the end if nothing happens to any pod."""
        split = self.split
        for _ in range(4 * (self.replicas + split.stable + split.candidate) + 4):
            after = next_split(self.strategy, self.goal, self.replicas, self.fleet, split)
            if after == split:
                return split
            split = after
        raise AssertionError(f"never rests: {self}")

    @property
    def is_there(self) -> bool:
        if self.goal:
            return is_reached(self.strategy, self.goal, self.replicas, self.split, self.fleet)
        replaced = self.strategy not in (Strategy.SURGE, Strategy.AUTO)
        whole = (self.split.stable, self.split.candidate) == (self.replicas, 0) if replaced else True
        return self.split.weight == 0 and whole

    def behave(self) -> None:
        """Let every pod get on, one step per look, until the goal is reached and nothing is left to do."""
        for _ in range(ROUNDS_MOST):
            self.stable.all_go_on()
            self.candidate.all_go_on()
            before = self.split
            self.move()
            if self.is_there and self.split == before == self.settles():
                return
        raise AssertionError(f"the goal is never reached: {self}")


STRATEGIES: Final = (Strategy.SURGE, Strategy.REPLACE, Strategy.RECREATE)
GOALS: Final = (0, 1, 25, 50, 99, 100)

ORDERLY: Final = st.one_of(
    st.tuples(st.sampled_from(("stable", "candidate")), st.integers(0, 9)),
    st.tuples(st.just("all go on"), st.integers(1, 12)),
    st.tuples(st.just("goal"), st.sampled_from(GOALS)),
)
ANYTHING: Final = st.one_of(
    ORDERLY,
    st.tuples(st.just("replicas"), st.integers(1, 7)),
    st.tuples(st.sampled_from(("stable crashes", "candidate crashes")), st.just(0)),
)


def happens(cluster: Cluster, what: str, number: int) -> None:
    match what:
        case "stable":
            cluster.stable.go_on(number)
        case "candidate":
            cluster.candidate.go_on(number)
        case "all go on":
            for _ in range(number):
                cluster.stable.all_go_on()
                cluster.candidate.all_go_on()
                cluster.move()
        case "goal":
            cluster.goal = number
        case "replicas":
            cluster.replicas = number
        case "stable crashes":
            cluster.stable.crash()
        case "candidate crashes":
            cluster.candidate.crash()
        case _:
            raise AssertionError(what)


@settings(max_examples=400)
@given(
    strategy=st.sampled_from(STRATEGIES),
    replicas=st.integers(1, 5),
    events=st.lists(ANYTHING, max_size=60),
)
def test_whatever_happens_every_move_is_safe_and_the_goal_is_reached_once_pods_behave(
    strategy: Strategy, replicas: int, events: list[tuple[str, int]]
) -> None:
    cluster = Cluster(strategy, replicas)
    for what, number in events:
        happens(cluster, what, number)
        cluster.settles()
        cluster.move()
    cluster.behave()


@settings(max_examples=400)
@given(
    strategy=st.sampled_from((Strategy.SURGE, Strategy.REPLACE)),
    replicas=st.integers(1, 5),
    events=st.lists(ORDERLY, max_size=60),
)
def test_while_nothing_crashes_the_capacity_stays(
    strategy: Strategy, replicas: int, events: list[tuple[str, int]]
) -> None:
    cluster = Cluster(strategy, replicas)
    for what, number in events:
        happens(cluster, what, number)
        cluster.move()
        spared = 1 if strategy is Strategy.REPLACE else 0
        assert cluster.serving >= replicas - spared


@given(replicas=st.integers(2, 7), ran=st.integers(0, 7), goal=st.sampled_from(GOALS), data=st.data())
def test_a_surge_without_room_goes_on_as_a_replacement(replicas: int, ran: int, goal: int, data: st.DataObject) -> None:
    """As the machine hands over: the pods that run are counted among the replicas."""
    cluster = Cluster(Strategy.REPLACE, replicas, goal=goal)
    cluster.candidate = Revision([Pod.READY] * min(ran, replicas))
    cluster.split = Split(stable=replicas, candidate=len(cluster.candidate.pods), weight=0)
    for what, number in data.draw(st.lists(ORDERLY, max_size=20)):
        cluster.move()
        happens(cluster, what, number)
        assert cluster.serving >= replicas - 1
    cluster.behave()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("replicas", [1, 2, 5])
def test_there_and_back_again(strategy: Strategy, replicas: int) -> None:
    cluster = Cluster(strategy, replicas)
    cluster.behave()
    assert (cluster.split.candidate, cluster.split.weight) == (replicas, 100)
    cluster.goal = 0
    cluster.behave()
    assert (cluster.split.stable, cluster.split.weight) == (replicas, 0)
