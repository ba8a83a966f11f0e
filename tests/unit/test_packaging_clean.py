"""A packaged graph says nothing of where it was made, names its axes, and is the same file each time."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from conch.packaging.errors import PackagingError
from conch.packaging.graph import clean as module
from conch.packaging.graph.axes import batch_axis
from conch.packaging.graph.clean import clean, to_bytes
from conch.packaging.graph.messages import messages
from conch.packaging.graph.session import Runner
from conch.packaging.request import DynamicAxis

TRACE = 'File "/home/ada/secret/net.py", line 7, in forward: return self.linear(x)'


def value(name: str, dims: list[str | int | None], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)


def weights(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape), name)


def deep() -> ModelProto:
    """`y = double(x @ w)` where x is positive on average, else a loop: every kind of message that onnx has."""
    then = helper.make_graph(
        [helper.make_node("Double", ["product"], ["doubled"], domain="ours")],
        "then",
        [],
        [value("doubled", ["s77", 2])],
        value_info=[value("inner", ["s77", 2])],
    )
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["state", "step"], ["next"]),
        ],
        "body",
        [value("turn", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("state", ["s77", 2])],
        [value("go_on", [], TensorProto.BOOL), value("next", ["s77", 2])],
        [weights("step", 2)],
    )
    otherwise = helper.make_graph(
        [
            helper.make_node("Constant", [], ["turns"], value=numpy_helper.from_array(np.array(2), "turns")),
            helper.make_node("Constant", [], ["on"], value=numpy_helper.from_array(np.array(True), "on")),
            helper.make_node("Loop", ["turns", "on", "product"], ["looped"], body=body),
        ],
        "otherwise",
        [],
        [value("looped", ["s77", 2])],
    )
    nonzero = helper.make_sparse_tensor(weights("w", 2), numpy_helper.from_array(np.array([1, 4])), [4, 2])
    main = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "dense"], ["product"]),
            helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
            helper.make_node("Greater", ["mean", "zero"], ["positive"]),
            helper.make_node("If", ["positive"], ["y"], then_branch=then, else_branch=otherwise),
        ],
        "main",
        [value("x", ["s77", 4])],
        [value("y", ["s77", 2])],
        [weights("dense", 4, 2), numpy_helper.from_array(np.array(0, np.float32), "zero")],
        value_info=[value("product", ["s77", 2]), value("flat", ["2*s77 + s3"])],
        sparse_initializer=[nonzero],
    )
    double = helper.make_function(
        "ours", "Double", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 20)]
    )
    double.value_info.append(value("b", ["s77", 2]))
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ours", 1)]
    return helper.make_model(main, opset_imports=opsets, functions=[double], ir_version=10)


def plant(model: ModelProto) -> int:
    """Write the trace everywhere that the format has room for it; how many places that were."""
    planted = 0
    for message in list(messages(model)):
        fields = message.DESCRIPTOR.fields_by_name
        if "doc_string" in fields:
            message.doc_string = TRACE  # type: ignore[attr-defined]  # its descriptor says so
            planted += 1
        if "metadata_props" in fields:
            message.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=TRACE)  # type: ignore[attr-defined]  # its descriptor says so
            planted += 1
    return planted


def reachable(kind: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Every kind of message that can be in a message of this kind."""
    if kind.name not in found:
        found[kind.name] = kind
        for field in kind.fields:
            if field.message_type is not None:
                reachable(field.message_type, found)
    return found


def test_nothing_planted_anywhere_is_left() -> None:
    model = deep()
    assert plant(model) > 60
    # The model of these tests has every kind of message of the format that can bear a trace.
    there = {message.DESCRIPTOR.name for message in messages(model)}
    for name, kind in reachable(ModelProto.DESCRIPTOR, {}).items():
        if set(kind.fields_by_name) & {"doc_string", "metadata_props"}:
            assert name in there
    assert b"/home/ada" in model.SerializeToString()

    content = to_bytes(clean(model))

    assert b"/home/ada" not in content
    assert b"stack_trace" not in content
    assert content == to_bytes(clean(deep()))


