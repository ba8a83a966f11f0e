"""Whether the inputs and outputs of a configuration can be, and are those of the graph."""

import pytest
from tritonclient.grpc.model_config_pb2 import DataType

from conch.api.tensors import DataType as ProtocolType
from conch.triton.config_pbtxt import parse_config
from conch.triton.errors import InvalidModelError
from conch.triton.onnx_signature import Signature, Tensor
from conch.triton.tensor_check import check_graph, check_tensors, config_type, is_told, type_name
from conch.triton.tensors import DATATYPES

GRAPH = Signature(
    inputs=(Tensor(name="x", element_type=1, dims=(-1, 4)), Tensor(name="n", element_type=7, dims=(-1,))),
    outputs=(Tensor(name="y", element_type=1, dims=(-1, 2, -1)),),
)
FIXED = Signature(
    inputs=(Tensor(name="x", element_type=1, dims=(1, 4)),), outputs=(Tensor(name="y", element_type=1, dims=(1,)),)
)


def test_the_apis_datatypes_are_the_protocols() -> None:
    assert {each.value for each in ProtocolType} == set(DATATYPES)
    assert {type_name(config_type(each)): each.value for each in ProtocolType} == {name: name for name in DATATYPES}
    assert {config_type(each) for each in ProtocolType} == set(DataType.values()) - {0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'input { name: "x" data_type: TYPE_FP32 dims: [ 3, 0 ] }',
            "the input 'x' has an axis of 0; give each axis its",
        ),
        ('output { name: "y" data_type: TYPE_FP32 dims: -2 }', "the output 'y' has an axis of -2"),
        ('input { name: "x" dims: 1 reshape { shape: 0 } }', "the input 'x' has an axis of 0"),
        ('input { name: "x" data_type: 99 dims: 1 }', "the input 'x' has the data_type 99, which is none of Triton's"),
    ],
)
def test_what_cannot_be_is_told(text: str, message: str) -> None:
    with pytest.raises(InvalidModelError, match=message):
        check_tensors(parse_config(text))


def test_what_can_be_passes() -> None:
    check_tensors(parse_config('input { name: "x" dims: [ -1, 4 ] reshape { } } output { name: "y" }'))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('input { name: "x" data_type: TYPE_FP32 dims: 1 } output { name: "y" data_type: TYPE_FP32 dims: 1 }', True),
        ('input { name: "x" data_type: TYPE_FP32 dims: 1 }', False),
        ('input { name: "x" data_type: TYPE_FP32 } output { name: "y" data_type: TYPE_FP32 dims: 1 }', False),
        ('input { name: "x" dims: 1 } output { name: "y" data_type: TYPE_FP32 dims: 1 }', False),
        ("", False),
    ],
)
def test_what_is_told(text: str, told: bool) -> None:
    assert is_told(parse_config(text)) is told


@pytest.mark.parametrize(
    "text",
    [
        "",
        'max_batch_size: 4 input { name: "x" data_type: TYPE_FP32 dims: 4 }',
        'max_batch_size: 4 input { name: "n" data_type: TYPE_INT64 dims: 1 reshape { } }',
        'max_batch_size: 4 output { name: "y" data_type: TYPE_FP32 dims: [ 2, 7 ] }',
        'input { name: "x" data_type: TYPE_FP32 dims: [ -1, 4 ] }',
        'input { name: "x" data_type: TYPE_FP32 dims: [ 16, 4 ] }',
        'input { name: "x" data_type: TYPE_FP32 dims: 4 }',  # Triton finds the batch axis by itself
        'input { name: "x" }',
        'max_batch_size: 4 input { name: "x" data_type: TYPE_FP32 dims: 1 allow_ragged_batch: true }',
        'max_batch_size: 4 input { name: "made" } batch_input { target_name: "x" source_input: "made" }',
    ],
)
def test_a_configuration_that_is_the_graphs_passes(text: str) -> None:
    check_graph(parse_config(text), GRAPH)


@pytest.mark.parametrize(
    ("text", "graph", "message"),
    [
        ('input { name: "q" }', GRAPH, "names the input 'q', which the graph does not have; it has x, n"),
        ('output { name: "x" }', GRAPH, "names the output 'x', which the graph does not have; it has y"),
        (
            'input { name: "x" data_type: TYPE_INT64 }',
            GRAPH,
            "'x' is TYPE_INT64 in the configuration, and TYPE_FP32 in",
        ),
        (
            'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: 5 }',
            GRAPH,
            r"dims \[5\] in the configuration beside the batch axis that max_batch_size 8 means, and \[-1, 4\] in the",
        ),
        (
            'max_batch_size: 8 input { name: "x" dims: [ -1, 4 ] }',
            GRAPH,
            r"the dims \[-1, 4\] in the configuration bes",
        ),
        ('input { name: "x" dims: [ 1, 2, 4 ] }', GRAPH, r"the dims \[1, 2, 4\] in the configuration, and \[-1, 4\]"),
        (
            'max_batch_size: 8 input { name: "x" dims: 4 }',
            FIXED,
            "max_batch_size is 8, but the graph takes no batches: axis 0 of 'x' is not symbolic",
        ),
    ],
)
def test_what_contradicts_the_graph_is_told(text: str, graph: Signature, message: str) -> None:
    with pytest.raises(InvalidModelError, match=message):
        check_graph(parse_config(text), graph)
