"""Every kind of source on the real Triton, as far as it has the backends: laid out, loaded, and answering."""

import json
from pathlib import Path

import numpy as np
import pytest

from conch.api.agent_report import AgentPhase
from conch.api.batching import DynamicBatching, PriorityQueue, SequenceBatching, TimeoutAction
from conch.api.model import ModelConfig
from conch.api.reasons import Reason
from conch.api.tensors import DataType, TensorSpec
from conch.triton.tensors import Array, Tensor
from tests.contract.conftest import POLICY, FileServer, Pod
from tests.contract.models import CONFIG, classifier, scores_of
from tests.contract.processes import Triton
from tests.contract.python_models import WITH_CODE
from tests.contract.test_agent_statistics import client
from tests.images.triton import assemble
from tests.support.archives import tar_gz

X = np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)
PROGRAM = """
import triton_python_backend_utils as pb_utils

from doubling.numbers import doubled


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(each, "x").as_numpy()) for each in requests]

    def answer(self, x):
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("y", doubled(x))])
"""
COMPLETING = (
    PROGRAM
    + """
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [4]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [4]})
        config.set_max_batch_size(4)
        return config
"""
)
PACKAGE = {"doubling/__init__.py": b"", "doubling/numbers.py": b"def doubled(x):\n    return x * 2\n"}
TENSORS = {
    "inputs": (TensorSpec(name="x", data_type=DataType.FP32, dims=(4,)),),
    "outputs": (TensorSpec(name="y", data_type=DataType.FP32, dims=(4,)),),
}
VLLM = """
import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "text_input", "data_type": "TYPE_STRING", "dims": [1]})
        config.add_output({"name": "text_output", "data_type": "TYPE_STRING", "dims": [1]})
        config.set_max_batch_size(0)
        return config

    def initialize(self, args):
        engine = json.loads(Path(pb_utils.get_model_dir(), "model.json").read_text())
        self.words = Path(engine["model"], "words.txt").read_bytes()

    def execute(self, requests):
        output = pb_utils.Tensor("text_output", np.array([self.words], dtype=object))
        return [pb_utils.InferenceResponse(output_tensors=[output]) for _ in requests]
"""


async def answer(triton: Triton, output: str = "y") -> Array:
    async with client(triton) as asked:
        x = Tensor(name="x", datatype="FP32", array=X)
        (told,) = await asked.infer("classifier", 1, [x], [output], timeout_seconds=20)
        return told.array


@pytest.mark.parametrize("says", ["by itself", "in the object"])
async def test_a_bare_program_with_its_package(pod: Pod, files: FileServer, says: str) -> None:
    by_itself = says == "by itself"
    files.files["/m.tar.gz"] = tar_gz({"model.py": (COMPLETING if by_itself else PROGRAM).encode(), **PACKAGE})
    config = ModelConfig() if by_itself else ModelConfig(max_batch_size=4, **TENSORS)
    pod.agent.assign(files.assignment("/m.tar.gz", source_policy=WITH_CODE, config=config))
    await pod.start()
    await pod.agent.until_phase(AgentPhase.READY)
    np.testing.assert_array_equal(await answer(pod.triton), X * 2)


async def test_a_program_under_another_name(pod: Pod, files: FileServer) -> None:
    flat = PROGRAM.replace("from doubling.numbers import doubled", "def doubled(x):\n    return x * 2")
    files.files["/program.py"] = flat.encode()
    config = ModelConfig(max_batch_size=4, **TENSORS)
    pod.agent.assign(files.assignment("/program.py", source_policy=WITH_CODE, config=config, format="Python"))
    await pod.start()
    await pod.agent.until_phase(AgentPhase.READY)
    np.testing.assert_array_equal(await answer(pod.triton), X * 2)


