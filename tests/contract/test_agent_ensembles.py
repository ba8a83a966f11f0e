"""Ensembles on the real Triton: the agent lays out and loads whatever one is composed of, and nothing else."""

import numpy as np

from conch.api.agent_report import AgentPhase
from conch.api.reasons import Reason
from conch.triton.client import TritonClient
from conch.triton.tensors import Array, Tensor
from tests.contract.conftest import FileServer, Pod
from tests.contract.models import CONFIG, classifier, scores_of
from tests.contract.python_models import WITH_CODE
from tests.contract.test_agent_contract import loads
from tests.contract.test_agent_statistics import ENSEMBLE, client
from tests.support.archives import tar_gz
from tests.support.async_waiting import until

OUTER = ENSEMBLE.replace('"member"', '"whole"')
CODE = 'backend: "python" max_batch_size: 16 input { name: "x" data_type: TYPE_FP32 dims: 4 }' + (
    'output { name: "scores" data_type: TYPE_FP32 dims: 3 }'
)


def repository(seed: int, **files: bytes) -> bytes:
    """An archive of an ensemble `classifier` of an ensemble `whole` of a graph `member`, beside a stranger."""
    return tar_gz(
        {
            "classifier/config.pbtxt": OUTER.encode(),
            "whole/config.pbtxt": ENSEMBLE.encode(),
            "member/config.pbtxt": CONFIG.encode(),
            "member/1/model.onnx": classifier(seed),
            "stranger/1/model.onnx": b"never to be seen by Triton",
            **files,
        }
    )


async def states(triton: TritonClient) -> dict[str, str]:
    return {entry.name: entry.state for entry in await triton.index()}


async def scores(triton: TritonClient) -> Array:
    x = np.ones((2, 4), dtype=np.float32)
    (answer,) = await triton.infer(
        "classifier", 1, [Tensor(name="x", datatype="FP32", array=x)], ["scores"], timeout_seconds=20
    )
    return answer.array


async def test_an_ensemble_is_served_with_all_that_it_is_composed_of(pod: Pod, files: FileServer) -> None:
    files.files["/m.tar.gz"] = repository(0)
    pod.agent.assign(files.assignment("/m.tar.gz"))
    await pod.start()
    await pod.agent.until(lambda report: report.phase is AgentPhase.READY)
    expected = scores_of(classifier(0), np.ones((2, 4), dtype=np.float32))
    async with client(pod.triton) as triton:
        assert await states(triton) == {"classifier": "READY", "whole": "READY", "member": "READY"}
        np.testing.assert_allclose(await scores(triton), expected, rtol=1e-5)

        # A member that goes takes the readiness with it, and is brought back.
        before = loads(pod)
        await triton.unload("member")

        async def loaded_again() -> bool:
            return loads(pod) > before

        await until("a load", loaded_again)
        await pod.agent.until(lambda report: report.phase is AgentPhase.READY)
        np.testing.assert_allclose(await scores(triton), expected, rtol=1e-5)

        # Other files under the same names: all are loaded anew. What was a member and is none any more goes.
        flat = {"classifier/config.pbtxt": ENSEMBLE.encode()}
        files.files["/n.tar.gz"] = repository(1, **flat)
        pod.agent.assign(files.assignment("/n.tar.gz"))
        expected = scores_of(classifier(1), np.ones((2, 4), dtype=np.float32))

        async def only_these() -> bool | None:
            there = {name for name, state in (await states(triton)).items() if state == "READY"}
            return there == {"classifier", "member"} or None

        await until("what is no member any more to go", only_these)
        await pod.agent.until(lambda report: report.phase is AgentPhase.READY)
        np.testing.assert_allclose(await scores(triton), expected, rtol=1e-5)


async def test_a_step_that_is_not_there_or_not_allowed_is_named(pod: Pod, files: FileServer) -> None:
    files.files["/gone.tar.gz"] = tar_gz({"classifier/config.pbtxt": ENSEMBLE.encode()})
    files.files["/code.tar.gz"] = repository(
        0, **{"member/config.pbtxt": CODE.encode(), "member/1/model.py": b"class TritonPythonModel: raise RuntimeError"}
    )
    pod.agent.assign(files.assignment("/gone.tar.gz"))
    await pod.start()
    report = await pod.agent.until(lambda each: each.phase is AgentPhase.FAILED)
    assert report.reason is Reason.INVALID_MODEL
    assert "a step of the model 'member', which is not in the source" in report.message
    pod.agent.assign(files.assignment("/code.tar.gz"))
    report = await pod.agent.until(lambda each: each.reason is Reason.MODEL_NOT_ALLOWED)
    assert "the step 'member': the model needs the backend 'python'" in report.message
    pod.agent.assign(files.assignment("/code.tar.gz", source_policy=WITH_CODE))
    report = await pod.agent.until(lambda each: each.reason is Reason.MODEL_LOAD_FAILED)
    assert "'member'" in report.message
