"""With how many bits a graph calculates, told from its operators and weights, whoever made it."""

from enum import Enum, auto
from typing import Final

from onnx import ModelProto, TensorProto

_INT8: Final = frozenset(
    {"QuantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}
    | {"MatMulInteger", "MatMulIntegerToFloat", "ConvInteger", "QLinearMatMul", "QLinearConv"}
)


class Precision(Enum):
    """The coarsest arithmetic in a graph."""

    INT8 = auto()
    HALF = auto()
    FULL = auto()


def precision_of(graph: ModelProto) -> Precision:
    """INT8 where anything is quantised, HALF where weights are FP16 or BF16."""
    if any(node.op_type in _INT8 for node in graph.graph.node):
        return Precision.INT8
    if any(each.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16) for each in graph.graph.initializer):
        return Precision.HALF
    return Precision.FULL
