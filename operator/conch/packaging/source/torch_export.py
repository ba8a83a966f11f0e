"""A torch module as an ONNX graph, by the one way that does not go wrong silently.

`torch.export.export` with named axes comes first: it refuses what it cannot keep dynamic, where `torch.onnx.export` of
a module writes the example's sizes into the graph without a word. The example has two samples at least, for torch takes
a length of 1 as a constant.
"""

import importlib
import itertools
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any, Final

from onnx import GraphProto, ModelProto

from conch.packaging.errors import PackagingError
from conch.packaging.graph.axes import BATCH, dims_of, inputs_of, require_batch_axis
from conch.packaging.request import DynamicAxis
from conch.packaging.source import torch_extra
from conch.packaging.source.torch_module import at_line, described, is_users, shown
from conch.packaging.source.torch_run import named_leaves, outputs_of, require_rows, run_module, serving, torch_tensors
from conch.packaging.tensors import Tensors, repeated

with torch_extra():
    import torch

    # torch.onnx needs it, and would miss it only at the end.
    importlib.import_module("onnxscript")

__all__ = ["OPSET", "export_module", "run_module"]

OPSET: Final = 20
"""Every onnxruntime since 1.17 runs it; that of NVIDIA's image 24.10 is 1.19."""
_LEAST_ROWS: Final = 2
_LEAST_DYNAMIC: Final = 2
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")
_FILE_LINE: Final = re.compile(r'File "([^"]+)", line (\d+)')
_PLACEHOLDER: Final = "__conch_output_"
_VIOLATED: Final = re.compile(r"Constraints violated \(([^)]*)\)")
_NO_FUNCTION: Final = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'")


def export_module(module: torch.nn.Module, example: Tensors, dynamic: Sequence[DynamicAxis] = ()) -> ModelProto:
    """The module in evaluation mode as a graph with axis 0 of everything and the axes in `dynamic` free.

    Inputs bear the names of forward's parameters; outputs those of a dict's keys or a named tuple's fields, else
    `output`, or `output_0` and so on. Raises PackagingError naming the line, the tensor or the operator.
    """
    tensors = torch_tensors(module, repeated(example, max(_LEAST_ROWS, require_rows(example))))
    shapes = _dynamic_shapes(tensors, dynamic)
    with serving(module):
        outputs = outputs_of(module, tensors, single=require_rows(example) == 1)
        if clash := sorted(set(outputs) & set(tensors)):
            raise PackagingError(f"{', '.join(clash)}: both an input and an output have this name; rename the output")
        with _quiet():
            program = _exported(module, tensors, shapes)
            graph = _converted(program, list(tensors), outputs)
    _require_batch(graph)
    return graph


def _dynamic_shapes(
    tensors: dict[str, torch.Tensor], dynamic: Sequence[DynamicAxis]
) -> dict[str, dict[int, "torch.export.Dim"]]:
    """Which axes are free, as torch.export takes it. Axes of one name have one length."""
    batch = torch.export.Dim(BATCH)
    shapes = {name: {0: batch} for name in tensors}
    dims: dict[str, tuple[DynamicAxis, torch.export.Dim]] = {}
    for axis in dynamic:
        where = f"the dynamic axis {axis.input}:{axis.axis}={axis.name}"
        if axis.input not in tensors:
            raise PackagingError(f"{where}: the inputs are {', '.join(tensors)}")
        shape = tuple(tensors[axis.input].shape)
        if not 1 <= axis.axis < len(shape):
            raise PackagingError(
                f"{where}: {axis.input} has {len(shape)} axes in the example; of these 0 is the batch, the others can "
                "be named here"
            )
        if not axis.name.isidentifier() or axis.name == BATCH:
            raise PackagingError(f"{where}: take another name, of letters and digits, and not {BATCH}")
        length = shape[axis.axis]
        if length < _LEAST_DYNAMIC or not axis.least <= length <= axis.most:
            raise PackagingError(
                f"{where}: its length in the example is {length}; give one of at least {_LEAST_DYNAMIC} (torch takes 1 "
                f"for a constant) and within {axis.least}..{axis.most}"
            )
        first, dim = dims.setdefault(axis.name, (axis, torch.export.Dim(axis.name, min=axis.least, max=axis.most)))
        if (first.least, first.most) != (axis.least, axis.most):
            raise PackagingError(
                f"{where}: {first.input}:{first.axis} has the same name, so they have one length; give both one range"
            )
        shapes[axis.input][axis.axis] = dim
    return shapes


