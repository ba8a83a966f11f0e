"""`config.pbtxt` as the protobuf message it is: parsed, changed field by field, written; never pasted from strings."""

from typing import Any, Final

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig as TritonConfig
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from conch.api.model import InstanceKind, ModelConfig
from conch.triton.errors import InvalidModelError

LAYOUT_PARAMETER: Final = "conch_layout"
"""A parameter of every model that the agent lays out: says which layout Triton has really loaded."""
DEFAULT_QUEUE_SIZE: Final = 1000
"""Triton's own default is no limit: a slow model then collects requests until the memory is full."""

_KINDS: Final = {
    InstanceKind.AUTO: ModelInstanceGroup.KIND_AUTO,
    InstanceKind.CPU: ModelInstanceGroup.KIND_CPU,
    InstanceKind.GPU: ModelInstanceGroup.KIND_GPU,
}


def parse_config(text: str) -> Any:
    """Parse a config.pbtxt; raises InvalidModelError with the line that is wrong."""
    try:
        return text_format.Parse(text, TritonConfig())
    except text_format.ParseError as error:
        raise InvalidModelError(f"the model's config.pbtxt is not valid: {error}") from error


def format_config(config: Any) -> str:
    """The text of a config.pbtxt."""
    return str(text_format.MessageToString(config, as_utf8=True))


def is_ensemble(config: Any) -> bool:
    """Whether the model is composed of others and has no files of its own."""
    return bool(config.platform == "ensemble" or config.HasField("ensemble_scheduling"))


def served_config(author: Any, overrides: ModelConfig, *, name: str, version: int, layout: str) -> Any:
    """The configuration to serve: the author's, with the object's overrides and what Conch itself needs.

    Raises InvalidModelError where the two contradict each other.
    """
    if author.name and author.name != name:
        raise InvalidModelError(
            f"the model's config.pbtxt names it {author.name!r}, not {name!r}; set spec.model.name to {author.name!r} "
            "or remove the name from config.pbtxt"
        )
    config = TritonConfig()
    config.CopyFrom(author)
    _override(config, overrides)
    config.name = name
    config.version_policy.specific.versions[:] = [version]
    # A warm-up request that fails while executing kills the whole server, also while it serves.
    del config.model_warmup[:]
    if config.HasField("dynamic_batching"):
        queue = config.dynamic_batching.default_queue_policy
        queue.max_queue_size = queue.max_queue_size or DEFAULT_QUEUE_SIZE
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
    if (batching := overrides.dynamic_batching) is not None:
        scheduler = config.WhichOneof("scheduling_choice")
        if scheduler not in (None, "dynamic_batching"):
            raise InvalidModelError(
                f"the model's config.pbtxt uses {scheduler}, which excludes dynamic batching; remove "
                "spec.model.config.dynamicBatching"
            )
        target = config.dynamic_batching
        target.SetInParent()
        if batching.preferred_batch_sizes is not None:
            target.preferred_batch_size[:] = batching.preferred_batch_sizes
        if batching.max_queue_delay_microseconds is not None:
            target.max_queue_delay_microseconds = batching.max_queue_delay_microseconds
        if batching.max_queue_size is not None:
            target.default_queue_policy.max_queue_size = batching.max_queue_size
    if overrides.instance_groups is not None:
        del config.instance_group[:]
        for group in overrides.instance_groups:
            config.instance_group.add(count=group.count, kind=_KINDS[group.kind])
    for key, value in (overrides.parameters or {}).items():
        config.parameters[key].string_value = value
