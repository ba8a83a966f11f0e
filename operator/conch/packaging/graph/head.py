"""A classifier's labels inside the graph: a caller gets LABEL and SCORE, and no Python runs for it in the server.

Softmax or Sigmoid, then TopK, then ai.onnx.ml's LabelEncoder, all of which onnxruntime has on CPU.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, TensorShapeProto, ValueInfoProto, helper, numpy_helper

from conch.packaging.errors import PackagingError
from conch.packaging.graph.axes import dims_of, inputs_of, is_symbolic
from conch.packaging.request import Head

LABEL: Final = "LABEL"
SCORE: Final = "SCORE"
_OURS: Final = "conch_head_"
_LEAST_OPSET: Final = 10  # TopK takes k as an input since then
_ML: Final = "ai.onnx.ml"
_ML_OPSET: Final = 3
_OPERATORS: Final = {Head.SOFTMAX: "Softmax", Head.SIGMOID: "Sigmoid"}
_FORM_ONLY: Final = frozenset({"Cast", "Identity", "QuantizeLinear", "DequantizeLinear"})
_FLOATS: Final = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


def add_head(graph: ModelProto, *, head: Head, labels: Sequence[str]) -> ModelProto:
    """A copy whose output of scores per class, [batch, classes], is replaced by LABEL (strings) and SCORE (FP32).

    Both are [batch, 1]: the label of the largest score, and that score after softmax or sigmoid. Where the graph ends
    in that very operator it is not applied again. Of several outputs the one whose last axis has as many classes as
    there are labels is taken; the others stay. Raises PackagingError where no output or more than one fits, labels are
    missing or double, or a name is taken.
    """
    copy = ModelProto()
    copy.CopyFrom(graph)
    if head is Head.NONE:
        return copy
    _check_labels(labels)
    scores = _scores(copy.graph, len(labels))
    _check_names(copy.graph)
    opset = next((entry.version for entry in copy.opset_import if entry.domain in {"", "ai.onnx"}), 0)
    if opset < _LEAST_OPSET:
        raise PackagingError(
            f"a head needs opset {_LEAST_OPSET} or newer, the graph has {opset}; convert it with "
            "onnx.version_converter.convert_version, or export it again"
        )
    ml_opset = next((entry.version for entry in copy.opset_import if entry.domain == _ML), None)
    if ml_opset is None:
        copy.opset_import.append(helper.make_opsetid(_ML, _ML_OPSET))

    nodes = []
    value = scores.name
    if scores.type.tensor_type.elem_type != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [value], [value := f"{_OURS}logits"], to=TensorProto.FLOAT))
    if not _ends_in(copy.graph, scores.name, head):
        attributes: dict[str, Any] = {"axis": 1} if head is Head.SOFTMAX else {}
        nodes.append(helper.make_node(_OPERATORS[head], [value], [value := f"{_OURS}scores"], **attributes))
    encoding: dict[str, Any] = {"keys_int64s": range(len(labels)), "values_strings": labels}
    if ml_opset == 1:  # what skl2onnx stamps: the same operator with the keys counted
        encoding = {"classes_strings": labels}
    nodes += [
        helper.make_node("TopK", [value, f"{_OURS}k"], [SCORE, f"{_OURS}class"], axis=1),
        helper.make_node("LabelEncoder", [f"{_OURS}class"], [LABEL], domain=_ML, **encoding),
    ]
    for node in nodes:
        node.name = f"{_OURS}{node.op_type}"
    copy.graph.node.extend(nodes)
    copy.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), f"{_OURS}k"))
    outputs = list(copy.graph.output)
    place = next(index for index, output in enumerate(outputs) if output.name == scores.name)
    batch = dims_of(scores)[0]
    outputs[place : place + 1] = [_column(LABEL, TensorProto.STRING, batch), _column(SCORE, TensorProto.FLOAT, batch)]
    kept = [ValueInfoProto.FromString(output.SerializeToString()) for output in outputs]
    del copy.graph.output[:]
    copy.graph.output.extend(kept)
    return copy


def _check_labels(labels: Sequence[str]) -> None:
    if not labels:
        raise PackagingError("a head needs the names of the classes: --labels labels.txt, one a line, in their order")
    for number, label in enumerate(labels, start=1):
        if not label.strip():
            raise PackagingError(f"label {number} is empty; every line of --labels names one class")
        if label in labels[: number - 1]:
            raise PackagingError(f"label {number}, {label!r}, is there twice; every class needs a name of its own")


def _scores(graph: GraphProto, count: int) -> ValueInfoProto:
    """The output with one score per class."""
    found = {output.name: _classes(output) for output in graph.output}
    fitting = [output for output in graph.output if found[output.name] == count]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise PackagingError(
            f"several outputs have {count} scores per sample: {', '.join(repr(output.name) for output in fitting)}; "
            "leave only one of them in the model's outputs"
        )
    described = ", ".join(
        f"{name!r} has {classes}" if classes else f"{name!r} is not FP of shape [batch, classes]"
        for name, classes in found.items()
    )
    raise PackagingError(
        f"there are {count} labels, but no output with {count} scores per sample: {described}; give --labels as many "
        "lines as the model has classes, or end the model in scores of the shape [batch, classes]"
    )


def _classes(output: ValueInfoProto) -> int | None:
    dims = dims_of(output)
    if output.type.tensor_type.elem_type not in _FLOATS or len(dims) != 2 or is_symbolic(dims[1]):
        return None
    return dims[1].dim_value


def _ends_in(graph: GraphProto, name: str, head: Head) -> bool:
    """Whether the scores come out of the head's operator already; raises PackagingError for the other one."""
    made_by = _made_by(graph, name)
    for other, operator in _OPERATORS.items():
        if other is not head and operator == made_by:
            raise PackagingError(
                f"output {name!r} is a {made_by} already, so --head {head.value} does not belong on it; take --head "
                f"{other.value}"
            )
    return made_by == _OPERATORS[head]


def _made_by(graph: GraphProto, name: str) -> str:
    """The operator that calculates a value, before what only changes its form (half precision ends in a Cast)."""
    makers = {output: node for node in graph.node for output in node.output}
    while name in makers and makers[name].op_type in _FORM_ONLY:
        name = makers[name].input[0]
    return makers[name].op_type if name in makers else ""


def _check_names(graph: GraphProto) -> None:
    for name in _names(graph):
        if name in {LABEL, SCORE} or name.startswith(_OURS):
            raise PackagingError(
                f"the graph has a tensor {name!r} already, which a head would add; rename it in the model, or leave "
                "--head away"
            )


def _names(graph: GraphProto) -> Iterator[str]:
    yield from (value.name for value in inputs_of(graph))
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from node.output
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _names(inner)


def _column(name: str, kind: int, batch: TensorShapeProto.Dimension) -> ValueInfoProto:
    length = (batch.dim_param or None) if is_symbolic(batch) else batch.dim_value
    return helper.make_tensor_value_info(name, kind, [length, 1])
