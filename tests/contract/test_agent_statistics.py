"""What the real Triton counts and what the agent makes of it: the autoscaler learns its service curve from that."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from conch.agent.counting import Counting
from conch.agent.wanted import Wanted
from conch.api.agent_report import GoldenOutcome
from conch.api.assignment import Assignment
from conch.api.batching import DynamicBatching
from conch.api.inference_counts import InferenceCounts, ModelCounts
from conch.api.model import InstanceGroup, ModelConfig, ModelSource
from conch.triton.client import TritonClient
from conch.triton.errors import TritonRefusedError
from conch.triton.metrics import MetricsReader
from conch.triton.statistics import Statistics
from conch.triton.tensors import Tensor
from tests.contract.conftest import FileServer, Pod
from tests.contract.models import CONFIG, classifier, written
from tests.contract.processes import ADMIN_KEY, Triton
from tests.contract.python_models import WAITS, WITH_CODE, python_model
from tests.contract.test_golden_set import golden, replayed
from tests.support.archives import tar_gz
from tests.support.async_waiting import until

pytestmark = pytest.mark.contract

ONE_INSTANCE = ModelConfig(
    max_batch_size=8,
    instance_groups=(InstanceGroup(count=1),),
    dynamic_batching=DynamicBatching(max_queue_delay_microseconds=20_000_000),
)
"""Whatever comes waits until there are eight items, so a test knows which batches there are."""


@asynccontextmanager
async def client(triton: Triton) -> AsyncIterator[TritonClient]:
    async with TritonClient(f"127.0.0.1:{triton.grpc}", ADMIN_KEY) as connected:
        yield connected


async def infer(
    triton: TritonClient, items: int, name: str = "classifier", first: float = 0, output: str = "scores"
) -> None:
    x = np.full((items, 4), first, np.float32)
    await triton.infer(name, 1, [Tensor(name="x", datatype="FP32", array=x)], [output], timeout_seconds=60)


async def let_through(gate: Path, *waiting: "asyncio.Future[Any]") -> None:
    """Open the named pipe at which a model waits, until all that wait for its answers have them."""

    async def opened() -> bool | None:
        with suppress(OSError):  # nobody waits at the other end just now
            os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
        return all(task.done() for task in waiting) or None

    await until("the requests' answers", opened)
    await asyncio.gather(*waiting)


async def told(pod: Pod, requests: int) -> InferenceCounts:
    """The counts in which so many requests are answered."""
    report = await pod.agent.until(lambda each: each.inference is not None and each.inference.requests == requests)
    assert report.inference is not None
    return report.inference


async def counted(triton: TritonClient, executions: int, name: str = "classifier") -> Statistics:
    """Triton's statistics with so many executions in them: it counts one a moment after it has answered."""

    async def all_told() -> Statistics | None:
        told = await triton.statistics(name, 1)
        return told if sum(batch.executions for batch in told.batches) >= executions else None

    return await until(f"{executions} executions of {name}", all_told)


async def succeeded(triton: TritonClient, requests: int, name: str) -> None:
    """The same of requests."""

    async def all_told() -> bool:
        return (await triton.statistics(name, 1)).successes >= requests

    await until(f"{requests} requests of {name} to be counted", all_told)


def executions(model: ModelCounts) -> dict[int, int]:
    return {batch.size: batch.executions for batch in model.batches}


