"""A pod without a GPU: the real Triton runs one instance, with as many threads as the container may use CPUs."""

from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton_grpc

from conch.api.agent_report import AgentPhase, AgentReport
from conch.api.assignment import Assignment
from conch.api.model import ModelConfig
from tests.contract.conftest import FileServer, Pod
from tests.contract.models import CONFIG, classifier
from tests.contract.processes import ADMIN_KEY
from tests.contract.test_agent_ensembles import repository
from tests.support.archives import tar_gz
from tests.support.async_waiting import until

pytestmark = pytest.mark.contract

INTRA, INTER = "intra_op_thread_count", "inter_op_thread_count"


def running(pod: Pod, name: str = "classifier") -> Any:
    """A model's configuration, by Triton's own word."""
    client = triton_grpc.InferenceServerClient(f"127.0.0.1:{pod.triton.grpc}")
    try:
        headers = {"triton-grpc-protocol-conch-admin-key": ADMIN_KEY}
        return client.get_model_config(name, headers=headers).config
    finally:
        client.close()


def groups(pod: Pod, name: str = "classifier") -> list[tuple[int, int]]:
    return [(group.count, group.kind) for group in running(pod, name).instance_group]


def parameters(pod: Pod, name: str = "classifier") -> dict[str, str]:
    said = running(pod, name).parameters
    return {key: value.string_value for key, value in said.items() if key in (INTRA, INTER)}


def sessions(pod: Pod) -> list[int]:
    """How many threads each of Triton's Python stubs has; one runs one instance's onnxruntime session."""
    threads = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                threads += [len(list((process / "task").iterdir()))] if parent == pod.triton.pid else []
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended since it was listed
    return threads


async def session(pod: Pod) -> int:
    """The threads of the one instance there is; those of an earlier load end a little later."""

    async def only() -> int | None:
        found = sessions(pod)
        return found[0] if len(found) == 1 else None

    return await until("one session", only)


async def serving(pod: Pod, assignment: Assignment, instances: int = 1) -> AgentReport:
    pod.agent.assign(assignment)
    return await pod.agent.until(
        lambda report: (
            report.phase is AgentPhase.READY
            and report.revision == assignment.revision
            and report.instances == instances
        )
    )


def steps(pod: Pod, name: str) -> int:
    return sum(event.get("step") == name for event in pod.agent.events())


async def test_the_session_has_as_many_threads_as_the_pod_may_use_cpus(pod: Pod, files: FileServer) -> None:
    files.files["/m.tar.gz"] = tar_gz({"config.pbtxt": CONFIG.encode(), "1/model.onnx": classifier()})
    first = files.assignment("/m.tar.gz")
    pod.agent.cpus = "3.5"
    pod.agent.assign(first)
    await pod.start()
    await serving(pod, first)
    assert groups(pod) == [(1, 2)], "one, on the CPU; Triton would run two"
    assert parameters(pod) == {INTRA: "3", INTER: "1"}
    with_three = await session(pod)
    # What the author or the object says of threads stands; of this model it is the only difference.
    await serving(pod, first.model_copy(update={"revision": "r2", "config": ModelConfig(parameters={INTRA: "1"})}))
    assert parameters(pod) == {INTRA: "1", INTER: "1"}
    assert with_three - await session(pod) == 2


async def test_threads_are_shared_by_instances_and_stay_when_their_number_changes(pod: Pod, files: FileServer) -> None:
    files.files["/m.tar.gz"] = tar_gz({"config.pbtxt": CONFIG.encode(), "1/model.onnx": classifier()})
    two = files.assignment("/m.tar.gz", instances=2)
    pod.agent.cpus = "4"
    pod.agent.assign(two)
    await pod.start()
    await serving(pod, two, instances=2)
    assert (groups(pod), parameters(pod)) == ([(2, 2)], {INTRA: "2", INTER: "1"})
    for instances in (3, None):
        await serving(pod, two.model_copy(update={"instances": instances}), instances=instances or 1)
        assert (groups(pod), parameters(pod)[INTRA]) == ([(instances or 1, 2)], "2")
    assert (steps(pod, "Load"), steps(pod, "Resize")) == (1, 2), "other threads would have loaded the model anew"


async def test_what_an_ensemble_is_composed_of_has_its_threads_too(pod: Pod, files: FileServer) -> None:
    files.files["/m.tar.gz"] = repository(0)
    pod.agent.cpus = "2"
    pod.agent.assign(files.assignment("/m.tar.gz"))
    await pod.start()
    await pod.agent.until(lambda report: report.phase is AgentPhase.READY)
    assert (groups(pod, "member"), parameters(pod, "member")) == ([(1, 2)], {INTRA: "2", INTER: "1"})
    assert (groups(pod), parameters(pod)) == ([], {})


async def test_beside_a_gpu_nothing_is_said_of_threads(pod: Pod, files: FileServer) -> None:
    files.files["/m.tar.gz"] = tar_gz({"config.pbtxt": CONFIG.encode(), "1/model.onnx": classifier()})
    assignment = files.assignment("/m.tar.gz")
    pod.agent.assign(assignment)
    await pod.start()
    await serving(pod, assignment, instances=2)
    assert parameters(pod) == {}
