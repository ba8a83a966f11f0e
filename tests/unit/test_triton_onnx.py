"""The configuration of a bare graph follows from its inputs and outputs, read without the weights."""

import contextlib
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from conch.triton.errors import InvalidModelError
from conch.triton.onnx_config import onnx_config
from conch.triton.onnx_signature import Signature, Tensor, read_signature

Dims = list[str | int | None]


def graph(inputs: dict[str, tuple[int, Dims]], outputs: dict[str, tuple[int, Dims]], weights: int = 3) -> bytes:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [weights], b"\0" * 4 * weights, raw=True)
    made = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info(n, t, d) for n, (t, d) in inputs.items()],
        [helper.make_tensor_value_info(n, t, d) for n, (t, d) in outputs.items()],
        [tensor],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model.metadata_props.add(key="k", value="v")
    return bytes(model.SerializeToString())


def signature(path: Path, content: bytes) -> Signature:
    file = path / "model.onnx"
    file.write_bytes(content)
    return read_signature(file)


def config_of(path: Path, content: bytes, **kw: Any) -> Any:
    return onnx_config(signature(path, content), filename="model.onnx", **kw)


F, I64, TEXT = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def test_symbolic_batch_axis(tmp_path: Path) -> None:
    content = graph(
        {"x": (F, ["n", 4]), "ids": (I64, [None, "seq"]), "w": (F, [3])}, {"y": (TEXT, ["n"]), "z": (F, ["n", 2])}
    )
    config = config_of(tmp_path, content)
    assert (config.backend, config.default_model_filename, config.max_batch_size) == ("onnxruntime", "model.onnx", 32)
    assert config.HasField("dynamic_batching")
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [("x", 11, [4]), ("ids", 9, [-1])]
    scalar, vector = config.output
    assert (scalar.data_type, list(scalar.dims), scalar.HasField("reshape"), list(scalar.reshape.shape)) == (
        13,
        [1],
        True,
        [],
    )
    assert (list(vector.dims), vector.HasField("reshape")) == ([2], False)


@pytest.mark.parametrize("fixed", [{"x": (F, [1, 4])}, {"x": (F, ["n", 4]), "k": (F, [5])}])
def test_a_fixed_axis_anywhere_means_no_batches(tmp_path: Path, fixed: dict[str, tuple[int, Dims]]) -> None:
    content = graph(fixed, {"y": (F, ["n", 2])})
    config = config_of(tmp_path, content)
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (0, False)
    assert list(config.output[0].dims) == [-1, 2]
    with pytest.raises(InvalidModelError, match="not symbolic"):
        config_of(tmp_path, content, max_batch_size=8)


@pytest.mark.parametrize(("size", "batching"), [(0, False), (1, False), (8, True)])
def test_the_objects_wish(tmp_path: Path, size: int, batching: bool) -> None:
    config = config_of(tmp_path, graph({"x": (F, ["n", 4])}, {"y": (F, ["n"])}), max_batch_size=size)
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (size, batching)
    assert list(config.input[0].dims) == ([4] if size else [-1, 4])


def test_what_triton_cannot_serve(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="is a scalar"):
        config_of(tmp_path, graph({"x": (F, [])}, {"y": (F, [1])}))
    with pytest.raises(InvalidModelError, match="element type 14"):
        config_of(tmp_path, graph({"x": (TensorProto.COMPLEX64, [1])}, {"y": (F, [1])}))
    with pytest.raises(InvalidModelError, match="at least one"):
        config_of(tmp_path, graph({}, {"y": (F, [1])}))
    shapeless = onnx.ModelProto.FromString(graph({"x": (F, [1])}, {"y": (F, [1])}))
    shapeless.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(InvalidModelError, match="has no shape"):
        config_of(tmp_path, shapeless.SerializeToString())
    shapeless.graph.output[0].type.sequence_type.SetInParent()
    with pytest.raises(InvalidModelError, match="zipmap"):
        config_of(tmp_path, shapeless.SerializeToString())


TYPES = st.sampled_from([F, I64, TEXT, TensorProto.BOOL, TensorProto.BFLOAT16])
DIMS = st.lists(st.one_of(st.sampled_from(["n", None]), st.integers(1, 9)), min_size=1, max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    shapes=st.dictionaries(st.text("abc", min_size=1), st.tuples(TYPES, DIMS), min_size=1), weights=st.integers(1, 5000)
)
def test_the_walk_reads_what_the_onnx_library_reads(
    tmp_path: Path, shapes: dict[str, tuple[int, Dims]], weights: int
) -> None:
    content = graph(shapes, shapes, weights)
    model = onnx.ModelProto.FromString(content)
    expected = tuple(
        Tensor(
            name=value.name,
            element_type=value.type.tensor_type.elem_type,
            dims=tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim),
        )
        for value in model.graph.input
    )
    assert signature(tmp_path, content) == Signature(inputs=expected, outputs=expected)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=300), cut=st.integers(0, 400))
def test_damaged_files_raise_nothing_else(tmp_path: Path, content: bytes, cut: int) -> None:
    whole = graph({"x": (F, ["n", 4])}, {"y": (F, ["n"])})
    for damaged in (content, whole[: min(cut, len(whole) - 1)], whole[:cut] + content):
        with contextlib.suppress(InvalidModelError):
            signature(tmp_path, damaged)


def test_a_cut_off_file_is_named(tmp_path: Path) -> None:
    whole = graph({"x": (F, ["n", 4])}, {"y": (F, ["n"])})
    with pytest.raises(InvalidModelError, match=r"model\.onnx is not a valid ONNX file"):
        signature(tmp_path, whole[:-10])
    with pytest.raises(InvalidModelError, match=r"model\.onnx is not a valid ONNX file"):
        signature(tmp_path, b"")


def test_weights_are_not_read_into_memory(tmp_path: Path) -> None:
    """A sparse file of 3 GB with the weights in the middle: reading it all would take seconds and gigabytes."""
    inner = graph({"x": (F, ["n", 4])}, {"y": (F, ["n"])})
    model = onnx.ModelProto.FromString(inner)
    graph_bytes = model.graph.SerializeToString()
    size = 3 << 30
    tensor_length = _varint(size + len(b"\x4a") + len(_varint(size)))
    head = b"\x2a" + tensor_length + b"\x4a" + _varint(size)
    total = len(head) + size + len(graph_bytes)
    file = tmp_path / "model.onnx"
    with file.open("wb") as out:
        out.write(b"\x3a" + _varint(total) + head)
        out.seek(size, 1)
        out.write(graph_bytes)
    before = _resident_mib()
    assert [tensor.name for tensor in read_signature(file).inputs] == ["x"]
    assert _resident_mib() - before < 5


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _resident_mib() -> float:
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024
