"""Two model pods that share a model cache, with the real Triton: the second one fetches nothing."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from conch.api.agent_report import AgentPhase, CacheOutcome
from conch.store import tree_digest
from conch.store.cache.file_lock import FileLock
from tests.contract.conftest import FileServer, Pod
from tests.contract.models import classifier, scores_of, written
from tests.contract.processes import Agent, Triton
from tests.contract.test_agent_contract import X, infer_grpc, loads
from tests.support.async_waiting import until

pytestmark = pytest.mark.contract


@pytest.fixture
async def second(tmp_path: Path) -> AsyncIterator[Pod]:
    folder = tmp_path / "second"
    folder.mkdir()
    agent = Agent(folder)
    pod = Pod(agent=agent, triton=Triton(folder, agent.volume / "repository"))
    yield pod
    if pod.pinning:
        pod.pinning.cancel()
    agent.stop()
    pod.triton.stop(signal.SIGKILL)


@pytest.mark.parametrize("declared", [True, False], ids=["with a digest", "without"])
async def test_the_second_pod_fetches_no_byte_and_serves_from_the_cache(
    pod: Pod, second: Pod, files: FileServer, tmp_path: Path, declared: bool
) -> None:
    cache = pod.agent.cache = second.agent.cache = tmp_path / "cache"
    cache.mkdir()
    model = files.files["/model.onnx"] = classifier()
    digest = tree_digest(written(tmp_path / "tree" / "model.onnx", model))
    assignment = files.assignment("/model.onnx", digest=digest if declared else None)
    pod.agent.assign(assignment)
    await pod.start()
    report = await pod.agent.until_phase(AgentPhase.READY)
    assert report.cache is not None
    assert report.cache.outcome is CacheOutcome.FILLED
    assert files.requests["/model.onnx"] == 1

    second.agent.assign(assignment)
    await second.start()
    report = await second.agent.until_phase(AgentPhase.READY)
    assert report.cache is not None
    assert (report.cache.outcome, report.cache.message, report.digest) == (CacheOutcome.HIT, "", digest)
    assert files.requests["/model.onnx"] == 1
    (served,) = (second.agent.volume / "repository" / "classifier" / "1").iterdir()
    assert served.readlink() == cache / "entries" / digest[7:] / "tree" / "model.onnx", "no copy"
    for each in (pod, second):
        np.testing.assert_allclose(infer_grpc(each), scores_of(model, X), rtol=1e-5)

    # Without its store, and without a load: whoever comes back goes on using what is loaded.
    files.files.clear()
    lock = cache / "locks" / digest[7:]
    pod.agent.stop()
    second.agent.stop(signal.SIGKILL)
    alone = FileLock.take(lock)
    assert alone is not None, "the locks of a process go with it"
    alone.release()
    second.agent.start(second.triton)
    assert (await second.agent.until_phase(AgentPhase.READY)).cache is not None
    assert loads(second) == 1

    async def in_use() -> bool | None:
        return FileLock.take(lock) is None or None

    await until("the entry to be in use again", in_use)
