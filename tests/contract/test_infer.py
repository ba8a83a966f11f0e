"""`conch infer` against the real Triton: both transports, every kind of input, and the golden set."""

import asyncio
import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner, Result

from conch.api.pod import ADMIN_KEY_HEADER
from conch.cli import app
from tests.contract.models import written
from tests.contract.processes import ADMIN_KEY, Triton
from tests.support.async_waiting import until

pytestmark = pytest.mark.contract

X = np.array([[0.5, -1.25, 3.0, 1e-3]], dtype=np.float32)
TEXTS = ["grüße", "and\x1b[2J", ""]
CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 4 }
input { name: "texts" data_type: TYPE_STRING dims: -1 }
output { name: "doubled" data_type: TYPE_FP32 dims: 4 }
output { name: "half" data_type: TYPE_FP16 dims: 4 }
output { name: "echo" data_type: TYPE_STRING dims: -1 }
"""


def model() -> bytes:
    """Doubles numbers, in two sizes, and repeats texts."""
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "two"], ["doubled"]),
            helper.make_node("Cast", ["doubled"], ["half"], to=TensorProto.FLOAT16),
            helper.make_node("Identity", ["texts"], ["echo"]),
        ],
        "both",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("texts", TensorProto.STRING, ["batch", "count"]),
        ],
        [
            helper.make_tensor_value_info("doubled", TensorProto.FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("half", TensorProto.FLOAT16, ["batch", 4]),
            helper.make_tensor_value_info("echo", TensorProto.STRING, ["batch", "count"]),
        ],
        [numpy_helper.from_array(np.array(2, dtype=np.float32), "two")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


@dataclass(frozen=True)
class Server:
    """Triton with the model `both`."""

    triton: Triton

    def infer(self, *args: str | Path, protocol: str = "http", name: str = "both") -> Result:
        """Run `conch infer` at it."""
        port = self.triton.http if protocol == "http" else self.triton.grpc
        where = ["--address", f"127.0.0.1:{port}", "--protocol", protocol]
        return CliRunner().invoke(app, ["infer", name, *where, *map(str, args)])

    async def load(self) -> None:
        """Load the model as soon as Triton lets itself be told."""

        async def ask() -> bool | None:
            async with aiohttp.ClientSession(headers={ADMIN_KEY_HEADER: ADMIN_KEY}) as session:
                try:
                    url = f"http://127.0.0.1:{self.triton.http}/v2/repository/models/both/load"
                    async with session.post(url) as response:
                        assert response.status == 200, await response.text()
                        return True
                except aiohttp.ClientConnectionError:
                    return None

        await until("Triton", ask)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("infer")
    written(folder / "repository" / "both" / "config.pbtxt", CONFIG.encode())
    written(folder / "repository" / "both" / "7" / "model.onnx", model())
    triton = Triton(folder, folder / "repository")
    triton.start()
    try:
        server = Server(triton)
        asyncio.run(server.load())
        yield server
    finally:
        triton.stop(9)


def golden(path: Path, **changes: Any) -> Path:
    """A golden set of two samples; the second's answers are what the model gives."""
    x, texts = X[0], TEXTS
    inputs = {"x": {"content": x.tolist(), "shape": [4]}, "texts": {"content": texts, "shape": [3]}}
    half = base64.b64encode((x * 2).astype(np.float16).tobytes()).decode()
    right = {
        "doubled": {"content": (x * 2).tolist(), "shape": [4]},
        "half": {"b64": half, "shape": [4]},
        "echo": {"content": texts, "shape": [3]},
    }
    other = {"x": {"content": [0, 0, 0, 0], "shape": [4]}, "texts": ["a"]}
    body = {"data": [other, inputs], "validation_data": [{}, right | changes]}
    path.write_text(json.dumps(body))
    return path


BOTH = pytest.mark.parametrize("protocol", ["http", "grpc"])


