"""`spec.rollout`: how one revision takes over from another, and `status.rollout`: how far that is.

What is not given is left out of the stored object; the defaults are here.
"""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from conch.api.analysis import CHECK_RULES, Check
from conch.api.cel import Rule, rules
from conch.api.shadow import Shadow, ShadowStatus
from conch.api.types import ApiModel, Count, Message, ShortText, Timestamp

DEFAULT_PROGRESS_DEADLINE_SECONDS: Final = 600
DEFAULT_KEEP_WARM_SECONDS: Final = 30
DEFAULT_REVISION_HISTORY_LIMIT: Final = 5

TURNED_MOST: Final = 1000
"""Pods that an in-place change can be about."""

Figure = Annotated[float, Field(ge=-1e15, le=1e15)]
Percent = Annotated[int, Field(ge=0, le=100)]


class Strategy(StrEnum):
    """Where the new revision's pods come from."""

    AUTO = "Auto"
    """The first of the others that fits."""
    SURGE = "Surge"
    """New pods beside the old ones, which stay until the new revision has proven itself."""
    IN_PLACE = "InPlace"
    """The pods stay, and change their model one after the other; the only one loads the new beside the old."""
    REPLACE = "Replace"
    """One pod after the other: each new one gets what an old one had."""
    RECREATE = "Recreate"
    """The old pods end before the new ones start; requests are held meanwhile."""


class Pause(StrEnum):
    """What a step waits for besides its checks."""

    UNTIL_PROMOTED = "UntilPromoted"
    """A person: `conch promote`."""


class Step(ApiModel):
    """A share of the traffic, and how long it stays at that."""

    weight: Annotated[int, Field(ge=1, le=99, description="Percent of the requests that the new revision gets.")]
    pause_seconds: Annotated[int | None, Field(ge=0, le=7 * 86_400, description="At least so long.")] = None
    pause: Annotated[Pause | None, Field(description="Until somebody promotes it.")] = None


class Rollout(ApiModel):
    """How a new revision takes over. Applying another rollout policy restarts nothing that is under way."""

    strategy: Annotated[
        Strategy,
        Field(
            description="Surge: new pods beside the old ones. InPlace: the same pods change their model, if nothing "
            "else changes; otherwise as Auto. Replace: one after the other, without another GPU. Recreate: the old end "
            "before the new start. Auto: the first of these that there is room for."
        ),
    ] = Strategy.AUTO
    steps: Annotated[
        tuple[Step, ...],
        Field(
            max_length=20,
            description="Shares of the traffic on the way to all of it. None: all at once, after verification.",
            json_schema_extra=rules(
                Rule(
                    rule="self.all(step, !has(step.pause) || !has(step.pauseSeconds))",
                    message="a step waits for a time or for a person: give pauseSeconds or pause, not both",
                ),
                Rule(
                    rule="self.map(step, step.weight).isSorted()",
                    message="steps give ever more traffic to the new revision: order them by weight",
                ),
            ),
        ),
    ] = ()
    analysis: Annotated[
        tuple[Annotated[Check, Field(json_schema_extra=CHECK_RULES)], ...] | None,
        Field(
            max_length=10,
            description="What every step must show before the next. If not given, a revision whose requests fail is "
            "rolled back, and nothing is waited for.",
        ),
    ] = None
    shadow: Annotated[
        Shadow | None,
        Field(
            description="Before it gets any traffic, copies of real requests are sent to the new revision and the old "
            "one, and their answers are compared. Clients do not notice. Needs pods of both at the same time."
        ),
    ] = None
    progress_deadline_seconds: Annotated[
        int | None,
        Field(
            ge=1,
            le=7 * 86_400,
            description="How long the new revision's pods may take without getting any further "
            f"({DEFAULT_PROGRESS_DEADLINE_SECONDS} if not given). Waiting for a free GPU "
            "counts with Replace and Recreate only, where old pods have made room.",
        ),
    ] = None
    keep_warm_seconds: Annotated[
        int | None,
        Field(
            ge=0,
            le=7 * 86_400,
            description="How long the old pods stay once the new revision has all traffic, to take it back at once "
            f"({DEFAULT_KEEP_WARM_SECONDS} if not given).",
        ),
    ] = None
    revision_history_limit: Annotated[
        int | None,
        Field(
            ge=0,
            le=50,
            description=f"Revisions kept to roll back to ({DEFAULT_REVISION_HISTORY_LIMIT} if not given).",
        ),
    ] = None
    paused: Annotated[bool, Field(description="Go no further; a failing revision is still rolled back.")] = False

    @property
    def effective_progress_deadline_seconds(self) -> int:
        """The deadline, with the default."""
        return self.progress_deadline_seconds or DEFAULT_PROGRESS_DEADLINE_SECONDS

    @property
    def effective_keep_warm_seconds(self) -> int:
        """The time, with the default."""
        return DEFAULT_KEEP_WARM_SECONDS if self.keep_warm_seconds is None else self.keep_warm_seconds

    @property
    def effective_revision_history_limit(self) -> int:
        """The limit, with the default."""
        return DEFAULT_REVISION_HISTORY_LIMIT if self.revision_history_limit is None else self.revision_history_limit


