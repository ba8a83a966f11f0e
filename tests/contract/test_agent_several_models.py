"""Several models in one pod on the real Triton, each from a source of its own."""

import numpy as np

from conch.api.agent_report import AgentPhase
from conch.api.assignment import AssignedModel
from conch.api.model import ModelConfig, ModelSource
from conch.api.reasons import Reason
from tests.contract.conftest import FileServer, Pod
from tests.contract.models import CONFIG, classifier, scores_of, written
from tests.contract.test_agent_contract import loads
from tests.contract.test_agent_ensembles import scores, states
from tests.contract.test_agent_statistics import ENSEMBLE, client
from tests.support.archives import tar_gz
from tests.support.async_waiting import until


def further(files: FileServer, name: str, path: str, version: int = 1, **config: int) -> AssignedModel:
    source = ModelSource(uri=f"{files.url}{path}")
    return AssignedModel(name=name, version=version, source=source, config=ModelConfig(**config))


async def test_an_ensemble_and_its_step_from_two_sources(pod: Pod, files: FileServer) -> None:
    files.files["/whole.tar.gz"] = tar_gz({"config.pbtxt": ENSEMBLE.encode()})
    files.files["/step.onnx"] = classifier(0)
    files.files["/other.tar.gz"] = tar_gz(
        {"other/config.pbtxt": CONFIG.replace("member", "other").encode(), "other/4/model.onnx": classifier(1)}
    )
    other = further(files, "other", "/other.tar.gz", version=4)
    step = further(files, "member", "/step.onnx", max_batch_size=32)
    pod.agent.assign(files.assignment("/whole.tar.gz", models=(other, step)))
    await pod.start()
    await pod.agent.until(lambda report: report.phase is AgentPhase.READY)
    async with client(pod.triton) as triton:
        assert await states(triton) == {"classifier": "READY", "member": "READY", "other": "READY"}
        assert (await triton.config("member", 1)).max_batch_size == 32
        assert await triton.version_ready("other", 4)
        expected = scores_of(classifier(0), np.ones((2, 4), dtype=np.float32))
        np.testing.assert_allclose(await scores(triton), expected, rtol=1e-5)

        # One that goes takes the readiness of all with it, and is brought back.
        before = loads(pod)
        await triton.unload("other")

        async def loaded_again() -> bool:
            return loads(pod) > before

        await until("a load", loaded_again)
        await pod.agent.until(lambda report: report.phase is AgentPhase.READY)
        assert await triton.version_ready("other", 4)


async def test_a_source_that_fails_is_named_and_alone_fetched_again(pod: Pod, files: FileServer) -> None:
    files.files["/whole.tar.gz"] = tar_gz({"config.pbtxt": ENSEMBLE.encode()})
    pod.agent.assign(files.assignment("/whole.tar.gz", models=(further(files, "member", "/step.onnx"),)))
    await pod.start()
    report = await pod.agent.until(lambda report: report.reason is Reason.SOURCE_NOT_FOUND)
    assert "the model 'member': " in report.message
    files.files["/step.onnx"] = classifier(0)
    await pod.agent.until(lambda report: report.phase is AgentPhase.READY)


async def test_a_model_on_a_claim_beside_one_that_is_fetched(pod: Pod, files: FileServer) -> None:
    files.files["/whole.tar.gz"] = tar_gz({"config.pbtxt": ENSEMBLE.encode()})
    files.files["/step.onnx"] = classifier(0)
    model = written(pod.agent.further_claims / "weights" / "other" / "1" / "model.onnx", classifier(1))
    other = AssignedModel(name="other", version=1, source=ModelSource(uri="pvc://weights/other"))
    pod.agent.assign(files.assignment("/whole.tar.gz", models=(other, further(files, "member", "/step.onnx"))))
    await pod.start()
    await pod.agent.until(lambda report: report.phase is AgentPhase.READY)
    assert (pod.agent.volume / "repository" / "other" / "1" / "model.onnx").readlink() == model
    assert files.requests["/step.onnx"] == 1, "it was not fetched again and again"
    async with client(pod.triton) as triton:
        assert await states(triton) == {"classifier": "READY", "member": "READY", "other": "READY"}