@BOTH
def test_json_of_the_protocol_is_sent_and_the_answer_printed(server: Server, tmp_path: Path, protocol: str) -> None:
    rows = [
        {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": X[0].tolist()},
        {"name": "texts", "datatype": "BYTES", "shape": [1, 3], "data": TEXTS},
    ]
    path = written(tmp_path / "inputs.json", json.dumps({"inputs": rows}).encode())
    done = server.infer("--input", path, protocol=protocol)
    assert done.exit_code == 0, done.output
    first, *lines = done.stdout.splitlines()
    assert first.startswith("both version 7 answered in ")
    assert first.endswith(f" ms ({protocol}, {done_address(server, protocol)})")
    assert lines == [
        "doubled FP32 [1, 4]",
        "  [[ 1.0e+00, -2.5e+00,  6.0e+00,  2.0e-03]]",
        "half FP16 [1, 4]",
        "  [[ 1.0e+00, -2.5e+00,  6.0e+00,  2.0e-03]]",
        "echo BYTES [1, 3]",
        r"  [['grüße', 'and\x1b[2J', '']]",
    ]


def done_address(server: Server, protocol: str) -> str:
    return f"127.0.0.1:{server.triton.http if protocol == 'http' else server.triton.grpc}"


@BOTH
def test_the_short_form_takes_its_datatypes_from_the_model(server: Server, tmp_path: Path, protocol: str) -> None:
    path = written(tmp_path / "inputs.json", json.dumps({"x": [[1, 2, 3, 4]], "texts": [["a"]]}).encode())
    done = server.infer("--input", path, "-o", "json", protocol=protocol)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["model"], told["version"], told["protocol"], told["golden"]) == ("both", "7", protocol, None)
    assert told["milliseconds"] > 0
    assert told["outputs"] == [
        {"name": "doubled", "datatype": "FP32", "shape": [1, 4], "data": [2, 4, 6, 8]},
        {"name": "half", "datatype": "FP16", "shape": [1, 4], "data": [2, 4, 6, 8]},
        {"name": "echo", "datatype": "BYTES", "shape": [1, 1], "data": ["a"]},
    ]


@BOTH
def test_npz_goes_in_and_out(server: Server, tmp_path: Path, protocol: str) -> None:
    np.savez(tmp_path / "inputs.npz", x=np.repeat(X, 2, axis=0), texts=np.array([["a", "b"], ["c", "d"]]))
    done = server.infer("--input", tmp_path / "inputs.npz", "-o", tmp_path / "out.npz", protocol=protocol)
    assert done.exit_code == 0, done.output
    with np.load(tmp_path / "out.npz", allow_pickle=True) as outputs:
        np.testing.assert_array_equal(outputs["doubled"], np.repeat(X, 2, axis=0) * 2)
        assert outputs["half"].dtype == np.float16
        assert outputs["echo"].tolist() == [[b"a", b"b"], [b"c", b"d"]]


@BOTH
def test_the_golden_set_is_replayed_and_compared(server: Server, tmp_path: Path, protocol: str) -> None:
    path = golden(tmp_path / "golden.json")
    done = server.infer("--golden", path, "--sample", "1", protocol=protocol)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-4:] == [
        "golden sample 1: as expected",
        "  doubled: ok, largest deviation 0, allowed 0.0001 + 0.001 of the expected value",
        "  half: ok, largest deviation 0, allowed 0.0001 + 0.001 of the expected value",
        "  echo: ok, equal",
    ]
    assert server.infer("--golden", path, protocol=protocol).stdout.splitlines()[-1] == (
        "golden sample 0: the set holds no answers"
    )


@BOTH
def test_a_wrong_answer_is_told_and_exits_with_1(server: Server, tmp_path: Path, protocol: str) -> None:
    wrong = {"content": [1.0, -2.5, 6.0, 0.5], "shape": [4]}
    path = golden(tmp_path / "golden.json", doubled=wrong, echo={"content": ["x", *TEXTS[1:]], "shape": [3]})
    done = server.infer("--golden", path, "--sample", "1", protocol=protocol)
    assert done.exit_code == 1
    assert "golden sample 1: DIFFERS" in done.stdout
    assert "  doubled: DIFFERS, 1 of 4 values differ, largest deviation 0.498, allowed 0.0001 + 0.001" in done.stdout
    assert "  echo: DIFFERS, 1 of 3 values differ" in done.stdout
    told = json.loads(server.infer("--golden", path, "--sample", "1", "-o", "json", protocol=protocol).stdout)
    assert told["golden"]["asExpected"] is False


@BOTH
def test_tritons_errors_are_printed_as_they_are(server: Server, tmp_path: Path, protocol: str) -> None:
    path = written(tmp_path / "inputs.json", json.dumps({"x": [[1, 2, 3, 4]]}).encode())
    incomplete = server.infer("--input", path, protocol=protocol)
    assert (incomplete.exit_code, incomplete.stdout) == (2, "")
    assert "expected 2 inputs but got 1 inputs for model 'both'" in incomplete.stderr
    unknown = server.infer("--input", path, protocol=protocol, name="nobody")
    assert unknown.exit_code == 2
    assert "Request for unknown model: 'nobody' is not found" in unknown.stderr


@BOTH
def test_without_inputs_it_says_what_the_model_takes(server: Server, protocol: str) -> None:
    done = server.infer(protocol=protocol)
    assert done.exit_code == 2
    assert "The model both takes x FP32 [-1, 4], texts BYTES [-1, -1]." in done.stderr


@BOTH
def test_nobody_at_the_address_is_said(tmp_path: Path, protocol: str) -> None:
    path = written(tmp_path / "inputs.json", b"{}")
    args = ["infer", "both", "--address", "127.0.0.1:1", "--protocol", protocol, "--input", str(path)]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 2
    assert "127.0.0.1:1" in done.stderr
