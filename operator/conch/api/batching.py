"""How requests wait for a model and are put together: what may be changed of its configuration's scheduler."""

from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from conch.api.cel import Rule, rules
from conch.api.types import ApiModel

PRIORITIES_MOST: Final = 16
MICROSECONDS_MOST: Final = 3_600_000_000
_DEFAULT_BEYOND: Final = "defaultPriorityLevel is one of the levels 1 to priorityLevels; make it smaller"
_QUEUE_BEYOND: Final = "the level of each of priorityQueues is one of 1 to priorityLevels; correct it"

_TWO_ORDERS: Final = "preserveOrdering keeps the order of requests, and priorityLevels changes it; remove one of them"


class TimeoutAction(StrEnum):
    """What becomes of a request that has waited for too long."""

    REJECT = "Reject"
    """It is answered with an error."""
    DELAY = "Delay"
    """It waits on, behind those that have not waited for too long."""


class QueuePolicy(ApiModel):
    """How many requests may wait, and for how long."""

    max_queue_size: Annotated[
        int | None, Field(ge=1, le=1_000_000, description="Requests waiting before Triton answers 503 / UNAVAILABLE.")
    ] = None
    timeout_microseconds: Annotated[
        int | None,
        Field(ge=0, le=MICROSECONDS_MOST, description="How long a request may wait; 0: as long as it takes."),
    ] = None
    timeout_action: Annotated[
        TimeoutAction | None,
        Field(
            description="What becomes of one that has waited for longer: Reject answers an error, Delay lets it wait "
            "on behind the others."
        ),
    ] = None
    allow_timeout_override: Annotated[
        bool | None, Field(description="Whether a request may ask for a shorter time by its own `timeout`.")
    ] = None


class PriorityQueue(QueuePolicy):
    """The policy of one priority level's queue."""

    level: Annotated[int, Field(ge=1, le=PRIORITIES_MOST, description="1 is executed first.")]


class DynamicBatching(
    QueuePolicy,
    json_schema_extra=rules(
        Rule(
            rule="!has(self.priorityLevels) || !has(self.defaultPriorityLevel)"
            " || self.defaultPriorityLevel <= self.priorityLevels",
            message=_DEFAULT_BEYOND,
        ),
        Rule(
            rule="!has(self.priorityLevels) || !has(self.priorityQueues)"
            " || self.priorityQueues.all(q, q.level <= self.priorityLevels)",
            message=_QUEUE_BEYOND,
        ),
        Rule(
            rule="!has(self.preserveOrdering) || !self.preserveOrdering || !has(self.priorityLevels)"
            " || self.priorityLevels < 2",
            message=_TWO_ORDERS,
        ),
    ),
):
    """Triton's dynamic batcher: requests that arrive together are executed together."""

    preferred_batch_sizes: Annotated[
        tuple[Annotated[int, Field(ge=1, le=65536)], ...] | None,
        Field(max_length=16, description="Batches of these sizes are executed at once."),
    ] = None
    max_queue_delay_microseconds: Annotated[
        int | None,
        Field(ge=0, le=60_000_000, description="How long a request may wait for others to be executed with."),
    ] = None
    preserve_ordering: Annotated[
        bool | None, Field(description="Whether answers come in the order of the requests, whichever instance is done.")
    ] = None
    priority_levels: Annotated[
        int | None, Field(ge=1, le=PRIORITIES_MOST, description="How many levels a request's `priority` may ask for.")
    ] = None
    default_priority_level: Annotated[
        int | None, Field(ge=1, le=PRIORITIES_MOST, description="The level of a request that asks for none.")
    ] = None
    priority_queues: Annotated[
        tuple[PriorityQueue, ...] | None,
        Field(
            max_length=PRIORITIES_MOST,
            description="Levels whose queue differs from the others'.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["level"]},
        ),
    ] = None

    @model_validator(mode="after")
    def _levels_are_there(self) -> Self:
        levels = [queue.level for queue in self.priority_queues or ()]
        if len(set(levels)) < len(levels):
            raise ValueError("priorityQueues has a level twice; remove one")
        if self.preserve_ordering and (self.priority_levels or 0) > 1:
            raise ValueError(_TWO_ORDERS)
        if self.priority_levels is not None:
            if (self.default_priority_level or 0) > self.priority_levels:
                raise ValueError(_DEFAULT_BEYOND)
            if max(levels, default=0) > self.priority_levels:
                raise ValueError(_QUEUE_BEYOND)
        return self


class SequenceBatching(ApiModel):
    """Triton's sequence batcher: all requests of a sequence go to one instance, one after the other."""

    max_sequence_idle_microseconds: Annotated[
        int | None,
        Field(
            ge=1,
            le=MICROSECONDS_MOST,
            description="A sequence without a request for so long is over. Triton's default: one second.",
        ),
    ] = None
