"""The number of instances of a model that serves: Triton changes it without a load and without a lost request."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from conch.api.agent_report import AgentPhase, AgentReport
from conch.api.assignment import Assignment
from conch.api.model import InstanceGroup, ModelConfig, ModelSource
from conch.triton.client import TritonClient
from conch.triton.statistics import Statistics
from conch.triton.tensors import Tensor
from tests.contract.conftest import FileServer, Pod
from tests.contract.models import CONFIG, classifier, written
from tests.contract.processes import ADMIN_KEY
from tests.contract.python_models import TWO_FIT, WITH_CODE, python_model
from tests.support.archives import tar_gz
from tests.support.async_waiting import until

pytestmark = pytest.mark.contract

X = Tensor(name="x", datatype="FP32", array=np.zeros((2, 4), np.float32))


@dataclass(slots=True)
class Clients:
    """What callers saw who never stop asking."""

    answered: int = 0
    errors: list[str] = field(default_factory=list)
    looks: int = 0
    unready: int = 0


@asynccontextmanager
async def clients(pod: Pod, output: str = "scores") -> AsyncIterator[Clients]:
    """Three who ask one after the other, and one who asks whether the model is ready."""
    seen = Clients()

    async def ask(triton: TritonClient) -> None:
        while True:
            try:
                await triton.infer("classifier", 1, [X], [output], timeout_seconds=30)
                seen.answered += 1
            except Exception as error:
                seen.errors.append(repr(error))
                return

    async def look(triton: TritonClient) -> None:
        while True:
            seen.looks += 1
            seen.unready += not await triton.version_ready("classifier", 1)
            await asyncio.sleep(0.002)

    async with TritonClient(f"127.0.0.1:{pod.triton.grpc}", ADMIN_KEY) as triton:
        tasks = [asyncio.ensure_future(work(triton)) for work in (ask, ask, ask, look)]
        yield seen
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@contextmanager
def client(pod: Pod) -> Iterator[Any]:
    grpc = triton_grpc.InferenceServerClient(f"127.0.0.1:{pod.triton.grpc}")
    try:
        yield grpc
    finally:
        grpc.close()


def running(pod: Pod) -> list[int]:
    """How many instances each group has, by Triton's own configuration."""
    with client(pod) as grpc:
        headers = {"triton-grpc-protocol-conch-admin-key": ADMIN_KEY}
        return [group.count for group in grpc.get_model_config("classifier", headers=headers).config.instance_group]


async def counted(pod: Pod) -> Statistics:
    async with TritonClient(f"127.0.0.1:{pod.triton.grpc}", ADMIN_KEY) as triton:
        return await triton.statistics("classifier", 1)


async def serving(pod: Pod, instances: int) -> AgentReport:
    return await pod.agent.until(
        lambda report: (
            report.phase is AgentPhase.READY
            and report.instances == instances
            and report.inference is not None
            and [model.instances for model in report.inference.models] == [instances]
        )
    )


def steps(pod: Pod, name: str) -> int:
    return sum(event.get("step") == name for event in pod.agent.events())


async def test_the_number_changes_under_load_and_nobody_notices(pod: Pod, files: FileServer) -> None:
    files.files["/m.tar.gz"] = tar_gz({"config.pbtxt": CONFIG.encode(), "1/model.onnx": classifier()})
    config = ModelConfig(instance_groups=(InstanceGroup(count=2),))
    wanted = files.assignment("/m.tar.gz", config=config)
    pod.agent.assign(wanted)
    await pod.start()
    first = await serving(pod, 2)
    assert first.inference is not None
    epochs = [first.inference.epoch]
    async with clients(pod) as seen:
        for assigned, instances in ((3, 3), (1, 1), (None, 2)):

            async def has_counted() -> bool:
                return (await counted(pod)).successes > 30

            await until("requests to be counted", has_counted)
            before = (await counted(pod)).successes
            pod.agent.assign(wanted.model_copy(update={"instances": assigned}))
            report = await serving(pod, instances)
            assert running(pod) == [instances]
            assert (report.revision, report.instances_refused) == ("r1", "")
            assert report.inference is not None
            epochs.append(report.inference.epoch)
            # A load would have begun the counters anew.
            assert (await counted(pod)).successes >= before
    assert (seen.errors, seen.unready) == ([], 0)
    assert seen.answered > 100
    assert seen.looks > 100
    assert len(set(epochs)) == 4, "an epoch's batches are those of one number of instances"
    assert (steps(pod, "Load"), steps(pod, "Resize"), steps(pod, "Replay")) == (1, 3, 1)


