"""The contract between operator and agent: what a pod must serve (assignment) and what it says of it (report).

The operator writes the assignment into a ConfigMap that the kubelet mounts into the agent; the agent answers `GET
/status` with its report. Both sides use these types and nothing else.
"""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, field_validator

from conch.api.model import FURTHER_MODELS_MOST, ModelConfig, ModelFormat, ModelSource
from conch.api.reasons import Reason
from conch.api.source import SCHEMES
from conch.api.source_policy import SourcePolicy
from conch.api.types import ApiModel, Digest, Message, Resolved, ShortText

Bytes = Annotated[int, Field(ge=0, le=2**53)]
Count = Annotated[int, Field(ge=0, le=2**64 - 1)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
BATCH_SIZES_MOST: Final = 64
"""That a report tells of one model."""
MODELS_MOST: Final = 16
"""Members of an ensemble that a report tells of: those that have computed the most."""


class Pin(ApiModel, extra="ignore"):
    """The files that every pod of a revision must have: those its first pod fetched, or those that were declared."""

    digest: Digest
    resolved: Resolved = ""


class PinOrder(ApiModel, extra="ignore"):
    """How the operator tells an agent a pin, sooner than the kubelet brings the assignment with it."""

    revision: ShortText
    pin: Pin
    code: Annotated[str, Field(max_length=64)]
    """See `names.pin_code`."""


class TurnOrder(ApiModel, extra="ignore"):
    """How the operator tells a pod which of a change's two revisions it is to serve, sooner than the kubelet does.

    `PUT /turn`. Taken only by an agent whose assignment brings this change, and that knows no later word of it.
    """

    change: ShortText
    """`Change.id`."""
    turn: Annotated[int, Field(ge=0, le=2**31 - 1)]
    """`Change.turn`."""
    revision: ShortText
    """The one that this pod is to serve: the assignment's own, or the change's."""
    code: Annotated[str, Field(max_length=64)]
    """See `names.turn_code`."""


class AssignedModel(ApiModel, extra="ignore"):
    """One model of a pod."""

    name: ShortText
    version: Annotated[int, Field(ge=1)]
    source: ModelSource
    format: ModelFormat = ModelFormat.AUTO
    config: ModelConfig = ModelConfig()


class Assignment(AssignedModel):
    """The one model version that every pod of a workload must have loaded.

    The pods of a workload keep their agent through upgrades of the operator, so the one reads what the other's version
    writes: what a reader does not know, it ignores.
    """

    revision: ShortText
    models: Annotated[tuple[AssignedModel, ...], Field(max_length=FURTHER_MODELS_MOST)] = ()
    """Further models, which are loaded before this one."""
    pin: Pin | None = None
    """Nothing is loaded before it is there and matches: of the files of all models."""
    instances: Annotated[int, Field(ge=1, le=64)] | None = None
    """How many instances each of the model's instance groups has, on each of its GPUs; None: as its configuration says.

    Triton changes it while it serves, without loading the model again: it is no part of what a revision is. An ensemble
    has no instances of its own.
    """
    source_policy: SourcePolicy = SourcePolicy()
    change: "Change | None" = None
    """Another revision that the same pods are changed to, one after the other; never within a change's own."""

    @property
    def folder(self) -> str:
        """Where in the fetched tree this model's files lie: in all of it, or in a folder as those of the others do."""
        return self.name if self.models else ""

    @property
    def expected_digest(self) -> str | None:
        """Of the files that may be loaded, those of all models together; None as long as nobody knows it."""
        declared = None if self.models else self.source.digest
        return declared or (self.pin.digest if self.pin else None)

    @property
    def is_declared(self) -> bool:
        """Whether the object says which files these are: no others can take their place under the same sources."""
        return all(model.source.digest for model in (self, *self.models))

    @field_validator("source_policy", mode="before")
    @classmethod
    def _of_any_version(cls, policy: object) -> object:
        """The operator writes today's policy, whatever the age of the agent: what that cannot know is left out."""
        if not isinstance(policy, dict):
            return policy
        known = {field.alias for field in SourcePolicy.model_fields.values()}
        kept = {key: value for key, value in policy.items() if key in known}
        if isinstance(kept.get("schemes"), list):
            kept["schemes"] = [scheme for scheme in kept["schemes"] if scheme in SCHEMES]
        return kept


class Change(ApiModel, extra="ignore"):
    """Another revision for pods that serve: every one of them prepares it, those that it is the turn of serve it."""

    id: ShortText
    """Names this change; no other of the object ever has it."""
    assignment: Assignment
    turn: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Grows whenever `pods` changes: of two words, that with the higher one is the later."""
    pods: Annotated[tuple[ShortText, ...], Field(max_length=1000)] = ()
    """Names of the pods that are to serve this revision; the others serve the assignment's own, or do again."""
    beside: bool = False
    """Whether a pod loads the new model beside the old one, so that it answers all the time: it has been loaded and
    verified under a name of its own before. Otherwise the pod gets no requests while it changes, and the old model is
    unloaded first."""


Assignment.model_rebuild()


class AgentPhase(StrEnum):
    """How far a pod's model has come."""

    STARTING = "Starting"
    FETCHING = "Fetching"
    FETCHED = "Fetched"
    """The files are there; they are loaded once the operator has pinned them."""
    LOADING = "Loading"
    READY = "Ready"
    FAILED = "Failed"


class GoldenOutcome(StrEnum):
    """What came of replaying the golden set."""

    PASSED = "Passed"
    FAILED = "Failed"
    """The model serves, but does not answer as recorded."""
    ABSENT = "Absent"
    """The model has no golden set."""
    ERROR = "Error"
    """It could not be replayed: the file is wrong, or Triton did not answer. Says nothing of the model's answers."""


class GoldenReport(ApiModel, extra="ignore"):
    """How the loaded model's answers compare with its golden set. What it means is the operator's to decide."""

    outcome: GoldenOutcome
    samples: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    mismatches: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """How many of the samples are answered otherwise."""
    message: Message = ""


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


class CacheOutcome(StrEnum):
    """What the model cache was good for."""

    HIT = "Hit"
    """The model was there: nothing was fetched."""
    FILLED = "Filled"
    """It was fetched into the cache."""
    BYPASSED = "Bypassed"
    """It was fetched onto the pod's own volume, for the cache could not be used."""


class CacheReport(ApiModel, extra="ignore"):
    """How a pod came by its model where there is a model cache."""

    outcome: CacheOutcome
    message: Message = ""
    """What was wrong with the cache."""


class ChangeReport(ApiModel, extra="ignore"):
    """How far a pod is with the other revision of a change, while it serves one of the two.

    READY: all is prepared. With `beside`, that it was loaded under a name of its own and answered as recorded;
    otherwise that its files are there, verified and pinned. Said of the change's revision before it is the pod's turn;
    of a pod that serves that already, nothing is said: its own report is about it.
    """

    id: ShortText
    revision: ShortText
    phase: AgentPhase
    reason: Reason | None = None
    message: Message = ""
    attempts: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    digest: Digest | None = None
    """Of what is fetched, and of nothing else."""
    resolved: Resolved = ""
    pin: Pin | None = None
    """The pin that the agent knows of."""
    fetched_bytes: Bytes = 0
    total_bytes: Bytes | None = None
    golden: GoldenReport | None = None
    """With `beside`: what replaying its golden set under the name of its own has come to."""
    refused: Message = ""
    """Why this pod cannot be changed to it at all (an ensemble beside another): no attempt helps."""


class AgentReport(ApiModel, extra="ignore"):
    """What an agent says of its pod. FAILED carries a reason; the agent goes on trying, with back-off, by itself."""

    phase: AgentPhase
    revision: ShortText = ""
    reason: Reason | None = None
    message: Message = ""
    attempts: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """With FAILED: how often it was tried in vain by now."""
    digest: Digest | None = None
    resolved: Resolved = ""
    pin: Pin | None = None
    """The pin that the agent knows of."""
    fetched_bytes: Bytes = 0
    total_bytes: Bytes | None = None
    files: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    bytes_per_second: Bytes = 0
    replays_golden_set: bool = False
    """Whether this agent says what comes of the golden set; an older one does not."""
    cache: CacheReport | None = None
    """None without a model cache, and until the model has been fetched."""
    golden: GoldenReport | None = None
    """None while the model does not serve, or its golden set is still being replayed."""
    inference: InferenceCounts | None = None
    """None while the model does not serve, or Triton does not tell."""
    instances: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """Of each instance group of the model that serves (the most, where they differ); None: none serves, an ensemble."""
    instances_refused: Message = ""
    """Why the number of instances is not the assigned one, and stays so until another is assigned or a load."""
    gpu_memory_used_bytes: Bytes | None = None
    """Of the fullest GPU that Triton sees, by whomever; None without one, where Triton cannot tell (MIG), and while the
    model does not serve."""
    gpu_memory_total_bytes: Bytes | None = None
    changes_in_place: bool = False
    """Whether this agent can change its pod's model in place; an older one cannot."""
    changed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """How often the model was changed in place since Triton started: what it does not give back adds up."""
    change: ChangeReport | None = None
    """None where its assignment brings no change, and once it serves the change's revision."""
