"""Each sample trained and packaged by its own script, served by the agent and the real Triton, and asked."""

import asyncio
import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import aiohttp
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tokenizers import Tokenizer

from conch.api.agent_report import AgentPhase, AgentReport, GoldenOutcome
from conch.api.assignment import Assignment
from conch.api.model import ModelConfig
from conch.api.model_deployment import ModelDeploymentSchema
from conch.packaging import check
from conch.packaging.tensors import Array
from tests.contract import conftest as contract
from tests.contract.conftest import Pod
from tests.contract.python_models import WITH_CODE
from tests.packaging.samples import NAMES, SAMPLES, SECOND_VERSIONS, Built, build

# Training takes a minute on an idle machine.
pytestmark = pytest.mark.timeout(1500)

pod, server_tree = contract.pod, contract.server_tree

PARITY: Final = 1e-5
MAX_DROP: Final = 0.01
"""As package-2.sh says it."""
FLOORS: Final = {
    "linear": 0.85,
    "regression": 0.97,
    "classifier": 0.95,
    "digits-cnn": 0.96,
    "sequence": 0.93,
    "text": 0.72,
    "pipeline": 0.95,
}
SERVED: Final = 12
"""Samples that are sent to the server."""
OUTSIDE: Final = '{"alcohol": 13.2, "proline": 1050, "flavanoids": 2.8}'
"""A record in which most readings are missing."""
Arrays = dict[str, Array]
Make = Callable[..., Built]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Builds a sample, once for the session."""
    out = tmp_path_factory.mktemp("samples")

    def make(name: str, version: int = 1) -> Built:
        first = build(name, out)
        return first if version == 1 else build(name, out, version=version)

    return make


@pytest.mark.parametrize("name", NAMES)
def test_it_scores_and_is_what_it_was(built: Make, name: str) -> None:
    sample = built(name)
    told = re.search(rf"{name}: (accuracy|R2) ([0-9.]+) on ", sample.printed)
    assert told is not None, sample.printed
    assert float(told[2]) >= FLOORS[name]
    assert check(sample.path) == ()
    if name != "pipeline":
        assert sample.score == pytest.approx(float(told[2]), abs=1e-3), "by packaging as by train.py"
        assert sample.told["parity"]["largest"] <= PARITY
        assert sample.told["goldenSamples"] == 32


@pytest.mark.parametrize("name", NAMES)
async def test_served_it_answers_as_torch_does(built: Make, pod: Pod, name: str) -> None:
    sample = built(name)
    report = await _serve(pod, sample)
    assert report.golden is not None
    # The pipeline's steps run only in Triton, so nothing was recorded of it.
    assert report.golden.outcome is (GoldenOutcome.ABSENT if name == "pipeline" else GoldenOutcome.PASSED)
    inputs, expected = _asked(sample), _answers(sample)
    for grpc in (False, True):
        answers = await _ask(pod, name, inputs, grpc=grpc)
        assert answers.keys() == expected.keys()
        for output, wanted in expected.items():
            if wanted.dtype.kind == "f":
                np.testing.assert_allclose(answers[output], wanted, atol=PARITY, rtol=PARITY, err_msg=output)
            else:
                assert answers[output].tolist() == wanted.tolist(), output
    if name in ("regression", "text", "pipeline"):
        await _tour(pod, sample)
    if name == "classifier":
        await _classification(pod, expected["probabilities"])
        npz = str(sample.trained / "test.npz")
        told = await _program(f"127.0.0.1:{pod.triton.http}", name, "--npz", npz, "--count", "2")
        assert "probabilities [2, 10]" in told
    if name == "text":
        text = "Apply a linear layer to a batch of tensors."
        told = await _program(f"127.0.0.1:{pod.triton.grpc}", name, "--grpc", "--text", text)
        assert "LABEL [1, 1]\n[[b'torch']]" in told
    if name == "pipeline":
        await _refusal(pod)


@pytest.mark.parametrize("name", SECOND_VERSIONS)
async def test_its_second_version_is_smaller_no_worse_and_serves(built: Make, pod: Pod, name: str) -> None:
    first, second = built(name), built(name, 2)
    sizes = {each["name"]: each["bytes"] for each in second.told["variants"]}
    kept = second.told["kept"]["name"]
    assert kept.startswith("pruned" if name == "digits-cnn" else "int8"), second.told["notKept"]
    assert sizes[kept] < 0.4 * sizes["fp32"]
    assert second.score >= first.score - MAX_DROP
    assert check(second.path) == ()
    report = await _serve(pod, second)
    assert report.golden is not None
    assert report.golden.outcome is GoldenOutcome.PASSED, report.golden.message
    inputs = _asked(second)
    right = _answers(first)["LABEL"]
    for grpc in (False, True):
        answers = await _ask(pod, name, inputs, grpc=grpc)
        assert (answers["LABEL"] == right).mean() >= 0.8, "nearly the labels of version 1"


async def _serve(pod: Pod, sample: Built) -> AgentReport:
    """As the sample's ModelDeployment asks for it, from the claim."""
    (document,) = yaml.safe_load_all(sample.manifest.read_text())
    assert document["metadata"]["name"] == sample.name
    model = ModelDeploymentSchema.model_validate({"spec": document["spec"]}).spec.model
    assert model.version == sample.version
    claim = f"{sample.name}/{sample.version}"
    assert model.source.uri == f"pvc://models/{claim}"
    shutil.copytree(sample.path, pod.agent.claim / claim)
    pod.agent.assign(
        Assignment(
            revision="r1",
            name=sample.name,
            version=model.version,
            source=model.source,
            config=model.config or ModelConfig(),
            source_policy=WITH_CODE,
        )
    )
    await pod.start()
    return await pod.agent.until(
        lambda each: each.phase is AgentPhase.FAILED or (each.phase is AgentPhase.READY and each.golden is not None),
        seconds=240,
    )