def test_where_it_was_made_does_not_change_the_bytes() -> None:
    here, there = deep(), deep()
    here.metadata_props.add(key="path", value="/a/net.py")
    there.metadata_props.add(key="path", value="/elsewhere/net.py")
    assert to_bytes(clean(here)) == to_bytes(clean(there))


def test_the_argument_stays_as_it_was() -> None:
    model = deep()
    plant(model)
    before = model.SerializeToString()
    clean(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("sign", [1, -1])
def test_it_computes_what_it_did(sign: int) -> None:
    x = sign * np.arange(12, dtype=np.float32).reshape(3, 4)
    model = deep()
    before = Runner(model.SerializeToString()).run({"x": x})
    plant(model)
    after = Runner(to_bytes(clean(model))).run({"x": x})
    np.testing.assert_array_equal(after["y"], before["y"])
    assert after["y"].any()


def test_cleaning_twice_changes_nothing() -> None:
    once = clean(deep())
    assert to_bytes(clean(once)) == to_bytes(once)


def test_what_only_training_needs_goes() -> None:
    model = deep()
    model.training_info.add().algorithm.name = "/home/ada/train.py"
    assert b"/home/ada" not in to_bytes(clean(model))


def dims(values: Any, name: str) -> list[str | int]:
    found = next(entry for entry in values if entry.name == name)
    return [dim.dim_param or dim.dim_value for dim in found.type.tensor_type.shape.dim]


def every_dim(model: ModelProto) -> set[str]:
    return {m.dim_param for m in messages(model) if isinstance(m, onnx.TensorShapeProto.Dimension) and m.dim_param}


def test_the_batch_axis_is_named_batch_everywhere() -> None:
    model = clean(deep())
    assert dims(model.graph.input, "x") == ["batch", 4]
    assert dims(model.graph.output, "y") == ["batch", 2]
    assert dims(model.graph.value_info, "flat") == ["2*batch + s3"]
    assert every_dim(model) == {"batch", "2*batch + s3"}


def single(inputs: dict[str, list[str | int | None]], outputs: dict[str, list[str | int | None]]) -> ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Identity", [next(iter(inputs))], [name]) for name in outputs],
        "g",
        [value(name, shape) for name, shape in inputs.items()],
        [value(name, shape) for name, shape in outputs.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_batch_axes_of_several_names_and_of_none_become_one() -> None:
    model = single({"a": ["n", 4], "b": [None, 4]}, {"y": ["unk__1", 4]})
    model.graph.input.append(value("old", [4, 4]))
    model.graph.input[2].type.tensor_type.shape.dim[0].dim_value = -1  # as old exporters write it
    cleaned = clean(model)
    assert [dims(cleaned.graph.input, name)[0] for name in ("a", "b", "old")] == ["batch"] * 3
    assert dims(cleaned.graph.output, "y") == ["batch", 4]


def test_a_name_that_looks_like_a_difference() -> None:
    cleaned = clean(single({"x": ["batch-size", 4]}, {"y": ["batch-size", 4]}))
    assert dims(cleaned.graph.output, "y") == ["batch", 4]
    assert batch_axis(cleaned)


def test_a_graph_that_takes_no_batches_keeps_its_names() -> None:
    cleaned = clean(single({"a": ["n", 4]}, {"y": [1, 4]}))
    assert dims(cleaned.graph.input, "a") == ["n", 4]


def test_a_time_major_graph_is_not_made_to_look_right() -> None:
    cleaned = clean(single({"x": ["seq", "batch", 4]}, {"y": ["seq", "batch", 4]}))
    assert dims(cleaned.graph.input, "x") == ["seq", "batch", 4]
    with pytest.raises(PackagingError, match="axis 1 of input 'x' is named 'batch'"):
        batch_axis(cleaned)


def test_rows_that_are_no_samples_are_not_named_batch() -> None:
    cleaned = clean(single({"x": ["n", "s", 4]}, {"y": ["2*n", 4], "z": ["s", 4]}))
    assert dims(cleaned.graph.output, "y") == ["2*batch", 4]
    assert dims(cleaned.graph.output, "z") == ["s", 4]
    with pytest.raises(PackagingError, match=r"'y'.*'2\*batch'"):
        batch_axis(cleaned)


def seq(input_name: str, axis: int = 1, name: str = "seq") -> DynamicAxis:
    return DynamicAxis(input=input_name, axis=axis, name=name, least=1, most=64)


def test_dynamic_axes_get_their_names() -> None:
    model = single({"ids": ["s77", "s3"], "mask": ["s77", None]}, {"y": ["s77", "s3 + 1"]})
    cleaned = clean(model, dynamic=[seq("ids"), seq("mask")])
    assert dims(cleaned.graph.input, "ids") == ["batch", "seq"]
    assert dims(cleaned.graph.input, "mask") == ["batch", "seq"]
    assert dims(cleaned.graph.output, "y") == ["batch", "seq + 1"]


def test_names_may_change_places() -> None:
    model = single({"x": ["n", "a", "b"]}, {"y": ["n", "a", "b"]})
    cleaned = clean(model, dynamic=[seq("x", 1, "b"), seq("x", 2, "a")])
    assert dims(cleaned.graph.output, "y") == ["batch", "b", "a"]


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        (seq("idz"), "no input 'idz'.*inputs: ids, x"),
        (seq("ids", 0), "axis 0 of input 'ids'.*always 'batch'"),
        (seq("ids", 3), "axes 0 to 2"),
        (seq("ids", 1, "batch"), "cannot be the dynamic axis 'batch'"),
        (seq("ids", 2), "axis 2 of input 'ids' is fixed at 16"),
        (seq("ids", 1, "other"), "named 'other' already"),
    ],
)
def test_a_dynamic_axis_that_is_none(axis: DynamicAxis, message: str) -> None:
    model = single({"ids": ["n", "s", 16], "x": ["n", "other"]}, {"y": ["n", 16]})
    with pytest.raises(PackagingError, match=message):
        clean(model, dynamic=[axis])


