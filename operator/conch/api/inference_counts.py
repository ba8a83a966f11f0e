"""What Triton has counted of the model that a pod serves, as its agent tells it."""

from typing import Annotated, Final

from pydantic import Field

from conch.api.types import ApiModel, ShortText

Count = Annotated[int, Field(ge=0, le=2**64 - 1)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
BATCH_SIZES_MOST: Final = 64
"""That a report tells of one model."""
MODELS_MOST: Final = 16
"""Members of an ensemble that a report tells of: those that have computed the most."""


class BatchCounts(ApiModel, extra="ignore"):
    """All executions of one batch size, but for those that tell nothing of a model at work.

    These are not counted: the executions of the first look at which a size is there at all (the first of a size pays
    for memory and for the choice of kernels), and all there were while the golden set was replayed. Those that fail are
    counted: Triton does not tell them apart.
    """

    size: Annotated[int, Field(ge=1, le=2**31 - 1)]
    """Items: the sum of its requests' own batch sizes. Where more sizes are possible than are told, the middle of some
    neighbouring ones, the same in every report of an epoch."""
    executions: Count
    compute_seconds: Seconds
    """Of all these executions together: to gather the inputs, to compute, to hand the outputs out."""


class ModelCounts(ApiModel, extra="ignore"):
    """What Triton has counted of one model that executes: the assigned one, or a member of an ensemble."""

    name: ShortText
    max_batch: Annotated[int, Field(ge=1, le=2**31 - 1)]
    """1 where it takes no batches."""
    joins_requests: bool = True
    """Whether Triton executes several requests together; without a batcher each is a batch of its own."""
    instances: Annotated[int, Field(ge=1, le=2**31 - 1)]
    """How many batches it computes at the same time, over all its instance groups and their GPUs."""
    decoupled: bool
    """Whether a request may have any number of answers: then what a batch takes says little."""
    requests: Count
    queue_seconds: Seconds
    batches: Annotated[tuple[BatchCounts, ...], Field(max_length=BATCH_SIZES_MOST)] = ()
    """By size; one that is not there has not been executed."""


class InferenceCounts(ApiModel, extra="ignore"):
    """Triton's own counters of the assigned version, since `epoch` began.

    Readers take differences, and only between reports of the same epoch: every load begins another, every change of the
    number of instances (so that an epoch's batches were all computed by as many), and a restart of the agent, although
    Triton may have counted on. The replay of the golden set is counted too, but in `models`' batches.
    """

    epoch: ShortText
    requests: Count
    """Answered successfully. Triton's Python backend also counts what a model answers with an error of its own."""
    failures: Count
    queue_seconds: Annotated[float, Field(ge=0)]
    """How long all the successful requests together have waited before they were executed."""
    pending: Count = 0
    """Requests received and not yet being executed, now; of an ensemble, those that wait for any of its members."""
    models: Annotated[tuple[ModelCounts, ...], Field(max_length=MODELS_MOST)] = ()
    """What executes: the model itself, or the members of an ensemble (of which Triton tells no batches, as each request
    goes through it alone). Empty: an older agent, or Triton does not tell."""

    @property
    def has_executed(self) -> bool:
        """Whether there is anything of which to learn how long batches take."""
        return any(batch.executions for model in self.models for batch in model.batches)
