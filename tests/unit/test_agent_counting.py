"""What the agent tells of Triton's counters: what a service curve is learnt from, and nothing that would spoil it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from conch.agent.counting import COUNTED_WITHIN_SECONDS, ROWS_MOST, Counting
from conch.agent.wanted import Wanted
from conch.api.agent_report import AgentPhase, AgentReport
from conch.api.assignment import Assignment
from conch.api.inference_counts import BatchCounts, InferenceCounts, ModelCounts
from conch.api.model import ModelSource
from conch.triton.client import TritonClient
from conch.triton.config_pbtxt import parse_config
from conch.triton.errors import TritonRefusedError, TritonUnavailableError
from conch.triton.metrics import MetricsReader, TritonMetrics
from conch.triton.statistics import BatchStatistics, Statistics

WANTED = Wanted.of(Assignment(revision="r1", name="mlp", version=2, source=ModelSource(uri="https://h.example/m.onnx")))
PLAIN = 'name: "mlp" backend: "onnxruntime" max_batch_size: 8 instance_group { count: 2 kind: KIND_CPU }'
ANSWER_BYTES_MOST = 64 * 1024


class FakeTriton:
    """Says what the test says."""

    def __init__(self, **configs: str) -> None:
        self.configs = {name: parse_config(config) for name, config in configs.items()}
        self.counted: dict[str, dict[int, tuple[int, float]]] = {name: {} for name in configs}
        self.metrics: TritonMetrics | None = TritonMetrics()
        self.away = False
        self.now = 0.0
        self.asked: list[tuple[str, int | None]] = []
        self.read_configs: list[tuple[str, int | None]] = []

    async def config(self, name: str, version: int | None) -> Any:
        self.read_configs.append((name, version))
        if self.away:
            raise TritonUnavailableError("away")
        if name not in self.configs:
            raise TritonRefusedError("unknown")
        return self.configs[name]

    async def statistics(self, name: str, version: int | None) -> Statistics:
        self.asked.append((name, version))
        if self.away:
            raise TritonUnavailableError("away")
        batches = tuple(
            BatchStatistics(size=size, executions=count, nanoseconds=round(seconds * 1e9))
            for size, (count, seconds) in self.counted[name].items()
        )
        return Statistics(successes=40, failures=2, queue_nanoseconds=500_000_000, batches=batches)

    async def read(self) -> TritonMetrics | None:
        return self.metrics


def counting_of(triton: FakeTriton) -> Counting:
    return Counting(cast(TritonClient, triton), cast(MetricsReader, triton), clock=lambda: triton.now)


async def told(counting: Counting) -> InferenceCounts:
    counts = await counting.read(WANTED)
    assert counts is not None
    return counts


async def batches(counting: Counting) -> Mapping[int, tuple[int, float]]:
    (model,) = (await told(counting)).models
    return {batch.size: (batch.executions, batch.compute_seconds) for batch in model.batches}


async def test_what_triton_counts_of_a_model_is_told() -> None:
    triton = FakeTriton(mlp=PLAIN)
    counting = counting_of(triton)
    triton.counted["mlp"] = {1: (1, 2.0), 4: (1, 3.0)}
    triton.metrics = TritonMetrics(pending=MappingProxyType({"mlp": 7, "other": 9}), gpu_memory_used_bytes=5)
    assert not (await told(counting)).has_executed
    triton.counted["mlp"] = {1: (11, 2.5), 4: (21, 7.0)}
    counts = await told(counting)
    assert (counts.requests, counts.failures, counts.queue_seconds, counts.pending) == (40, 2, 0.5, 7)
    assert counts.models == (
        ModelCounts(
            name="mlp",
            max_batch=8,
            joins_requests=False,
            instances=2,
            decoupled=False,
            requests=40,
            queue_seconds=0.5,
            batches=(
                BatchCounts(size=1, executions=10, compute_seconds=0.5),
                BatchCounts(size=4, executions=20, compute_seconds=4.0),
            ),
        ),
    )
    assert counts.has_executed
    assert counting.metrics.gpu_memory_used_bytes == 5
    assert triton.read_configs == [("mlp", 2)], "what a loaded model is does not change"


async def test_the_first_executions_of_a_size_are_left_out_whenever_they_come() -> None:
    triton = FakeTriton(mlp=PLAIN)
    counting = counting_of(triton)
    await told(counting)
    triton.counted["mlp"] = {1: (2, 30.0)}
    assert await batches(counting) == {}
    triton.counted["mlp"] = {1: (4, 30.5), 8: (1, 9.0)}
    assert await batches(counting) == {1: (2, 0.5)}
    triton.counted["mlp"] = {1: (4, 30.5), 8: (2, 9.5)}
    assert await batches(counting) == {1: (2, 0.5), 8: (1, 0.5)}


async def test_the_golden_sets_replay_is_left_out_and_nothing_goes_back() -> None:
    triton = FakeTriton(mlp=PLAIN)
    counting = counting_of(triton)
    triton.counted["mlp"] = {1: (1, 1.0)}
    await told(counting)
    triton.counted["mlp"] = {1: (11, 2.0)}
    assert await batches(counting) == {1: (10, 1.0)}
    counting.hold()
    triton.counted["mlp"] = {1: (500, 90.0), 2: (7, 3.0)}
    during = await told(counting)
    assert [batch.executions for batch in during.models[0].batches] == [10]
    assert during.requests == 40, "all else is told as it is"
    counting.resume()
    epoch = during.epoch
    # One of the replay's is counted only now.
    triton.counted["mlp"] = {1: (501, 91.0), 2: (8, 3.5)}
    assert await batches(counting) == {1: (10, 1.0)}
    triton.now += COUNTED_WITHIN_SECONDS
    triton.counted["mlp"] = {1: (501, 91.0), 2: (9, 4.0)}
    assert await batches(counting) == {1: (10, 1.0)}
    triton.counted["mlp"] = {1: (502, 91.25), 2: (10, 4.5)}
    assert await batches(counting) == {1: (11, 1.25), 2: (1, 0.5)}
    assert (await told(counting)).epoch == epoch


async def test_where_nothing_was_executed_it_counts_again_at_once() -> None:
    triton = FakeTriton(mlp=PLAIN)
    counting = counting_of(triton)
    triton.counted["mlp"] = {1: (1, 1.0)}
    await told(counting)
    counting.hold()
    counting.resume(executed=False)
    await told(counting)
    triton.counted["mlp"] = {1: (3, 1.5)}
    assert await batches(counting) == {1: (2, 0.5)}


async def test_of_an_epoch_in_which_nothing_counts_no_model_is_told() -> None:
    triton = FakeTriton(mlp=PLAIN)
    counting = counting_of(triton)
    await told(counting)
    triton.counted["mlp"] = {1: (1, 1.0)}
    await told(counting)
    counting.begin()
    counting.hold()
    triton.counted["mlp"] = {1: (100, 9.0)}
    assert ((await told(counting)).models, (await told(counting)).requests) == ((), 40)
    counting.begin()
    assert await batches(counting) == {}
    triton.counted["mlp"] = {1: (101, 9.5)}
    assert await batches(counting) == {1: (1, 0.5)}


async def test_another_epoch_begins_from_nothing_and_reads_the_configuration_anew() -> None:
    triton = FakeTriton(mlp=PLAIN)
    counting = counting_of(triton)
    await told(counting)
    triton.counted["mlp"] = {1: (1, 1.0)}
    await told(counting)
    triton.counted["mlp"] = {1: (3, 2.0)}
    before = await told(counting)
    counting.begin()
    triton.configs["mlp"].instance_group[0].count = 3
    after = await told(counting)
    assert after.epoch != before.epoch
    assert (before.models[0].instances, after.models[0].instances) == (2, 3)
    assert (before.has_executed, after.has_executed) == (True, False)
    triton.counted["mlp"] = {1: (4, 2.5)}
    assert await batches(counting) == {1: (1, 0.5)}


ENSEMBLE = """
name: "mlp" platform: "ensemble" max_batch_size: 8
ensemble_scheduling {
  step { model_name: "tokens" model_version: 3 } step { model_name: "inner" model_version: -1 }
  step { model_name: "tokens" model_version: 3 }
}
"""
INNER = """
name: "inner" platform: "ensemble"
ensemble_scheduling { step { model_name: "net" model_version: -1 } step { model_name: "mlp" model_version: -1 } }
"""


async def test_of_an_ensemble_its_members_are_told_through_any_depth() -> None:
    triton = FakeTriton(
        mlp=ENSEMBLE,
        inner=INNER,
        tokens='name: "tokens" max_batch_size: 0 model_transaction_policy { decoupled: true }',
        net='name: "net" max_batch_size: 4 instance_group { count: 3 kind: KIND_GPU gpus: [0, 1] }',
    )
    counting = counting_of(triton)
    triton.metrics = TritonMetrics(pending=MappingProxyType({"mlp": 0, "tokens": 2, "net": 3, "inner": 50}))
    triton.counted["net"] = {4: (1, 1.0)}
    await told(counting)
    triton.counted["net"] = {4: (3, 1.5)}
    counts = await told(counting)
    assert [(m.name, m.max_batch, m.instances, m.decoupled) for m in counts.models] == [
        ("net", 4, 6, False),
        ("tokens", 1, 1, True),
    ]
    assert counts.models[0].batches == (BatchCounts(size=4, executions=2, compute_seconds=0.5),)
    assert counts.pending == 5, "an ensemble's own is always 0"
    assert {("tokens", 3), ("net", None)} < set(triton.asked)


async def test_of_many_members_those_that_compute_the_most_are_told_and_the_answer_stays_short() -> None:
    names = [f"member-{number:02}" for number in range(20)]
    steps = " ".join(f'step {{ model_name: "{name}" model_version: -1 }}' for name in names)
    members = {name: f'name: "{name}" max_batch_size: 65536' for name in names}
    triton = FakeTriton(mlp=f'platform: "ensemble" ensemble_scheduling {{ {steps} }}', **members)
    counting = counting_of(triton)
    sizes = [*range(1, 600), *range(600, 65_537, 97)]
    for number, name in enumerate(names):
        triton.counted[name] = dict.fromkeys(sizes, (1, 1.0 + number))
    await told(counting)
    for number, name in enumerate(names):
        triton.counted[name] = dict.fromkeys(sizes, (2**53, 1e9 + number))
    counts = await told(counting)
    assert [model.name for model in counts.models] == names[4:]
    assert sum(len(model.batches) for model in counts.models) <= ROWS_MOST
    assert sum(batch.executions for batch in counts.models[0].batches) == len(sizes) * (2**53 - 1)
    longest = AgentReport(phase=AgentPhase.READY, message="ü" * 2048, instances_refused="ü" * 1024, inference=counts)
    answer = longest.model_dump_json(by_alias=True, exclude_none=True)
    assert AgentReport.model_validate_json(answer) == longest
    assert len(answer.encode()) < 0.75 * ANSWER_BYTES_MOST


async def test_a_triton_that_does_not_tell_makes_no_counts_and_loses_none() -> None:
    triton = FakeTriton(mlp=PLAIN)
    counting = counting_of(triton)
    triton.away = True
    assert await counting.read(WANTED) is None
    triton.away = False
    triton.metrics = TritonMetrics(pending=MappingProxyType({"mlp": 7}), gpu_memory_used_bytes=5)
    triton.counted["mlp"] = {1: (1, 1.0)}
    await told(counting)
    triton.counted["mlp"] = {1: (3, 2.0)}
    assert await batches(counting) == {1: (2, 1.0)}
    triton.away = True
    assert await counting.read(WANTED) is None
    triton.away, triton.metrics = False, None
    assert await batches(counting) == {1: (2, 1.0)}
    assert (await told(counting)).pending == 7, "an arrival that was told is not taken back"
    assert counting.metrics == TritonMetrics()


def test_older_readers_and_writers_understand_each_other() -> None:
    older = {"epoch": "e", "requests": 1, "failures": 0, "queueSeconds": 0.5}
    counts = InferenceCounts.model_validate(older)
    assert (counts.pending, counts.models, counts.has_executed) == (0, (), False)
    newer = counts.to_wire() | {"later": {"x": 1}}
    assert InferenceCounts.model_validate(newer) == counts
    assignment = WANTED.assignment.model_copy(update={"instances": 2})
    assert Assignment.model_validate_json(assignment.model_dump_json(by_alias=True)).instances == 2
    assert "instances" not in WANTED.assignment.to_wire()
