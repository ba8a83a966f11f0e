"""What is seen of an object's traffic and servers between two looks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTimes:
    """What one model of the pods has executed since the look before, all pods together."""

    name: str
    max_batch: int
    instances: int
    decoupled: bool = False
    """A request may have many answers or none: how long it takes says nothing of what else fits beside it."""
    joins_requests: bool = True
    """Whether several requests are executed together."""
    requests: int = 0
    """Requests that it has answered well. One may bring several items of a batch by itself."""
    items: int = 0
    """Items of `item_requests`: those requests of which it is known, for failed executions are in `sizes` too."""
    item_requests: int = 0
    sizes: tuple[tuple[int, int, float], ...] = ()
    """Batch size in items, executions, seconds of all of them together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenInstances:
    """What the servers say of their instances and their GPU's memory; the least favourable of all."""

    running: int
    """Of each server."""
    refused: str = ""
    """Why one of them does not have what was asked of it."""
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    """None where no GPU tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """One look. What has happened is counted since the look before; nothing here is a total that may be reset."""

    arrived: int | None
    """Requests that came. None: nobody tells."""
    complete: bool = True
    """Whether everybody who carries requests told; else more came than `arrived`."""
    answered: int = 0
    late: int = 0
    """Those of the answered ones that took longer than the objective."""
    mean_latency_seconds: float | None = None
    """Of the answered ones; None without any."""
    in_flight: int = 0
    """Executed or queued at the servers now."""
    held: int = 0
    """Kept at the gateways now, for want of a server."""
    hold_seconds: float = 60.0
    """How long a request is kept at most."""
    ready: int
    """Servers that serve."""
    starting: int = 0
    """Pods on their way, without those that find no room."""
    blocked: int = 0
    """Pods that find no room."""
    starts: tuple[float, ...] = ()
    """How long pods took from their creation until they served, seconds; those that came to serve since."""
    batches: tuple[BatchTimes, ...] = ()
    """Of the workload that most requests go to: another revision may be quicker or slower."""
    workload: str = ""
    """Which one that is."""
    executed: int | None = None
    """Requests that all servers answered well, whatever their revision; None: by `batches`, if they tell anything."""
    instances: SeenInstances | None = None
    """None while no server says how many it has."""
    floor: int = 0
    """Servers that something else needs, such as a rollout."""
