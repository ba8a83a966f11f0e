"""A generated pipeline on the real Triton: a record in, a decision out, and a bad record told by the step."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tritonclient.utils import InferenceServerException

from conch.packaging.output.tree import write_model
from conch.packaging.pipeline.generate import generate
from tests.contract.models import CONFIG, classifier, scores_of
from tests.contract.served_repository import ServedRepository, texts

pytestmark = pytest.mark.contract

_PROGRAM = """
import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

class BadRecord(Exception):
    pass

class TritonPythonModel:
    def initialize(self, args):
        self.folder = Path(args["model_repository"], args["model_version"])
        self.parameters = {
            name: value["string_value"] for name, value in json.loads(args["model_config"])["parameters"].items()
        }

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        inputs = {each.name(): each.as_numpy() for each in request.inputs()}
        try:
            outputs = self.run(inputs)
        except BadRecord as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in outputs.items()])

    def run(self, inputs):
"""

PROGRAMS = {
    "collect": """
        rows = []
        for number, record in enumerate(inputs["RECORD"][:, 0]):
            try:
                rows.append([float(value) for value in json.loads(record)["values"]])
            except (ValueError, KeyError) as error:
                raise BadRecord(f"collect: bad record {number}: {error!r}")
        return {"VALUES": np.array(rows, dtype=np.float32)}
""",
    "preprocess": """
        scale = json.loads((self.folder / "scale.json").read_text())
        return {"x": (inputs["VALUES"] * np.float32(scale["factor"])).astype(np.float32)}
""",
    "parse": """
        labels = np.array(["low", "middle", "high"], dtype=object)
        best = inputs["scores"].argmax(axis=1)
        return {"LABEL": labels[best][:, None], "VALUE": inputs["scores"].max(axis=1, keepdims=True)}
""",
    "decide": """
        return {"DECISION": inputs["VALUE"] > float(self.parameters["limit"])}
""",
}
PIPELINE: dict[str, Any] = {
    "name": "inspection",
    "inputs": ["RECORD"],
    "outputs": ["LABEL", "VALUE", "DECISION"],
    "max_batch_size": 8,
    "steps": [
        {
            "name": "collect",
            "model": "steps/collect.py",
            "inputs": {"RECORD": "RECORD"},
            "outputs": {"VALUES": "values"},
            "types": {"RECORD": "BYTES[1]", "VALUES": "FP32[4]"},
        },
        {
            "name": "preprocess",
            "model": "steps/preprocess.py",
            "inputs": {"VALUES": "values"},
            "outputs": {"x": "x"},
            "types": {"VALUES": "FP32[-1]", "x": "FP32[4]"},
            "files": ["steps/scale.json"],
        },
        {"name": "infer", "model": "net", "inputs": {"x": "x"}, "outputs": {"scores": "scores"}},
        {
            "name": "parse",
            "model": "steps/parse.py",
            "inputs": {"scores": "scores"},
            "outputs": {"LABEL": "LABEL", "VALUE": "VALUE"},
            "types": {"scores": "FP32[3]", "LABEL": "BYTES[1]", "VALUE": "FP32[1]"},
        },
        {
            "name": "decide",
            "model": "steps/decide.py",
            "inputs": {"VALUE": "VALUE"},
            "outputs": {"DECISION": "DECISION"},
            "types": {"VALUE": "FP32[1]", "DECISION": "BOOL[1]"},
            "parameters": {"limit": "0.5"},
        },
    ],
}
VALUES = np.array([[1, 2, 3, 4], [-1, 0.5, 0, 2], [0, 0, 0, 0], [4, -3, 2, -1]], dtype=np.float32)


def sources(folder: Path) -> Path:
    """The pipeline's file and all that it names."""
    (folder / "steps").mkdir(parents=True)
    for name, body in PROGRAMS.items():
        (folder / "steps" / f"{name}.py").write_text(_PROGRAM + body)
    (folder / "steps" / "scale.json").write_text('{"factor": 0.5}')
    (folder / "net" / "4").mkdir(parents=True)
    (folder / "net" / "4" / "model.onnx").write_bytes(classifier())
    (folder / "net" / "config.pbtxt").write_text(CONFIG)
    file = folder / "pipeline.yaml"
    file.write_text(yaml.safe_dump(PIPELINE))
    return file


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedRepository]:
    folder = tmp_path_factory.mktemp("pipeline")
    write_model(folder / "repository", generate(sources(folder / "source")).models)
    shutil.rmtree(folder / "source")  # what is served is complete
    served = ServedRepository(folder, folder / "repository")
    served.start()
    try:
        served.load("inspection")
        yield served
    finally:
        served.stop(9)


def record(values: Any) -> str:
    return json.dumps({"values": np.asarray(values).tolist()})


def test_records_become_decisions(server: ServedRepository) -> None:
    scores = scores_of(classifier(), VALUES * np.float32(0.5))
    labels = [["low", "middle", "high"][best] for best in scores.argmax(axis=1)]
    value = scores.max(axis=1, keepdims=True)
    assert len(set(labels)) > 1
    assert 0 < (value > 0.5).sum() < len(value)
    batch = server.ask_grpc("inspection", {"RECORD": texts(*map(record, VALUES))})
    assert batch.keys() == {"LABEL", "VALUE", "DECISION"}
    assert [each.decode() for each in batch["LABEL"][:, 0]] == labels
    np.testing.assert_allclose(batch["VALUE"], value, rtol=1e-6)
    assert batch["DECISION"].tolist() == (value > 0.5).tolist()
    for number, values in enumerate(VALUES):
        alone = server.ask_http("inspection", {"RECORD": [[record(values)]]}, {"RECORD": "BYTES"})
        assert alone.status == 200
        assert alone.outputs["LABEL"].tolist() == [[labels[number]]]
        assert alone.outputs["DECISION"].tolist() == [[bool(value[number, 0] > 0.5)]]


@pytest.mark.parametrize(
    ("bad", "told"), [("no json", "JSONDecodeError"), ('{"value": 3}', "KeyError"), ('{"values": ["a"]}', "ValueError")]
)
def test_a_bad_record_is_told_by_the_step(server: ServedRepository, bad: str, told: str) -> None:
    answer = server.ask_http("inspection", {"RECORD": [[record(VALUES[0])], [bad]]}, {"RECORD": "BYTES"})
    assert answer.status == 400
    assert f"in ensemble 'inspection', collect: bad record 1: {told}" in answer.error
    with pytest.raises(InferenceServerException, match="collect: bad record 0") as caught:
        server.ask_grpc("inspection", {"RECORD": texts(bad)})
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert server.ask_http("inspection", {"RECORD": [[record(VALUES[0])]]}, {"RECORD": "BYTES"}).status == 200


def test_what_a_step_did_not_expect_names_its_model(server: ServedRepository) -> None:
    short = server.ask_http("inspection", {"RECORD": [[record([1, 2, 3])]]}, {"RECORD": "BYTES"})
    assert short.status == 400
    assert "unexpected shape for input 'x' for model 'inspection_infer'" in short.error
    failed = server.ask_http("inspection", {"RECORD": [['{"values": null}']]}, {"RECORD": "BYTES"})
    assert failed.status == 500
    assert (
        "in ensemble 'inspection', Failed to process the request(s) for model 'inspection_collect_0_0'" in failed.error
    )
    assert "TypeError: 'NoneType' object is not iterable" in failed.error