async def _ask(pod: Pod, name: str, inputs: Arrays, *, grpc: bool) -> Arrays:
    """By the samples' own client."""
    client = _imported(SAMPLES / "client.py", "samples_client")
    port = pod.triton.grpc if grpc else pod.triton.http
    answers: Arrays = await asyncio.to_thread(client.ask, f"127.0.0.1:{port}", name, inputs, grpc=grpc)
    return answers


async def _program(*arguments: str) -> str:
    """What client.py prints, as a person runs it."""
    done = await asyncio.create_subprocess_exec(
        sys.executable, str(SAMPLES / "client.py"), *arguments, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await done.communicate()
    assert done.returncode == 0
    return printed.decode()


async def _post(pod: Pod, path: str, body: str) -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{pod.triton.http}{path}", data=body.encode()) as response,
    ):
        return response.status, json.loads(await response.text())


async def _tour(pod: Pod, sample: Built) -> None:
    """The README's call by curl."""
    readme = (SAMPLES / "README.md").read_text()
    calls = re.findall(r"curl -s localhost:8000(/v2/models/([a-z-]+)/infer) -d '(.*?)'", readme, flags=re.DOTALL)
    ((path, body),) = [(path, body) for path, name, body in calls if name == sample.name]
    status, told = await _post(pod, path, body)
    assert status == 200, told
    outputs = {each["name"]: each["data"] for each in told["outputs"]}
    if sample.name == "regression":
        features = np.array(json.loads(body)["inputs"][0]["data"], dtype=np.float32)[None]
        (value,) = outputs["value"]
        np.testing.assert_allclose(value, _module_answers(sample, {"features": features})["value"][0, 0], rtol=PARITY)
        # Trained on another processor, it is another model of the same quality.
        (shown,) = re.findall(r'"name":"value",.*?"data":\[(.*?)\]', readme)
        assert float(shown) == pytest.approx(value, abs=0.5)
    else:
        assert all(outputs.values()), outputs