def _exported(
    module: torch.nn.Module, tensors: dict[str, torch.Tensor], shapes: dict[str, dict[int, Any]]
) -> torch.export.ExportedProgram:
    """The module as torch's own graph; raises PackagingError for what cannot be kept dynamic."""
    try:
        return torch.export.export(module, (), kwargs=tensors, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        text = str(error)
        if "data-dependent" in text:
            raise PackagingError(
                f"the module's way depends on the data{at_line(error)}, and a graph has one way for all; write the "
                "branch with torch.where, or torch.cond(condition, then, otherwise, inputs); give a loop a fixed count"
            ) from error
        if violated := _VIOLATED.search(text):
            raise PackagingError(_why_frozen(module, tensors, violated[1], text)) from error
        raise PackagingError(
            f"the module cannot be exported{at_line(error)}: {described(error)}; write that line with torch's own "
            "functions of tensors"
        ) from error


def _why_frozen(module: torch.nn.Module, tensors: dict[str, torch.Tensor], axis: str, text: str) -> str:
    """What to tell about an axis that the module's code, as torch has found, does not leave free."""
    names = [name.strip() for name in axis.split(",")]
    if BATCH not in names:
        fixes = " ".join(text.partition("Suggested fixes:")[2].partition("\n\n")[0].split())
        return (
            f"the module does not take every length of {axis} in the range given for it"
            f"{f' (torch suggests: {fixes})' if fixes else ''}; give --dynamic the range that its code takes"
        )
    where = ""
    try:
        # torch names the axis and no line; what fails with another number of samples does.
        module(**{name: torch.cat([tensor, tensor[:1]]) for name, tensor in tensors.items()})
    except Exception as error:
        where = f"; with one sample more the module fails{at_line(error)}: {described(error)}"
    rows = next(iter(tensors.values())).shape[0]
    return (
        f"the batch axis is frozen: the module's code makes it a constant ({rows}, as in the example){where}; take the "
        "batch size from the input, x.shape[0], where a shape or a state is made"
    )


def _converted(
    program: torch.export.ExportedProgram, inputs: list[str], outputs: dict[str, torch.Tensor]
) -> ModelProto:
    """torch's graph as ONNX, with these names; raises PackagingError naming the operator that has no ONNX form."""
    spec = program.call_spec.out_spec
    # The order in which torch keeps the outputs is its own.
    order = named_leaves(spec.unflatten(list(range(spec.num_leaves))))
    names = sorted(order, key=lambda name: int(order[name]))
    if set(names) != set(outputs):
        raise PackagingError(
            f"the module returns {', '.join(outputs)}, but {', '.join(names)} when it is exported; return the same "
            "both times"
        )
    placeholders = [f"{_PLACEHOLDER}{index}" for index in range(len(names))]
    try:
        exported = torch.onnx.export(
            program,
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=inputs,
            output_names=placeholders,
            verbose=False,
        )
    except Exception as error:
        text = _ANSI.sub("", str(error))
        operator = _NO_FUNCTION.search(text)
        if operator is None:
            raise PackagingError(f"the module's graph has no ONNX form: {_reason(text)}") from error
        raise PackagingError(
            f"{operator[1].replace('.', '::')} has no ONNX form{_used_at(program, operator[1])}; write that line with "
            "other functions of torch, or leave the step to the client or to a step of its own in a pipeline"
        ) from error
    graph: ModelProto = exported.model_proto
    _rename_values(graph, dict(zip(placeholders, names, strict=True)))
    return graph


def _rename_values(model: ModelProto, names: dict[str, str]) -> None:
    """Give outputs their names.

    torch names values within the graph after operators, and does not look whether an output has that name already: a
    dict with the key `linear` gives a graph that no runtime takes. Those within make way.
    """
    used = {name for graph in _graphs(model.graph) for name in _value_names(graph)}
    renamed = dict(names)
    for name in names.values():
        if name in used:
            renamed[name] = next(free for i in itertools.count(1) if (free := f"{name}_inner{i}") not in used)
    for graph in _graphs(model.graph):
        for tensor in graph.initializer:
            tensor.name = renamed.get(tensor.name, tensor.name)
        for value in (*graph.value_info, *graph.input, *graph.output):
            value.name = renamed.get(value.name, value.name)
        for node in graph.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            node.output[:] = [renamed.get(name, name) for name in node.output]


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and those within its nodes (the ways of torch.cond)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for within in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _graphs(within)


def _value_names(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.output
    yield from (tensor.name for tensor in graph.initializer)
    yield from (value.name for value in graph.input)


def _used_at(program: torch.export.ExportedProgram, operator: str) -> str:
    """` at model.py:12`: the user's line that calls an operator of the graph."""
    # Some operators come up only when torch takes others apart.
    for graph in (program.graph, program.run_decompositions().graph):
        for node in graph.nodes:
            frames = _FILE_LINE.findall(node.meta.get("stack_trace") or "") if operator in str(node.target) else []
            for file, line in reversed(frames):
                if is_users(file):
                    return f" at {shown(file)}:{line}"
    return ""


def _reason(text: str) -> str:
    """The line that says why, in the exporter's long account."""
    lines = [line.strip() for line in text.partition("Exception summary")[2].splitlines() or text.splitlines()]
    return next((line for line in lines if line.startswith("<class")), (text.strip() or "unknown").splitlines()[0])


def _require_batch(graph: ModelProto) -> None:
    """Check that axis 0 of each output is the one of the inputs; raises PackagingError."""
    require_batch_axis(graph)
    (batch,) = {dims_of(value)[0].dim_param for value in inputs_of(graph.graph)}
    for output in graph.graph.output:
        if (axis := dims_of(output)[0].dim_param) != batch:
            raise PackagingError(
                f"axis 0 of the output {output.name!r} is not the batch ({axis}, where the inputs have {batch}); "
                "return one row per sample"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """What torch prints and warns about while it exports (graphs, ANSI escapes, its own deprecations) goes in here."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
