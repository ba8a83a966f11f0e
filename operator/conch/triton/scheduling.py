"""A model's scheduler in its configuration: the object's wishes written into it, and what no queue goes without."""

from typing import Any, Final

from tritonclient.grpc.model_config_pb2 import ModelQueuePolicy

from conch.api.batching import DynamicBatching, QueuePolicy, SequenceBatching, TimeoutAction
from conch.api.model import ModelConfig
from conch.triton.errors import InvalidModelError

DEFAULT_QUEUE_SIZE: Final = 1000
"""Triton's own default is no limit: a slow model then collects requests until the memory is full."""

_ACTIONS: Final = {TimeoutAction.REJECT: ModelQueuePolicy.REJECT, TimeoutAction.DELAY: ModelQueuePolicy.DELAY}


def set_scheduler(config: Any, overrides: ModelConfig) -> None:
    """Write what the object says of batching into an author's configuration. Raises InvalidModelError."""
    if (batching := overrides.dynamic_batching) is not None:
        _claim(config, "dynamic_batching", "dynamic batching", "dynamicBatching")
        _set_batching(config.dynamic_batching, batching)
    if (sequences := overrides.sequence_batching) is not None:
        _claim(config, "sequence_batching", "sequence batching", "sequenceBatching")
        _set_sequences(config.sequence_batching, sequences)


def bound_queues(config: Any) -> None:
    """See to it that no queue is without a limit, and that priorities are ones that Triton takes.

    Raises InvalidModelError.
    """
    if not config.HasField("dynamic_batching"):
        return
    batching = config.dynamic_batching
    for queue in (batching.default_queue_policy, *batching.priority_queue_policy.values()):
        queue.max_queue_size = queue.max_queue_size or DEFAULT_QUEUE_SIZE
    levels, default = batching.priority_levels, batching.default_priority_level
    if batching.preserve_ordering and levels > 1:
        raise InvalidModelError(
            f"the model has {levels} priority levels and is to keep the order of requests, which Triton does not do "
            "together; remove dynamicBatching.priorityLevels (priority_levels) or preserveOrdering (preserve_ordering)"
        )
    if levels and not 1 <= default <= levels:
        raise InvalidModelError(
            f"the model has {levels} priority levels and requests without one get level {default}; set "
            f"dynamicBatching.defaultPriorityLevel (default_priority_level) to one of 1 to {levels}"
        )
    if levels and (beyond := [level for level in batching.priority_queue_policy if not 1 <= level <= levels]):
        raise InvalidModelError(
            f"the model has a queue for priority level {beyond[0]} and {levels} priority levels; correct "
            "dynamicBatching.priorityLevels (priority_levels)"
        )


def _claim(config: Any, field: str, words: str, path: str) -> None:
    scheduler = config.WhichOneof("scheduling_choice")
    if scheduler not in (None, field):
        raise InvalidModelError(
            f"the model's config.pbtxt uses {scheduler}, which excludes {words}; remove spec.model.config.{path}"
        )
    getattr(config, field).SetInParent()


def _set_batching(target: Any, batching: DynamicBatching) -> None:
    if batching.preferred_batch_sizes is not None:
        target.preferred_batch_size[:] = batching.preferred_batch_sizes
    if batching.max_queue_delay_microseconds is not None:
        target.max_queue_delay_microseconds = batching.max_queue_delay_microseconds
    if batching.preserve_ordering is not None:
        target.preserve_ordering = batching.preserve_ordering
    if batching.priority_levels is not None:
        target.priority_levels = batching.priority_levels
    if batching.default_priority_level is not None:
        target.default_priority_level = batching.default_priority_level
    _set_queue(target.default_queue_policy, batching)
    for queue in batching.priority_queues or ():
        _set_queue(target.priority_queue_policy[queue.level], queue)
    if batching.priority_queues and not target.priority_levels:
        raise InvalidModelError(
            "spec.model.config.dynamicBatching has priorityQueues, but the model has no priority levels, without which "
            "Triton has one queue; set priorityLevels and defaultPriorityLevel"
        )


def _set_queue(target: Any, policy: QueuePolicy) -> None:
    if policy.max_queue_size is not None:
        target.max_queue_size = policy.max_queue_size
    if policy.timeout_microseconds is not None:
        target.default_timeout_microseconds = policy.timeout_microseconds
    if policy.timeout_action is not None:
        target.timeout_action = _ACTIONS[policy.timeout_action]
    if policy.allow_timeout_override is not None:
        target.allow_timeout_override = policy.allow_timeout_override


def _set_sequences(target: Any, sequences: SequenceBatching) -> None:
    if sequences.max_sequence_idle_microseconds is not None:
        target.max_sequence_idle_microseconds = sequences.max_sequence_idle_microseconds