def test_a_dynamic_axis_that_is_the_batch() -> None:
    model = single({"x": ["s77", "s77"]}, {"y": ["s77", 4]})
    with pytest.raises(PackagingError, match="same axis as 'batch'; export the model with an example whose lengths"):
        clean(model, dynamic=[seq("x")])


@pytest.mark.parametrize(("ir_version", "inputs"), [(10, ["x"]), (3, ["x", "w"])])
def test_weights_are_no_inputs(ir_version: int, inputs: list[str]) -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [value("x", ["n", 4]), value("w", [4, 2])],
        [value("y", ["n", 2])],
        [weights("w", 4, 2)],
    )
    opset = 20 if ir_version == 10 else 8
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    cleaned = clean(model)
    assert [entry.name for entry in cleaned.graph.input] == inputs
    assert dims(cleaned.graph.input, "x") == ["batch", 4]
    onnx.checker.check_model(cleaned)


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    model = single({"x": ["n", 4]}, {"y": ["n", 4]})
    onnx.save(add_weights(model), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    apart = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    with pytest.raises(PackagingError, match="'w' lie in another file"):
        to_bytes(apart)


def test_weights_that_lay_in_another_file_leave_no_trace(tmp_path: Path) -> None:
    model = add_weights(single({"x": ["n", 4]}, {"y": ["n", 4]}))
    content = to_bytes(clean(model))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    assert to_bytes(clean(onnx.load(tmp_path / "m.onnx"))) == content


def add_weights(model: ModelProto) -> ModelProto:
    model.graph.initializer.append(weights("w", 4, 2))
    return model


def test_more_than_one_file_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    model = add_weights(single({"x": ["n", 4]}, {"y": ["n", 4]}))
    monkeypatch.setattr(module, "_MOST_BYTES", len(to_bytes(model)))
    assert to_bytes(model)
    monkeypatch.setattr(module, "_MOST_BYTES", len(to_bytes(model)) - 1)
    with pytest.raises(PackagingError, match="more than 2 GiB"):
        to_bytes(model)