class RolloutPhase(StrEnum):
    """How far a rollout is."""

    PROVISIONING = "Provisioning"
    """Its first pods start."""
    VERIFYING = "Verifying"
    """They are ready, and their agents verify what they serve; no traffic yet."""
    SHADOWING = "Shadowing"
    """It gets copies of requests, whose answers nobody sees; no traffic yet."""
    SHIFTING = "Shifting"
    """It gets the traffic, step by step."""
    BAKING = "Baking"
    """It has all traffic; the old pods stay warm."""
    DRAINING = "Draining"
    """It is the stable revision; the old pods finish what they have."""
    DONE = "Done"
    ROLLING_BACK = "RollingBack"
    """The traffic goes back to the stable revision."""
    HALTED = "Halted"
    """The traffic is back; the revision is not tried again by itself."""


class RollbackCause(StrEnum):
    """Why a rollout goes back."""

    CANDIDATE_FAILED = "CandidateFailed"
    """Its pods do not start, load, or stay alive."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    GOLDEN_SET_FAILED = "GoldenSetFailed"
    ANALYSIS_FAILED = "AnalysisFailed"
    SHADOW_DISAGREED = "ShadowDisagreed"
    """It answers copies of real requests otherwise than the stable revision does, later than allowed, or not."""
    ABORTED = "Aborted"
    SUPERSEDED = "Superseded"
    """The spec asks for a third revision."""
    REVERTED = "Reverted"
    """The spec asks for the stable revision again."""


class CheckResult(ApiModel):
    """What a check last said."""

    name: ShortText
    verdict: ShortText
    value: Figure | None = None
    limit: Figure | None = None
    samples: Count = 0
    message: Message = ""


class RolloutStatus(ApiModel):
    """The rollout that is under way, or the last one. Written before anything of it is done."""

    id: Annotated[ShortText, Field(description="Names this rollout; commands repeat it. No other ever has it.")]
    revision: ShortText
    from_revision: ShortText
    strategy: Strategy
    strategy_reason: Message = ""
    steps: Annotated[
        tuple[Step, ...], Field(max_length=20, description="As they were when it began: a later edit is for the next.")
    ] = ()
    phase: RolloutPhase
    step: Annotated[Count, Field(description="Index of the step that it is at; the number of steps: all traffic.")] = 0
    weight: Annotated[Percent, Field(description="What the new revision is to have now.")] = 0
    stable_replicas: Count = 0
    candidate_replicas: Count = 0
    turned: Annotated[
        tuple[ShortText, ...],
        Field(max_length=TURNED_MOST, description="InPlace: the pods that are to serve the new revision."),
    ] = ()
    turn: Annotated[Count, Field(description="InPlace: how often that was changed; agents follow the latest word.")] = 0
    beside: Annotated[
        bool,
        Field(
            description="InPlace: whether pods load the new model beside the old one, and answer all the time; "
            "otherwise each gets no requests while it changes."
        ),
    ] = False
    misfit: Annotated[
        Message, Field(description="Why pods cannot change to it in place, once one of them has found that out.")
    ] = ""
    ready: Annotated[Count, Field(description="Most of its pods that were verified at a time, in this phase.")] = 0
    observed_since: Annotated[
        Timestamp | None, Field(description="Since when every gateway sends it the share of this step.")
    ] = None
    deadline: Annotated[Timestamp | None, Field(description="Until then it has to get further.")] = None
    stable_served: Annotated[
        bool, Field(description="Whether a pod of the stable revision was ready since the object was suspended.")
    ] = True
    stable_lost_since: Annotated[
        Timestamp | None, Field(description="Since when no pod of the stable revision is ready.")
    ] = None
    paused: Annotated[bool, Field(description="By `conch pause`.")] = False
    promoted: Annotated[Count, Field(description="Steps before this one wait neither for a person nor for checks.")] = 0
    checks: Annotated[tuple[CheckResult, ...], Field(max_length=12)] = ()
    checked_at: Annotated[
        Timestamp | None, Field(description="When these were written; the same verdicts are written now and then only.")
    ] = None
    shadow: Annotated[ShadowStatus | None, Field(description="What copies of real requests have shown.")] = None
    cause: RollbackCause | None = None
    message: Message = ""
    started_at: Timestamp
    finished_at: Timestamp | None = None


class RejectedRevision(ApiModel):
    """A revision that was rolled back: the same spec applied again does not start it again."""

    revision: ShortText
    cause: RollbackCause
    message: Message = ""
    at: Timestamp


class CommandStatus(ApiModel):
    """The last command, and what became of it."""

    nonce: ShortText
    command: ShortText
    accepted: bool
    message: Message = ""
    at: Annotated[Timestamp | None, Field(description="When it was answered; the next one may wait for a moment.")] = (
        None
    )
