"""The Triton configuration of a bare ONNX file, derived from its graph.

Equals what Triton's own auto-complete finds, except that the batch size is explicit (auto-complete takes 4).

| field | rule |
| --- | --- |
| input, output | the graph's, in its order; weights are no inputs; a symbolic dimension is -1 |
| max_batch_size | 0 unless axis 0 of every input and output is symbolic |
| dims | without axis 0 when batched; a scalar per sample is `dims: 1` with an empty reshape |
| dynamic_batching | on when max_batch_size > 1 |
"""

from typing import Any, Final

from tritonclient.grpc.model_config_pb2 import ModelConfig as TritonConfig

from conch.triton.errors import InvalidModelError
from conch.triton.onnx_signature import Signature, Tensor

DEFAULT_MAX_BATCH_SIZE: Final = 32

# onnx.TensorProto.DataType -> inference.DataType, by name so that reading it needs neither.
TYPES: Final = {
    1: "TYPE_FP32",
    2: "TYPE_UINT8",
    3: "TYPE_INT8",
    4: "TYPE_UINT16",
    5: "TYPE_INT16",
    6: "TYPE_INT32",
    7: "TYPE_INT64",
    8: "TYPE_STRING",
    9: "TYPE_BOOL",
    10: "TYPE_FP16",
    11: "TYPE_FP64",
    12: "TYPE_UINT32",
    13: "TYPE_UINT64",
    16: "TYPE_BF16",
}


def onnx_config(signature: Signature, *, filename: str, max_batch_size: int | None = None) -> Any:
    """The configuration of a graph; `max_batch_size` is the object's wish. Raises InvalidModelError."""
    tensors = (*signature.inputs, *signature.outputs)
    if not signature.inputs or not signature.outputs:
        raise InvalidModelError("the graph needs at least one input and one output")
    fixed = [tensor.name for tensor in tensors if not tensor.dims or tensor.dims[0] != -1]
    if fixed and max_batch_size:
        raise InvalidModelError(
            f"the graph takes no batches: axis 0 of {', '.join(fixed)} is not symbolic; export with a dynamic batch "
            "axis or set spec.model.config.maxBatchSize to 0"
        )
    size = 0 if fixed else DEFAULT_MAX_BATCH_SIZE if max_batch_size is None else max_batch_size
    config = TritonConfig(backend="onnxruntime", default_model_filename=filename, max_batch_size=size)
    for tensor in signature.inputs:
        _describe(config.input.add(), tensor, batched=size > 0)
    for tensor in signature.outputs:
        _describe(config.output.add(), tensor, batched=size > 0)
    if size > 1:
        config.dynamic_batching.SetInParent()
    return config


def _describe(entry: Any, tensor: Tensor, *, batched: bool) -> None:
    if tensor.element_type not in TYPES:
        raise InvalidModelError(
            f"the graph's {tensor.name!r} has element type {tensor.element_type}, which Triton cannot serve; "
            "cast it in the graph"
        )
    entry.name = tensor.name
    entry.data_type = (
        TritonConfig.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_name[TYPES[tensor.element_type]].number
    )
    dims = tensor.dims[1:] if batched else tensor.dims
    if dims:
        entry.dims[:] = dims
        return
    if not batched:
        raise InvalidModelError(
            f"the graph's {tensor.name!r} is a scalar, which Triton serves only per sample of a batch; "
            "give it one dimension"
        )
    entry.dims[:] = [1]
    entry.reshape.SetInParent()
