"""Whether a graph's numbers fit into FP16, which no score on a CPU shows.

onnxruntime has no FP16 arithmetic for most operators on a CPU: it calculates in FP32 and leaves casts between two such
operators out. What becomes infinite on a GPU, and NaN after that, comes out right here.
"""

from typing import Final

import numpy as np
from onnx import ModelProto, TensorProto, shape_inference

from conch.packaging.errors import PackagingError
from conch.packaging.graph.clean import to_bytes
from conch.packaging.graph.session import Runner
from conch.packaging.tensors import Tensors, rows, taken

FP16_MOST: Final = float(np.finfo(np.float16).max)
_MASK: Final = -1e9
"""This and less is how attention masks say "not this one": as FP16's smallest or infinity they say the same."""
_SAMPLES_MOST: Final = 256
_BATCH: Final = 8
"""Small, as every tensor of the graph is kept."""


def beyond_fp16(graph: ModelProto, inputs: Tensors, *, batch: int) -> str | None:
    """Which tensor of an FP32 graph holds a number too large for FP16, in words; None where all fit.

    `inputs` are samples; `batch` is the most that the graph takes at once. At most 256 samples are looked at, spread
    evenly. Raises PackagingError where the graph cannot run on them.
    """
    size = min(max(1, batch), _BATCH)
    count = rows(inputs)
    chosen = taken(inputs, np.unique(np.linspace(0, count - 1, min(count, _SAMPLES_MOST)).astype(np.intp)))
    runner = Runner(to_bytes(_showing_all(graph)))
    largest: dict[str, float] = {}
    for start in range(0, rows(chosen), size):
        for name, array in runner.run(taken(chosen, slice(start, start + size))).items():
            if array.dtype == np.float32:
                numbers = array[np.isfinite(array) & (array > _MASK)]
                largest[name] = max(largest.get(name, 0.0), float(np.abs(numbers).max(initial=0.0)))
    name = max(largest, key=lambda each: largest[each], default="")
    if not largest or largest[name] <= FP16_MOST:
        return None
    return (
        f"the tensor {name!r} reaches {largest[name]:,.0f} on held-out data, and FP16 ends at {FP16_MOST:,.0f}: on a "
        "GPU it would be infinite"
    )


def _showing_all(graph: ModelProto) -> ModelProto:
    """With every FP32 tensor that a node gives among the outputs."""
    try:
        shown = shape_inference.infer_shapes(graph)
    except Exception as error:  # onnx has no common class for what it raises
        raise PackagingError(f"the types of the graph's tensors cannot be inferred: {error}") from error
    outputs = {value.name for value in shown.graph.output}
    given = {name for node in shown.graph.node for name in node.output}
    for value in shown.graph.value_info:
        if value.name in given - outputs and value.type.tensor_type.elem_type == TensorProto.FLOAT:
            # The name alone: onnxruntime finds the shape, and is not held to an inferred one.
            shown.graph.output.add(name=value.name).type.tensor_type.elem_type = TensorProto.FLOAT
    return shown