async def test_a_load_has_the_number_at_once_and_who_restarts_finds_it(pod: Pod, files: FileServer) -> None:
    files.files["/m.tar.gz"] = tar_gz({"config.pbtxt": CONFIG.encode(), "1/model.onnx": classifier()})
    wanted = files.assignment("/m.tar.gz", instances=3)
    pod.agent.assign(wanted)
    await pod.start()
    await serving(pod, 3)
    assert running(pod) == [3]
    pod.agent.stop(signal.SIGKILL)
    pod.agent.start(pod.triton)
    await serving(pod, 3)
    assert (steps(pod, "Load"), steps(pod, "Resize")) == (1, 0)
    pod.triton.stop(signal.SIGKILL)
    await pod.agent.until(lambda report: report.phase is not AgentPhase.READY)
    pod.triton.start()
    await serving(pod, 3)
    assert (running(pod), steps(pod, "Load"), steps(pod, "Resize")) == ([3], 2, 0)
    # Whose number it is, the next agent learns from Triton: without one it goes back to the configuration's.
    pod.agent.stop(signal.SIGKILL)
    pod.agent.assign(wanted.model_copy(update={"instances": None}))
    pod.agent.start(pod.triton)
    await serving(pod, 2)
    assert (running(pod), steps(pod, "Load"), steps(pod, "Resize")) == ([2], 2, 1)


async def test_what_triton_refuses_is_told_in_its_words_and_the_model_serves_on(
    pod: Pod, files: FileServer, tmp_path: Path
) -> None:
    places = tmp_path / "places"
    places.mkdir()
    files.files["/m.tar.gz"] = python_model(TWO_FIT, places)
    wanted = files.assignment("/m.tar.gz", source_policy=WITH_CODE)
    pod.agent.assign(wanted)
    await pod.start()
    await serving(pod, 1)
    async with clients(pod, "y") as seen:
        pod.agent.assign(wanted.model_copy(update={"instances": 2}))
        await serving(pod, 2)
        pod.agent.assign(wanted.model_copy(update={"instances": 3}))
        report = await pod.agent.until(lambda report: report.instances_refused != "")
        assert (report.phase, report.reason, report.instances) == (AgentPhase.READY, None, 2)
        assert report.instances_refused.startswith(
            "Triton does not run 'classifier' with 3 instances and serves on with 2: "
        )
        assert "CUDA out of memory. Tried to allocate 2.00 GiB" in report.instances_refused
        assert (running(pod), sorted(place.name for place in places.iterdir())) == ([2], ["one", "two"])
        pod.agent.assign(wanted.model_copy(update={"instances": 1}))
        assert (await serving(pod, 1)).instances_refused == ""
    assert (seen.errors, seen.unready) == ([], 0)
    assert (steps(pod, "Load"), steps(pod, "Resize")) == (1, 3), "what was refused is not tried again"


async def test_a_load_that_triton_refuses_with_so_many_serves_as_configured(
    pod: Pod, files: FileServer, tmp_path: Path
) -> None:
    places = tmp_path / "places"
    places.mkdir()
    files.files["/m.tar.gz"] = python_model(TWO_FIT, places)
    pod.agent.assign(files.assignment("/m.tar.gz", source_policy=WITH_CODE, instances=4))
    await pod.start()
    report = await serving(pod, 1)
    assert report.instances_refused.startswith(
        "Triton does not load 'classifier' with 4 instances, so it serves as configured: "
    )
    assert "CUDA out of memory" in report.instances_refused
    assert (running(pod), steps(pod, "Load"), steps(pod, "Resize")) == ([1], 1, 0)


async def test_files_of_a_claim_that_were_written_to_are_not_read_by_new_instances(pod: Pod) -> None:
    graph = written(pod.agent.claim / "models" / "classifier" / "1" / "model.onnx", classifier())
    written(pod.agent.claim / "models" / "classifier" / "config.pbtxt", CONFIG.encode())
    source = ModelSource(uri="pvc://models-claim/models/classifier")
    wanted = Assignment(revision="r1", name="classifier", version=1, source=source)
    pod.agent.assign(wanted)
    await pod.start()
    await serving(pod, 2)
    os.utime(graph, ns=(1, 1))
    pod.agent.assign(wanted.model_copy(update={"instances": 3}))
    report = await pod.agent.until(lambda report: report.instances_refused != "")
    assert "on the claim were written to after they were verified" in report.instances_refused
    assert (report.phase, running(pod), report.instances) == (AgentPhase.READY, [2], 2)
