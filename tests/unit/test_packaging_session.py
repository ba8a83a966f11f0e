"""A graph runs on this machine, and whatever does not fit is named before onnxruntime is asked."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from conch.packaging.errors import PackagingError
from conch.packaging.graph.session import Port, Runner
from tests.contract.models import classifier, scores_of

F, I64, TEXT = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any] | None = None) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights or [])
    made: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(made.SerializeToString())


def value(name: str, kind: int, *dims: str | int | None) -> Any:
    return helper.make_tensor_value_info(name, kind, dims)


def embedding() -> bytes:
    """`rows[batch, seq, 2]` of a table with five ids."""
    table = numpy_helper.from_array(np.arange(10, dtype=np.float32).reshape(5, 2), "table")
    return model(
        [helper.make_node("Gather", ["table", "ids"], ["rows"])],
        [value("ids", I64, "batch", "seq")],
        [value("rows", F, "batch", "seq", 2)],
        [table],
    )


def echo(kind: int = TEXT) -> bytes:
    return model([helper.make_node("Identity", ["x"], ["y"])], [value("x", kind, None, 2)], [value("y", kind, None, 2)])


def test_it_answers_what_onnxruntime_answers() -> None:
    answer = Runner(classifier()).run({"x": X})
    assert answer.keys() == {"scores"}
    np.testing.assert_array_equal(answer["scores"], scores_of(classifier(), X))


def test_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(classifier())
    np.testing.assert_array_equal(
        Runner(file, threads=2).run({"x": X})["scores"], Runner(classifier()).run({"x": X})["scores"]
    )


def test_inputs_and_outputs() -> None:
    runner = Runner(embedding())
    assert runner.inputs == (Port(name="ids", dtype=np.dtype(np.int64), dims=("batch", "seq")),)
    assert runner.outputs == (Port(name="rows", dtype=np.dtype(np.float32), dims=("batch", "seq", 2)),)
    assert runner.outputs[0].shape == "float32[batch, seq, 2]"
    (text,) = Runner(echo()).inputs
    assert (text.dtype, text.dims, text.shape) == (np.dtype(object), ("", 2), "string[?, 2]")


def test_whether_it_takes_batches() -> None:
    assert Runner(embedding()).takes_batches
    fixed = model([helper.make_node("Relu", ["x"], ["y"])], [value("x", F, 1, 4)], [value("y", F, 1, 4)])
    assert not Runner(fixed).takes_batches


@pytest.mark.parametrize(
    "texts",
    [
        np.array([["né", "b"]]),
        np.array([["né", "b"]], dtype=object),
        np.array([["né".encode(), b"b"]]),
        np.array([["né".encode(), "b"]], dtype=object),
    ],
)
def test_texts_in_every_form(texts: Any) -> None:
    assert Runner(echo()).run({"x": texts})["y"].tolist() == [["né", "b"]]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (np.array([["a", 7]], dtype=object), r"has a int at \[0, 1\]"),
        (np.array([[b"a", b"\xff"]], dtype=object), r"bytes at \[0, 1\] that are no UTF-8"),
    ],
)
def test_what_is_no_text(texts: Any, message: str) -> None:
    with pytest.raises(PackagingError, match=message):
        Runner(echo()).run({"x": texts})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "no array for the input 'x'.*given: none"),
        ({"X": X}, "no array for the input 'x'.*given: 'X'"),
        ({"x": X, "mask": X}, r"no input 'mask'; it has 'x' float32\[batch, 4\]"),
        (
            {"x": X.astype(np.float64)},
            r"'x' is float64\[3, 4\], the graph takes float32\[batch, 4\].*astype\('float32'\)",
        ),
        ({"x": X[:, :3]}, r"'x' is float32\[3, 3\], the graph takes float32\[batch, 4\]"),
        ({"x": X[0]}, r"'x' is float32\[4\], the graph takes float32\[batch, 4\]"),
    ],
)
def test_inputs_that_do_not_fit(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(PackagingError, match=message):
        Runner(classifier()).run(inputs)


def test_arrays_in_another_order_in_memory() -> None:
    np.testing.assert_array_equal(
        Runner(classifier()).run({"x": np.asfortranarray(X)})["scores"], Runner(classifier()).run({"x": X})["scores"]
    )


def test_a_request_that_fails_while_it_runs() -> None:
    with pytest.raises(PackagingError) as caught:
        Runner(embedding()).run({"ids": np.array([[1, 7]])})
    assert "'ids' [1, 2]" in str(caught.value)
    assert "idx=7 must be within the inclusive range [-5,4]" in str(caught.value)
    assert "onnxruntime_src" not in str(caught.value)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (classifier()[:60], "cannot load the graph"),
        (b"", "cannot load the graph"),
        (classifier().replace(b"Softmax", b"Xoftmax"), "Xoftmax"),
    ],
)
def test_a_graph_that_cannot_be_loaded(broken: bytes, message: str) -> None:
    with pytest.raises(PackagingError, match=message) as caught:
        Runner(broken)
    assert "[ONNXRuntimeError]" not in str(caught.value)


def test_a_newer_graph() -> None:
    newer = ModelProto.FromString(classifier())
    newer.ir_version = 99
    with pytest.raises(PackagingError, match="cannot load the graph: Unsupported model IR version: 99, max supported"):
        Runner(newer.SerializeToString())


def test_what_is_no_tensor() -> None:
    sequence = helper.make_tensor_sequence_value_info("y", F, None)
    content = model([helper.make_node("SequenceConstruct", ["x"], ["y"])], [value("x", F, "n")], [sequence])
    with pytest.raises(PackagingError, match=r"'y' is a seq\(tensor\(float\)\).*zipmap=False"):
        Runner(content)


def test_onnxruntime_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PackagingError, match=r"onnxruntime is needed.*pip install 'conch\[package\]'"):
        Runner(classifier())
