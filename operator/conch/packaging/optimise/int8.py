"""Eight bits instead of thirty-two: weights, and what is multiplied with them.

| | dynamic | static |
| --- | --- | --- |
| scale of activations | from the batch at hand | from calibration data, fixed |
| operators | MatMul, Gemm, Conv, LSTM, Gather, … | MatMul, Gemm, Conv, and what carries values between them |
| a sample's answer | depends on its neighbours in the batch | does not |
| runs on | CPU | CPU, and TensorRT (Q/DQ nodes) |

A processor without VNNI adds pairs of U8 x S8 products in 16 bits, which may saturate: scores measured here are those
of processors like this one.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import onnx
from onnx import ModelProto

from conch.packaging.errors import PackagingError
from conch.packaging.graph.clean import clean, to_bytes
from conch.packaging.optimise.calibration import CalibrationBatches, check_calibration
from conch.packaging.optimise.not_made import NotMade
from conch.packaging.optimise.quiet_tools import quiet_tools
from conch.packaging.tensors import Tensors

_MULTIPLYING: Final = ("MatMul", "Gemm", "Conv")
_CARRYING: Final = ("Relu", "MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice")
"""They only choose among values, so between two that multiply they lose nothing in int8; a Relu even becomes a part of
the scale before it. Without them a convolutional graph is 1.7 times as slow. All else (sums, norms, softmax) stays in
FP32: in int8 it costs a transformer eight percent of its accuracy."""
_OPSET_LEAST: Final = 13
"""Scales per channel begin there; the quantiser writes them below as well, into a graph that is not valid."""
_QUANTISED: Final = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeLSTM"}
    | {"MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv"}
)
_MAIN_DOMAINS: Final = frozenset({"", "ai.onnx"})


def dynamic_int8(graph: ModelProto) -> ModelProto:
    """Weights in int8, activations scaled anew with every batch; the same graph gives the same bytes.

    Raises NotMade where there is nothing to quantise or the quantiser fails.
    """
    _refuse_quantised(graph)
    with _workroom() as folder:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        made = folder / "dynamic.onnx"
        quantize_dynamic(_prepared(graph, folder), made, weight_type=QuantType.QInt8)
        result = onnx.load(made)
    return _finished(result, graph, "MatMul, Gemm, Conv, LSTM or Gather with constant weights")


def static_int8(graph: ModelProto, calibration: Tensors) -> ModelProto:
    """Weights in int8 per channel, activations in uint8 with fixed scales; the same arguments give the same bytes.

    Raises PackagingError where the calibration data does not fit, NotMade where there is nothing to quantise or the
    quantiser fails.
    """
    check_calibration(graph, calibration)
    _refuse_quantised(graph)
    opset = next((each.version for each in graph.opset_import if each.domain in _MAIN_DOMAINS), 0)
    if opset < _OPSET_LEAST:
        raise NotMade(
            f"scales per channel need opset {_OPSET_LEAST}, and the graph has {opset}: export it with a newer one"
        )
    with _workroom() as folder:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        made = folder / "static.onnx"
        quantize_static(
            _prepared(graph, folder),
            made,
            CalibrationBatches(graph, calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*_MULTIPLYING, *_CARRYING],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        result = onnx.load(made)
    return _finished(result, graph, "MatMul, Gemm or Conv")


def _prepared(graph: ModelProto, folder: Path) -> Path:
    """Shapes inferred and constants folded: without it nothing of an LSTM is quantised, whose weights are computed."""
    from onnxruntime.quantization import quant_pre_process

    # By path: given a graph, onnxruntime moves its weights out of it.
    given, prepared = folder / "given.onnx", folder / "prepared.onnx"
    given.write_bytes(to_bytes(graph))
    # Symbolic inference would need sympy; onnx's own inference finds what the quantiser asks for.
    quant_pre_process(given, prepared, skip_symbolic_shape=True)
    return prepared


@contextmanager
def _workroom() -> Iterator[Path]:
    """A temporary folder that is gone afterwards; whatever the quantiser raises inside becomes NotMade."""
    try:
        with tempfile.TemporaryDirectory(prefix="conch-int8-") as name, quiet_tools():
            try:
                yield Path(name)
            except (OSError, PackagingError):
                raise
            except Exception as error:  # the quantiser raises everything from AssertionError to onnxruntime's own
                lines = str(error).replace(name, "").strip().splitlines() or [""]
                raise NotMade(f"onnxruntime cannot quantise this graph: {type(error).__name__}: {lines[0]}") from error
    except OSError as error:
        raise PackagingError(
            f"quantising needs room for several copies of the model in {tempfile.gettempdir()}: "
            f"{error.strerror or error}; make room there or set TMPDIR"
        ) from error


def _refuse_quantised(graph: ModelProto) -> None:
    found = sorted(_operators(graph) & _QUANTISED)
    if found:
        raise NotMade(f"the graph is quantised already: it has {', '.join(found)}")


def _finished(result: ModelProto, graph: ModelProto, wanted: str) -> ModelProto:
    """The quantiser's graph with the original's signature, and nothing in it that the quantiser left there."""
    if not _operators(result) & _QUANTISED:
        raise NotMade(
            f"there is nothing to quantise: the graph has no {wanted}, only {', '.join(sorted(_operators(graph)))}"
        )
    for values, original in ((result.graph.input, graph.graph.input), (result.graph.output, graph.graph.output)):
        del values[:]
        values.extend(original)
    used = {node.domain for node in result.graph.node} | _MAIN_DOMAINS | _inner_domains(result.graph)
    opsets = [each for each in result.opset_import if each.domain in used]
    del result.opset_import[:]
    result.opset_import.extend(opsets)
    return clean(result)


def _operators(graph: ModelProto) -> set[str]:
    return {node.op_type for node in graph.graph.node}


def _inner_domains(graph: onnx.GraphProto) -> set[str]:
    """Domains in the bodies of If, Loop and Scan."""
    bodies = [
        body
        for node in graph.node
        for attribute in node.attribute
        for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else []))
    ]
    return {node.domain for body in bodies for node in body.node}.union(*map(_inner_domains, bodies))
