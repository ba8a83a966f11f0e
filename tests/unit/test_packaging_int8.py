"""Quantised graphs: what is quantised, that it is the same every time, and what is refused with which words."""

import hashlib
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from conch.packaging.errors import PackagingError
from conch.packaging.graph.clean import to_bytes
from conch.packaging.graph.session import Runner
from conch.packaging.optimise.calibration import (
    DEFAULT_SAMPLES_MOST,
    CalibrationBatches,
    check_calibration,
    default_calibration,
)
from conch.packaging.optimise.int8 import dynamic_int8, static_int8
from conch.packaging.optimise.not_made import NotMade
from conch.packaging.optimise.quiet_tools import quiet_tools
from conch.packaging.tensors import Array, Tensors
from tests.unit import optimise_graphs as graphs

X = graphs.clusters(100)[0]
IMAGES = graphs.normal(7, 40, 1, 8, 8)
IDS = np.random.default_rng(8).integers(0, 100, (40, 12))


def outputs(graph: ModelProto, inputs: Tensors) -> Array:
    return next(iter(Runner(to_bytes(graph)).run(inputs).values()))


@pytest.mark.parametrize(
    ("make", "inputs", "found"),
    [
        (graphs.classifier, {"x": X}, "MatMulInteger"),
        (graphs.convolutional, {"x": IMAGES}, "ConvInteger"),
        (graphs.recurrent, {"x": graphs.normal(9, 40, 6, 4)}, "DynamicQuantizeLSTM"),
        (graphs.textual, {"ids": IDS}, "MatMulInteger"),
    ],
    ids=["classifier", "convolutional", "recurrent", "textual"],
)
def test_dynamic(make: Callable[[], ModelProto], inputs: dict[str, Array], found: str) -> None:
    graph = make()
    quantised = dynamic_int8(graph)
    assert found in graphs.operators(quantised)
    assert quantised.graph.input == graph.graph.input
    assert quantised.graph.output == graph.graph.output
    exact, near = outputs(graph, inputs), outputs(quantised, inputs)
    assert 0 < np.abs(exact - near).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (graphs.classifier, {"x": X}),
        (graphs.convolutional, {"x": IMAGES}),
        (graphs.textual, {"ids": IDS}),
    ],
    ids=["classifier", "convolutional", "textual"],
)
def test_static(make: Callable[[], ModelProto], inputs: dict[str, Array]) -> None:
    graph = make()
    quantised = static_int8(graph, inputs)
    assert {"QuantizeLinear", "DequantizeLinear"} <= graphs.operators(quantised)
    assert quantised.graph.input == graph.graph.input
    assert quantised.graph.output == graph.graph.output
    onnx.checker.check_model(quantised, full_check=True)
    exact, near = outputs(graph, inputs), outputs(quantised, inputs)
    assert 0 < np.abs(exact - near).max() < 0.1 * np.abs(exact).max()


def test_static_weights_are_int8_per_channel_and_activations_uint8() -> None:
    quantised = static_int8(graphs.classifier(), {"x": X})
    stored = {each.name: numpy_helper.to_array(each) for each in quantised.graph.initializer}
    dequantised = {node.input[0]: stored[node.input[1]] for node in quantised.graph.node if node.op_type[0] == "D"}
    weight = next(name for name in dequantised if name.startswith("w1"))
    assert stored[weight].dtype == np.int8
    assert dequantised[weight].shape == (graphs.HIDDEN,)
    zeros = [stored[node.input[2]].dtype for node in quantised.graph.node if node.op_type == "QuantizeLinear"]
    assert set(zeros) == {np.dtype(np.uint8)}


def test_what_only_carries_values_stays_in_int8() -> None:
    quantised = static_int8(graphs.pooled(), {"x": IMAGES})
    nodes = {node.name: node for node in quantised.graph.node}
    assert "relu" not in nodes
    made_by = {name: node.op_type for node in quantised.graph.node for name in node.output}
    for name in ("pool", "flatten"):
        assert made_by[nodes[name].input[0]] == "DequantizeLinear"
        taker = next(node for node in quantised.graph.node if nodes[name].output[0] in node.input)
        assert taker.op_type == "QuantizeLinear"
    # Sums do not.
    assert made_by[nodes["sum"].output[0]] == "Add"
    takers = [node.op_type for node in quantised.graph.node if nodes["sum"].output[0] in node.input]
    assert "QuantizeLinear" not in takers


def test_the_original_is_left_as_it_was() -> None:
    graph = graphs.classifier()
    before = to_bytes(graph)
    dynamic_int8(graph)
    static_int8(graph, {"x": X})
    assert to_bytes(graph) == before


