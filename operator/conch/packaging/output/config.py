"""The `config.pbtxt` of a packaged graph, as conch/triton/onnx_config.py derives it, with its name and labels.

Left out on purpose: `instance_group` (what runs it is the deployment's to say), `version_policy` (the operator's), and
`model_warmup`: a request that fails while it warms a model up kills the whole server, and the golden set, which the
agent replays after every load, warms it up too.
"""

from typing import Any, Final

from onnx import ModelProto, ValueInfoProto
from tritonclient.grpc import model_config_pb2

from conch.packaging.errors import PackagingError
from conch.packaging.graph.axes import dims_of, inputs_of, is_symbolic
from conch.triton.errors import InvalidModelError
from conch.triton.layout import DEFAULT_ONNX
from conch.triton.onnx_config import onnx_config
from conch.triton.onnx_signature import Signature, Tensor

LABELS_FILE: Final = "labels.txt"
_FLOATS: Final = ("TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_BF16")


def model_config(graph: ModelProto, *, name: str, max_batch_size: int, labels_file: bool) -> Any:
    """The ModelConfig of a graph that is written as `model.onnx`. Raises PackagingError.

    `max_batch_size` is 0 for a graph without a batch axis. With `labels_file`, outputs of scores per class name
    `labels.txt`, by which a request may ask for the classes' names (Triton's classification extension).
    """
    try:
        config = onnx_config(signature_of(graph), filename=DEFAULT_ONNX, max_batch_size=max_batch_size)
    except InvalidModelError as error:
        raise PackagingError(str(error)) from error
    config.name = name
    if labels_file:
        for output in config.output:
            if model_config_pb2.DataType.Name(output.data_type) in _FLOATS and output.dims[-1] > 1:
                output.label_filename = LABELS_FILE
    return config


def signature_of(graph: ModelProto) -> Signature:
    """What onnx_signature.read_signature reads of the graph's file. Raises PackagingError."""
    return Signature(
        inputs=tuple(_tensor(each) for each in inputs_of(graph.graph)),
        outputs=tuple(_tensor(each) for each in graph.graph.output),
    )


def _tensor(value: ValueInfoProto) -> Tensor:
    dims = tuple(-1 if is_symbolic(dim) else dim.dim_value for dim in dims_of(value))
    return Tensor(name=value.name, element_type=value.type.tensor_type.elem_type, dims=dims)
