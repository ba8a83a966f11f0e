"""What is counted of one revision while it is looked at."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What one revision's workload was seen doing within one window, by all gateways and pods together."""

    requests: int = 0
    """That came to an end. One that is still on its way is not in it: nobody knows yet whether it will fail, and a
    candidate that answers nothing until the time-out would look as if all went well."""
    failures: int = 0
    """Of these, the ones that were answered as no client should be."""
    latency: tuple[int, ...] = ()
    """Of those that a server answered: one count per bucket of LATENCY_BOUNDS_MILLISECONDS and one beyond; zeros at the
    end may be missing."""
    queued_requests: int = 0
    """That left Triton's queue, by Triton's own counters."""
    queue_seconds: float = 0.0
    """Which these spent in the queue, all together."""
