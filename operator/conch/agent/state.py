"""What the agent sees and remembers: all that decide.py and preparing.py look at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from conch.agent.wanted import Wanted
from conch.api.agent_report import AgentPhase, GoldenReport
from conch.api.reasons import Reason
from conch.triton.instances import InstanceGroups


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
