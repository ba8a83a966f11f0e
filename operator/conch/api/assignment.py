"""What a pod must serve.

The operator writes the assignment into a ConfigMap that the kubelet mounts into the agent, and tells what changes in it
sooner (agent_orders.py); the agent answers `GET /status` with its report (agent_report.py). Both sides use these types
and nothing else.
"""

from typing import Annotated

from pydantic import Field, field_validator

from conch.api.model import FURTHER_MODELS_MOST, ModelConfig, ModelFormat, ModelSource
from conch.api.source import SCHEMES
from conch.api.source_policy import SourcePolicy
from conch.api.types import ApiModel, Digest, Resolved, ShortText


class Pin(ApiModel, extra="ignore"):
    """The files that every pod of a revision must have: those its first pod fetched, or those that were declared."""

    digest: Digest
    resolved: Resolved = ""


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
