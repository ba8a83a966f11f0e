"""Latency: medians, in turns, bounded in time; by a clock of the tests' own."""

import numpy as np
import pytest

from conch.packaging.graph.clean import to_bytes
from conch.packaging.graph.session import Port, Runner
from conch.packaging.optimise.latency import Latency, measure_latencies, measure_latency
from conch.packaging.tensors import Array, Tensors
from tests.unit import optimise_graphs as graphs

US = 1_000
SECOND = 1_000_000_000
X = {"x": np.arange(3, dtype=np.float32)}


class Machine:
    """Time passes only while a graph runs; now and then everything takes three times as long."""

    def __init__(self, *, noisy: bool = False) -> None:
        self.now_ns = 0
        self.noisy = noisy
        self.ran: list[tuple[str, int]] = []

    def clock(self) -> int:
        return self.now_ns

    def spend(self, cost_us: float) -> None:
        slow = self.noisy and self.now_ns // (SECOND // 3) % 2
        self.now_ns += round(cost_us * US * (3 if slow else 1))

    def turns(self) -> list[str]:
        names = [name for name, _ in self.ran]
        return [name for index, name in enumerate(names) if index == 0 or names[index - 1] != name]


class Costing(Runner):
    """Takes so many microseconds, and so many more for each sample."""

    def __init__(self, machine: Machine, name: str, cost_us: float, per_sample_us: float = 0) -> None:
        self.machine, self.name, self.cost_us, self.per_sample_us = machine, name, cost_us, per_sample_us
        self.inputs = self.outputs = (Port(name="x", dtype=np.dtype(np.float32), dims=("batch",)),)

    def run(self, inputs: Tensors) -> dict[str, Array]:
        count = len(inputs["x"])
        self.machine.ran.append((self.name, count))
        self.machine.spend(self.cost_us + self.per_sample_us * count)
        return dict(inputs)


class Told:
    def __init__(self) -> None:
        self.advanced: list[tuple[int, int]] = []

    def stage(self, words: str) -> None:
        raise AssertionError(words)

    def advance(self, done: int, total: int) -> None:
        self.advanced.append((done, total))


def test_medians_of_one_sample_and_of_a_full_batch() -> None:
    machine, told = Machine(), Told()
    runner = Costing(machine, "a", cost_us=100, per_sample_us=10)
    assert measure_latency(runner, X, most=32, clock=machine.clock, progress=told) == Latency(one_us=110, most_us=420)
    assert {count for _, count in machine.ran} == {1, 32}
    assert told.advanced == [(done, 40) for done in range(1, 41)]


@pytest.mark.parametrize(("most", "size"), [(0, 3), (1, 1)])
def test_without_batches(most: int, size: int) -> None:
    machine = Machine()
    runner = Costing(machine, "a", cost_us=100, per_sample_us=10)
    expected = 100 + 10 * size
    assert measure_latency(runner, X, most=most, clock=machine.clock) == Latency(one_us=expected, most_us=expected)
    assert {count for _, count in machine.ran} == {size}


def test_the_time_is_bounded_for_each_graph_and_batch_size() -> None:
    machine = Machine()
    runners = {name: Costing(machine, name, cost_us=cost) for name, cost in (("a", 100), ("b", 7_000))}
    measure_latencies(runners, X, most=8, seconds=0.5, clock=machine.clock)
    # Two graphs, two sizes, half a second each; a turn goes over by less than one run.
    assert 1.9 * SECOND < machine.now_ns < 2.4 * SECOND


def test_a_graph_that_is_slower_than_its_time_runs_three_times_and_holds_up_nobody() -> None:
    machine = Machine()
    runners = {"slow": Costing(machine, "slow", cost_us=2_000_000), "fast": Costing(machine, "fast", cost_us=100)}
    found = measure_latencies(runners, X, most=0, clock=machine.clock)
    assert (found["slow"].one_us, found["fast"].one_us) == (2_000_000, 100)
    # The first run is not measured.
    assert [name for name, _ in machine.ran].count("slow") == 4
    assert [name for name, _ in machine.ran].count("fast") > 9_000


def test_graphs_take_turns_in_an_order_that_moves_on() -> None:
    machine = Machine()
    runners = {name: Costing(machine, name, cost_us=1_000) for name in "abc"}
    measure_latencies(runners, X, most=0, seconds=0.1, clock=machine.clock)
    # Warm-up, then rounds; a neighbour of itself across rounds is one turn here.
    assert machine.turns()[:9] == ["a", "b", "c", "a", "b", "c", "b", "c", "a"]


def test_noise_of_the_machine_meets_all_alike() -> None:
    machine = Machine(noisy=True)
    runners = {"a": Costing(machine, "a", cost_us=100), "b": Costing(machine, "b", cost_us=150)}
    found = measure_latencies(runners, X, most=0, seconds=2, clock=machine.clock)
    assert found["b"].one_us / found["a"].one_us == pytest.approx(1.5)


def test_a_real_graph_by_the_real_clock() -> None:
    runner = Runner(to_bytes(graphs.classifier()))
    found = measure_latency(runner, {"x": graphs.normal(1, 4, graphs.FEATURES)}, most=8, seconds=0.01)
    assert 0 < found.one_us < 1e6
    assert 0 < found.most_us < 1e6
