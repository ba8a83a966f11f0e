"""What a rule sees of the servers: what their counters say now."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PodLook:
    """One pod that is not on its way out; counters since it was created."""

    number: int
    """Names it; ascending with its age."""
    ready: bool
    in_flight: int = 0
    taken: int = 0
    """Requests that were given to it."""
    executed: int = 0
    """Requests whose batch was begun."""
    queue_seconds: float = 0.0
    """What these had waited for their batch, in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Everything that can be measured; counters since the beginning."""

    now: float
    """Seconds of the trace."""
    desired: int
    """What was asked for last."""
    arrived: int
    answered: int
    answered_seconds: float
    """What these took in all."""
    late: int
    """Of the answered ones, later than the objective."""
    failed: int
    """Held too long."""
    in_flight: int
    """At the servers, those that are draining included."""
    held: int
    """At the gateways, because no server is ready."""
    request_seconds: float
    """How long all requests together have been in flight or held: by differences, the mean number of them."""
    pods: tuple[PodLook, ...]
    """Those that found room."""
    blocked: int
    """Pods that find no room."""
    starts: tuple[float, ...]
    """Seconds from creation to ready of each pod that became ready."""
    batches: Mapping[int, tuple[int, float]]
    """By batch size: executions, and seconds in all."""

    @property
    def ready(self) -> int:
        """Pods that serve."""
        return sum(pod.ready for pod in self.pods)

    @property
    def starting(self) -> int:
        """Pods that are on their way."""
        return len(self.pods) - self.ready