async def _classification(pod: Pod, probabilities: Array) -> None:
    """Names for whoever asks, from labels.txt."""
    output = {"name": "probabilities", "parameters": {"classification": 2}}
    pixels = {"name": "pixels", "datatype": "FP32", "shape": [1, 64], "data": [0] * 64}
    status, told = await _post(
        pod, "/v2/models/classifier/infer", json.dumps({"inputs": [pixels], "outputs": [output]})
    )
    assert status == 200, told
    labels = (SAMPLES / "classifier" / "train.py").read_text()
    for each in told["outputs"][0]["data"]:
        _, number, name = each.split(":")
        assert int(number) < probabilities.shape[1]
        assert f'"{name}"' in labels


async def _refusal(pod: Pod) -> None:
    """A step's own words reach the client."""
    record = {"name": "RECORD", "datatype": "BYTES", "shape": [1, 1], "data": ['{"colour": "red"}']}
    status, told = await _post(pod, "/v2/models/pipeline/infer", json.dumps({"inputs": [record]}))
    assert status == 400
    assert "there is no reading 'colour'; there are alcohol, " in told["error"]


def _asked(sample: Built) -> Arrays:
    """What the server is sent."""
    if sample.name == "pipeline":
        records = np.load(sample.trained / "records.npz")["RECORD"][: SERVED - 1]
        return {"RECORD": np.append(records, [[OUTSIDE]], axis=0)}
    arrays = {name: array[:SERVED] for name, array in np.load(sample.trained / "test.npz").items() if name != "target"}
    return {"TEXT": arrays["text"][:, None]} if sample.name == "text" else arrays


def _answers(sample: Built) -> Arrays:
    """What torch says to these, in the form in which clients get it."""
    asked = _asked(sample)
    if sample.name in ("linear", "regression", "classifier"):
        return _module_answers(sample, asked)
    if sample.name == "pipeline":
        return _pipeline_answers(sample, [json.loads(record) for record in asked["RECORD"][:, 0]])
    if sample.name == "text":
        tokenizer = Tokenizer.from_file(str(sample.trained / "tokenizer.json"))
        encoded = tokenizer.encode_batch(asked["TEXT"][:, 0].tolist())
        asked = {"input_ids": np.array([each.ids for each in encoded])}
        asked["attention_mask"] = np.array([each.attention_mask for each in encoded])
    labels = (sample.trained / "labels.txt").read_text().split()
    return _labelled(_module_answers(sample, asked)["logits"], labels, ("LABEL", "SCORE"))


def _pipeline_answers(sample: Built, records: list[dict[str, float]]) -> Arrays:
    scale = np.load(sample.trained / "scale.npz")
    names = scale["names"].tolist()
    readings = np.array([[record.get(name, np.nan) for name in names] for record in records], dtype=np.float32)
    features = np.nan_to_num((readings - scale["mean"]) / scale["deviation"]).astype(np.float32)
    logits = _module_answers(sample, {"features": features})["logits"]
    answers = _labelled(logits, ["Barolo", "Grignolino", "Barbera"], ("WINE", "CONFIDENCE"))
    decisions = [
        f"label it {wine.decode()}" if confidence >= 0.9 else "ask the laboratory again"
        for wine, confidence in zip(answers["WINE"][:, 0], answers["CONFIDENCE"][:, 0], strict=True)
    ]
    assert len(set(decisions)) > 2, "some are sure, some are not"
    return {**answers, "DECISION": np.array([[each.encode()] for each in decisions], dtype=object)}


def _labelled(logits: Array, labels: list[str], names: tuple[str, str]) -> Arrays:
    probabilities = torch.tensor(logits).softmax(dim=-1).numpy()
    likeliest = [[labels[number].encode()] for number in probabilities.argmax(axis=-1)]
    return {names[0]: np.array(likeliest, dtype=object), names[1]: probabilities.max(axis=-1, keepdims=True)}


def _module_answers(sample: Built, inputs: Arrays) -> Arrays:
    module = _imported(SAMPLES / sample.name / "train.py", f"sample_{sample.name.replace('-', '_')}").net()
    module.load_state_dict(load_file(sample.trained / "weights.safetensors"))
    module.eval()
    with torch.no_grad():
        answers = module(**{name: torch.tensor(array) for name, array in inputs.items()})
    return {name: tensor.numpy() for name, tensor in answers.items()}


def _imported(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
