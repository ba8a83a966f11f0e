"""The model of a step: its configuration and the files to copy, read from a `.py`, an `.onnx` or a model's folder."""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tritonclient.grpc import model_config_pb2
from tritonclient.grpc.model_config_pb2 import ModelConfig as TritonConfig
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from conch.packaging.errors import PackagingError
from conch.packaging.graph.axes import batch_axis
from conch.packaging.graph.clean import clean, to_bytes
from conch.packaging.output.config import model_config
from conch.packaging.output.record import RECORD_FILE
from conch.packaging.pipeline.steps import Pipeline, Step, TensorType
from conch.packaging.source.onnx_file import read_onnx
from conch.triton.config_pbtxt import is_ensemble, parse_config
from conch.triton.errors import InvalidModelError
from conch.triton.layout import CONFIG, DEFAULT_ONNX, ONNX_SUFFIX

PYTHON_SUFFIX: Final = ".py"
_PROGRAM: Final = "model.py"
_VERSION: Final = re.compile(r"[1-9][0-9]*")
_CLASS: Final = "TritonPythonModel"
_NOT_COPIED: Final = (CONFIG, RECORD_FILE)
"""Of a model's folder: they name the model, which is called otherwise here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepModel:
    """What a step runs."""

    config: Any
    """Its config.pbtxt, under the name that it will have beside the ensemble."""
    files: Mapping[str, bytes | Path]
    """By path in its folder, without the config.pbtxt; a Path is to be copied."""


def member_name(pipeline: str, step: str) -> str:
    """The model of a step is called so; clients call the pipeline, and statistics name this."""
    return f"{pipeline}_{step}"


def read_step_model(pipeline: Pipeline, step: Step, folder: Path, *, version: int) -> StepModel:
    """The model that a step names, relative to `folder`. Raises PackagingError."""
    path = folder / step.model
    if not path.exists():
        raise PackagingError(
            f"step {step.name!r} names the model {step.model}, which is not there; give a .py, an .onnx or a model's "
            "folder, relative to the pipeline's file"
        )
    if path.suffix == PYTHON_SUFFIX:
        return _python_model(pipeline, step, path, folder, version)
    for field, written in (("types", step.types), ("files", step.files), ("parameters", step.parameters)):
        if written:
            raise PackagingError(
                f"step {step.name!r} has {field}, which only a {PYTHON_SUFFIX} needs; {step.model} has them itself: "
                "remove them here"
            )
    if path.is_dir():
        return _model_folder(pipeline, step, path, version)
    if path.suffix == ONNX_SUFFIX:
        try:
            return _graph(pipeline, step, path, version)
        except PackagingError as error:
            raise PackagingError(f"step {step.name!r}: {error}") from error
    raise PackagingError(
        f"step {step.name!r} names the model {step.model}, which is neither a {PYTHON_SUFFIX}, an {ONNX_SUFFIX} nor a "
        "model's folder; package it first and give its folder"
    )


def config_types(entries: Any) -> dict[str, TensorType]:
    """The tensors of a configuration's inputs or outputs."""
    name = model_config_pb2.DataType.Name
    return {each.name: TensorType(_triton_name(name(each.data_type)), tuple(each.dims)) for each in entries}


def _triton_name(enum: str) -> str:
    plain = enum.removeprefix("TYPE_")
    return "BYTES" if plain == "STRING" else plain


