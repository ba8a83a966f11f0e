"""The steps that the agent may take; decide.py and preparing.py choose, steps.py carries out."""

from dataclasses import dataclass

from conch.agent.wanted import Wanted
from conch.api.agent_report import AgentPhase


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
