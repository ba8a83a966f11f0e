"""A graph that the image would refuse is refused at packaging."""

import pytest
from onnx import ModelProto, TensorProto, helper

from conch.packaging.errors import PackagingError
from conch.packaging.graph.target_image import check_target


def graph(*, opset: int = 20, ml_opset: int = 3, ir: int = 10, function_opset: int = 20) -> ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
    made = helper.make_graph([helper.make_node("Double", ["x"], ["y"], domain="ours")], "g", [x], [y])
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    function = helper.make_function("ours", "Double", ["a"], ["b"], body, [helper.make_opsetid("", function_opset)])
    domains = {"": opset, "ai.onnx.ml": ml_opset, "com.microsoft": 99, "ours": 1}
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    return helper.make_model(made, opset_imports=opsets, functions=[function], ir_version=ir)


@pytest.mark.parametrize(
    ("release", "opset", "ir"),
    [("24.10", 21, 10), ("25.06", 22, 10), ("25.12", 23, 11), ("26.03", 25, 13), ("26.06", 25, 13)],
)
def test_up_to_what_the_image_takes(release: str, opset: int, ir: int) -> None:
    check_target(graph(opset=opset, ir=ir), release)
    with pytest.raises(
        PackagingError, match=f"Triton {release} .*it has opset {opset + 1}, the image takes up to {opset}"
    ):
        check_target(graph(opset=opset + 1, ir=ir), release)
    with pytest.raises(
        PackagingError, match=f"Triton {release} .*it has IR version {ir + 1}, the image takes up to {ir}"
    ):
        check_target(graph(opset=opset, ir=ir + 1), release)


def test_what_this_project_exports_fits_all() -> None:
    for release in ("24.10", "25.06", "25.12", "26.03", "26.06"):
        check_target(graph(opset=20, ir=10), release)


def test_operators_of_other_domains_and_of_functions_count() -> None:
    with pytest.raises(PackagingError, match=r"it has opset 6 of ai.onnx.ml, the image takes up to 5"):
        check_target(graph(ml_opset=6), "25.06")
    with pytest.raises(PackagingError, match="it has opset 23, the image takes up to 22"):
        check_target(graph(function_opset=23), "25.06")


def test_all_reasons_at_once() -> None:
    with pytest.raises(PackagingError, match=r"onnxruntime 1.19.2.*opset 25.*; it has IR version 13"):
        check_target(graph(opset=25, ir=13), "24.10")


@pytest.mark.parametrize("release", ["25.07", "", "latest"])
def test_a_release_that_is_not_known(release: str) -> None:
    with pytest.raises(PackagingError, match=r"known are 24.10, 25.06, 25.12, 26.03, 26.06: take the newest"):
        check_target(graph(), release)