def batches(graph: ModelProto, calibration: Tensors) -> list[dict[str, Array]]:
    reader = CalibrationBatches(graph, calibration)
    return list(iter(reader.get_next, None))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_model_for_a_fixed_batch_is_calibrated_in_such_batches(count: int) -> None:
    graph = graphs.classifier(batch=2)
    assert {batch["x"].shape for batch in batches(graph, {"x": X[:count]})} == {(2, graphs.FEATURES)}
    assert "QuantizeLinear" in graphs.operators(static_int8(graph, {"x": X[:count]}))


def test_a_model_without_a_common_axis_is_calibrated_on_the_data_as_it_is() -> None:
    graph = two_inputs()
    del graph.graph.input[0].type.tensor_type.shape.dim[0]
    data = {"a": A[0], "b": B}
    (only,) = batches(graph, data)
    assert only == data
    check_calibration(graph, data)
    with pytest.raises(
        PackagingError, match=r"'a' does not fit the graph: expected float32\[4\], found float32\[9,4\]"
    ):
        check_calibration(graph, {"a": A, "b": B})


def test_only_domains_that_are_used_are_imported() -> None:
    assert [each.domain for each in static_int8(graphs.classifier(), {"x": X}).opset_import] == [""]
    domains = {each.domain for each in dynamic_int8(graphs.recurrent()).opset_import}
    assert domains == {"", "com.microsoft"}


def test_same_bytes_and_nothing_of_this_machine_in_any_process() -> None:
    program = """
import hashlib, logging, sys, tempfile
from conch.packaging.graph.clean import to_bytes
from conch.packaging.optimise.int8 import dynamic_int8, static_int8
from tests.unit import optimise_graphs as graphs
made = [dynamic_int8(graphs.classifier()), static_int8(graphs.classifier(), {"x": graphs.clusters(100)[0]})]
for each in made:
    print(hashlib.sha256(to_bytes(each)).hexdigest())
assert not logging.getLogger().handlers
assert not [each for each in sys.path if "onnxruntime" in each]
"""
    here = [dynamic_int8(graphs.classifier()), static_int8(graphs.classifier(), {"x": X})]
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "4711", "PYTHONPATH": f"{root / 'operator'}:{root}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stderr, ran.returncode) == ("", 0)
    assert ran.stdout.split() == [hashlib.sha256(to_bytes(each)).hexdigest() for each in here]
    for each in here:
        assert not any(word in to_bytes(each) for word in (b"/tmp", b"conch", tempfile.gettempdir().encode(), b".onnx"))


def with_an_unfriendly_bias() -> ModelProto:
    """onnxruntime warns of a bias that is calculated, through the root logger."""
    graph = graphs.classifier()
    graph.graph.node.insert(0, helper.make_node("ReduceMean", ["b2", "axis"], ["mean"], name="mean", keepdims=1))
    graph.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "axis"))
    graph.graph.node.insert(1, helper.make_node("ReduceMean", ["x"], ["of_x"], name="of_x", keepdims=0))
    graph.graph.node.insert(2, helper.make_node("Add", ["of_x", "b2"], ["calculated"], name="calculated"))
    graph.graph.node[-1].input[2] = "calculated"
    return graph


def test_nothing_is_written_or_logged_or_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    caplog.set_level(logging.DEBUG)
    dynamic_int8(with_an_unfriendly_bias())
    static_int8(with_an_unfriendly_bias(), {"x": X})
    assert list(tmp_path.iterdir()) == []
    assert tuple(capfd.readouterr()) == ("", "")
    assert [each.getMessage() for each in caplog.records] == []


def test_logging_of_others_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), list(root.filters), list(sys.path), logging.getLogger("onnxruntime").level)
    with quiet_tools():
        root.warning("mine")
        logging.getLogger("conch").warning("ours")
        logging.getLogger("onnxruntime.quantization").warning("theirs")
    assert [each.getMessage() for each in caplog.records] == ["mine", "ours"]
    assert (list(root.handlers), list(root.filters), list(sys.path), logging.getLogger("onnxruntime").level) == before


def test_a_quantiser_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(given: Path, made: Path, **_: Any) -> None:
        raise AssertionError(f"cannot read {given}, will not write {made}\nmore lines")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("onnxruntime.quantization.quantize_dynamic", fail)
    with pytest.raises(NotMade, match=r"cannot quantise this graph: AssertionError: cannot read .*dynamic") as caught:
        dynamic_int8(graphs.classifier())
    assert str(tmp_path) not in str(caught.value)
    assert "more lines" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(PackagingError, match=r"needs room .* in .*gone.*: No such file.*set TMPDIR") as caught:
        dynamic_int8(graphs.classifier())
    assert not isinstance(caught.value, NotMade)


