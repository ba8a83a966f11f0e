"""What the checks of `findings.py` look at, and what they find."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from conch.api.model_deployment import InvalidSpec, ModelDeployment
from conch.api.reasons import Reason
from conch.api.spec import ModelDeploymentSpec
from conch.core.observed import ChildId, Observed, ObservedContainer, ObservedPod
from conch.core.policy import InstallationPolicy
from conch.core.routing import Routing
from conch.core.succession import Succession, ready_pods, verified_pods


class Severity(Enum):
    """What a finding means for the object."""

    PROGRESSING = auto()
    """On its way; nobody has to do anything."""
    BLOCKED = auto()
    """Waits for room in the cluster; goes on by itself when there is."""
    STALLED = auto()
    """Will not get on unless a person (or the other side of a network) does something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason why the wanted revision does not serve as wanted."""

    severity: Severity
    reason: Reason
    message: str
    check: str = ""
    """Name of the check that found it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything the checks look at."""

    owner: ModelDeployment
    spec: ModelDeploymentSpec | InvalidSpec
    policy: InstallationPolicy
    observed: Observed
    succession: Succession
    routing: Routing
    desired_replicas: int
    now: datetime
    needed: frozenset[ChildId]
    """The children that this object should have now."""
    unwritten: frozenset[ChildId]
    """Those of them that are not yet, or no longer, as they should be."""

    @property
    def pods(self) -> tuple[ObservedPod, ...]:
        """The pods of the wanted revision."""
        wanted = self.succession.wanted
        return self.observed.pods_of(wanted.workload) if wanted else ()

    @property
    def containers(self) -> Iterator[tuple[ObservedPod, ObservedContainer]]:
        """Every container of these pods."""
        return ((pod, container) for pod in self.pods for container in pod.containers)

    @property
    def ready(self) -> int:
        """How many pods of the wanted revision serve; a candidate has to be proven by its agents' word."""
        if self.succession.candidate:
            return len(verified_pods(self.succession.candidate, self.observed))
        return len(ready_pods(self.succession.stable, self.observed)) if self.succession.stable else 0
