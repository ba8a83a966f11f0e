"""What an agent does next: one pure function of what is wanted, on disk, in Triton, and what has failed.

Nothing is remembered but failures, and what the loaded model's golden set has shown. Whatever restarts (agent, Triton,
both, with or without the volume), the same question is asked again, and an answer that is already true leads to no
action.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
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
class Idle:
    """Nothing to do now; look again at the next tick."""

    phase: AgentPhase
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Bring the assigned files to the volume and verify them."""

    wanted: Wanted


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


Step = Idle | Fetch | LayOut | Load | Unload | Replay | Resize | CleanUp


def next_step(
    *,
    wanted: Wanted | None,
    disk: Disk,
    server: Server,
    failure: Failure | None,
    golden: Golden,
    resizing: Resizing,
    now: float,
) -> Step:
    """The one thing to do now. A failure that waits for its retry holds back every action but serving on."""
    if wanted is None:
        return Idle(phase=AgentPhase.STARTING, message="waiting for an assignment")
    name = wanted.assignment.name
    ours = {name, *(model for model, key in disk.layouts if key == wanted.layout_key)}
    if serves(server, wanted):
        foreign = [v for v in server.versions if v.layout != wanted.layout_key and v.name not in ours]
        if stray := next((v.name for v in foreign if v.state == "READY"), None):
            return Unload(name=stray)
        if golden.due_at is not None and now >= golden.due_at:
            return Replay(wanted=wanted)
        if resizing.due_at is not None and now >= resizing.due_at and not _has_its_instances(server, wanted):
            return Resize(wanted=wanted)
        is_foreign = any(key != wanted.layout_key for _, key in disk.layouts)
        if not foreign and (disk.fetched.keys() - {wanted.fetch_key} or is_foreign):
            return CleanUp(wanted=wanted)
        return Idle(phase=AgentPhase.READY)
    if failure is not None and now < failure.retry_at:
        return Idle(phase=AgentPhase.FAILED, message=failure.message)
    if server.live and any(v.name in ours and v.state == "LOADING" for v in server.versions):
        # Whatever comes next, its files must not be taken away meanwhile.
        return Idle(phase=AgentPhase.LOADING, message="Triton is loading the model")
    if failure is not None and failure.refetch:
        return Fetch(wanted=wanted)
    digest = disk.fetched.get(wanted.fetch_key)
    if digest is None:
        return Fetch(wanted=wanted)
    expected = wanted.expected_digest
    if expected is None:
        return Idle(phase=AgentPhase.FETCHED, message="waiting for the operator to pin what was fetched")
    if digest != expected:
        # Other bytes than the other replicas': perhaps the store has the right ones by now.
        return Fetch(wanted=wanted)
    if (name, wanted.layout_key) not in disk.layouts:
        return LayOut(wanted=wanted)
    if not server.live:
        return Idle(phase=AgentPhase.LOADING, message="waiting for Triton to start")
    return Load(wanted=wanted)


def serves(server: Server, wanted: Wanted) -> bool:
    """Whether exactly the assigned versions, from exactly the assigned files and configuration, answer requests."""
    return server.live and all(_answers(server, model, wanted.layout_key) for model in wanted.models)


def _answers(server: Server, model: AssignedModel, layout: str) -> bool:
    ours = [v for v in server.versions if v.name == model.name and v.state != "UNLOADING"]
    return (
        len(ours) == 1
        and ours[0].version == str(model.version)
        and ours[0].state == "READY"
        and ours[0].ready
        and ours[0].layout == layout
    )


def running_instances(server: Server, wanted: Wanted) -> InstanceGroups | None:
    """The instances that the assigned model runs with; None while it is not loaded, and for an ensemble."""
    ours = (v for v in server.versions if v.name == wanted.assignment.name and v.state != "UNLOADING")
    return next((version.instances for version in ours), None)


def _has_its_instances(server: Server, wanted: Wanted) -> bool:
    running = running_instances(server, wanted)
    return wanted.assignment.instances is None if running is None else running.are(wanted.assignment.instances)


def _files(source: ModelSource) -> tuple[object, ...]:
    return source.uri, source.digest, source.endpoint, source.region, source.path_style


def _served(model: AssignedModel) -> tuple[object, ...]:
    return model.name, model.version, model.format.value, model.config.to_wire()


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