def test_nothing_to_quantise() -> None:
    graph = graphs.nothing_to_multiply()
    with pytest.raises(NotMade, match=r"nothing to quantise: the graph has no MatMul, .*LSTM.*, only Relu"):
        dynamic_int8(graph)
    with pytest.raises(NotMade, match=r"nothing to quantise: the graph has no MatMul, Gemm or Conv, only Relu"):
        static_int8(graph, {"x": graphs.normal(1, 8, 4)})


def test_a_graph_that_is_quantised_already() -> None:
    once = static_int8(graphs.classifier(), {"x": X})
    with pytest.raises(NotMade, match="quantised already: it has DequantizeLinear, QuantizeLinear"):
        dynamic_int8(once)
    with pytest.raises(NotMade, match="quantised already"):
        static_int8(once, {"x": X})


def test_an_opset_that_knows_no_scales_per_channel() -> None:
    with pytest.raises(NotMade, match=r"scales per channel need opset 13, and the graph has 12: export it"):
        static_int8(graphs.classifier(opset=12), {"x": X})


def two_inputs() -> ModelProto:
    return graphs.model(
        [helper.make_node("MatMul", ["a", "w"], ["m"], name="m"), helper.make_node("Add", ["m", "b"], ["y"], name="y")],
        [graphs.value("a", graphs.F, "batch", 4), graphs.value("b", graphs.F, "batch", 2)],
        [graphs.value("y", graphs.F, "batch", 2)],
        {"w": graphs.normal(1, 4, 2)},
    )


A, B = graphs.normal(1, 9, 4), graphs.normal(2, 9, 2)
NAN = A.copy()
NAN[3, 1] = np.nan


@pytest.mark.parametrize(
    ("calibration", "words"),
    [
        ({}, r"no calibration data: static int8 needs samples of a = float32\[batch,4\], b = .*--calibration"),
        ({"a": A}, r"no tensor 'b': expected float32\[batch,2\], found only a"),
        ({"a": A, "b": B, "c": B}, r"'c' that is no input .*expected only a = .*, found float32\[9,2\]; leave it out"),
        ({"a": A[:, :3], "b": B}, r"'a' does not fit the graph: expected float32\[batch,4\], found float32\[9,3\]$"),
        ({"a": A[0], "b": B}, r"'a' does not fit the graph: expected float32\[batch,4\], found float32\[4\]$"),
        (
            {"a": A, "b": B.astype(np.float64)},
            r"'b' does not fit .*: expected float32\[batch,2\], found float64\[9,2\]; convert it .*'float32'",
        ),
        ({"a": A, "b": B[:8]}, r"'b' has 8 samples: expected 9, as in 'a'"),
        ({"a": A[:0], "b": B[:0]}, r"'a' has no samples: expected one at least"),
        ({"a": NAN, "b": B}, r"'a' has NaN or infinity in sample 3: expected finite"),
    ],
    ids=["none", "missing", "unknown", "shape", "rank", "type", "lengths", "empty", "nan"],
)
def test_calibration_data_that_does_not_fit(calibration: dict[str, Array], words: str) -> None:
    with pytest.raises(PackagingError, match=words) as caught:
        static_int8(two_inputs(), calibration)
    assert not isinstance(caught.value, NotMade)


def test_calibration_data_that_fits() -> None:
    check_calibration(two_inputs(), {"b": B, "a": A})


@pytest.mark.parametrize("count", [1, 31, 32, 33, 70])
def test_batches_have_one_shape_and_every_sample(count: int) -> None:
    x = X[:count]
    read = [batch["x"] for batch in batches(graphs.classifier(), {"x": x})]
    assert {each.shape for each in read} == {(32, graphs.FEATURES)}
    assert {row.tobytes() for each in read for row in each} == {row.tobytes() for row in x}


def test_default_calibration() -> None:
    many = {"x": np.arange(5000, dtype=np.float32)[:, None]}
    thinned = default_calibration(None, {}, {"x": X[:0]}, many)
    assert thinned is not None
    assert len(thinned["x"]) == DEFAULT_SAMPLES_MOST
    assert thinned["x"][[0, -1], 0].tolist() == [0, 4999]
    few = default_calibration({"x": X[:3]}, many)
    assert few is not None
    assert np.array_equal(few["x"], X[:3])
    assert default_calibration(None, {"x": X[:0]}) is None
