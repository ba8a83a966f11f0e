"""`config.pbtxt` as the protobuf message it is: parsed, changed field by field, written; never pasted from strings."""

import difflib
import re
from collections.abc import Iterable
from typing import Any, Final

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig as TritonConfig
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from conch.api.model import InstanceKind, ModelConfig
from conch.api.tensors import TensorSpec
from conch.triton.errors import InvalidModelError
from conch.triton.scheduling import bound_queues, set_scheduler
from conch.triton.tensor_check import config_type

LAYOUT_PARAMETER: Final = "conch_layout"
"""A parameter of every model that the agent lays out: says which layout Triton has really loaded."""

_KINDS: Final = {
    InstanceKind.AUTO: ModelInstanceGroup.KIND_AUTO,
    InstanceKind.CPU: ModelInstanceGroup.KIND_CPU,
    InstanceKind.GPU: ModelInstanceGroup.KIND_GPU,
}
_NO_FIELD: Final = re.compile(r'Message type "inference\.(\w+)" has no field named "(\w+)"')
_NO_VALUE: Final = re.compile(r'Enum type "inference\.(\w+)" has no value named (\w+)')
_TWICE: Final = re.compile(r'should not have multiple "(\w+)" fields')
_POSITION: Final = re.compile(r"^\d+:\d+ : ")
_LINE_MOST: Final = 120


def parse_config(text: str) -> Any:
    """Parse a config.pbtxt; raises InvalidModelError with the line and the field that are wrong."""
    try:
        return text_format.Parse(text, TritonConfig())
    except text_format.ParseError as error:
        raise InvalidModelError(f"the model's config.pbtxt is not valid: {_wrong(error, text)}") from error


def _wrong(error: text_format.ParseError, text: str) -> str:
    """Where it is wrong, what there is, and what may be meant."""
    number = error.GetLine() or 0
    lines = text.splitlines()
    whole = lines[number - 1] if 0 < number <= len(lines) else ""
    line = whole.strip()[:_LINE_MOST]
    said = _POSITION.sub("", str(error)).removeprefix(f"'{whole}': ")
    if match := _NO_FIELD.search(said):
        known = TritonConfig.DESCRIPTOR.file.message_types_by_name.get(match[1])
        what = f"Triton knows no field {match[2]!r} there{_similar(match[2], known.fields_by_name if known else ())}"
    elif match := _NO_VALUE.search(said):
        values = TritonConfig.DESCRIPTOR.file.enum_types_by_name.get(match[1])
        what = f"Triton knows no {match[2]}{_similar(match[2], values.values_by_name if values else ())}"
    elif match := _TWICE.search(said):
        what = f"{match[1]!r} is there twice; remove one"
    else:
        what = said
        if "${" in line:
            what += "; it looks like a template that was not filled in"
    return f"line {number}: {what}" + (f" (in: {line})" if line else "")


def _similar(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; {close[0]!r} may be meant" if close else ""


def format_config(config: Any) -> str:
    """The text of a config.pbtxt."""
    return str(text_format.MessageToString(config, as_utf8=True))


def is_ensemble(config: Any) -> bool:
    """Whether the model is composed of others and has no files of its own."""
    return bool(config.platform == "ensemble" or config.HasField("ensemble_scheduling"))


def served_config(
    author: Any, overrides: ModelConfig, *, name: str, version: int, layout: str, is_step: bool = False
) -> Any:
    """The configuration to serve: the author's, with the object's overrides and what Conch itself needs.

    `is_step`: of a step that was found beside its ensemble, whose name is its folder's. Raises InvalidModelError where
    the two contradict each other.
    """
    if author.name and author.name != name:
        remedy = "" if is_step else f"set spec.model.name to {author.name!r} or "
        raise InvalidModelError(
            f"the model's config.pbtxt names it {author.name!r}, not {name!r}; {remedy}remove the name from "
            "config.pbtxt"
        )
    config = TritonConfig()
    config.CopyFrom(author)
    _override(config, overrides)
    config.name = name
    config.version_policy.specific.versions[:] = [version]
    for step in config.ensemble_scheduling.step:
        # Left out, it is a version 0, which Triton looks for in vain; the highest is meant.
        step.model_version = step.model_version or -1
    # A warm-up request that fails while executing kills the whole server, also while it serves.
    del config.model_warmup[:]
    bound_queues(config)
    config.parameters[LAYOUT_PARAMETER].string_value = layout
    return config


def loaded_layout(config: Any) -> str | None:
    """Which layout a loaded model's configuration came from; None for one that the agent did not lay out."""
    return str(config.parameters[LAYOUT_PARAMETER].string_value) if LAYOUT_PARAMETER in config.parameters else None


def _override(config: Any, overrides: ModelConfig) -> None:
    if overrides.max_batch_size is not None:
        config.max_batch_size = overrides.max_batch_size
        if overrides.max_batch_size == 0 and overrides.dynamic_batching is None:
            config.ClearField("dynamic_batching")  # Triton refuses it on a model that takes no batches
    set_scheduler(config, overrides)
    _set_tensors(config.input, overrides.inputs or ())
    _set_tensors(config.output, overrides.outputs or ())
    if overrides.instance_groups is not None:
        del config.instance_group[:]
        for group in overrides.instance_groups:
            config.instance_group.add(count=group.count, kind=_KINDS[group.kind], gpus=group.gpus or ())
    for key, value in (overrides.parameters or {}).items():
        config.parameters[key].string_value = value


def _set_tensors(entries: Any, wanted: Iterable[TensorSpec]) -> None:
    """Each by its name: in the place of the author's, or added."""
    for tensor in wanted:
        entry = next((each for each in entries if each.name == tensor.name), None)
        if entry is None:
            entry = entries.add(name=tensor.name)
        entry.data_type = config_type(tensor.data_type)
        if tuple(entry.dims) != tensor.dims:
            entry.dims[:] = tensor.dims
            entry.ClearField("reshape")  # which was made for others