async def test_triton_counts_a_batch_once_and_each_request_with_the_whole_batchs_time(
    pod: Pod, files: FileServer
) -> None:
    files.files["/m.tar.gz"] = tar_gz({"config.pbtxt": CONFIG.encode(), "1/model.onnx": classifier()})
    pod.agent.assign(files.assignment("/m.tar.gz", config=ONE_INSTANCE))
    await pod.start()
    await told(pod, 0)
    async with client(pod.triton) as triton:
        for _ in range(3):
            await asyncio.gather(*(infer(triton, 2) for _ in range(4)))
        await infer(triton, 8)
        statistics = await counted(triton, 4)
    assert [(batch.size, batch.executions) for batch in statistics.batches] == [(8, 4)]
    grpc = triton_grpc.InferenceServerClient(f"127.0.0.1:{pod.triton.grpc}")
    (raw,) = grpc.get_inference_statistics("classifier", "1").model_stats
    grpc.close()
    (batch,) = raw.batch_stats
    whole = (batch.compute_input, batch.compute_infer, batch.compute_output)
    assert [each.count for each in whole] == [4, 4, 4]
    assert statistics.batches[0].nanoseconds == sum(each.ns for each in whole)
    by_request = raw.inference_stats
    assert (by_request.success.count, raw.inference_count, raw.execution_count) == (13, 32, 4)
    # Three batches of four requests, and one of one: in the requests' sums all but the last count four times.
    assert batch.compute_infer.ns < by_request.compute_infer.ns < 4 * batch.compute_infer.ns


async def test_what_was_executed_is_told_but_for_the_first_look_at_a_size(pod: Pod, files: FileServer) -> None:
    files.files["/m.tar.gz"] = tar_gz({"config.pbtxt": CONFIG.encode(), "1/model.onnx": classifier()})
    config = ModelConfig(instance_groups=(InstanceGroup(count=3),))
    pod.agent.assign(files.assignment("/m.tar.gz", config=config))
    await pod.start()
    (model,) = (await told(pod, 0)).models
    assert model == ModelCounts(
        name="classifier", max_batch=16, instances=3, decoupled=False, requests=0, queue_seconds=0
    )
    async with client(pod.triton) as triton:
        await infer(triton, 3)
        first = await told(pod, 1)
        assert executions(first.models[0]) == {}
        for _ in range(5):
            await infer(triton, 3)
        second = await told(pod, 6)
        assert executions(second.models[0]) == {3: 5}
        statistics = await triton.statistics("classifier", 1)
    (batch,) = second.models[0].batches
    assert 0 < batch.compute_seconds < statistics.batches[0].nanoseconds / 1e9
    assert (second.epoch, second.models[0].requests) == (first.epoch, 6)
    assert second.models[0].queue_seconds == pytest.approx(second.queue_seconds, abs=1e-6)
    assert second.has_executed


async def test_the_golden_sets_replay_is_no_work_of_the_model(pod: Pod, files: FileServer) -> None:
    files.files["/m.tar.gz"] = tar_gz({"net.onnx": classifier(), "golden.json": json.dumps(golden()).encode()})
    pod.agent.assign(files.assignment("/m.tar.gz", config=ModelConfig(max_batch_size=2)))
    await pod.start()
    await replayed(pod)
    # Five samples alone, and four of them in batches of two.
    counts = await told(pod, 7)
    assert not counts.has_executed
    async with client(pod.triton) as triton:
        sent = 7

        async def counts_again() -> bool:
            nonlocal sent
            await infer(triton, 1)
            sent += 1
            return bool(executions((await told(pod, sent)).models[0]))

        await until("the model's work to count again", counts_again)
        before = executions((await told(pod, sent)).models[0])
        for _ in range(3):
            await infer(triton, 1)
        await infer(triton, 2)
    counts = await told(pod, sent + 4)
    assert executions(counts.models[0]) == {1: before[1] + 3, 2: 1}, "both sizes were there in the replay"