async def test_all_that_may_be_said_of_waiting_is_taken_by_triton(pod: Pod, files: FileServer) -> None:
    files.files["/model.onnx"] = classifier()
    batching = DynamicBatching(
        preferred_batch_sizes=(2, 4),
        max_queue_delay_microseconds=10,
        max_queue_size=7,
        timeout_microseconds=5_000_000,
        timeout_action=TimeoutAction.DELAY,
        allow_timeout_override=True,
        preserve_ordering=False,
        priority_levels=3,
        default_priority_level=2,
        priority_queues=(PriorityQueue(level=1, timeout_microseconds=9, timeout_action=TimeoutAction.REJECT),),
    )
    pod.agent.assign(files.assignment("/model.onnx", config=ModelConfig(dynamic_batching=batching)))
    await pod.start()
    await pod.agent.until_phase(AgentPhase.READY)
    async with client(pod.triton) as triton:
        running = (await triton.config("classifier", 1)).dynamic_batching
    assert (running.priority_levels, running.default_priority_level) == (3, 2)
    assert running.default_queue_policy.default_timeout_microseconds == 5_000_000
    assert running.priority_queue_policy[1].max_queue_size == 1000
    np.testing.assert_allclose(await answer(pod.triton, "scores"), scores_of(classifier(), X), rtol=1e-5)


async def test_a_model_that_takes_sequences(pod: Pod, files: FileServer) -> None:
    files.files["/m.tar.gz"] = tar_gz({"model.py": PROGRAM.encode(), **PACKAGE})
    sequences = SequenceBatching(max_sequence_idle_microseconds=123_000)
    config = ModelConfig(max_batch_size=4, sequence_batching=sequences, **TENSORS)
    pod.agent.assign(files.assignment("/m.tar.gz", source_policy=WITH_CODE, config=config))
    await pod.start()
    await pod.agent.until_phase(AgentPhase.READY)
    async with client(pod.triton) as triton:
        running = await triton.config("classifier", 1)
    assert running.sequence_batching.max_sequence_idle_microseconds == 123_000


async def test_foreign_folders_never_reach_triton(pod: Pod, files: FileServer) -> None:
    repository = {"classifier/config.pbtxt": CONFIG.encode(), "classifier/1/model.onnx": classifier()}
    foreign = {".git/config": b"x", "notes/how.md": b"x", "other/1/model.onnx": b"no graph", "README.md": b"x"}
    files.files["/m.tar.gz"] = tar_gz({**repository, **foreign})
    pod.agent.assign(files.assignment("/m.tar.gz"))
    await pod.start()
    await pod.agent.until_phase(AgentPhase.READY)
    async with client(pod.triton) as triton:
        assert [(entry.name, entry.state) for entry in await triton.index()] == [("classifier", "READY")]


async def test_a_backend_that_the_image_lacks_is_told(pod: Pod, files: FileServer) -> None:
    files.files["/net.plan"] = b"an engine"
    pod.agent.assign(files.assignment("/net.plan"))
    await pod.start()
    report = await pod.agent.until_phase(AgentPhase.FAILED)
    assert report.reason is Reason.MODEL_LOAD_FAILED
    assert "has no backend 'tensorrt': set runtime.image to one that has it" in report.message


async def test_a_language_model_finds_its_weights(pod: Pod, files: FileServer, tmp_path: Path) -> None:
    """With a stand-in for vLLM's backend, which reads what vLLM reads first."""
    backends = tmp_path / "backends"
    (backends / "vllm").mkdir(parents=True)
    (backends / "vllm" / "model.py").write_text(VLLM)
    (backends / "python").symlink_to(assemble.cached_server() / "backends" / "python")
    pod.triton.backends = backends
    model = {"1/model.json": json.dumps({"model": "weights"}).encode(), "1/weights/words.txt": b"so it is"}
    files.files["/m.tar.gz"] = tar_gz(model)
    policy = POLICY.model_copy(update={"backends": ("vllm",)})
    pod.agent.assign(files.assignment("/m.tar.gz", source_policy=policy))
    await pod.start()
    await pod.agent.until_phase(AgentPhase.READY)
    async with client(pod.triton) as triton:
        text = Tensor(name="text_input", datatype="BYTES", array=np.array([b"and?"], dtype=object))
        (told,) = await triton.infer("classifier", 1, [text], ["text_output"], timeout_seconds=20)
    assert told.array.tolist() == [b"so it is"]
