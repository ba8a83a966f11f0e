"""What the agent sees, and the steps that it may take: the words of which decide.py and preparing.py are made."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from conch.api.assignment import AgentPhase, AssignedModel, Assignment, GoldenReport
from conch.api.model import ModelSource
from conch.api.reasons import Reason
from conch.triton.instances import InstanceGroups

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """What the volume holds, whole and verified."""

    fetched: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Key -> digest of fetched trees."""
    layouts: tuple[tuple[str, str], ...] = ()
    """(model name, layout key) of the repository's models. All models that an ensemble is composed of have its key, and
    are there when it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedVersion:
    """A version in Triton's index that is or becomes loaded."""

    name: str
    version: str
    state: str
    ready: bool = False
    """Whether it answers: of an ensemble, also whatever it is composed of."""
    layout: str | None = None
    """Key of the layout that was really loaded, from the configuration that Triton runs with."""
    instances: InstanceGroups | None = None
    """Those that Triton runs it with; None for an ensemble."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What Triton says of itself."""

    live: bool = False
    versions: tuple[LoadedVersion, ...] = ()
    is_fresh: bool = False
    """Whether there are models, and none of them was ever loaded since it started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What went wrong with this assignment, until it goes right."""

    stage: AgentPhase
    reason: Reason
    message: str
    attempts: int
    retry_at: float
    """Seconds on the caller's monotonic clock."""
    refetch: bool = False
    """Whether the files may be other ones by now: a model that cannot be served is repaired under the same URI."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """What replaying the golden set of the model that is loaded has come to; every load begins with an empty one."""

    report: GoldenReport | None = None
    attempts: int = 0
    """That Triton was not there for, or too busy."""
    due_at: float | None = 0.0
    """When it is replayed, in seconds on the caller's monotonic clock; None once that is settled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resizing:
    """What has come of giving the loaded model as many instances as are assigned; a load, and another number, begins
    with an empty one."""

    refused: str = ""
    """Why it keeps those that it has."""
    attempts: int = 0
    """That Triton was not there for."""
    due_at: float | None = 0.0
    """When it is tried, in seconds on the caller's monotonic clock; None once it is refused: an attempt takes memory
    from the instances that serve, so it is not repeated by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changing:
    """A change in place, which brings another revision beside the one that this pod is to serve now."""

    other: Wanted
    """Its files stay on the volume: the pod may be told to serve it, or to serve it again."""
    beside: bool
    """Whether one is loaded while the other serves."""
    prepares: bool
    """Whether the other one is new to this pod, and has to be got ready; else it was served here before."""
    failure: Failure | None = None
    """What went wrong with that, until all is ready."""
    golden: Golden = Golden()
    """Of the other one, tried under a name of its own."""
    refused: str = ""
    """Why this pod cannot be changed to it at all, as far as that was found out on the way."""

    @property
    def trial(self) -> Wanted | None:
        """What is loaded under a name of its own before it is the pod's turn."""
        return self.other.trial if self.prepares and self.beside else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Nothing to do now; look again at the next tick."""

    phase: AgentPhase
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Bring the assigned files to the volume and verify them."""

    wanted: Wanted
    kept: frozenset[str] = frozenset()
    """Fetched trees that have to find room on the volume, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayOut:
    """Make the model in the repository from the fetched tree."""

    wanted: Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Have Triton load what is laid out."""

    wanted: Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Unload:
    """Have Triton drop a model that is no longer assigned."""

    name: str
    phase: AgentPhase = AgentPhase.READY
    """READY: the assigned one serves meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeWay:
    """Have Triton drop the models that the assigned one takes the place of, once nobody uses this pod."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """Lay out the model that serves again: another has taken its place in the repository, which Triton then refused."""

    wanted: Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """Take away what was laid out for a trial."""

    wanted: Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Hold the answers of the model that serves against its golden set."""

    wanted: Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """Have Triton run the model that serves with as many instances as are assigned."""

    wanted: Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanUp:
    """Remove fetched trees and models that are no longer assigned, now that the assigned one serves."""

    wanted: Wanted
    kept: frozenset[str] = frozenset()
    """Fetched trees that stay, too; and what has arrived of them."""
    kept_layout: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """This pod cannot be changed to the other revision: say why."""

    message: str


PreparingStep = Idle | Fetch | LayOut | Load | Unload | Replay | Remove | Refuse


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparing:
    """A step towards the other revision of a change, while the pod is as `meanwhile` says."""

    step: PreparingStep
    meanwhile: Idle


Step = Idle | Fetch | LayOut | Load | Unload | MakeWay | Replay | Resize | Restore | CleanUp | Preparing


def serves(server: Server, wanted: Wanted) -> bool:
    """Whether exactly the assigned versions, from exactly the assigned files and configuration, answer requests."""
    return server.live and all(_answers(server, *model, wanted.layout_key) for model in wanted.served)


def _answers(server: Server, name: str, version: int, layout: str) -> bool:
    ours = [v for v in server.versions if v.name == name and v.state != "UNLOADING"]
    return (
        len(ours) == 1
        and ours[0].version == str(version)
        and ours[0].state == "READY"
        and ours[0].ready
        and ours[0].layout == layout
    )


def running_instances(server: Server, wanted: Wanted) -> InstanceGroups | None:
    """The instances that the assigned model runs with; None while it is not loaded, and for an ensemble."""
    ours = (v for v in server.versions if v.name == wanted.name and v.state != "UNLOADING")
    return next((version.instances for version in ours), None)


def private_name(name: str) -> str:
    """Under which a model is tried beside the one that serves under its name."""
    return f"{name}.next"


def _files(source: ModelSource) -> tuple[object, ...]:
    return source.uri, source.digest, source.endpoint, source.region, source.path_style


def _served(model: AssignedModel) -> tuple[object, ...]:
    return model.name, model.version, model.format.value, model.config.to_wire()


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
