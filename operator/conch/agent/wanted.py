"""What a pod is to serve, and the names under which that is known on disk and in Triton."""

import hashlib
import json
from dataclasses import dataclass, replace

from conch.api.assignment import AssignedModel, Assignment
from conch.api.model import ModelSource

LAYOUT_FORMAT = 1
"""Part of every layout's key: raise it when the same assignment must be laid out differently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The assignment, and the names under which its fetched tree and its layout are known on disk and in Triton."""

    assignment: Assignment
    fetch_key: str
    layout_key: str
    is_trial: bool = False
    """Whether it is loaded under a name of its own, which no client asks for, beside the model that serves."""

    @property
    def name(self) -> str:
        """Under which Triton has the assigned model, or with several the one that is asked."""
        return private_name(self.assignment.name) if self.is_trial else self.assignment.name

    @property
    def served(self) -> tuple[tuple[str, int], ...]:
        """Name and version in Triton of what is loaded, in this order."""
        further = ((model.name, model.version) for model in self.assignment.models)
        return (*further, (self.name, self.assignment.version))

    @property
    def trial(self) -> "Wanted":
        """The same, loaded for a trial."""
        return replace(self, is_trial=True, layout_key=_key("trial", self.layout_key))

    @property
    def models(self) -> tuple[AssignedModel, ...]:
        """What is loaded, in this order."""
        return (*self.assignment.models, self.assignment)

    @property
    def expected_digest(self) -> str | None:
        """The digest of the files that may be loaded; None as long as nobody knows it."""
        return self.assignment.expected_digest

    @classmethod
    def of(cls, assignment: Assignment) -> "Wanted":
        """Keys leave out what does not change the result: the revision's name, credentials, the policy, and how many
        instances there are, which changes under the loaded model.

        The layout's holds the digest that the files must have: so what Triton says it runs tells whose bytes these are.
        A policy that becomes stricter takes no model away that serves: it holds at the next fetch and the next load.
        """
        further = [(model.name, *_files(model.source)) for model in assignment.models]
        # Of several models, each one's files lie in a folder of its name.
        composed = [assignment.name, further] if further else []
        fetch_key = _key(*_files(assignment.source), *composed)
        models = [_served(model) for model in assignment.models]
        digest = assignment.expected_digest
        parts = (LAYOUT_FORMAT, fetch_key, digest, *_served(assignment), *([models] if models else []))
        return cls(assignment=assignment, fetch_key=fetch_key, layout_key=_key(*parts))


def private_name(name: str) -> str:
    """Under which a model is tried beside the one that serves under its name."""
    return f"{name}.next"


def _files(source: ModelSource) -> tuple[object, ...]:
    return source.uri, source.digest, source.endpoint, source.region, source.path_style


def _served(model: AssignedModel) -> tuple[object, ...]:
    return model.name, model.version, model.format.value, model.config.to_wire()


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
