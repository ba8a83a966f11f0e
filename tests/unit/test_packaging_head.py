"""A classifier's head inside the graph: the label and the score, as onnxruntime computes them."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from conch.packaging.errors import PackagingError
from conch.packaging.graph.clean import to_bytes
from conch.packaging.graph.head import LABEL, SCORE, add_head
from conch.packaging.graph.session import Runner
from conch.packaging.request import Head

F = TensorProto.FLOAT
LABELS = ["straße", "b", "c"]
X = np.array([[3, -1, 0, 2], [-4, 1, 0.5, 1], [0, 0, 0, 9]], np.float32)
WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def value(name: str, *dims: str | int | None, kind: int = F) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)


def classifier(
    *last: onnx.NodeProto,
    output: str = "logits",
    kind: int = F,
    opset: int = 20,
    ml_opset: int | None = None,
    more: tuple[onnx.ValueInfoProto, ...] = (),
    batch: str | int = "batch",
) -> ModelProto:
    """`logits = x @ weights`, then what `last` says."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["logits"]), *last],
        "classifier",
        [value("x", batch, 4)],
        [value(output, batch, 3, kind=kind), *more],
        [numpy_helper.from_array(WEIGHTS, "weights")],
    )
    opsets = [helper.make_opsetid("", opset)]
    if ml_opset is not None:
        opsets.append(helper.make_opsetid("ai.onnx.ml", ml_opset))
    return helper.make_model(graph, opset_imports=opsets, ir_version=10 if opset > 10 else 5)


def softmax(logits: Any) -> Any:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def sigmoid(logits: Any) -> Any:
    return 1 / (1 + np.exp(-logits))


def check(model: ModelProto, scores: Any, *, rtol: float = 1e-5) -> None:
    onnx.checker.check_model(model)
    runner = Runner(to_bytes(model))
    assert [port.shape for port in runner.outputs[:2]] == ["string[batch, 1]", "float32[batch, 1]"]
    for size in (1, 3):
        answer = runner.run({"x": X[:size]})
        assert answer[LABEL].tolist() == [[LABELS[index]] for index in scores[:size].argmax(axis=1)]
        np.testing.assert_allclose(answer[SCORE], scores[:size].max(axis=1, keepdims=True), rtol=rtol)


@pytest.mark.parametrize(("head", "function"), [(Head.SOFTMAX, softmax), (Head.SIGMOID, sigmoid)])
@pytest.mark.parametrize(("opset", "ml_opset"), [(20, None), (20, 1), (20, 3), (17, 5), (12, None), (10, None)])
def test_label_and_score(head: Head, function: Any, opset: int, ml_opset: int | None) -> None:
    model = add_head(classifier(opset=opset, ml_opset=ml_opset), head=head, labels=LABELS)
    check(model, function(X @ WEIGHTS))
    assert [output.name for output in model.graph.output] == [LABEL, SCORE]
    # Only what the tests above cannot tell apart: every class is answered somewhere.
    assert len(set(function(X @ WEIGHTS).argmax(axis=1).tolist())) > 1


@pytest.mark.parametrize(
    ("head", "operator", "function"), [(Head.SOFTMAX, "Softmax", softmax), (Head.SIGMOID, "Sigmoid", sigmoid)]
)
def test_scores_that_are_probabilities_already(head: Head, operator: str, function: Any) -> None:
    graph = classifier(helper.make_node(operator, ["logits"], ["scores"]), output="scores")
    model = add_head(graph, head=head, labels=LABELS)
    check(model, function(X @ WEIGHTS))
    assert [node.op_type for node in model.graph.node].count(operator) == 1


