"""What the checks of `findings` look at."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from conch.api.model_deployment import InvalidSpec, ModelDeployment
from conch.api.spec import ModelDeploymentSpec
from conch.core.observed import Observed
from conch.core.observed_child import ChildId
from conch.core.observed_pod import ObservedContainer, ObservedPod
from conch.core.policy import InstallationPolicy
from conch.core.rollout.verified import golden_policy, ready_pods, verified_pods
from conch.core.routing import Routing
from conch.core.succession import Succession


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything the checks look at."""

    owner: ModelDeployment
    spec: ModelDeploymentSpec | InvalidSpec
    policy: InstallationPolicy
    observed: Observed
    revision: str | None
    """The revision that the spec asks for; None if it cannot be read."""
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
        succession, observed = self.succession, self.observed
        if succession.candidate and isinstance(self.spec, ModelDeploymentSpec):
            return len(verified_pods(succession.candidate, observed, golden_policy(self.spec)))
        return len(ready_pods(succession.wanted, observed)) if succession.wanted else 0

    @property
    def wanted_replicas(self) -> int:
        """How many of them there are to be now: a candidate gets its pods step by step."""
        wanted = self.succession.wanted
        return self.succession.replicas_of(wanted, self.desired_replicas) if wanted else self.desired_replicas
