"""The contract between operator and agent: what a pod must serve (assignment) and what it says of it (report).

The operator writes the assignment into a ConfigMap that the kubelet mounts into the agent; the agent answers `GET
/status` with its report. Both sides use these types and nothing else.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, field_validator

from conch.api.model import ModelConfig, ModelFormat, ModelSource
from conch.api.reasons import Reason
from conch.api.source import SCHEMES
from conch.api.source_policy import SourcePolicy
from conch.api.types import ApiModel, Digest, Message, ShortText

Bytes = Annotated[int, Field(ge=0, le=2**53)]
Count = Annotated[int, Field(ge=0, le=2**64 - 1)]
Resolved = Annotated[str, Field(max_length=256)]
"""What a source's name stood for when it was fetched, in the store's words: a commit, a manifest digest, an ETag."""


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


class Assignment(ApiModel, extra="ignore"):
    """The one model version that every pod of a workload must have loaded.

    The pods of a workload keep their agent through upgrades of the operator, so the one reads what the other's version
    writes: what a reader does not know, it ignores.
    """

    revision: ShortText
    name: ShortText
    version: Annotated[int, Field(ge=1)]
    source: ModelSource
    pin: Pin | None = None
    """Nothing is loaded before it is there and matches."""
    format: ModelFormat = ModelFormat.AUTO
    config: ModelConfig = ModelConfig()
    source_policy: SourcePolicy = SourcePolicy()

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


class InferenceCounts(ApiModel, extra="ignore"):
    """Triton's own counters of the assigned version, since `epoch` began.

    Readers take differences, and only between reports of the same epoch: every load begins another, and so does a
    restart of the agent, although Triton may have counted on. The replay of the golden set is counted too.
    """

    epoch: ShortText
    requests: Count
    """Answered successfully. Triton's Python backend also counts what a model answers with an error of its own."""
    failures: Count
    queue_seconds: Annotated[float, Field(ge=0)]
    """How long all the successful requests together have waited before they were executed."""


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
    golden: GoldenReport | None = None
    """None while the model does not serve, or its golden set is still being replayed."""
    inference: InferenceCounts | None = None
    """None while the model does not serve, or Triton does not tell."""