def test_probabilities_that_only_change_their_form() -> None:
    """As the conversion to half precision leaves them."""
    nodes = [
        helper.make_node("Softmax", ["logits"], ["scores"]),
        helper.make_node("Cast", ["scores"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Identity", ["half"], ["same"]),
        helper.make_node("Cast", ["same"], ["full"], to=TensorProto.FLOAT),
    ]
    model = add_head(classifier(*nodes, output="full"), head=Head.SOFTMAX, labels=LABELS)
    check(model, softmax(X @ WEIGHTS), rtol=1e-3)


@pytest.mark.parametrize(("head", "operator"), [(Head.SIGMOID, "Softmax"), (Head.SOFTMAX, "Sigmoid")])
def test_the_other_head_than_the_graph_ends_in(head: Head, operator: str) -> None:
    graph = classifier(helper.make_node(operator, ["logits"], ["scores"]), output="scores")
    with pytest.raises(PackagingError, match=f"'scores' is a {operator} already.*take --head {operator.lower()}"):
        add_head(graph, head=head, labels=LABELS)


def test_scores_in_half_precision() -> None:
    cast = helper.make_node("Cast", ["logits"], ["half"], to=TensorProto.FLOAT16)
    model = add_head(classifier(cast, output="half", kind=TensorProto.FLOAT16), head=Head.SOFTMAX, labels=LABELS)
    check(model, softmax((X @ WEIGHTS).astype(np.float16).astype(np.float32)))


def test_other_outputs_stay_in_their_order() -> None:
    double = helper.make_node("Add", ["x", "x"], ["features"])
    graph = classifier(double, more=(value("features", "batch", 4),))
    graph.graph.output.reverse()
    model = add_head(graph, head=Head.SOFTMAX, labels=LABELS)
    onnx.checker.check_model(model)
    assert [output.name for output in model.graph.output] == ["features", LABEL, SCORE]
    np.testing.assert_array_equal(Runner(to_bytes(model)).run({"x": X})["features"], 2 * X)


def test_no_head_changes_nothing_and_the_argument_never_changes() -> None:
    graph = classifier()
    before = to_bytes(graph)
    assert to_bytes(add_head(graph, head=Head.NONE, labels=())) == before
    add_head(graph, head=Head.SOFTMAX, labels=LABELS)
    assert to_bytes(graph) == before


def test_a_fixed_batch_stays_fixed() -> None:
    model = add_head(classifier(batch=3), head=Head.SOFTMAX, labels=LABELS)
    assert [port.shape for port in Runner(to_bytes(model)).outputs] == ["string[3, 1]", "float32[3, 1]"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "needs the names of the classes: --labels"),
        (["a", " ", "c"], "label 2 is empty"),
        (["a", "b", "a"], "label 3, 'a', is there twice"),
        (["a", "b"], "there are 2 labels, but no output with 2 scores per sample: 'logits' has 3"),
        (["a", "b", "c", "d"], "there are 4 labels.*'logits' has 3"),
    ],
)
def test_labels_that_do_not_fit(labels: list[str], message: str) -> None:
    with pytest.raises(PackagingError, match=message):
        add_head(classifier(), head=Head.SOFTMAX, labels=labels)


@pytest.mark.parametrize("dims", [("batch",), ("batch", 5, 3), ("batch", "classes")])
def test_an_output_that_has_no_scores(dims: tuple[str | int, ...]) -> None:
    graph = classifier()
    graph.graph.output[0].CopyFrom(value("logits", *dims))
    with pytest.raises(PackagingError, match=r"'logits' is not FP of shape \[batch, classes\]"):
        add_head(graph, head=Head.SOFTMAX, labels=LABELS)


def test_several_outputs_that_fit() -> None:
    graph = classifier(helper.make_node("Neg", ["logits"], ["z"]), more=(value("z", "batch", 3),))
    with pytest.raises(PackagingError, match="several outputs have 3 scores per sample: 'logits', 'z'"):
        add_head(graph, head=Head.SOFTMAX, labels=LABELS)


@pytest.mark.parametrize("name", [LABEL, SCORE, "conch_head_k"])
def test_a_name_that_is_taken(name: str) -> None:
    with pytest.raises(PackagingError, match=f"a tensor '{name}' already"):
        add_head(classifier(helper.make_node("Neg", ["logits"], [name])), head=Head.SOFTMAX, labels=LABELS)


def test_a_name_that_is_taken_in_a_branch() -> None:
    branch = helper.make_graph([helper.make_node("Neg", ["logits"], [LABEL])], "b", [], [value(LABEL, "batch", 3)])
    node = helper.make_node("If", ["yes"], ["out"], then_branch=branch, else_branch=branch)
    graph = classifier(node, output="out")
    graph.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    with pytest.raises(PackagingError, match="a tensor 'LABEL' already"):
        add_head(graph, head=Head.SOFTMAX, labels=LABELS)


def test_an_opset_that_is_too_old() -> None:
    with pytest.raises(PackagingError, match="needs opset 10 or newer, the graph has 9"):
        add_head(classifier(opset=9), head=Head.SOFTMAX, labels=LABELS)