def _python_model(pipeline: Pipeline, step: Step, path: Path, folder: Path, version: int) -> StepModel:
    _check_program(step, path)
    tensors = {*step.inputs, *step.outputs}
    if missing := sorted(tensors - step.types.keys()):
        raise PackagingError(
            f"step {step.name!r} does not say what its tensor {missing[0]} is; add `types: {{{missing[0]}: ...}}`, "
            'such as "FP32[10]"'
        )
    if unknown := sorted(step.types.keys() - tensors):
        raise PackagingError(f"step {step.name!r} has a type for {unknown[0]}, which is none of its tensors")
    if twice := sorted(step.inputs.keys() & step.outputs.keys()):
        raise PackagingError(f"step {step.name!r} has both an input and an output {twice[0]}; give them two names")
    name = member_name(pipeline.name, step.name)
    config = TritonConfig(name=name, backend="python", max_batch_size=pipeline.max_batch_size)
    for entries, names in ((config.input, step.inputs), (config.output, step.outputs)):
        for tensor in names:
            kind = step.types[tensor]
            enum = f"TYPE_{'STRING' if kind.datatype == 'BYTES' else kind.datatype}"
            entries.add(name=tensor, data_type=model_config_pb2.DataType.Value(enum), dims=kind.dims)
    if config.max_batch_size > 1:
        config.dynamic_batching.SetInParent()
    # Triton would otherwise start one on every GPU.
    config.instance_group.add(count=1, kind=ModelInstanceGroup.KIND_CPU)
    for key, value in step.parameters.items():
        config.parameters[key].string_value = value
    files: dict[str, bytes | Path] = {f"{version}/{_PROGRAM}": path}
    for each in step.files:
        file = folder / each
        target = f"{version}/{file.name}"
        if not file.is_file():
            raise PackagingError(f"step {step.name!r} names the file {each}, which is not there")
        if target in files:
            raise PackagingError(f"step {step.name!r} has two files that are to be called {file.name}; rename one")
        files[target] = file
    return StepModel(config=config, files=files)


def _graph(pipeline: Pipeline, step: Step, path: Path, version: int) -> StepModel:
    graph = clean(read_onnx(path))
    config = model_config(
        graph,
        name=member_name(pipeline.name, step.name),
        max_batch_size=pipeline.max_batch_size if batch_axis(graph) else 0,
        labels_file=False,
    )
    return StepModel(config=config, files={f"{version}/{DEFAULT_ONNX}": to_bytes(graph)})


def _check_program(step: Step, path: Path) -> None:
    """Without running it: that it is Python and has what Triton calls."""
    try:
        program = ast.parse(path.read_bytes(), filename=step.model)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last two: nested too deeply
        raise PackagingError(f"step {step.name!r}: {step.model} is no valid Python: {error}") from error
    classes = [each for each in program.body if isinstance(each, ast.ClassDef) and each.name == _CLASS]
    functions = {each.name for found in classes for each in found.body if isinstance(each, ast.FunctionDef)}
    inherits = any(found.bases for found in classes)
    if not classes or ("execute" not in functions and not inherits):
        raise PackagingError(
            f"step {step.name!r}: {step.model} has no class {_CLASS} with a method execute(self, requests), which is "
            "what Triton calls"
        )


def _model_folder(pipeline: Pipeline, step: Step, path: Path, version: int) -> StepModel:
    config = _folder_config(step, path)
    versions = sorted(int(each.name) for each in path.iterdir() if each.is_dir() and _VERSION.fullmatch(each.name))
    if not versions:
        raise PackagingError(f"step {step.name!r}: the model's folder {step.model} has no version folder such as 1/")
    newest = str(versions[-1])
    files: dict[str, bytes | Path] = {}
    for file in sorted(path.rglob("*")):
        relative = file.relative_to(path)
        top = relative.parts[0]
        if file.is_symlink():
            raise PackagingError(
                f"step {step.name!r}: the folder {step.model} contains the link {relative.as_posix()}; use plain files"
            )
        other_version = top != newest and _VERSION.fullmatch(top)
        if not file.is_file() or other_version or "__pycache__" in relative.parts or relative.as_posix() in _NOT_COPIED:
            continue
        target = Path(str(version), *relative.parts[1:]) if top == newest else relative
        files[target.as_posix()] = file
    config.name = member_name(pipeline.name, step.name)
    # The version is another one here, and a warm-up request that fails kills the server.
    config.ClearField("version_policy")
    del config.model_warmup[:]
    return StepModel(config=config, files=files)


def _folder_config(step: Step, path: Path) -> Any:
    try:
        config = parse_config((path / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PackagingError(
            f"step {step.name!r}: the folder {step.model} has no {CONFIG}, so it is no model's; in a repository, name "
            "the folder of the one model"
        ) from error
    except (OSError, UnicodeDecodeError, InvalidModelError) as error:
        raise PackagingError(f"step {step.name!r}: {step.model}: {error}") from error
    if is_ensemble(config):
        raise PackagingError(
            f"step {step.name!r}: {step.model} is an ensemble, which is no single model; name its members as steps"
        )
    if not config.input or not config.output:
        raise PackagingError(
            f"step {step.name!r}: {step.model}/{CONFIG} does not name its inputs and outputs; write them, or package "
            "the model with `conch package`"
        )
    return config
