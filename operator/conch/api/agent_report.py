"""What an agent says of its pod: the answer to `GET /status`."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from conch.api.assignment import Pin
from conch.api.inference_counts import InferenceCounts
from conch.api.reasons import Reason
from conch.api.types import ApiModel, Digest, Message, Resolved, ShortText

Bytes = Annotated[int, Field(ge=0, le=2**53)]


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
