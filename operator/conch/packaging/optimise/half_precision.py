"""Sixteen bits instead of thirty-two, for GPUs; a CPU gains nothing by it."""

from onnx import ModelProto, TensorProto

from conch.packaging.graph.clean import clean
from conch.packaging.optimise.not_made import NotMade
from conch.packaging.optimise.quiet_tools import quiet_tools


def to_fp16(graph: ModelProto) -> ModelProto:
    """Weights and arithmetic in FP16; inputs and outputs keep their types, so clients see no difference.

    Weights beyond FP16's largest number (65,504) are cut to it, which the score tells; of larger activations fp16_range
    tells.

    Raises NotMade where there is no FP32 weight, or the converter fails.
    """
    if not any(weight.data_type == TensorProto.FLOAT for weight in graph.graph.initializer):
        raise NotMade("there is nothing to convert to fp16: the graph has no FP32 weights")
    copy = ModelProto()
    copy.CopyFrom(graph)
    with quiet_tools():
        from onnxruntime.quantization.onnx_model import ONNXModel
        from onnxruntime.transformers.float16 import convert_float_to_float16

        try:
            converted = convert_float_to_float16(copy, keep_io_types=True)
            # The converter appends its casts at the end; ONNX wants every node after those that it takes from.
            ONNXModel(converted).topological_sort()
        except Exception as error:  # it raises everything from AssertionError to onnx's own
            lines = str(error).strip().splitlines() or [""]
            raise NotMade(f"onnxruntime cannot convert this graph: {type(error).__name__}: {lines[0]}") from error
    return clean(converted)