async def test_what_waits_is_told_while_it_does_and_executions_that_fail_count(
    pod: Pod, files: FileServer, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    files.files["/m.tar.gz"] = python_model(WAITS, tmp_path)
    pod.agent.assign(files.assignment("/m.tar.gz", source_policy=WITH_CODE))
    await pod.start()
    await told(pod, 0)
    async with client(pod.triton) as triton:
        waiting = [asyncio.ensure_future(infer(triton, 1, first=1, output="y")) for _ in range(3)]
        report = await pod.agent.until(lambda each: each.inference is not None and each.inference.pending == 2)
        assert report.inference is not None
        assert report.inference.requests == 0
        assert (report.gpu_memory_used_bytes, report.gpu_memory_total_bytes) == (None, None)

        await let_through(gate, *waiting)
        assert (await told(pod, 3)).pending == 0
        for _ in range(4):
            with pytest.raises(TritonRefusedError, match="less than nothing"):
                await infer(triton, 1, first=-1, output="y")
        statistics = await counted(triton, 7)
        assert [(batch.size, batch.executions) for batch in statistics.batches] == [(1, 7)]


async def test_what_is_counted_is_told_while_a_golden_set_takes_its_time(
    pod: Pod, files: FileServer, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    above = {"content": [1, 0, 0, 0], "shape": [4]}
    golden_set = json.dumps({"data": [{"x": above}], "validation_data": [{"y": above}]}).encode()
    files.files["/m.tar.gz"] = python_model(WAITS, tmp_path, **{"golden.json": golden_set})
    pod.agent.assign(files.assignment("/m.tar.gz", source_policy=WITH_CODE))
    await pod.start()
    await told(pod, 0)
    async with client(pod.triton) as triton:
        waiting = asyncio.ensure_future(infer(triton, 1, first=1, output="y"))
        report = await pod.agent.until(lambda each: each.inference is not None and each.inference.pending == 1)
        assert report.golden is None
        replay = asyncio.ensure_future(replayed(pod))
        await let_through(gate, waiting, replay)
    assert replay.result()[1].outcome is GoldenOutcome.PASSED
    assert executions((await told(pod, 2)).models[0]) == {}


ENSEMBLE = """
platform: "ensemble"
max_batch_size: 16
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "scores" data_type: TYPE_FP32 dims: 3 }
ensemble_scheduling {
  step {
    model_name: "member"
    model_version: -1
    input_map { key: "x" value: "x" }
    output_map { key: "scores" value: "scores" }
  }
}
"""


async def test_of_an_ensemble_the_members_batches_are_told(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    written(repository / "member" / "1" / "model.onnx", classifier())
    written(repository / "member" / "config.pbtxt", CONFIG.encode())
    written(repository / "whole" / "config.pbtxt", ENSEMBLE.encode())
    (repository / "whole" / "1").mkdir()
    source = ModelSource(uri="https://h.example/whole")
    wanted = Wanted.of(Assignment(revision="r1", name="whole", version=1, source=source))
    server = Triton(tmp_path, repository)
    server.start()
    try:
        async with client(server) as triton, MetricsReader(f"127.0.0.1:{server.metrics}") as metrics:

            async def live() -> bool | None:
                return await triton.live() or None

            await until("Triton", live)
            await triton.load("whole", timeout_seconds=60)
            counting = Counting(triton, metrics)
            for before, after in pairwise((0, 1, 2, 5)):
                for _ in range(before, after):
                    await infer(triton, 5, "whole")
                await counted(triton, after, "member")
                await succeeded(triton, after, "whole")
                counts = await counting.read(wanted)
    finally:
        server.stop(9)
    assert counts is not None
    assert counts.requests == 5
    (member,) = counts.models
    assert (member.name, member.max_batch, member.instances, member.requests) == ("member", 16, 2, 5)
    assert executions(member) == {5: 4}


async def test_how_decoupled_models_and_those_without_batches_are_told(pod: Pod, files: FileServer) -> None:
    config = CONFIG.replace("max_batch_size: 16", "").replace("dynamic_batching { }", "")
    config = config.replace("dims: 4", "dims: [-1, 4]").replace("dims: 3", "dims: [-1, 3]")
    config += "model_transaction_policy { decoupled: true }"
    files.files["/m.tar.gz"] = tar_gz({"config.pbtxt": config.encode(), "1/model.onnx": classifier()})
    pod.agent.assign(files.assignment("/m.tar.gz"))
    await pod.start()
    (model,) = (await told(pod, 0)).models
    assert (model.max_batch, model.decoupled) == (1, True)
